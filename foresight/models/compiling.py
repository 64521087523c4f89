"""Compile a model's transformer blocks one by one, so that hooks still see them and a pass can still stop early.

torch.compile of a whole model would melt its blocks together. Here the `forward` of each block is compiled and its
call is not: hooks on a block run outside compiled code, as ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from foresight.models.card import Point

if TYPE_CHECKING:
    from torch import nn

BACKEND = "inductor"
"""torch's own. Its kernels round otherwise (up to 6e-7 relative was seen in float32 on CPU), so it is identity."""


def blocks(points: Iterable[Point]) -> tuple[str, ...]:
    """Return the module paths of the transformer blocks among `points`: `vit.N` and `llm.N`."""
    return tuple(p.path for p in points if re.fullmatch(r"(vit|llm)\.\d+", p.name))


def compile_blocks(model: nn.Module, paths: Sequence[str], *, backend: str = BACKEND) -> None:
    """Compile the `forward` of the modules at `paths`, in place; those that were not loaded are left out.

    Kernels are made when a block first runs, and once more when it meets a second shape. What a shape gets thus
    depends on the shapes before it: rows are repeated to rounding and not to the bit.
    """
    import torch

    modules = dict(model.named_modules())
    for path in paths:
        if block := modules.get(path):
            block.forward = torch.compile(block.forward, backend=backend)  # type: ignore[method-assign]


def check_compiler(device: str) -> None:
    """Raise `ValueError` unless torch.compile makes a kernel for `device` ('cpu' or 'cuda') here, and it runs."""
    import torch

    def trial(x: torch.Tensor) -> torch.Tensor:
        return x.sin() + 1

    try:
        torch.compile(trial, backend=BACKEND)(torch.zeros(8, device=device))
    except Exception as error:  # whatever a toolchain fails with
        raise ValueError(
            f"--compile takes what torch.compile needs on {device} ({_NEEDED.get(device, 'a backend')}), but a trial "
            f"failed: {' '.join(str(error).split())[:200]}; install it, or leave --compile out"
        ) from error


_NEEDED = {"cpu": "a C++ compiler", "cuda": "Triton and a C compiler"}

"""Adapters: small trained maps from one latent space to another, block by block. The folder is the registry."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Design", "Scale", "build", "kinds", "parse"]


@dataclass(frozen=True, kw_only=True)
class Design:
    """An adapter as people name it: `linear`, `mlp:256`, `residual:512`. The number is its hidden width."""

    kind: str
    width: int = 0

    def __str__(self) -> str:
        return f"{self.kind}:{self.width}" if self.width else self.kind


@dataclass(frozen=True, kw_only=True, eq=False)
class Scale:
    """What is taken off the source and put onto the target around an adapter, from training samples alone.

    Means are per block, so where a block lies is known without being learnt; spreads are per feature.
    """

    source_mean: Float[np.ndarray, "block source"]
    source_std: Float[np.ndarray, " source"]
    target_mean: Float[np.ndarray, "block target"]
    target_std: Float[np.ndarray, " target"]


@cache
def kinds() -> dict[str, ModuleType]:
    """Return the modules of this folder that `build` an adapter, by name."""
    found = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        if hasattr(module, "build"):
            found[str(module.NAME)] = module
    return found


def parse(text: str) -> Design:
    """Return the design `text` names. `ValueError` for an unknown kind, or a width that is missing or too much."""
    kind, _, width = text.partition(":")
    if kind not in kinds():
        raise ValueError(f"an adapter is one of {', '.join(sorted(kinds()))}, but got {text!r}")
    if not kinds()[kind].SIZED:
        if width:
            raise ValueError(f"{kind} has no hidden width, but got {text!r}; leave the number out")
        return Design(kind=kind)
    if not width.isascii() or not width.isdigit() or not 1 <= int(width) <= 65_536:
        raise ValueError(f"{kind} needs a hidden width from 1 to 65536, as in {kind}:256, but got {text!r}")
    return Design(kind=kind, width=int(width))


def build(design: Design, scale: Scale, *, seed: int) -> nn.Module:
    """Return a fresh adapter [sample block source] → [sample block target], its weights drawn from `seed`.

    The last layer begins at zero: before any training it answers with the mean of the training targets.
    """
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inner = kinds()[design.kind].build(len(scale.source_std), len(scale.target_std), design.width)
    last = inner if isinstance(inner, torch.nn.Linear) else inner[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    return _scaled(inner, scale)


def _scaled(inner: nn.Module, scale: Scale) -> nn.Module:
    import torch

    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner
            for name in ("source_mean", "source_std", "target_mean", "target_std"):
                self.register_buffer(name, torch.from_numpy(np.asarray(getattr(scale, name), np.float32)))

        def forward(self, x: Any) -> Any:
            return self.inner((x - self.source_mean) / self.source_std) * self.target_std + self.target_mean

    return Scaled()

"""A training loop that can be killed at any step and goes on bit for bit where its last checkpoint was.

All randomness of a step comes from the seed and the step's number, so a checkpoint holds no generator state.
Checkpoints are safetensors files, written beside and renamed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what to show beside it)."""


def fit(
    model: torch.nn.Module,
    loss: Callable[[torch.Generator], torch.Tensor],
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    scratch: Path | None = None,
    every: int = 100,
    progress: Progress | None = None,
) -> list[float]:
    """Train `model` in place for `steps` of AdamW and return the loss of every step.

    `loss` draws its batch from the generator it is given and returns a scalar. The learning rate warms up over
    the first tenth and falls along a cosine. With a `scratch` folder a checkpoint is kept there every `every`
    steps and removed at the end; a later call with the same arguments goes on from it.

    Raises `FloatingPointError` when the loss is no longer finite.
    """
    import torch

    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01)
    losses = _resume(model, optimiser, scratch) if scratch else []
    model.train()
    for step in range(len(losses), steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * _schedule(step, steps)
        optimiser.zero_grad(set_to_none=True)
        value = loss(torch.Generator().manual_seed(seed * 1_000_003 + step))
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        losses.append(float(value.detach()))
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(
                f"the loss left the finite numbers at step {step} of {steps}; lower the learning rate"
            )
        if progress:
            progress(step + 1, steps, f"loss {losses[-1]:.4f}")
        if scratch and (step + 1) % every == 0 and step + 1 < steps:
            _save(model, optimiser, losses, scratch)
    model.eval()
    if scratch:
        _checkpoint(scratch).unlink(missing_ok=True)
    return losses


def _schedule(step: int, steps: int) -> float:
    warm = max(steps // 10, 1)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


def _checkpoint(scratch: Path) -> Path:
    return scratch / "training.safetensors"


def _save(model: Any, optimiser: Any, losses: list[float], scratch: Path) -> None:
    from safetensors.torch import save_file

    tensors = {f"model.{k}": v.detach().clone() for k, v in model.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{k}": v.detach().clone() for k, v in state.items()}
    scratch.mkdir(parents=True, exist_ok=True)
    staged = scratch / f"training.{os.getpid()}.tmp"
    save_file(tensors, staged, metadata={"losses": json.dumps(losses)})
    staged.replace(_checkpoint(scratch))


def _resume(model: Any, optimiser: Any, scratch: Path) -> list[float]:
    """Load the checkpoint in `scratch` into model and optimiser; return its losses, or [] without one."""
    from safetensors import safe_open

    if not _checkpoint(scratch).is_file():
        return []
    weights: dict[str, torch.Tensor] = {}
    states: dict[int, dict[str, torch.Tensor]] = {}
    with safe_open(_checkpoint(scratch), framework="pt") as file:
        losses = json.loads(file.metadata()["losses"])
        for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
            kind, _, rest = name.partition(".")
            if kind == "model":
                weights[rest] = file.get_tensor(name)
            else:
                index, key = rest.split(".")
                states.setdefault(int(index), {})[key] = file.get_tensor(name)
    model.load_state_dict(weights)
    saved = optimiser.state_dict()
    optimiser.load_state_dict({"state": states, "param_groups": saved["param_groups"]})
    return [float(x) for x in losses]

"""Adapters trained on blocks of stored latents: their scale, their loss, and what is drawn for a sample count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from foresight import adapters
from foresight.adapters import Design, Scale
from foresight.studies.reconstruction import TEST
from foresight.training.loop import Progress, fit
from foresight.training.threads import one_torch_thread

if TYPE_CHECKING:
    import torch

STEPS, LEARNING_RATE, BATCH = 400, 5e-3, 32
"""One budget for every adapter, point and sample count."""
SMALL = 1_000_000
"""Adapters of fewer parameters are trained on one thread of torch."""
EVERY = 50
"""Steps between checkpoints of a training."""

Blocks = Float[np.ndarray, "sample block feature"]


def training_part(
    folds: Int[np.ndarray, " sample"], groups: Sequence[Any], *, share: float, seed: int
) -> Int[np.ndarray, " sample"]:
    """Return the samples an adapter learns from: about `share` of the groups that are not scored, at least one.

    A smaller share is a part of a larger one. `ValueError` for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"a share of the training samples lies in (0, 1], but got {share}")
    names = list(dict.fromkeys(g for g, f in zip(groups, folds, strict=True) if f != TEST))
    order = np.random.default_rng([seed, 14]).permutation(len(names))
    kept = {names[i] for i in order[: max(1, round(share * len(names)))]}
    return np.flatnonzero([f != TEST and g in kept for g, f in zip(groups, folds, strict=True)])


def scale_of(x: Blocks, y: Blocks, *, at_once: int = 64) -> Scale:
    """Return means by block and spreads by feature of training samples, read a few at a time."""
    found = []
    for side in (x, y):
        total = np.zeros(side.shape[1:], np.float64)
        for first in range(0, len(side), at_once):
            total += side[first : first + at_once].sum(axis=0, dtype=np.float64)
        mean = total / len(side)
        square = np.zeros(side.shape[2], np.float64)
        for first in range(0, len(side), at_once):
            square += np.square(side[first : first + at_once] - mean).sum(axis=(0, 1))
        std = np.sqrt(square / (len(side) * side.shape[1]))
        # a constant feature tells nothing: divided by the largest spread it stays near 0
        found.append(
            (mean, np.where(std > 1e-6 * max(float(std.max()), 1e-30), std, float(std.max()) or 1.0))
        )
    (x_mean, x_std), (y_mean, y_std) = found
    return Scale(source_mean=x_mean, source_std=x_std, target_mean=y_mean, target_std=y_std)


def train(
    design: Design,
    x: Blocks,
    y: Blocks,
    *,
    seed: int,
    steps: int = STEPS,
    scratch: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Any, list[float]]:
    """Return a trained adapter and the loss of every step: squared error over the spread of the targets.

    With `scratch` a killed training goes on where it was and ends with the same weights.
    """
    import torch

    scale = scale_of(x, y)
    model = adapters.build(design, scale, seed=seed)
    spread = float(np.square(scale.target_std).mean())

    def loss(generator: torch.Generator) -> torch.Tensor:
        picked = torch.randint(len(x), (min(BATCH, len(x)),), generator=generator).numpy()
        given, wanted = (torch.from_numpy(np.ascontiguousarray(side[picked])) for side in (x, y))
        return (model(given) - wanted).square().mean() / spread

    small = sum(p.numel() for p in model.parameters()) < SMALL
    with one_torch_thread() if small else nullcontext():
        losses = fit(
            model, loss, steps=steps, learning_rate=LEARNING_RATE, seed=seed, scratch=scratch, every=EVERY,
            progress=progress,
        )  # fmt: skip
    return model, losses


def saved(model: Any) -> bytes:
    """Return an adapter's weights, with its scale, as the bytes of a safetensors file."""
    from safetensors.torch import save

    content: bytes = save({k: v.contiguous() for k, v in model.state_dict().items()})
    return content


def loaded(design: Design, content: bytes) -> Any:
    """Undo `saved`."""
    from safetensors.torch import load

    weights = load(content)
    blank = Scale(**{k: np.zeros(tuple(weights[k].shape)) for k in
                     ("source_mean", "source_std", "target_mean", "target_std")})  # fmt: skip
    model = adapters.build(design, blank, seed=0)
    model.load_state_dict(weights)
    return model.eval()


def predictor(model: Any) -> Callable[[Blocks], Blocks]:
    """Return the adapter as a map of arrays."""
    import torch

    def predict(x: Blocks) -> Blocks:
        with torch.no_grad():
            found: np.ndarray = model(torch.from_numpy(np.ascontiguousarray(x, np.float32))).numpy()
        return found

    return predict

"""Motion probe: a token says how much it belongs to what moves; the direction follows from where that goes."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from foresight.probes.boxes import HIDDEN, as_tensor, places, reader
from foresight.probes.grids import TokenGrids
from foresight.training.loop import fit

STEPS, LEARNING_RATE, BATCH = 300, 1e-2, 64
MAPS = 4
"""Things that are followed: something and what it moves against, and room to fail."""


def motion_probe(
    train: TokenGrids,
    directions: Int[np.ndarray, " sample"],
    test: TokenGrids,
    *,
    classes: int,
    steps: int = STEPS,
    seed: int = 0,
) -> Int[np.ndarray, " sample"]:
    """Train on `train` with the direction codes and return the code read off every sample of `test`.

    One shared head reads each token alone and gives `MAPS` heats. Each map's centre is followed over time, and
    only the slope of these places over time goes to a linear classifier: a
    direction that is told by what tokens look like, and not by where they are, cannot be read.
    """
    import torch

    if train.shape[0] < 2:
        raise ValueError(
            f"motion is read off two time steps or more, but got {train.shape[0]}; ask for more frames"
        )
    torch.manual_seed(seed)
    head = _follower(train, classes)
    values, target = as_tensor(train), torch.from_numpy(np.asarray(directions, np.int64))

    def loss(generator: torch.Generator) -> torch.Tensor:
        picked = torch.randint(len(values), (min(BATCH, len(values)),), generator=generator)
        return torch.nn.functional.cross_entropy(head(values[picked].float()), target[picked])

    fit(head, loss, steps=steps, learning_rate=LEARNING_RATE, seed=seed)
    with torch.no_grad():
        found = [head(part.float()).argmax(dim=1) for part in as_tensor(test).split(64)]
    codes: np.ndarray = torch.cat(found).numpy()
    return codes


def hits(
    found: Int[np.ndarray, " sample"], truth: Int[np.ndarray, " sample"]
) -> Float[np.ndarray, " sample"]:
    """Return 1 where the direction is right, else 0."""
    return (np.asarray(found) == np.asarray(truth)).astype(np.float64)


def _follower(grids: TokenGrids, classes: int) -> Any:
    import torch
    from torch import nn

    where = torch.from_numpy(places(grids.rows, grids.cols))
    steps, rows, cols = grids.shape
    ramp = torch.linspace(-1, 1, steps)
    slope = ramp / ramp.square().sum()

    class Follower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = reader(grids.values.shape[-1], HIDDEN, MAPS)
            self.sharpness = nn.Parameter(torch.zeros(MAPS))
            self.name = nn.Linear(2 * MAPS, classes)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            heat = self.read(tokens) * self.sharpness.exp()
            share = heat.reshape(len(tokens), steps, rows * cols, MAPS).softmax(dim=2)
            centres = torch.einsum("stcm,cx->stmx", share, where)
            velocity = torch.einsum("stmx,t->smx", centres, slope).flatten(1)
            return self.name(10 * velocity)  # type: ignore[no-any-return]

    return Follower()

"""Box probe: every token says how much of the object its cell holds; the box follows from where that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from foresight.probes.grids import TokenGrids
from foresight.training.loop import fit

if TYPE_CHECKING:
    import torch

STEPS, LEARNING_RATE, BATCH = 400, 5e-3, 64
HIDDEN = 64
"""Hidden features of the probe; 0 is a linear readout. One value for every point; swept by the study."""


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """What the probe read off test samples."""

    boxes: Float[np.ndarray, "sample 4"]
    """x0, y0, x1, y1 as shares of the frame."""
    heat: Float[np.ndarray, "sample row col"]
    """How much of each cell the object covers, in [0, 1]."""
    parameters: int


def box_probe(
    train: TokenGrids,
    truth: Float[np.ndarray, "sample 4"],
    test: TokenGrids,
    *,
    hidden: int = HIDDEN,
    steps: int = STEPS,
    seed: int = 0,
) -> Boxes:
    """Train on `train` with the boxes `truth` (shares of the frame) and return what is read off `test`.

    One shared head reads every token on its own and gives a coverage in [0, 1] and four offsets. The box is the
    mean place of the coverage, its spread (a bar of width w spreads by w/√12), a learnt factor for shapes that
    are no bars, and the mean offset. A place comes from where tokens stand; only the offsets can also tell
    one that the tokens name themselves, and the pooled control shows how far that goes. Grids of one time step.
    """
    import torch

    if train.shape[0] != 1:
        raise ValueError(
            f"a box is read off one time step, but got {train.shape[0]}; take one with `at` first"
        )
    torch.manual_seed(seed)
    head = _head(train.values.shape[-1], hidden, train.rows, train.cols)
    values, target = as_tensor(train), torch.from_numpy(np.asarray(truth, np.float32))
    covered = torch.from_numpy(coverage(truth, train.rows, train.cols).reshape(len(truth), -1))

    def loss(generator: torch.Generator) -> torch.Tensor:
        picked = torch.randint(len(values), (min(BATCH, len(values)),), generator=generator)
        boxes, logits = head(values[picked].float())
        heat = torch.nn.functional.binary_cross_entropy_with_logits(logits, covered[picked])
        return (boxes - target[picked]).abs().mean() * 5 + (1 - giou(boxes, target[picked])).mean() + heat

    fit(head, loss, steps=steps, learning_rate=LEARNING_RATE, seed=seed)
    with torch.no_grad():
        parts = [head(part.float()) for part in as_tensor(test).split(256)]
    boxes = torch.cat([b for b, _ in parts]).numpy()
    heat = torch.sigmoid(torch.cat([h for _, h in parts])).numpy()
    return Boxes(
        boxes=np.clip(boxes, 0.0, 1.0),
        heat=heat.reshape(len(heat), *test.shape[1:]),
        parameters=sum(p.numel() for p in head.parameters()),
    )


def iou(a: Float[np.ndarray, "box 4"], b: Float[np.ndarray, "box 4"]) -> Float[np.ndarray, " box"]:
    """Return intersection over union pair by pair, continuous coordinates; 0 where both are empty."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=1)
    areas = [np.prod(np.maximum(x[:, 2:] - x[:, :2], 0.0), axis=1) for x in (a, b)]
    union = areas[0] + areas[1] - shared
    found: np.ndarray = np.where(union > 0, shared / np.where(union > 0, union, 1.0), 0.0)
    return found


def heat_iou(
    heat: Float[np.ndarray, "sample row col"], truth: Float[np.ndarray, "sample row col"]
) -> Float[np.ndarray, " sample"]:
    """Return Σ min / Σ max of two coverage maps: their IoU when both are 0 or 1 everywhere."""
    top = np.maximum(heat, truth).sum(axis=(1, 2))
    found: np.ndarray = np.minimum(heat, truth).sum(axis=(1, 2)) / np.where(top > 0, top, 1.0)
    return found


def coverage(
    boxes: Float[np.ndarray, "sample 4"], rows: np.ndarray, cols: np.ndarray
) -> Float[np.ndarray, "sample row col"]:
    """Return the share of each cell that the box of each sample covers."""

    def along(low: np.ndarray, high: np.ndarray, centres: np.ndarray) -> np.ndarray:
        edges = cell_edges(centres)
        shared = np.minimum(high[:, None], edges[1:]) - np.maximum(low[:, None], edges[:-1])
        found: np.ndarray = np.clip(shared / np.diff(edges), 0.0, 1.0)
        return found

    b = np.asarray(boxes, np.float64)
    down, across = along(b[:, 1], b[:, 3], rows), along(b[:, 0], b[:, 2], cols)
    return (down[:, :, None] * across[:, None, :]).astype(np.float32)


def cell_edges(centres: np.ndarray) -> Float[np.ndarray, " edge"]:
    """Return the n + 1 edges of n cells by their centres: 0, half-way between neighbours, 1."""
    return np.concatenate([[0.0], (centres[1:] + centres[:-1]) / 2, [1.0]])


def giou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the generalised IoU of boxes [… 4] pair by pair, in [-1, 1]. Rezatofighi et al. (2019)."""
    import torch

    def area(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        return (high - low).clamp(min=0).prod(dim=-1)

    areas = area(a[..., :2], a[..., 2:]) + area(b[..., :2], b[..., 2:])
    shared = area(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    hull = area(torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])).clamp(min=1e-9)
    union = (areas - shared).clamp(min=1e-9)
    return shared / union - (hull - union) / hull


def as_tensor(grids: TokenGrids) -> torch.Tensor:
    """Return the tokens [sample token feature] in raster order, in the type they are kept in."""
    import torch

    n, *_, features = grids.values.shape
    return torch.from_numpy(np.ascontiguousarray(grids.values.reshape(n, -1, features)))


def places(rows: np.ndarray, cols: np.ndarray) -> Float[np.ndarray, "token 2"]:
    """Return the (x, y) of every token of one time step, in raster order."""
    y, x = np.meshgrid(rows, cols, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def reader(width: int, hidden: int, outputs: int) -> Any:
    """Return what reads one token: a linear map, or one hidden layer of `hidden` features."""
    from torch import nn

    if hidden == 0:
        return nn.Linear(width, outputs)
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, outputs))


def _head(width: int, hidden: int, rows: np.ndarray, cols: np.ndarray) -> Any:
    import torch
    from torch import nn

    where = torch.from_numpy(places(rows, cols))
    cell = torch.tensor([1.0 / len(cols), 1.0 / len(rows)])

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = reader(width, hidden, 5)
            self.gain = nn.Parameter(torch.zeros(2))

        def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = self.read(tokens)
            logits, offsets = found[..., 0], found[..., 1:]
            mass = torch.sigmoid(logits)
            share = (mass / mass.sum(dim=1, keepdim=True).clamp(min=1e-6))[..., None]
            centre = (share * where).sum(dim=1)
            spread = (share * (where - centre[:, None]).square()).sum(dim=1) + cell.square() / 12
            half = (3 * spread).sqrt() * torch.exp(self.gain)
            corners = torch.cat([centre - half, centre + half], dim=1)
            return corners + 0.1 * (share * offsets).sum(dim=1), logits

    return Head()

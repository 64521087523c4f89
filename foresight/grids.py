"""Bring latents from one grid to another by the area their cells share, and set two models side by side.

Models cut the same picture differently: 16 x 16 patches here, 8 x 8 latent cells there, three time steps or one.
A cell of the new grid gets the mean of the old cells it covers, each weighted by the exact length, area or
duration they have in common. So nothing is shifted by half a cell, a constant stays that constant, and what a
region held in sum it still holds. The same rule refines and coarsens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from foresight.nouns import Tokens

Edges = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Cells in (time, row, col) by the edges between them, in seconds and pixels of the frames.

    An axis of n cells has n + 1 rising edges; cells need not be of one size. Tokens of a grid are in raster
    order: time, then row, then column.

        >>> Grid.over((1, 2, 4), size=(64, 64)).cols
        (0.0, 16.0, 32.0, 48.0, 64.0)
    """

    rows: Edges
    """Between rows, px from the top."""
    cols: Edges
    """Between columns, px from the left."""
    times: Edges | None = None
    """Between time steps, s; None for a still, which is one step without a duration."""

    def __post_init__(self) -> None:
        for name in ("rows", "cols", "times"):
            edges = getattr(self, name)
            if edges is None:
                continue
            edges = np.asarray(edges, np.float64)
            if (
                edges.ndim != 1
                or len(edges) < 2
                or not np.isfinite(edges).all()
                or (np.diff(edges) <= 0).any()
            ):
                raise ValueError(
                    f"the {name} of a grid are two or more rising, finite edges, but got "
                    f"{edges.tolist() if edges.size < 9 else f'{edges.size} of them that are not'}"
                )
            object.__setattr__(self, name, tuple(edges.tolist()))

    @classmethod
    def over(
        cls,
        counts: tuple[int, int, int],
        *,
        size: tuple[int, int],
        duration_s: float | None = None,
    ) -> Grid:
        """Return `counts` (time, row, col) equal cells over frames of `size` (height, width) px.

        `duration_s` is needed when there is more than one time step; the first one begins at 0 s.
        """
        steps, rows, cols = counts
        if steps > 1 and duration_s is None:
            raise ValueError(f"a grid of {steps} time steps has a duration, but got none; give duration_s")
        return cls(
            rows=tuple(np.linspace(0, size[0], rows + 1)),
            cols=tuple(np.linspace(0, size[1], cols + 1)),
            times=None if duration_s is None else tuple(np.linspace(0, duration_s, steps + 1)),
        )

    @classmethod
    def of(
        cls, tokens: Tokens, *, size: tuple[int, int] | None = None, duration_s: float | None = None
    ) -> Grid:
        """Return the grid that the leading tokens of `tokens` fill, from the places they tell.

        Edges lie half-way between neighbouring centres; the outer ones as far out as the inner ones. An axis of
        a single cell does not tell its extent: it is then 0 to the side of `size` (height, width), or 0 to
        `duration_s`; one time step without `duration_s` is a still.

        Raises `ValueError` when the tokens fill no grid, or when a needed extent was not given.
        """
        steps, rows, cols = tokens.grid
        if not steps * rows * cols:
            raise ValueError("only tokens that fill a grid can be regridded, but these fill none")

        def axis(values: Any, which: int, extent: float | None, what: str) -> Edges | None:
            block = np.asarray(values[: steps * rows * cols], np.float64).reshape(tokens.grid)
            centres = np.moveaxis(block, which, 0)[:, 0, 0]
            if len(centres) > 1:
                return edges_between(centres)
            if extent is None and which:
                raise ValueError(
                    f"a single {what} does not tell how far it reaches; give the size of the frames"
                )
            return None if extent is None else (0.0, float(extent))

        height, width = size or (None, None)
        found = axis(tokens.row, 1, height, "row"), axis(tokens.col, 2, width, "column")
        return cls(rows=found[0], cols=found[1], times=axis(tokens.time_s, 0, duration_s, "time step"))  # type: ignore[arg-type]

    @property
    def counts(self) -> tuple[int, int, int]:
        """(time, row, col) counts of cells."""
        return (len(self.times) - 1 if self.times else 1), len(self.rows) - 1, len(self.cols) - 1

    @property
    def volumes(self) -> Float[np.ndarray, " token"]:
        """Area of every cell in px², times its seconds where the grid has a duration; raster order."""
        sides = [np.ones(1) if e is None else np.diff(e) for e in (self.times, self.rows, self.cols)]
        found: np.ndarray = np.einsum("t,r,c->trc", *sides).reshape(-1)
        return found


def edges_between(centres: Any) -> Edges:
    """Return the n + 1 edges of cells around n >= 2 rising centres: half-way between neighbours.

    The first and last cell reach as far outwards as inwards. Exact for cells of one size.
    """
    middle = np.asarray(centres, np.float64)
    if middle.ndim != 1 or len(middle) < 2:
        raise ValueError(f"edges lie between two or more centres, but got {middle.size}")
    inner = (middle[1:] + middle[:-1]) / 2
    return (2 * middle[0] - inner[0], *inner, 2 * middle[-1] - inner[-1])


def overlap(source: Sequence[float], target: Sequence[float]) -> Float[np.ndarray, "target source"]:
    """Return the length that each target cell shares with each source cell, both given by their edges."""
    a, b = np.asarray(source, np.float64), np.asarray(target, np.float64)
    low = np.maximum(b[:-1, None], a[None, :-1])
    high = np.minimum(b[1:, None], a[None, 1:])
    return np.maximum(high - low, 0.0)


def coverage(source: Grid, target: Grid) -> Float[np.ndarray, " token"]:
    """Return for every target cell, in raster order, the share in [0, 1] that the source grid covers."""
    shares = [overlap(a, b).sum(1) / np.diff(b) for a, b in _axes(source, target)]
    found: np.ndarray = np.einsum("t,r,c->trc", *shares).reshape(-1)
    return np.clip(found, 0.0, 1.0)


def regrid(values: Any, source: Grid, target: Grid) -> Any:
    """Return `values` [… token feature] of the `source` grid on the cells of `target`, [… token feature].

    Every target cell is the mean over the part of it that the source covers, each source cell weighing by what
    it shares with it (the cells are boxes, in time as well). Constants stay constant; the sum of value · volume
    over any region bounded by edges of both grids is kept; regridding onto the same grid changes nothing; the
    result is linear in `values`. Separable: one small matrix an axis.

    Takes numpy arrays and torch tensors of floats and returns the same kind, type and device; gradients flow.
    Half precision is summed in float32.

    Raises `ValueError` for a target cell outside the source (crop the target first; `coverage` tells which), for
    values that are not finite, or of another number of tokens; `TypeError` for values that are not floats.
    """
    if values.shape[-2] != int(np.prod(source.counts)):
        raise ValueError(
            f"a grid of {' x '.join(map(str, source.counts))} has {int(np.prod(source.counts))} tokens, but got "
            f"values of shape {list(values.shape)}; leave class, register and newline tokens out"
        )
    weights = [_shares(a, b) for a, b in _axes(source, target)]
    if isinstance(values, np.ndarray):
        return _regrid_numpy(values, source.counts, weights)
    return _regrid_torch(values, source.counts, weights)


def side_by_side(centres: Sequence[tuple[Any, Any, Any]]) -> list[Grid]:
    """Return the grids of models that look at the same frames, from their cells' centres along (time, row, column).

    Times are in seconds; rows and columns are shares of the frame, so that frames may differ in size. A single row
    or column is the whole frame, and a single time step lasts as long as the other models' steps do; where every
    model has one step, they are stills.

    Raises `ValueError` when the models do not cover the same region or time, to half a cell of the finest.
    """
    several = [edges_between(times) for times, _, _ in centres if len(times) > 1]
    whole = (min(e[0] for e in several), max(e[-1] for e in several)) if several else None
    found = []
    for times, rows, cols in centres:
        sides = [edges_between(c) if len(c) > 1 else (0.0, 1.0) for c in (rows, cols)]
        found.append(
            Grid(rows=sides[0], cols=sides[1], times=edges_between(times) if len(times) > 1 else whole)
        )
    for name, unit in (("rows", "of the frame"), ("cols", "of the frame"), ("times", "s")):
        edges = [np.asarray(e) for g in found if (e := getattr(g, name)) is not None]
        ends = np.array([[e[0], e[-1]] for e in edges])
        if len(ends) and (np.ptp(ends, axis=0) > min(np.diff(e).min() for e in edges) / 2).any():
            told = " and ".join(f"{low:.3g} to {high:.3g}" for low, high in ends)
            raise ValueError(
                f"models side by side see the same part of the frames, but their {name} reach from {told} {unit}; "
                "give frames that no model crops, as with --size"
            )
    return found


def coarsest(grids: Sequence[Grid]) -> Grid:
    """Return the grid with, along each axis, the cells of the grid that has the fewest there; the first of equals.

    No model's values are spread over more cells than it told them for.
    """
    steps, rows, cols = (min(grids, key=lambda g: g.counts[axis]) for axis in range(3))
    return Grid(rows=rows.rows, cols=cols.cols, times=steps.times)


def hybrid(parts: Sequence[tuple[Any, Grid]], target: Grid) -> Any:
    """Return the features of several models side by side on one grid, [… token feature].

    `parts` are (values, grid) of the same samples over the same frames; each is regridded onto `target` and the
    features are concatenated in the order given. Features are not rescaled: standardise them first where a
    reader would let the larger ones win. All parts are numpy arrays, or all are torch tensors of one device.
    """
    if not parts:
        raise ValueError("a hybrid is made of one or more models' values, but got none")
    moved = [regrid(values, grid, target) for values, grid in parts]
    if len({m.shape[:-1] for m in moved}) > 1:
        raise ValueError(
            f"a hybrid joins values of the same samples, but got shapes {[list(m.shape) for m in moved]}"
        )
    if len({isinstance(m, np.ndarray) for m in moved}) > 1:
        raise TypeError("a hybrid joins numpy arrays or torch tensors, but got both; convert one of them")
    if isinstance(moved[0], np.ndarray):
        return np.concatenate(moved, axis=-1)
    import torch

    return torch.cat(moved, dim=-1)


def _axes(source: Grid, target: Grid) -> list[tuple[Edges, Edges]]:
    """Return (source, target) edges of time, row and column; stills share one step."""
    if (source.times is None) != (target.times is None):
        still, clip = ("source", "target") if source.times is None else ("target", "source")
        raise ValueError(
            f"both grids have a duration or neither has, but the {still} is a still and the {clip} is not; "
            "give the still's grid the duration it stands for"
        )
    times = (source.times or (0.0, 1.0), target.times or (0.0, 1.0))
    return [times, (source.rows, target.rows), (source.cols, target.cols)]


def _shares(source: Edges, target: Edges) -> Float[np.ndarray, "target source"]:
    """Return for each target cell the share of every source cell in it; each row sums to 1."""
    lengths = overlap(source, target)
    covered = lengths.sum(axis=1, keepdims=True)
    # a sliver below rounding is no cover: its mean would be made of rounding
    if (covered[:, 0] <= 1e-9 * np.diff(target)).any():
        raise ValueError(
            f"every target cell shares something with the source, but the source reaches from {source[0]:g} to "
            f"{source[-1]:g} and the target from {target[0]:g} to {target[-1]:g}; leave the outer cells out"
        )
    return lengths / covered


def _regrid_numpy(values: np.ndarray, counts: tuple[int, int, int], weights: list[np.ndarray]) -> np.ndarray:
    import ml_dtypes

    half = values.dtype in (np.float16, ml_dtypes.bfloat16)
    if not half and values.dtype not in (np.float32, np.float64):
        raise TypeError(f"values to regrid are floats, but got {values.dtype}")
    block = values.astype(np.float32) if half else values
    if not np.isfinite(block).all():
        raise ValueError("values to regrid are finite, but got nan or inf; look at the rows they came from")
    *lead, _, features = values.shape
    block = block.reshape(-1, *counts, features)
    # smallest result first keeps the intermediate blocks small; the order does not matter otherwise
    for axis in sorted(range(3), key=lambda a: weights[a].shape[0] / weights[a].shape[1]):
        w = weights[axis].astype(block.dtype)
        block = np.moveaxis(np.tensordot(w, block, axes=(1, axis + 1)), 0, axis + 1)
    return np.ascontiguousarray(block.reshape(*lead, -1, features)).astype(values.dtype, copy=False)


def _regrid_torch(values: Any, counts: tuple[int, int, int], weights: list[np.ndarray]) -> Any:
    import torch

    if not values.is_floating_point():
        raise TypeError(f"values to regrid are floats, but got {values.dtype}")
    block = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    if not torch.isfinite(block).all():
        raise ValueError("values to regrid are finite, but got nan or inf; look at the rows they came from")
    *lead, _, features = values.shape
    block = block.reshape(-1, *counts, features)
    for axis in sorted(range(3), key=lambda a: weights[a].shape[0] / weights[a].shape[1]):
        w = torch.from_numpy(weights[axis]).to(block)
        block = torch.tensordot(w, block, dims=([1], [axis + 1])).movedim(0, axis + 1)
    return block.reshape(*lead, -1, features).to(values.dtype)

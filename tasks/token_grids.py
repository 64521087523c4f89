"""Stored tokens in their places, on axes that probes read: one model's, or two models' side by side on one grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from foresight import models
from foresight.grids import Grid, coarsest, hybrid, side_by_side
from foresight.probes import FIT_TOKENS, TokenGrids, fit_axes, reduced
from foresight.studies.spatial import ROWS, Split
from foresight.studies.spatial_truth import Truth
from tasks.extract import Extract
from tasks.house import House, WrongRequest
from tasks.stages import Look

BLOCK = 64
"""Rows read at a time."""

Counts = tuple[int, int, int]
Blocks = Callable[[], Iterator[np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A second model whose features stand beside those of the first in every cell."""

    extract: Extract
    copy: Extract
    """The same architecture with random weights."""
    point: str

    @property
    def name(self) -> str:
        return f"{self.extract.ref.short}:{self.point}"


def grid_of(extract: Extract, point: str, house: House) -> Counts:
    """Return the (time, row, col) counts of a point's tokens over the run's samples; (0, 0, 0) where they fill none."""
    card = extract.ref.card
    (found,) = (p for p in extract.points if p.name == point)
    stills = all(s.media == "image" for s in house.manifest)
    frames = 1 if stills else extract.framing.sampling.frames or 1
    counts = models.family(card).grid(card, found, frame_size(extract), frames)
    return int(counts[0]), int(counts[1]), int(counts[2])


def shared_grid(first: Counts, second: Counts) -> Counts:
    """Return the counts of the grid two models stand on together: the fewer cells along each axis."""
    return min(first[0], second[0]), min(first[1], second[1]), min(first[2], second[2])


def frame_size(extract: Extract) -> tuple[int, int]:
    """Return the (height, width) px of the frames a model is given."""
    size: tuple[int, int] = extract.framing.size or extract.ref.card.size
    return size


def check_same_frames(first: Extract, second: Extract) -> None:
    """Refuse models that would not see the same part of the same frames. Raises `WrongRequest`."""
    asked = [e.framing.sampling.canonical() for e in (first, second)]
    if asked[0] != asked[1]:
        raise WrongRequest(
            f"models side by side see the same frames, but {first.ref.short} is given those of {asked[0]} and "
            f"{second.ref.short} those of {asked[1]}; extract both with one number of frames"
        )
    (h, w), (high, wide) = frame_size(first), frame_size(second)
    if h * wide != w * high or first.framing.fit != second.framing.fit:
        raise WrongRequest(
            f"models side by side see the same part of every picture, but {first.ref.short} is given {h}x{w} px "
            f"({first.framing.fit}) and {second.ref.short} {high}x{wide} px ({second.framing.fit}); "
            "give both one --size"
        )


def read_grids(
    house: House,
    parts: Sequence[tuple[Extract, str]],
    given: Mapping[str, Look],
    truth: Truth,
    where: Split,
    *,
    row: str,
    seed: int,
) -> TokenGrids:
    """Return the tokens of the truth's samples, on axes fitted on the training part.

    `parts` are (extraction, point) of one model, or of several to set side by side on the coarsest grid of them.
    Reads blocks of rows, and regrids them row by row. Raises `ValueError` when the models see different regions.
    """
    digests = [house.manifest.digests[i] for i in truth.indices]
    told = [_told(house, extract, point, given, digests[0]) for extract, point in parts]
    rows, cols, times_s, blocks = (_alone if len(told) == 1 else _joined)(house, told, digests)
    steps = [len(times_s) // 2] if ROWS[row].still else list(range(len(times_s)))
    return on_axes(
        lambda: (block[:, steps] for block in blocks()),
        where,
        rows=rows,
        cols=cols,
        times_s=times_s[steps],
        width=ROWS[row].width,
        seed=seed,
    )


def on_axes(
    blocks: Blocks,
    where: Split,
    *,
    rows: np.ndarray,
    cols: np.ndarray,
    times_s: np.ndarray,
    width: int,
    seed: int,
) -> TokenGrids:
    """Return blocks [sample time row col feature], read twice, on `width` axes fitted on the training samples."""
    each = -(-FIT_TOKENS // len(where.train))
    training, start, chosen = set(where.train.tolist()), 0, []
    rng = np.random.default_rng([seed, 12])
    for block in blocks():
        flat = block.reshape(len(block), -1, block.shape[-1])
        for i in range(len(block)):
            if start + i in training:
                chosen.append(flat[i, rng.permutation(flat.shape[1])[:each]])
        start += len(block)
    axes = fit_axes(np.concatenate(chosen), width=width, seed=seed)
    return reduced(blocks(), axes, rows=rows, cols=cols, times_s=times_s)


@dataclass(frozen=True, kw_only=True)
class _Told:
    """Where one model's cells lie, by what the first sample's tokens tell."""

    recipe: str
    counts: Counts
    times_s: np.ndarray
    rows: np.ndarray
    cols: np.ndarray
    """Shares of the frame, as `rows`."""

    def values(self, house: House, digests: Sequence[str]) -> Float[np.ndarray, "sample token feature"]:
        """Return the tokens of the grid, in the type they are stored in."""
        found = np.asarray(house.store.gather(self.recipe, digests))
        return found[:, : math.prod(self.counts)]


Placed = tuple[np.ndarray, np.ndarray, np.ndarray, Blocks]
"""Centres of rows, of columns (shares of the frame) and of time steps (s), and blocks of tokens on them."""


def _told(house: House, extract: Extract, point: str, given: Mapping[str, Look], digest: str) -> _Told:
    recipe = given[extract.name].values["recipes"][point]
    first = house.store.row(recipe, digest)
    counts: Counts = (int(first.grid[0]), int(first.grid[1]), int(first.grid[2]))
    tokens = math.prod(counts)
    height, width = frame_size(extract)
    times, rows, cols = (
        np.asarray(axis[:tokens]).reshape(counts) for axis in (first.time_s, first.row, first.col)
    )
    return _Told(
        recipe=recipe,
        counts=counts,
        times_s=times[:, 0, 0],
        rows=rows[0, :, 0] / height,
        cols=cols[0, 0, :] / width,
    )


def _alone(house: House, told: Sequence[_Told], digests: Sequence[str]) -> Placed:
    (one,) = told

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(digests), BLOCK):
            part = one.values(house, digests[start : start + BLOCK])
            yield part.reshape(len(part), *one.counts, -1)

    return one.rows, one.cols, one.times_s, blocks


def _joined(house: House, told: Sequence[_Told], digests: Sequence[str]) -> Placed:
    grids = side_by_side([(t.times_s, t.rows, t.cols) for t in told])
    target = coarsest(grids)

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(digests), BLOCK):
            stored = [t.values(house, digests[start : start + BLOCK]) for t in told]
            yield np.stack([_one_grid(row, grids, target) for row in zip(*stored, strict=True)])

    rows, cols = (_middles(edges) for edges in (target.rows, target.cols))
    return rows, cols, _middles(target.times) if target.times else told[0].times_s, blocks


def _one_grid(row: Sequence[np.ndarray], grids: Sequence[Grid], target: Grid) -> np.ndarray:
    """Return one sample's features of all models on the target grid, [time row col feature]."""
    joined: np.ndarray = hybrid([(v.astype(np.float32), g) for v, g in zip(row, grids, strict=True)], target)
    return joined.reshape(*target.counts, -1)


def _middles(edges: Sequence[float]) -> np.ndarray:
    found: np.ndarray = (np.asarray(edges)[1:] + np.asarray(edges)[:-1]) / 2
    return found

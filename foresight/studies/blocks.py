"""Two token grids over one picture, cut into blocks that both fill with whole cells.

A map between models is the same in every block, so blocks are what it is learnt from. Where a token covers
2 x 2 decoder cells, a block is one token and four cells; where four tokens lie in a cell, it is four tokens and
one cell. Nothing is averaged away on either side when one grid is a whole multiple of the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from foresight.data.fitting import Fit
from foresight.grids import Grid, edges_between, regrid
from foresight.nouns import Tokens

Counts = tuple[int, int, int]
"""(time, row, col)."""

FINEST = 4
"""Tokens are put on at most this many times the decoder's rows and columns: a block's features grow with it."""
MOST_FEATURES = 6144
"""Features of a block at most where several tokens share it: sums of products grow with their square."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How source tokens and decoder cells share the picture.

    >>> Layout(tokens=(1, 4, 4), cells=(1, 8, 8)).blocks
    (1, 4, 4)
    >>> Layout(tokens=(1, 16, 16), cells=(1, 8, 8)).blocks
    (1, 8, 8)
    """

    tokens: Counts
    """Counts of the grid the source tokens are put on."""
    cells: Counts
    """Counts of the decoder's latent cells."""

    @property
    def blocks(self) -> Counts:
        """Counts of blocks: the coarsest of both grids along each axis."""
        t, r, c = (math.gcd(a, b) for a, b in zip(self.tokens, self.cells, strict=True))
        return t, r, c

    def split_tokens(self, values: Any) -> Any:
        """Return [sample token feature] as [sample block feature·token], blocks in raster order."""
        return _split(values, self.tokens, self.blocks)

    def split_cells(self, values: Any) -> Any:
        """Return [sample cell channel] as [sample block channel·cell]."""
        return _split(values, self.cells, self.blocks)

    def join_cells(self, values: Any) -> Any:
        """Undo `split_cells`."""
        inner = [n // b for n, b in zip(self.cells, self.blocks, strict=True)]
        n, channels = len(values), values.shape[-1] // math.prod(inner)
        shaped = values.reshape(n, *self.blocks, *inner, channels)
        order = (0, 1, 4, 2, 5, 3, 6, 7)
        moved = shaped.transpose(order) if isinstance(values, np.ndarray) else shaped.permute(order)
        return moved.reshape(n, math.prod(self.cells), channels)


def layout(tokens: Counts, cells: Counts, *, width: int = 1) -> Layout:
    """Return the layout for `tokens` over the decoder's field: the nearest counts that fit `cells` evenly.

    Along rows and columns the tokens go to the nearest divisor or multiple of the cells, which is their own count
    where the grids fit already; in time they go to the decoder's steps. Wide tokens (`width` features) that lie
    close are averaged, so that a block has no more than `MOST_FEATURES`.
    """
    most = max(1, min(FINEST, math.isqrt(MOST_FEATURES // width)))
    rows, cols = (_nearest(n, of, most) for n, of in zip(tokens[1:], cells[1:], strict=True))
    return Layout(tokens=(cells[0], rows, cols), cells=cells)


def pooled_layout(cells: Counts) -> Layout:
    """Return the layout of one vector a sample that is mapped to the whole latent."""
    return Layout(tokens=(1, 1, 1), cells=cells)


@dataclass(frozen=True, kw_only=True)
class Field:
    """The part of a sample that the decoder sees, in pixels of the frames that another model was given."""

    top: float
    bottom: float
    left: float
    right: float
    size: tuple[int, int]
    """(height, width) of that model's frames, px."""


def field(source: Fit, decoder: Fit) -> Field:
    """Return the decoder's frame as it lies in the source model's frame, cut to it; both fits begin at one file."""
    (top, left), (bottom, right) = (
        source.to_output(*decoder.to_input(row, col)) for row, col in ((0, 0), decoder.size_out)
    )
    height, width = source.size_out
    return Field(
        top=max(float(top), 0.0),
        bottom=min(float(bottom), float(height)),
        left=max(float(left), 0.0),
        right=min(float(right), float(width)),
        size=source.size_out,
    )


def counts_in(tokens: Tokens, seen: Field) -> Counts:
    """Return how many tokens of each axis lie in the decoder's field, rounded, at least one."""
    grid = Grid.of(tokens, size=seen.size, duration_s=1.0)
    rows = _within(grid.rows, seen.top, seen.bottom)
    cols = _within(grid.cols, seen.left, seen.right)
    return tokens.grid[0], rows, cols


def place(
    tokens: Tokens, seen: Field, where: Layout, target_times: Any
) -> Float[np.ndarray, "token feature"]:
    """Return one sample's tokens on the layout's grid over the decoder's field, in raster order, float32.

    `target_times` holds the times of the decoder's steps in seconds. A single step on one side is repeated for,
    or averaged over, the steps of the other. Raises `ValueError` for tokens that fill no grid.
    """
    steps = tokens.grid[0]
    wanted = where.tokens[0]
    values = np.asarray(tokens.values, np.float32)[: math.prod(tokens.grid)]
    clip = steps > 1 and wanted > 1
    source = Grid.of(tokens, size=seen.size)
    times = None
    if clip:
        times = _cut(edges_between(target_times), source.times)
    elif steps > 1:
        values = values.reshape(steps, -1, values.shape[-1]).mean(axis=0)
    if not clip:
        source = Grid(rows=source.rows, cols=source.cols)
    target = Grid(
        rows=tuple(np.linspace(seen.top, seen.bottom, where.tokens[1] + 1)),
        cols=tuple(np.linspace(seen.left, seen.right, where.tokens[2] + 1)),
        times=times,
    )
    moved: np.ndarray = regrid(values, source, target)
    return moved if clip or wanted == 1 else np.tile(moved, (wanted, 1))


def shuffled(values: Float[np.ndarray, "token feature"], *, seed: int, digest: str) -> np.ndarray:
    """Return the tokens in an order drawn for this sample, so that where a token was is lost."""
    rng = np.random.default_rng([seed, int(digest[:15], 16)])
    return values[rng.permutation(len(values))]


def _split(values: Any, counts: Counts, blocks: Counts) -> Any:
    inner = [n // b for n, b in zip(counts, blocks, strict=True)]
    n, features = len(values), values.shape[-1]
    shaped = values.reshape(n, blocks[0], inner[0], blocks[1], inner[1], blocks[2], inner[2], features)
    order = (0, 1, 3, 5, 2, 4, 6, 7)
    moved = shaped.transpose(order) if isinstance(values, np.ndarray) else shaped.permute(order)
    return moved.reshape(n, math.prod(blocks), math.prod(inner) * features)


def _nearest(tokens: int, cells: int, most: int) -> int:
    fitting = [d for d in range(1, cells + 1) if cells % d == 0]
    fitting += [k * cells for k in range(2, most + 1)]
    return min(fitting, key=lambda n: (abs(math.log(n / tokens)), n))


def _within(edges: tuple[float, ...], low: float, high: float) -> int:
    share = (min(high, edges[-1]) - max(low, edges[0])) / (edges[-1] - edges[0])
    return max(1, round((len(edges) - 1) * share))


def _cut(edges: tuple[float, ...], whole: tuple[float, ...] | None) -> tuple[float, ...]:
    """Return the decoder's time edges, the outer ones moved where they lie beyond the source's."""
    assert whole is not None
    low, high = max(edges[0], whole[0]), min(edges[-1], whole[-1])
    return (low, *(e for e in edges[1:-1]), high)

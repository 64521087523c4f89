"""Blocks of rows and pairs of them, worked on by Dask's threads and gathered in order, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from foresight.metrics.rows import Rows
from foresight.metrics.threads import one_thread

KEEP_BYTES = 256 * 2**20
"""Rows held per space while all others pass by; more would save reading, fewer would read oftener."""
WIDEST = 8
"""Blocks held at most: beyond it the products of held rows with a block are what takes the memory."""

Item = TypeVar("Item")
Part = TypeVar("Part")


class Blocks:
    """The rows of one space, prepared (centred, say) as they are read, a block at a time."""

    def __init__(self, rows: Rows, prepare: Callable[[np.ndarray], np.ndarray], size: int) -> None:
        self.rows, self.prepare = rows, prepare
        self.edges = list(rows.blocks(size))

    def __len__(self) -> int:
        return len(self.edges)

    def __call__(self, i: int) -> np.ndarray:
        return self.prepare(self.rows.read(*self.edges[i]))


def in_order(work: Callable[[Item], Part], items: Iterable[Item], gather: Callable[[Part], None]) -> None:
    """Call `gather(work(item))` for each item, in order; `work` runs on Dask's threads, each with one BLAS thread.

    What is gathered does not depend on how many threads there are (`dask.config.set(num_workers=…)`, else one
    per CPU), and about that many results wait to be gathered. A single item is worked on right here.
    """
    items = list(items)
    if len(items) == 1:
        gather(work(items[0]))
        return
    from dask import compute, delayed

    def then(part: Part, _earlier: None) -> None:
        gather(part)

    last = None
    for item in items:
        last = delayed(then, traverse=False)(delayed(work, traverse=False)(item), last)
    with one_thread():
        # threads, also where a cluster is connected: results are gathered in this process
        compute(last, scheduler="threads")


def over_pairs(
    sides: Sequence[Blocks],
    visit: Callable[[Sequence[np.ndarray], int, Sequence[np.ndarray], int], Part],
    gather: Callable[[Part], None],
) -> None:
    """Visit all pairs of rows, `sides` side by side; every pair of different rows is visited once.

    `visit(rows, row, cols, col)` gets rows that start at `row` and columns that start at `col`; when the two
    starts are equal so are the rows, and each pair is there twice and each row with itself. A panel of blocks
    is held while the later blocks pass by, so an array is read about n / (2 x panel) times.
    """
    edges = sides[0].edges

    def gather_each(parts: list[Part]) -> None:
        for part in parts:
            gather(part)

    largest = max(side.rows.width for side in sides) * 8 * max(stop - start for start, stop in edges)
    width = min(max(1, KEEP_BYTES // largest), WIDEST)
    for first in range(0, len(edges), width):
        last = min(first + width, len(edges))
        origin = edges[first][0]
        panel = [_stacked([side(i) for i in range(first, last)]) for side in sides]

        def work(j: int, panel: Any = panel, origin: int = origin, last: int = last) -> list[Part]:
            start, stop = edges[j]
            if j >= last:
                return [visit(panel, origin, [side(j) for side in sides], start)]
            cols = [held[start - origin : stop - origin] for held in panel]
            same = visit(cols, start, cols, start)
            if start == origin:
                return [same]
            return [visit([held[: start - origin] for held in panel], origin, cols, start), same]

        in_order(work, range(first, len(edges)), gather_each)


def centred(mean: Float[np.ndarray, " feature"]) -> Callable[[np.ndarray], np.ndarray]:
    """Return what takes `mean` off a block, in the block's precision."""
    return lambda block: block - mean.astype(block.dtype)


def dots(a: Float[np.ndarray, "row any"], b: Float[np.ndarray, "row any"]) -> Float[np.ndarray, " row"]:
    """Return the inner product of each row of `a` with that of `b`, in float64."""
    return np.einsum("ij,ij->i", a, b).astype(np.float64)


def _stacked(blocks: Sequence[np.ndarray]) -> np.ndarray:
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)  # of one, concatenate makes a copy

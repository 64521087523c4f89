"""Rows read a block at a time, one per group, from anything that can be sliced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from foresight.metrics.space import as_matrix, group_codes


class Rows:
    """Latents [sample feature] that need not fit in memory: a NumPy, memory-mapped, Zarr or Dask array.

    Only `values[start:stop]` is asked for. One row comes out per group, its mean; the samples of a group lie
    next to each other, so that a block can be averaged by itself.
    """

    def __init__(self, values: Any, *, groups: Sequence[Any] | np.ndarray | None = None) -> None:
        if len(values.shape) != 2 or 0 in values.shape:
            raise ValueError(
                f"latents are [sample feature] and not empty, but got shape {list(values.shape)}; "
                "pool or flatten tokens first"
            )
        self.values = values
        self.n_samples, self.width = int(values.shape[0]), int(values.shape[1])
        codes = group_codes(groups, self.n_samples)
        if (np.diff(codes) < 0).any():
            at = int(np.argmax(np.diff(codes) < 0)) + 1
            raise ValueError(
                f"to be read in blocks, the samples of a group lie next to each other, but row {at} returns to "
                "an earlier group; sort the samples by group"
            )
        self.starts: Int[np.ndarray, " edge"] = np.append(
            np.flatnonzero(np.diff(codes, prepend=-1)), self.n_samples
        )
        self._checked: set[tuple[int, int]] = set()

    def __len__(self) -> int:
        return len(self.starts) - 1

    def read(self, start: int, stop: int) -> Float[np.ndarray, "group feature"]:
        """Return the groups `start` to `stop`; raises for entries that are not finite."""
        low, high = int(self.starts[start]), int(self.starts[stop])
        try:
            block = as_matrix(self.values[low:high], checked=(start, stop) in self._checked)
        except ValueError as error:
            raise ValueError(f"rows {low} to {high - 1}: {error}") from error
        self._checked.add((start, stop))
        if high - low == stop - start:
            return block
        edges = self.starts[start:stop] - low
        sums = np.add.reduceat(block.astype(np.float64), edges, axis=0)
        return (sums / np.diff(self.starts[start : stop + 1])[:, None]).astype(block.dtype)

    def blocks(self, size: int) -> Iterator[tuple[int, int]]:
        """Yield the (start, stop) of consecutive blocks of groups."""
        for start in range(0, len(self), size):
            yield start, min(start + size, len(self))

    def mean(self, size: int) -> Float[np.ndarray, " feature"]:
        """Return the mean over groups, in float64, from one pass."""
        total = np.zeros(self.width)
        for start, stop in self.blocks(size):
            block = self.read(start, stop)
            # a few rows at a time as they are, then in float64: half the time, and the same seven digits
            for at in range(0, len(block), 32):
                total += block[at : at + 32].sum(axis=0)
        return total / len(self)

    def pick(self, chosen: Int[np.ndarray, " some"], size: int) -> Float[np.ndarray, "some feature"]:
        """Return the groups `chosen`, in rising order, from one pass."""
        parts = []
        for start, stop in self.blocks(size):
            inside = chosen[(chosen >= start) & (chosen < stop)]
            if len(inside):
                parts.append(self.read(start, stop)[inside - start])
        return np.concatenate(parts)


def paired(x: Any, y: Any, groups: Sequence[Any] | np.ndarray | None) -> tuple[Rows, Rows]:
    """Return both sides as Rows over the same samples and groups."""
    a, b = Rows(x, groups=groups), Rows(y, groups=groups)
    if a.n_samples != b.n_samples:
        raise ValueError(
            f"both sides hold the same samples in the same order, but got {a.n_samples} and {b.n_samples} rows; "
            "join them by sample first"
        )
    return a, b

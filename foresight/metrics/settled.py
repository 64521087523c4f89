"""The nearest rows, and ranks among all, from float32 products: measured again in float64 where rounding decides."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from foresight.metrics.space import Metric, Space, unit_rows, with_equals

PART = 8_000_000
"""Numbers compared at once in float64."""


class Settled:
    """Who is near whom in a space, in half the time that its distances in float64 take.

    Pairs whose distances lie within the rounding of float32 of each other are measured again, so that orders
    and ranks are those of `Space.distances`, with ties in the order of `shuffle`. Where that would be needed
    for too many pairs (equal distances, a row far from all others) `doubtful` turns true and what was
    returned is not settled.
    """

    def __init__(self, space: Space, metric: Metric, shuffle: Int[np.ndarray, " sample"]) -> None:
        self.space, self.metric = space, metric
        self.place: Int[np.ndarray, " sample"] = np.argsort(shuffle)
        rows = _in_float32(space, metric)
        halves = np.einsum("ij,ij->i", rows, rows) / 2
        # |x_j|²/2 - x_i·x_j orders the j as the distance does
        scores = rows @ rows.T
        np.subtract(halves[None, :], scores, out=scores)
        off = scores.ravel()[1:].reshape(len(rows) - 1, len(rows) + 1)[:, :-1]
        lengths = np.sqrt(2 * halves)
        # the rounding of a product grows with the root of its length: Higham & Mary (2019)
        rounding = np.finfo(np.float32).eps * (np.sqrt(space.width) + 4)
        self.slack: Float[np.ndarray, " sample"] = (
            2 * rounding * lengths.max() * (lengths + lengths.max() / 2)
        )
        self.doubtful = bool(off.max() - off.min() <= 4 * self.slack.max())
        np.fill_diagonal(scores, np.inf)
        self.scores: Float[np.ndarray, "sample sample"] = scores
        self._budget = len(rows) ** 2 // 200  # a pair in float64 costs as much as some hundred in a product

    def nearest(self, k: int) -> Int[np.ndarray, "sample k"]:
        """Return the k nearest other rows of each row, nearest first."""
        # the k-th of a few columns is no nearer than the k-th of all, and much faster to find
        few = self.scores[:, : max(len(self.scores) // 4, 4 * k)]
        reach = np.partition(few, k - 1, axis=1)[:, k - 1] + self.slack
        i, j = np.nonzero(self.scores <= reach[:, None])
        score = self.scores[i, j]
        order = np.lexsort((score, i))
        i, j, score = i[order], j[order], score[order]
        reach = score[np.searchsorted(i, np.arange(len(self.scores))) + k - 1] + self.slack
        kept = score <= reach[i]
        i, j, score = i[kept], j[kept], score[kept]
        apart = (np.diff(i) > 0) | (np.diff(score) > self.slack[i[1:]])
        cluster = np.concatenate([[0], np.cumsum(apart)])
        unsure = np.flatnonzero(np.bincount(cluster)[cluster] > 1)
        if self._affordable(len(unsure)):
            exact = self._measured(i[unsure], j[unsure])
            order = np.lexsort((self.place[j[unsure]], exact, cluster[unsure]))
            j[unsure] = j[unsure[order]]
        rank = np.arange(len(i)) - np.searchsorted(i, i)
        return np.asarray(j[rank < k].reshape(-1, k))

    def ranks(self, near: Int[np.ndarray, "sample near"]) -> Int[np.ndarray, "sample near"]:
        """Return the rank, from 1, of each of `near` among all other rows of its row."""
        wanted = np.take_along_axis(self.scores, near, axis=1)
        low, high = wanted - self.slack[:, None], wanted + self.slack[:, None]
        nearer, beside = np.empty(near.shape, dtype=np.int64), np.empty(near.shape, dtype=np.int64)
        for i, row in enumerate(self.scores):
            row = np.sort(row[row <= high[i].max()])
            nearer[i] = row.searchsorted(low[i], side="left")
            beside[i] = row.searchsorted(high[i], side="right") - nearer[i]
        unsure = beside > 1
        if self._affordable(int(beside[unsure].sum())):
            for i, at in np.argwhere(unsure):
                row, mine = self.scores[i], near[i, at]
                rivals = np.flatnonzero((row >= low[i, at]) & (row <= high[i, at]))
                exact, place = self._measured(np.full(len(rivals), i), rivals), self.place[rivals]
                own = exact[rivals == mine]
                nearer[i, at] += np.sum((exact < own) | ((exact == own) & (place < self.place[mine])))
        return nearer + 1

    def _affordable(self, pairs: int) -> bool:
        self._budget -= pairs
        self.doubtful = self.doubtful or self._budget < 0
        return pairs > 0 and not self.doubtful

    def _measured(
        self, i: Int[np.ndarray, " pair"], j: Int[np.ndarray, " pair"]
    ) -> Float[np.ndarray, " pair"]:
        squared = np.empty(len(i))
        for part in np.array_split(np.arange(len(i)), 1 + len(i) * self.space.width // PART):
            x, y = (self.space.values[side[part]].astype(np.float64) for side in (i, j))
            if self.metric == "cosine":
                x, y = unit_rows(x), unit_rows(y)
            squared[part] = np.square(x - y).sum(axis=1)
        squared = with_equals(squared)
        squared[self.space.row_ids[i] == self.space.row_ids[j]] = 0.0
        return squared


def _in_float32(space: Space, metric: Metric) -> Float[np.ndarray, "sample feature"]:
    """Return rows with the same order of distances, of a size whose squares exist in float32."""
    if metric == "cosine":
        rows = space.values
        if rows.dtype != np.float32 or not _within(np.einsum("ij,ij->i", rows, rows)):
            largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))[:, None]
            rows = (rows / np.where(largest > 0, largest, 1)).astype(np.float32)
        return unit_rows(rows)
    if metric != "euclidean":
        raise ValueError(f"a metric is 'euclidean' or 'cosine', but got {metric!r}")
    rows = space.values - space.mean.astype(space.values.dtype)
    rows /= max(float(rows.max()), -float(rows.min())) or 1.0
    return rows.astype(np.float32, copy=False)


def _within(squares: Float[np.ndarray, " sample"]) -> bool:
    return bool(squares.min() > 1e-25) and bool(squares.max() < 1e25)

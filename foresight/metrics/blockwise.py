"""CKA, RSA and neighbour overlap of spaces too large for an n x n matrix, block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from foresight.metrics.blocks import Blocks, centred, dots, in_order, over_pairs
from foresight.metrics.cka import linear_cka
from foresight.metrics.estimate import Estimate
from foresight.metrics.hsic import biased_null, cka_of, hsic, hsic_sums
from foresight.metrics.neighbours import chance_level, knn_overlap
from foresight.metrics.pairs import NO_ORDER
from foresight.metrics.rows import Rows, paired
from foresight.metrics.rsa import rsa_spearman
from foresight.metrics.space import FEWEST, Metric
from foresight.metrics.statistics import calibrated

BINS = 2**20
"""Distances are ranked by this many bins; ρ moves by less than 1e-6."""


def cka_blockwise(
    x: Any,
    y: Any,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    debiased: bool = True,
    block: int = 1024,
    part: int = 1000,
    permutations: int = 199,
    resamples: int = 60,
    seed: int = 0,
) -> Estimate:
    """Return `linear_cka` of all of `x` and `y` [sample feature] with memory for blocks of groups only.

    The value is that of the whole, to rounding: products in the precision of the input, sums in float64.
    Products of features are used where that is less work and fits. Interval, null and p are measured on a
    random part of `part` groups in memory, the interval narrowed by √(part / groups), the rate of a
    U-statistic. The samples of a group lie next to each other. Equal samples are not joined.
    """
    a, b = paired(x, y, groups)
    sample = _part(a, b, part, block, seed)
    options: dict[str, Any] = {"permutations": permutations, "resamples": resamples, "seed": seed}
    near = linear_cka(*sample, debiased=debiased, **options)
    if len(a) < FEWEST or not near.defined:
        return _counted(near, a)
    sums = hsic_sums(a, b, block)
    values = {
        name: cka_of(*(hsic(pair, len(a), unbiased=name == "debiased") for pair in sums))
        for name in ("biased", "debiased")
    }
    value = values["debiased" if debiased else "biased"]
    null = 0.0 if debiased else biased_null(sums, len(a))
    controls = {**values, "calibrated": calibrated(value, null)}
    return _scaled(near, value, a, len(sample[0]), bounds=(-1.0, 1.0), null=null, controls=controls)


def rsa_blockwise(
    x: Any,
    y: Any,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    metric: Metric = "euclidean",
    block: int = 1024,
    part: int = 1000,
    permutations: int = 199,
    resamples: int = 60,
    seed: int = 0,
) -> Estimate:
    """Return `rsa_spearman` of all of `x` and `y` with memory for blocks and a table of 2²⁰ ranks.

    Two passes over all pairs: the first counts distances in bins, the second correlates mean ranks of bins.
    Interval, null and p as in `cka_blockwise`.
    """
    a, b = paired(x, y, groups)
    sample = _part(a, b, part, block, seed)
    near = rsa_spearman(*sample, metric=metric, permutations=permutations, resamples=resamples, seed=seed)
    if len(a) < FEWEST or not near.defined:
        return _counted(near, a)
    sides = [_Distances(rows, metric, block) for rows in (a, b)]
    tables = [_rank_table(side) for side in sides]
    common = [0.0]

    def product(rows: Sequence[np.ndarray], row: int, cols: Sequence[np.ndarray], col: int) -> float:
        bins = [side.bins(u, row, v, col) for side, u, v in zip(sides, rows, cols, strict=True)]
        return float(np.dot(*(ranks.take(at) for (ranks, _), at in zip(tables, bins, strict=True))))

    def add(part: float) -> None:
        common[0] += part

    over_pairs([side.blocks for side in sides], product, add)
    norm = math.sqrt(tables[0][1]) * math.sqrt(tables[1][1])
    value = common[0] / norm if norm > 0 else math.nan
    controls = {"calibrated": calibrated(value, 0.0)}
    return _scaled(near, value, a, len(sample[0]), bounds=(-1.0, 1.0), null=0.0, controls=controls)


def knn_blockwise(
    x: Any,
    y: Any,
    *,
    ks: Sequence[int] = (5, 10),
    groups: Sequence[Any] | np.ndarray | None = None,
    metric: Metric = "cosine",
    block: int = 1024,
    part: int = 1000,
    permutations: int = 199,
    resamples: int = 40,
    seed: int = 0,
) -> Mapping[str, Estimate]:
    """Return 'recall@k' and 'jaccard@k' of `knn_overlap` for all of `x` and `y`, without an n x n matrix.

    Ties are settled arbitrarily. The mean reciprocal rank needs every rank and is left out. Interval and p as in
    `cka_blockwise`; the part has the same k, so its neighbourhoods are wider.
    """
    a, b = paired(x, y, groups)
    sample = _part(a, b, part, block, seed)
    near = knn_overlap(
        *sample, ks=ks, metric=metric, permutations=permutations, resamples=resamples, seed=seed
    )
    wanted = {name: e for name, e in near.items() if not name.startswith("mrr")}
    good = sorted({k for k in ks if k < len(a) - 1})
    if len(a) < FEWEST or not good or not any(e.defined for e in wanted.values()):
        return {name: _counted(e, a) for name, e in wanted.items()}
    first, second = (nearest(rows, max(good), metric=metric, block=block) for rows in (a, b))
    result = {}
    for name, e in wanted.items():
        measure, k = name.split("@")[0], int(name.split("@")[1])
        if k not in good:
            result[name] = _counted(e, a)
            continue
        hits = _common(first[:, :k], second[:, :k])
        value = float((hits / k if measure == "recall" else hits / (2 * k - hits)).mean())
        chance = chance_level(measure, k, len(a))
        controls = {"chance": chance, "calibrated": calibrated(value, chance)}
        result[name] = _scaled(e, value, a, len(sample[0]), bounds=(0.0, 1.0), null=chance, controls=controls)
    return result


def nearest(rows: Any, k: int, *, metric: Metric = "cosine", block: int = 1024) -> Int[np.ndarray, "group k"]:
    """Return the k nearest other rows of each row, nearest first, with memory for blocks of rows only.

    Distances are compared in the precision of the input; equal ones in the order of the rows.
    """
    rows = rows if isinstance(rows, Rows) else Rows(rows)
    if not 1 <= k < len(rows):
        raise ValueError(
            f"k lies between 1 and the number of rows less one, but got {k} for {len(rows)} rows"
        )
    side = _Distances(rows, metric, block)
    found = _Nearest(len(rows), k)

    def visit(rows: Sequence[np.ndarray], row: int, cols: Sequence[np.ndarray], col: int) -> list[_Found]:
        # |x_j|²/2 - x_i·x_j orders the j as the distance does
        products = rows[0] @ cols[0].T
        halves = side.halves.astype(products.dtype)
        score = halves[col : col + len(cols[0])][None, :] - products
        if row == col:
            np.fill_diagonal(score, np.inf)
            return [found.nearer(score, row, col)]
        mirrored = np.subtract(halves[row : row + len(rows[0])][:, None], products, out=products).T
        return [found.nearer(score, row, col), found.nearer(mirrored, col, row)]

    over_pairs([side.blocks], visit, found.keep)
    return found.index


_Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows, a neighbour of each, and how far it is."""


class _Nearest:
    """The k nearest found so far of each row, by distance and then by number."""

    def __init__(self, n: int, k: int) -> None:
        self.k = k
        self.score, self.index = np.full((n, k), np.inf), np.full((n, k), n, dtype=np.int64)

    def nearer(self, score: Float[np.ndarray, "row col"], row: int, col: int) -> _Found:
        """Return what may still be among the nearest; it only ever gets less, so an old bound does no harm."""
        worst = self.score[row : row + len(score), -1].astype(score.dtype)
        if self.k <= score.shape[1] and np.isinf(worst).any():
            # the k-th of a few columns is no nearer than the k-th of all, and much faster to find
            few = score[:, : max(score.shape[1] // 4, self.k)]
            worst = np.minimum(worst, np.partition(few, self.k - 1, axis=1)[:, self.k - 1])
        close = score <= worst[:, None]
        i, j = np.nonzero(close) if close.flags.c_contiguous else np.nonzero(close.T)[::-1]
        distances = score[i, j]
        known = distances < np.inf  # not the row itself
        return i[known] + row, j[known] + col, distances[known]

    def keep(self, parts: Sequence[_Found]) -> None:
        for i, j, distances in parts:
            who = np.unique(i)
            rows = np.concatenate([np.repeat(who, self.k), i])
            others = np.concatenate([self.index[who].ravel(), j])
            scores = np.concatenate([self.score[who].ravel(), distances])
            order = np.lexsort((others, scores, rows))
            rows = rows[order]
            place = np.arange(len(rows)) - np.searchsorted(rows, rows)
            first = place < self.k
            at = rows[first], place[first]
            self.score[at], self.index[at] = scores[order][first], others[order][first]


def _rank_table(side: _Distances) -> tuple[Float[np.ndarray, " bin"], float]:
    """Return the mean rank of a bin less the mean of all, and the sum of its squares over all pairs."""
    counts = np.zeros(BINS, dtype=np.int64)

    def count(rows: Sequence[np.ndarray], row: int, cols: Sequence[np.ndarray], col: int) -> np.ndarray:
        return np.bincount(side.bins(rows[0], row, cols[0], col), minlength=BINS).astype(np.int32)

    def add(part: np.ndarray) -> None:
        np.add(counts, part, out=counts)

    over_pairs([side.blocks], count, add)
    ends = np.cumsum(counts)
    ranks = ends - (counts - 1) / 2.0 - (ends[-1] + 1) / 2.0
    return ranks, float((counts * np.square(ranks)).sum())


class _Distances:
    """Squared distances between two parts of one space, and their bins."""

    def __init__(self, rows: Rows, metric: Metric, block: int) -> None:
        if metric not in ("euclidean", "cosine"):
            raise ValueError(f"a metric is 'euclidean' or 'cosine', but got {metric!r}")
        mean = rows.mean(block) if metric == "euclidean" else None
        self.blocks = Blocks(rows, _unit if mean is None else centred(mean), block)
        self.power = 0.5 if metric == "euclidean" else 1.0
        ones = metric == "cosine"
        self.norms = np.ones(len(rows)) if ones else np.concatenate(_per_block(self.blocks, _lengths))
        self.halves = self.norms / 2
        self.largest = 4.0 * float(self.norms.max())
        self._kept: Int[np.ndarray, " pair"] | None = None

    def bins(self, rows: np.ndarray, row: int, cols: np.ndarray, col: int) -> Int[np.ndarray, " pair"]:
        """Return the bin of each pair of different rows, every pair once; kept where all rows are one block."""
        if self._kept is not None:
            return self._kept
        squared = (rows @ cols.T).astype(np.float64)
        squared *= -2.0
        squared += self.norms[row : row + len(rows), None]
        squared += self.norms[None, col : col + len(cols)]
        np.maximum(squared, 0.0, out=squared)
        pairs = squared[np.triu_indices(len(squared), 1)] if row == col else squared.ravel()
        pairs /= self.largest
        if self.power == 0.5:
            np.sqrt(pairs, out=pairs)
        pairs *= BINS
        found = np.minimum(pairs.astype(np.int32), BINS - 1)
        if len(self.blocks) == 1:
            self._kept = found
        return found


def _per_block(blocks: Blocks, measure: Callable[[np.ndarray], np.ndarray]) -> list[np.ndarray]:
    out: list[np.ndarray] = []
    in_order(lambda i: measure(blocks(i)), range(len(blocks)), out.append)
    return out


def _common(
    first: Int[np.ndarray, "group k"], second: Int[np.ndarray, "group k"]
) -> Int[np.ndarray, " group"]:
    """Return how many neighbours each row has in both lists."""
    both = np.sort(np.concatenate([first, second], axis=1), axis=1)
    return (both[:, 1:] == both[:, :-1]).sum(axis=1)


def _part(a: Rows, b: Rows, part: int, block: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = np.sort(np.random.default_rng([seed, 13]).permutation(len(a))[:part])
    return a.pick(chosen, block), b.pick(chosen, block)


def _counted(near: Estimate, rows: Rows) -> Estimate:
    return replace(near, n=rows.n_samples, n_effective=len(rows))


def _scaled(
    near: Estimate,
    value: float,
    rows: Rows,
    part: int,
    *,
    bounds: tuple[float, float],
    null: float,
    controls: Mapping[str, float],
) -> Estimate:
    if math.isnan(value):
        return Estimate.undefined(NO_ORDER, n=rows.n_samples, n_effective=len(rows))
    reach = max(near.high - near.value, near.value - near.low) * math.sqrt(part / len(rows))
    return replace(
        near,
        value=value,
        low=max(value - reach, bounds[0]),
        high=min(value + reach, bounds[1]),
        null=null,
        n=rows.n_samples,
        n_effective=len(rows),
        controls=dict(controls),
        detail={**near.detail, "interval and p from": part, "value in the part": near.value},
    )


def _lengths(block: np.ndarray) -> Float[np.ndarray, " row"]:
    return dots(block, block)


def _unit(block: np.ndarray) -> np.ndarray:
    norms = np.sqrt(np.einsum("ij,ij->i", block, block))
    if not norms.all():
        raise ValueError(
            f"cosine needs rows of non-zero length, but {int((norms == 0).sum())} rows of a block are all zeros; "
            'use metric="euclidean" or leave them out'
        )
    return np.asarray(block / norms[:, None])

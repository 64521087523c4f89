"""CKA, RSA and neighbour overlap of spaces too large for an n x n matrix, block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from foresight.metrics.cka import linear_cka
from foresight.metrics.estimate import Estimate
from foresight.metrics.neighbours import chance_level, knn_overlap
from foresight.metrics.rows import Rows, paired
from foresight.metrics.rsa import rsa_spearman
from foresight.metrics.space import FEWEST, Metric
from foresight.metrics.statistics import calibrated

KEEP_BYTES = 256 * 2**20
"""Prepared blocks remembered per space; beyond this they are read again."""
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
        return replace(near, n=a.n_samples, n_effective=len(a))
    sums = _hsic_sums(a, b, block)
    values = {
        name: _ratio(*(_hsic(pair, len(a), unbiased=name == "debiased") for pair in sums))
        for name in ("biased", "debiased")
    }
    value = values["debiased" if debiased else "biased"]
    null = 0.0 if debiased else _biased_null(sums, len(a))
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
        return replace(near, n=a.n_samples, n_effective=len(a))
    sides = [_Distances(rows, metric, block) for rows in (a, b)]
    count = -(-len(a) // block)
    tables = []
    for side in sides:
        counts = np.zeros(BINS, dtype=np.int64)
        for i in range(count):
            for j in range(i, count):
                counts += np.bincount(side.bins(i, j), minlength=BINS)
        ends = np.cumsum(counts)
        ranks = ends - (counts - 1) / 2.0 - (ends[-1] + 1) / 2.0  # mean rank of a bin, less the mean of all
        tables.append((ranks, float((counts * np.square(ranks)).sum())))
    common = 0.0
    for i in range(count):
        for j in range(i, count):
            common += float(np.dot(tables[0][0][sides[0].bins(i, j)], tables[1][0][sides[1].bins(i, j)]))
    norm = math.sqrt(tables[0][1]) * math.sqrt(tables[1][1])
    value = common / norm if norm > 0 else math.nan
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
        return {name: replace(e, n=a.n_samples, n_effective=len(a)) for name, e in wanted.items()}
    first, second = (nearest(rows, max(good), metric=metric, block=block) for rows in (a, b))
    result = {}
    for name, e in wanted.items():
        measure, k = name.split("@")[0], int(name.split("@")[1])
        if k not in good:
            result[name] = replace(e, n=a.n_samples, n_effective=len(a))
            continue
        hits = _common(first[:, :k], second[:, :k])
        value = float((hits / k if measure == "recall" else hits / (2 * k - hits)).mean())
        chance = chance_level(measure, k, len(a))
        controls = {"chance": chance, "calibrated": calibrated(value, chance)}
        result[name] = _scaled(e, value, a, len(sample[0]), bounds=(0.0, 1.0), null=chance, controls=controls)
    return result


def nearest(rows: Any, k: int, *, metric: Metric = "cosine", block: int = 1024) -> Int[np.ndarray, "group k"]:
    """Return the k nearest other rows of each row, nearest first, with memory for blocks of rows only."""
    rows = rows if isinstance(rows, Rows) else Rows(rows)
    if not 1 <= k < len(rows):
        raise ValueError(
            f"k lies between 1 and the number of rows less one, but got {k} for {len(rows)} rows"
        )
    side = _Distances(rows, metric, block)
    out = np.empty((len(rows), k), dtype=np.int64)
    edges = list(rows.blocks(block))
    for i, (start, stop) in enumerate(edges):
        best = np.full((stop - start, k), np.inf)
        index = np.full((stop - start, k), len(rows), dtype=np.int64)
        for j, (low, _) in enumerate(edges):
            # |x_j|²/2 - x_i·x_j orders the j as the distance does, and stays in the precision of the input
            score = side.block(j) @ side.block(i).T
            np.subtract((side.norms[j] / 2).astype(score.dtype)[:, None], score, out=score)
            score = score.T
            if i == j:
                np.fill_diagonal(score, np.inf)
            near, found = _better(score, best[:, -1], k)
            distances = np.concatenate([best, near], axis=1)
            indices = np.concatenate([index, np.where(found < 0, len(rows), found + low)], axis=1)
            order = np.lexsort((indices, distances), axis=1)[:, :k]
            best, index = np.take_along_axis(distances, order, 1), np.take_along_axis(indices, order, 1)
        out[start:stop] = index
    return out


def _better(
    score: Float[np.ndarray, "row col"], worst: Float[np.ndarray, " row"], k: int
) -> tuple[Float[np.ndarray, "row few"], Int[np.ndarray, "row few"]]:
    """Return the scores below `worst` and their columns, packed to the left; inf and -1 where there are fewer."""
    rows, cols = np.nonzero(score < worst[:, None])  # after a few blocks, hardly any
    counts = np.bincount(rows, minlength=len(score))
    width = int(counts.max(initial=0))
    if width > 4 * k:
        cols = np.argpartition(score, k - 1, axis=1)[:, :k]
        return np.take_along_axis(score, cols, axis=1), cols
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    near, found = np.full((len(score), width), np.inf), np.full((len(score), width), -1)
    near[rows, place], found[rows, place] = score[rows, cols], cols
    return near, found


class _Distances:
    """Squared distances between two blocks of one space, and their bins."""

    def __init__(self, rows: Rows, metric: Metric, block: int) -> None:
        if metric not in ("euclidean", "cosine"):
            raise ValueError(f"a metric is 'euclidean' or 'cosine', but got {metric!r}")
        mean = rows.mean(block) if metric == "euclidean" else None
        self.block = rows.prepared(_unit if mean is None else _centred(mean), block, keep_bytes=KEEP_BYTES)
        self.power = 0.5 if metric == "euclidean" else 1.0
        count = -(-len(rows) // block)
        self.norms = [_lengths(self.block(i)) for i in range(count)]
        self.largest = 4.0 * max(float(n.max()) for n in self.norms)

    def squared(self, i: int, j: int) -> Float[np.ndarray, "row col"]:
        products = self.block(i) @ self.block(j).T
        return np.maximum(self.norms[i][:, None] + self.norms[j][None, :] - 2.0 * products, 0.0)

    def bins(self, i: int, j: int) -> Int[np.ndarray, " pair"]:
        """Return the bin of each pair of different rows, every pair once over all i <= j."""
        squared = self.squared(i, j)
        pairs = squared[np.triu_indices(len(squared), 1)] if i == j else squared.ravel()
        share = (pairs / self.largest) ** self.power
        return np.minimum((share * BINS).astype(np.int32), BINS - 1)


def _hsic_sums(a: Rows, b: Rows, block: int) -> list[dict[str, float]]:
    """Return for xy, xx and yy the sums over rows from which biased and unbiased HSIC follow."""
    means = [rows.mean(block) for rows in (a, b)]
    readers = [
        rows.prepared(_centred(mean), block, keep_bytes=KEEP_BYTES)
        for rows, mean in zip((a, b), means, strict=True)
    ]
    n, p, q = len(a), a.width, b.width
    count = -(-n // block)
    norms: list[list[np.ndarray]] = [[], []]
    for i in range(count):
        for side, reader in enumerate(readers):
            norms[side].append(_lengths(reader(i)))
    k, m = (np.concatenate(side) for side in norms)
    by_features = p * p + q * q + p * q < n * (p + q) / 2 and 8 * (p * p + q * q + p * q) <= 2**30
    products = (_by_features if by_features else _by_samples)(readers, count)
    pairs = ((k, m), (k, k), (m, m))
    return [
        # the centred rows sum to 0, up to rounding of the mean, so a row of K without its diagonal sums to -k
        {"products": s, "diagonal": float(u @ v), "left": float(u.sum()), "right": float(v.sum())}
        for s, (u, v) in zip(products, pairs, strict=True)
    ]


def _by_features(readers: Sequence[Callable[[int], np.ndarray]], count: int) -> list[float]:
    # Σ_ij K_ij L_ij = |XᵀY|²
    sums: list[Any] = [0.0, 0.0, 0.0]
    for i in range(count):
        x, y = readers[0](i), readers[1](i)
        for at, (u, v) in enumerate(((x, y), (x, x), (y, y))):
            sums[at] = sums[at] + (u.T @ v).astype(np.float64)
    return [float(np.vdot(s, s)) for s in sums]


def _by_samples(readers: Sequence[Callable[[int], np.ndarray]], count: int) -> list[float]:
    sums = np.zeros(3)
    for i in range(count):
        for j in range(i, count):
            k, m = (reader(i) @ reader(j).T for reader in readers)
            twice = 1.0 if i == j else 2.0
            for at, (u, v) in enumerate(((k, m), (k, k), (m, m))):
                # row by row: sums over rows are float64 even where a product is float32
                sums[at] += twice * sum(float(np.dot(r, s)) for r, s in zip(u, v, strict=True))
    return [float(s) for s in sums]


def _hsic(sums: Mapping[str, float], n: int, *, unbiased: bool) -> float:
    if not unbiased:
        return sums["products"]
    off = sums["products"] - sums["diagonal"]
    return off - 2.0 / (n - 2) * sums["diagonal"] + sums["left"] * sums["right"] / ((n - 1) * (n - 2))


def _ratio(xy: float, xx: float, yy: float) -> float:
    return xy / math.sqrt(xx * yy) if xx > 0 and yy > 0 else math.nan


def _biased_null(sums: Sequence[Mapping[str, float]], n: int) -> float:
    return sums[0]["left"] * sums[0]["right"] / (n - 1) / math.sqrt(sums[1]["products"] * sums[2]["products"])


def _common(
    first: Int[np.ndarray, "group k"], second: Int[np.ndarray, "group k"]
) -> Int[np.ndarray, " group"]:
    """Return how many neighbours each row has in both lists."""
    both = np.sort(np.concatenate([first, second], axis=1), axis=1)
    return (both[:, 1:] == both[:, :-1]).sum(axis=1)


def _part(a: Rows, b: Rows, part: int, block: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    chosen = np.sort(np.random.default_rng([seed, 13]).permutation(len(a))[:part])
    return a.pick(chosen, block), b.pick(chosen, block)


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
        why = "a centred kernel is zero: every sample is equally similar to every other"
        return Estimate.undefined(why, n=rows.n_samples, n_effective=len(rows))
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
    return np.square(block).sum(axis=1).astype(np.float64)


def _centred(mean: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda block: block - mean.astype(block.dtype)


def _unit(block: np.ndarray) -> np.ndarray:
    norms = np.sqrt(np.square(block).sum(axis=1))
    if not norms.all():
        raise ValueError(
            f"cosine needs rows of non-zero length, but {int((norms == 0).sum())} rows of a block are all zeros; "
            'use metric="euclidean" or leave them out'
        )
    return np.asarray(block / norms[:, None])

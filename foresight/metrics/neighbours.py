"""Neighbour overlap: does a sample keep its nearest neighbours from one space in the other?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from foresight.metrics.estimate import Estimate
from foresight.metrics.settled import Settled
from foresight.metrics.space import FEWEST, Metric, Space, as_pair
from foresight.metrics.statistics import calibrated, half_sample_error, interval, permutation_p

MEASURES = ("recall", "mrr", "jaccard")


def knn_overlap(
    x: Any,
    y: Any,
    *,
    ks: Sequence[int] = (5, 10, 50, 100),
    groups: Sequence[Any] | np.ndarray | None = None,
    metric: Metric = "cosine",
    permutations: int = 999,
    resamples: int = 40,
    seed: int = 0,
) -> Mapping[str, Estimate]:
    """Return 'recall@k', 'mrr@k' and 'jaccard@k' for each k, all in [0, 1].

    With N_x the k nearest of a sample in `x` and N_y in `y` [sample feature], itself never among them:
    recall@k is |N_x ∩ N_y| / k, mutual k-NN; jaccard@k is |N_x ∩ N_y| / |N_x ∪ N_y|; mrr@k is the mean over
    N_x of 1 / rank in `y`; each averaged over samples. A rotated copy has recall and jaccard 1, and mrr
    H(k)/k, which 'calibrated' takes as its best; other readings of MRR stand in its `detail`: 'nearest', 1 /
    rank of the nearest alone, and 'first', 1 / rank of the best placed of the k. Groups are averaged first,
    so a neighbour is always another group. Equal distances are put in random order, in each space by itself.
    `null` is the mean over whole-group permutations, `controls['chance']` the exact level: k/(n-1) for
    recall, H(n-1)/(n-1) for mrr, from the hypergeometric law for jaccard.
    A k of n - 1 or more is nan: all others would be neighbours. Without permutations and resamples the same
    value takes half the time: `Settled`.

    Huh et al. (2024), arXiv:2405.07987.
    """
    if not ks or min(ks) < 1:
        raise ValueError(
            f"neighbour counts are 1 or more and at least one is asked for, but got ks={list(ks)}"
        )
    a, b = as_pair(x, y, groups)
    n, g = len(a), len(a.observed)
    names = [f"{m}@{k}" for m in MEASURES for k in ks]
    good = sorted({k for k in ks if k < g - 1})
    reached = None
    if g >= FEWEST and good and not permutations and resamples < 2:
        reached = _settled(a.observed, b.observed, metric, max(good), seed)
    why = ""
    if g < FEWEST:
        why = f"neighbour overlap needs at least {FEWEST} groups, but got {g}"
    for side, space in (("first", a.observed), ("second", b.observed)):
        if not why and reached is None and _tied(space, metric):
            why = (
                f"all {metric} distances of the {side} space are equal, so no sample has a nearest neighbour"
            )
    result = {
        name: Estimate.undefined(
            why or f"k = {name.split('@')[1]} needs more than k + 1 groups, but got {g}", n=n, n_effective=g
        )
        for name in names
    }
    if why or not good:
        return result
    null, errors = np.empty((0, len(MEASURES), len(good))), np.array(math.nan)
    if reached is None:
        order_a, order_b = (
            neighbour_order(a.observed, metric, seed=seed),
            neighbour_order(b.observed, metric, seed=seed + 1),
        )
        ranks_b = ranks_of(order_b)
        reached = np.take_along_axis(ranks_b, order_a[:, : max(good)], axis=1)
        null = _null(order_a, ranks_b, good, permutations=permutations, seed=seed)

        def half(s: np.ndarray) -> np.ndarray:
            # a k that is most of the half keeps its share of the samples instead of its number
            near = [k if 2 * k <= len(s) else max(1, round(k * len(s) / g)) for k in good]
            return overlap(within(order_a, s), ranks_of(within(order_b, s)), near)

        errors = half_sample_error(half, g, resamples=resamples, seed=seed)
    inverse = 1.0 / reached
    values = _measures(inverse, good)
    errors = np.broadcast_to(errors, values.shape)
    readings = {
        k: {"nearest": float(inverse[:, 0].mean()), "first": float(inverse[:, :k].max(axis=1).mean())}
        for k in good
    }
    plain = {}
    if g < n:
        raw = neighbour_order(a, metric, seed=seed), neighbour_order(b, metric, seed=seed + 1)
        plain["ignoring groups"] = overlap(raw[0], ranks_of(raw[1]), good)
    for i, measure in enumerate(MEASURES):
        for j, k in enumerate(good):
            value, draws = float(values[i, j]), null[:, i, j]
            centre = float(draws.mean()) if len(draws) else math.nan
            low, high = interval(value, float(errors[i, j]), g, bounds=(0.0, 1.0))
            result[f"{measure}@{k}"] = Estimate(
                value=value,
                low=low,
                high=high,
                null=centre,
                p=permutation_p(value, draws),
                n=n,
                n_effective=g,
                controls={
                    "chance": chance_level(measure, k, g),
                    "calibrated": calibrated(value, centre, best=best_level(measure, k)),
                    **{name: float(table[i, j]) for name, table in plain.items()},
                },
                detail={"metric": metric, "k": k, **(readings[k] if measure == "mrr" else {})},
                why="" if math.isfinite(low) else f"no interval from {g} groups",
            )
    return result


def neighbour_order(space: Space, metric: Metric, *, seed: int) -> Int[np.ndarray, "sample other"]:
    """Return the other samples from nearest to farthest, in each row; ties in an order drawn from `seed`."""
    distances = space.distances(metric).copy()
    np.fill_diagonal(distances, -1.0)
    shuffle = _shuffle(len(distances), seed)
    order = shuffle[np.argsort(distances[:, shuffle], axis=1, kind="stable")]
    return order[:, 1:]


def ranks_of(order: Int[np.ndarray, "sample other"]) -> Int[np.ndarray, "sample sample"]:
    """Return at [i, j] the rank, from 1, of j among the neighbours of i; 0 for itself."""
    n = len(order)
    ranks = np.zeros((n, n), dtype=np.int32)
    np.put_along_axis(ranks, order, np.arange(1, n, dtype=np.int32)[None, :], axis=1)
    return ranks


def within(
    order: Int[np.ndarray, "sample other"], subset: Int[np.ndarray, " some"]
) -> Int[np.ndarray, "some _"]:
    """Return the neighbour order of `subset` among itself, renumbered from 0."""
    place = np.full(len(order), -1, dtype=np.int64)
    place[subset] = np.arange(len(subset))
    renumbered = place.take(order.take(subset, axis=0)).ravel()
    return renumbered.compress(renumbered >= 0).reshape(len(subset), len(subset) - 1)


def overlap(
    order_a: Int[np.ndarray, "sample other"], ranks_b: Int[np.ndarray, "sample sample"], ks: Sequence[int]
) -> Float[np.ndarray, "3 k"]:
    """Return the mean recall, mrr and jaccard over samples for each k."""
    return _measures(1.0 / np.take_along_axis(ranks_b, order_a[:, : max(ks)], axis=1), ks)


def best_level(measure: str, k: int) -> float:
    """Return a measure's value for a copy of the same space."""
    return float((1.0 / np.arange(1, k + 1)).mean()) if measure == "mrr" else 1.0


def chance_level(measure: str, k: int, n: int) -> float:
    """Return the exact mean of a measure when the order in one space is random, for n samples."""
    if measure == "recall":
        return k / (n - 1)
    if measure == "mrr":
        return float((1.0 / np.arange(1, n)).sum() / (n - 1))
    from scipy.stats import hypergeom

    common = np.arange(k + 1)
    return float((hypergeom(n - 1, k, k).pmf(common) * common / (2 * k - common)).sum())


def _measures(inverse: Float[np.ndarray, "sample near"], ks: Sequence[int]) -> np.ndarray:
    """Return mean recall, mrr and jaccard, from the ranks in one space of those near in the other."""
    out = np.empty((len(MEASURES), len(ks)))
    reach = np.cumsum(inverse.mean(axis=0, dtype=np.float64))
    for j, k in enumerate(ks):
        hits = np.count_nonzero(inverse[:, :k] > 1.0 / (k + 0.5), axis=1)
        out[:, j] = hits.mean() / k, reach[k - 1] / k, (hits / (2 * k - hits)).mean()
    return out


def _null(
    order_a: np.ndarray, ranks_b: np.ndarray, ks: Sequence[int], *, permutations: int, seed: int
) -> Float[np.ndarray, "permutation 3 k"]:
    rng = np.random.default_rng([seed, 3])
    n, near = len(order_a), order_a[:, : max(ks)]
    inverse = (1.0 / np.maximum(ranks_b, 1)).astype(np.float32).ravel()
    out = np.empty((permutations, len(MEASURES), len(ks)))
    for i in range(permutations):
        order = rng.permutation(n)
        out[i] = _measures(inverse.take(order[:, None] * n + order.take(near)), ks)
    return out


def _settled(a: Space, b: Space, metric: Metric, k: int, seed: int) -> Int[np.ndarray, "sample k"] | None:
    """Return the ranks in `b` of the k nearest in `a`, without all distances; None where that does not pay."""
    first = Settled(a, metric, _shuffle(len(a), seed))
    near = None if first.doubtful else first.nearest(k)
    if near is None or first.doubtful:
        return None
    second = Settled(b, metric, _shuffle(len(b), seed + 1))
    ranks = None if second.doubtful else second.ranks(near)
    return None if second.doubtful else ranks


def _shuffle(n: int, seed: int) -> Int[np.ndarray, " sample"]:
    return np.random.default_rng([seed, 6]).permutation(n)


def _tied(space: Space, metric: Metric) -> bool:
    distances = space.distances(metric)
    n = len(distances)
    if n < 2:
        return True
    # all but the diagonal, as a view: behind each diagonal entry come n others
    off = distances.ravel()[1:].reshape(n - 1, n + 1)[:, :-1]
    largest = float(off.max())
    return largest - float(off.min()) <= 1e-9 * largest

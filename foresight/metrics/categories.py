"""Do categories show in a space? Silhouette, cluster purity, k-NN accuracy, variance within classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from foresight.metrics.estimate import Estimate
from foresight.metrics.judged import judged
from foresight.metrics.neighbours import neighbour_order, within
from foresight.metrics.space import FEWEST, Metric, Space, as_space, join_duplicates
from foresight.metrics.statistics import calibrated, half_sample_error
from foresight.metrics.threads import one_thread


def silhouette(
    x: Any,
    labels: Sequence[Any] | np.ndarray,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    metric: Metric = "euclidean",
    permutations: int = 999,
    resamples: int = 60,
    seed: int = 0,
) -> Estimate:
    """Return the mean silhouette of the labelled samples of `x` [sample feature], in [-1, 1].

    (b - a) / max(a, b) with a the mean distance to the own class and b to the nearest other one; 0 for a
    class of one. Groups are averaged first and carry one label each; p by permuting the labels of groups.
    The metric matters (0.27 against 0.47 on the same data), so it is named in `detail`. Rousseeuw (1987).
    """
    space, codes, _, n = _labelled(x, labels, groups)
    why = _undefined(space, codes)
    if why:
        return Estimate.undefined(why, n=n, n_effective=len(space))
    distances = space.distances(metric)

    def score(s: np.ndarray) -> float:
        return float(silhouettes(distances[np.ix_(s, s)], _onehot(codes[s])).mean())

    narrow = distances.astype(np.float32)  # for the null, as in `gathered`

    def drawn(hot: np.ndarray) -> np.ndarray:
        return silhouettes(narrow, hot).mean(axis=0, dtype=np.float64)

    null = _label_null(codes, drawn, permutations, seed)
    return judged(
        score(np.arange(len(space))),
        float(half_sample_error(score, len(space), resamples=resamples, seed=seed)),
        null,
        n=n,
        g=len(space),
        bounds=(-1.0, 1.0),
        detail={"metric": metric, "classes": int(codes.max()) + 1},
    )


def cluster_purity(
    x: Any,
    labels: Sequence[Any] | np.ndarray,
    *,
    clusters: int | None = None,
    groups: Sequence[Any] | np.ndarray | None = None,
    permutations: int = 999,
    resamples: int = 40,
    seed: int = 0,
) -> Estimate:
    """Return the share of samples of `x` [sample feature] in the majority class of their k-means cluster.

    As many clusters as classes unless `clusters` says otherwise. Purity grows with the number of clusters, so
    read it against `null` (labels permuted over groups) or take `detail['nmi']` and `detail['ari']`. Groups
    are averaged first. The interval clusters every half anew, so it holds the luck of k-means as well.
    """
    space, codes, _, n = _labelled(x, labels, groups)
    k = int(codes.max()) + 1 if clusters is None else clusters
    why = _undefined(space, codes)
    if not why and not 2 <= k < len(space):
        why = f"clusters lie between 2 and the number of groups less one, but got {k} for {len(space)} groups"
    if not why and len(np.unique(space.row_ids)) < k:
        why = f"{k} clusters need as many different rows, but there are {len(np.unique(space.row_ids))}"
    if why:
        return Estimate.undefined(why, n=n, n_effective=len(space))
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    squared = np.square(space.distances())
    assigned = _kmeans(squared, k, seed=seed)
    hot_clusters = _onehot(assigned, k).astype(np.float32)

    def purity_of(hot: np.ndarray) -> np.ndarray:
        return np.asarray(_product(hot_clusters.T, hot).max(axis=-1).sum(axis=0, dtype=np.float64) / len(hot))

    def half(s: np.ndarray) -> float:
        again = _kmeans(squared[np.ix_(s, s)], k, seed=seed + int(s[0]), starts=2)
        return float((_onehot(again, k).T @ _onehot(codes[s])).max(axis=1).sum() / len(s))

    null = _label_null(codes, purity_of, permutations, seed)
    return judged(
        float(purity_of(_onehot(codes))),
        float(
            half_sample_error(half, len(space), resamples=resamples if 2 * k < len(space) else 0, seed=seed)
        ),
        null,
        n=n,
        g=len(space),
        bounds=(0.0, 1.0),
        detail={
            "clusters": k,
            "nmi": float(normalized_mutual_info_score(codes, assigned)),
            "ari": float(adjusted_rand_score(codes, assigned)),
        },
    )


def knn_accuracy(
    x: Any,
    labels: Sequence[Any] | np.ndarray,
    *,
    k: int = 5,
    groups: Sequence[Any] | np.ndarray | None = None,
    metric: Metric = "euclidean",
    permutations: int = 999,
    resamples: int = 60,
    seed: int = 0,
) -> Estimate:
    """Return the share of samples of `x` [sample feature] whose k nearest others vote for their class.

    Leave one out; a tied vote goes to the class that comes first in sorted order. Groups are averaged first,
    so no frame is classified by its own video. `controls['majority']` is the largest class's share.
    nan when k is not below the number of groups less one.
    """
    if k < 1:
        raise ValueError(f"k-NN needs a k of 1 or more, but got {k}")
    space, codes, _, n = _labelled(x, labels, groups)
    why = _undefined(space, codes)
    if not why and k >= len(space) - 1:
        why = f"k = {k} needs more than k + 1 groups, but got {len(space)}"
    if why:
        return Estimate.undefined(why, n=n, n_effective=len(space))
    order = neighbour_order(space, metric, seed=seed)

    def accuracy(order: np.ndarray, hot: np.ndarray) -> np.ndarray:
        votes = hot[order[:, 0]].copy()
        for voters in order[:, 1:k].T:
            votes += hot[voters]
        return (votes.argmax(axis=-1) == hot.argmax(axis=-1)).mean(axis=0)

    def half(s: np.ndarray) -> float:
        return float(accuracy(within(order, s), _onehot(codes[s], int(codes.max()) + 1)))

    hot = _onehot(codes)
    controls = {"majority": float(hot.mean(axis=0).max())}
    return judged(
        float(accuracy(order, hot)),
        float(
            half_sample_error(
                half, len(space), resamples=resamples if k < len(space) // 2 - 1 else 0, seed=seed
            )
        ),
        _label_null(codes, lambda h: accuracy(order, h), permutations, seed),
        n=n,
        g=len(space),
        bounds=(0.0, 1.0),
        detail={"metric": metric, "k": k},
        controls=controls,
    )


def intra_class_variance(
    x: Any,
    labels: Sequence[Any] | np.ndarray,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    permutations: int = 999,
    resamples: int = 60,
    seed: int = 0,
) -> Estimate:
    """Return the share of the total variance of `x` [sample feature] that lies within classes, in [0, 1].

    Low is good: 0 when every class is one point; chance is (n - C)/(n - 1) for C classes, below 1.
    `controls['calibrated']` is 1 - share / chance: 1 perfect, 0 chance. p counts draws at most as large.
    Groups are averaged first. `detail['per class']` is each class's mean squared distance to its centre.
    """
    space, codes, names, n = _labelled(x, labels, groups)
    why = _undefined(space, codes)
    if why:
        return Estimate.undefined(why, n=n, n_effective=len(space))
    gram = space.gram

    def share(kernel: np.ndarray, hot: np.ndarray) -> np.ndarray:
        # Σ_c |Σ_{i∈c} x_i|² / n_c is the sum of squares between the classes
        mean = kernel.sum(dtype=np.float64) / len(kernel)
        between = (_diagonal(kernel, hot) / np.maximum(hot.sum(axis=0), 1)).sum(axis=-1)
        return np.clip(1.0 - (between - mean) / (np.trace(kernel, dtype=np.float64) - mean), 0.0, 1.0)

    def half(s: np.ndarray) -> float:
        return float(share(gram[np.ix_(s, s)], _onehot(codes[s])))

    hot = _onehot(codes)
    narrow = gram.astype(np.float32)  # for the null, as in `gathered`
    null = _label_null(codes, lambda h: share(narrow, h), permutations, seed)
    value, counts = float(share(gram, hot)), hot.sum(axis=0)
    per_class = (np.diag(gram) @ hot - _diagonal(gram, hot) / counts) / counts
    error = half_sample_error(half, len(space), resamples=resamples, seed=seed)
    chance = (len(space) - len(counts)) / (len(space) - 1)
    return judged(
        value,
        float(error),
        null,
        n=n,
        g=len(space),
        bounds=(0.0, 1.0),
        greater=False,
        controls={"chance": chance, "calibrated": calibrated(value, chance, best=0.0)},
        detail={"per class": dict(zip(names, np.maximum(per_class, 0.0).tolist(), strict=True))},
    )


def silhouettes(
    distances: Float[np.ndarray, "sample sample"], hot: Float[np.ndarray, "sample *draw category"]
) -> Float[np.ndarray, sample * draw]:
    """Return each sample's silhouette, from distances and 0/1 classes, for one or several draws of labels.

    0 for the only sample of a class, and when all samples are of one class.
    """
    counts = hot.sum(axis=0)
    sums = _product(distances, hot)
    size = (hot * counts).sum(axis=-1)
    inner = (hot * sums).sum(axis=-1) / np.maximum(size - 1, 1)
    means = np.where((hot > 0) | (counts == 0), np.inf, sums / np.maximum(counts, 1))
    outer = means.min(axis=-1)
    good = (size > 1) & np.isfinite(outer)
    outer = np.where(good, outer, 0.0)
    largest = np.maximum(inner, outer)
    return np.where(good & (largest > 0), (outer - inner) / np.where(largest > 0, largest, 1.0), 0.0)


def _labelled(
    x: Any, labels: Sequence[Any] | np.ndarray, groups: Sequence[Any] | np.ndarray | None
) -> tuple[Space, Int[np.ndarray, " group"], list[str], int]:
    """Return the observations, their class numbers in sorted order, the class names, and the sample count."""
    space = as_space(x, groups)
    n = len(space)
    if len(labels) != n:
        raise ValueError(f"each sample has one label, but got {n} samples and {len(labels)} labels")
    named = np.asarray(labels, dtype=object).tolist()
    if any(v is None or v != v for v in named):
        first = next(i for i, v in enumerate(named) if v is None or v != v)
        raise ValueError(f"each sample has a label, but sample {first} has none; leave such samples out")
    ordered = {v: i for i, v in enumerate(sorted(set(named), key=lambda v: (str(type(v)), v)))}
    codes = np.array([ordered[v] for v in named], dtype=np.int64)
    joined = join_duplicates(space.groups, space.row_ids, codes)
    if joined is not space.groups:
        space = Space(space.values, groups=joined)
    low = np.full(space.n_groups, len(ordered), dtype=np.int64)
    high = np.full(space.n_groups, -1, dtype=np.int64)
    np.minimum.at(low, space.groups, codes)
    np.maximum.at(high, space.groups, codes)
    if (low != high).any():
        g = int(np.argmax(low != high))
        member = int(np.argmax(space.groups == g))
        raise ValueError(
            f"all samples of a group carry one label, but the group of sample {member} has several; "
            "choose groups inside one class"
        )
    return space.observed, low, [str(v) for v in ordered], n


def _undefined(space: Space, codes: np.ndarray) -> str:
    if len(space) < FEWEST:
        return f"class separation needs at least {FEWEST} groups, but got {len(space)}"
    if codes.max() == codes.min():
        return "there is one class, so nothing to tell apart"
    if len(np.unique(codes)) == len(codes):
        return "every group is a class of its own, so no class has two members to compare"
    if space.constant:
        return f"the space is constant: all {len(space)} observations are one point"
    return ""


def _onehot(codes: np.ndarray, n_classes: int | None = None) -> Float[np.ndarray, "sample category"]:
    return np.eye(int(codes.max()) + 1 if n_classes is None else n_classes)[codes]


def _product(pairs: np.ndarray, hot: Float[np.ndarray, "sample *draw category"]) -> np.ndarray:
    return (pairs @ hot.reshape(len(hot), -1)).reshape(len(pairs), *hot.shape[1:])


def _diagonal(kernel: np.ndarray, hot: Float[np.ndarray, "sample *draw category"]) -> np.ndarray:
    """Return the sum of the kernel over the pairs inside each class, [*draw category]."""
    return np.asarray((_product(kernel, hot) * hot).sum(axis=0, dtype=np.float64))


@one_thread()
def _label_null(
    codes: np.ndarray, score: Callable[[np.ndarray], np.ndarray], permutations: int, seed: int
) -> Float[np.ndarray, " permutation"]:
    rng, hot = np.random.default_rng([seed, 3]), _onehot(codes).astype(np.float32)
    at_once = max(1, 150_000 // hot.size)  # stays in cache
    out = []
    for start in range(0, permutations, at_once):
        orders = [rng.permutation(len(hot)) for _ in range(min(at_once, permutations - start))]
        out.append(score(hot[np.stack(orders, axis=1)]))
    return np.concatenate(out) if out else np.empty(0)


@one_thread()
def _kmeans(
    squared: Float[np.ndarray, "sample sample"], k: int, *, seed: int, starts: int = 10
) -> Int[np.ndarray, " sample"]:
    """Return the cluster of each sample in the tightest of several k-means runs, from squared distances alone."""
    rng = np.random.default_rng([seed, 11])
    runs = [_lloyd(squared, _spread_out(squared, k, rng)) for _ in range(starts)]
    return min(runs, key=lambda run: run[1])[0]


def _spread_out(squared: np.ndarray, k: int, rng: np.random.Generator) -> list[int]:
    # k-means++ (Arthur & Vassilvitskii 2007): the next centre is drawn by its squared distance to the others
    chosen = [int(rng.integers(len(squared)))]
    nearest = squared[chosen[0]]
    while len(chosen) < k and nearest.any():  # fewer different points than clusters: fewer clusters
        chosen.append(int(rng.choice(len(squared), p=nearest / nearest.sum())))
        nearest = np.minimum(nearest, squared[chosen[-1]])
    return chosen


def _lloyd(
    squared: np.ndarray, chosen: Sequence[int], *, rounds: int = 100
) -> tuple[Int[np.ndarray, " sample"], float]:
    """Return clusters and the summed squared distance to their means, once no sample changes sides."""
    to, assigned, total = squared[:, chosen], np.full(len(squared), -1), math.nan
    for _ in range(rounds):
        now, total = to.argmin(axis=1), float(to.min(axis=1).sum())
        if np.array_equal(now, assigned):
            break
        assigned = now
        hot = _onehot(assigned, len(chosen))
        counts = hot.sum(axis=0)
        full = counts > 0  # an empty cluster keeps its centre
        sums = squared @ hot
        # to a mean it is the mean distance to its members, less half the mean among them
        inner = (sums * hot).sum(axis=0)
        to[:, full] = sums[:, full] / counts[full] - inner[full] / (2 * np.square(counts[full]))
    return assigned, total

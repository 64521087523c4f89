"""Do categories show in a space? Silhouette, cluster purity, k-NN accuracy, variance within classes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from foresight.metrics.estimate import Estimate
from foresight.metrics.neighbours import neighbour_order, within
from foresight.metrics.space import FEWEST, Metric, Space, as_space, join_duplicates
from foresight.metrics.statistics import calibrated, half_sample_error, interval, permutation_p


def silhouette(
    x: Any,
    labels: Sequence[Any] | np.ndarray,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    metric: Metric = "euclidean",
    permutations: int = 999,
    resamples: int = 100,
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

    everyone = np.arange(len(space))
    null = _label_null(codes, lambda hot: silhouettes(distances, hot).mean(), permutations, seed)
    return _estimate(
        score(everyone),
        half_sample_error(score, len(space), resamples=resamples, seed=seed),
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
    are averaged first. The interval clusters every half anew, from the full sample's centres.
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

    points = space.coordinates
    assigned, centres = _kmeans(points, k, seed=seed)
    hot_clusters = _onehot(assigned, k)

    def purity_of(hot: np.ndarray) -> float:
        return float((hot_clusters.T @ hot).max(axis=1).sum() / len(hot))

    def half(s: np.ndarray) -> float:
        again, _ = _kmeans(points[s], k, seed=seed, start=centres)
        return float((_onehot(again, k).T @ _onehot(codes[s])).max(axis=1).sum() / len(s))

    null = _label_null(codes, purity_of, permutations, seed)
    return _estimate(
        purity_of(_onehot(codes)),
        half_sample_error(half, len(space), resamples=resamples, seed=seed),
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
    resamples: int = 100,
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

    def accuracy(near: np.ndarray, hot: np.ndarray) -> float:
        votes = hot[near].sum(axis=1)
        return float((votes.argmax(axis=1) == hot.argmax(axis=1)).mean())

    def half(s: np.ndarray) -> float:
        return accuracy(within(order, s)[:, :k], _onehot(codes[s], int(codes.max()) + 1))

    nearest = order[:, :k]
    hot = _onehot(codes)
    controls = {"majority": float(hot.mean(axis=0).max())}
    return _estimate(
        accuracy(nearest, hot),
        half_sample_error(half, len(space), resamples=resamples if k < len(space) // 2 - 1 else 0, seed=seed),
        _label_null(codes, lambda h: accuracy(nearest, h), permutations, seed),
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
    resamples: int = 100,
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

    def share(kernel: np.ndarray, hot: np.ndarray) -> float:
        # Σ_c |Σ_{i∈c} x_i|² / n_c is the sum of squares between the classes
        total = np.trace(kernel) - kernel.sum() / len(kernel)
        counts = hot.sum(axis=0)
        between = (((kernel @ hot) * hot).sum(axis=0) / np.maximum(counts, 1)).sum()
        return float(np.clip(1.0 - (between - kernel.sum() / len(kernel)) / total, 0.0, 1.0))

    def half(s: np.ndarray) -> float:
        return share(gram[np.ix_(s, s)], _onehot(codes[s]))

    hot = _onehot(codes)
    null = _label_null(codes, lambda h: share(gram, h), permutations, seed)
    value, counts = share(gram, hot), hot.sum(axis=0)
    inner = ((gram @ hot) * hot).sum(axis=0) / counts
    per_class = (np.diag(gram) @ hot - inner) / counts
    error = half_sample_error(half, len(space), resamples=resamples, seed=seed)
    low, high = interval(value, float(error), bounds=(0.0, 1.0))
    centre = float(null.mean()) if len(null) else math.nan
    chance = (len(space) - len(counts)) / (len(space) - 1)
    return Estimate(
        value=value,
        low=low,
        high=high,
        null=centre,
        p=permutation_p(value, null, greater=False),
        n=n,
        n_effective=len(space),
        controls={"chance": chance, "calibrated": calibrated(value, chance, best=0.0)},
        detail={"per class": dict(zip(names, np.maximum(per_class, 0.0).tolist(), strict=True))},
    )


def silhouettes(
    distances: Float[np.ndarray, "sample sample"], hot: Float[np.ndarray, "sample category"]
) -> Float[np.ndarray, " sample"]:
    """Return each sample's silhouette, from distances and a 0/1 matrix of classes."""
    counts = hot.sum(axis=0)
    present = counts > 0
    hot, counts = hot[:, present], counts[present]
    own = hot.argmax(axis=1)
    sums = distances @ hot
    at = np.arange(len(own))
    inner = sums[at, own] / np.maximum(counts[own] - 1, 1)
    means = sums / counts
    means[at, own] = np.inf
    outer = means.min(axis=1)
    largest = np.maximum(inner, outer)
    good = (counts[own] > 1) & (largest > 0) & np.isfinite(outer)
    return np.where(good, (np.where(good, outer, 0.0) - inner) / np.where(good, largest, 1.0), 0.0)


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


def _label_null(codes: np.ndarray, score: Any, permutations: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, 3])
    hot = _onehot(codes)
    return np.array([score(hot[rng.permutation(len(hot))]) for _ in range(permutations)], dtype=float)


def _estimate(
    value: float,
    error: Any,
    null: np.ndarray,
    *,
    n: int,
    g: int,
    bounds: tuple[float, float],
    detail: Mapping[str, Any],
    controls: Mapping[str, float] | None = None,
) -> Estimate:
    low, high = interval(value, float(error), bounds=bounds)
    centre = float(null.mean()) if len(null) else math.nan
    return Estimate(
        value=value,
        low=low,
        high=high,
        null=centre,
        p=permutation_p(value, null),
        n=n,
        n_effective=g,
        controls={"calibrated": calibrated(value, centre), **(controls or {})},
        detail=detail,
    )


def _kmeans(
    points: np.ndarray, k: int, *, seed: int, start: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    model = KMeans(
        k, init="k-means++" if start is None else start, n_init=10 if start is None else 1, random_state=seed
    )
    with warnings.catch_warnings():
        # a half may hold fewer distinct points than clusters; an empty cluster is a fair answer there
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(points)
    return model.labels_, model.cluster_centers_

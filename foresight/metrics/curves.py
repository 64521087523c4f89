"""Dimension from curves of distances: correlation dimension, Isomap and LLE residuals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh

from foresight.metrics.estimate import Estimate
from foresight.metrics.noise import distinct_rows, noise_controls, too_few
from foresight.metrics.statistics import half_sample_error, interval
from foresight.metrics.threads import one_thread

MOST = 2000
"""Isomap is O(n² log n): beyond this many observations a random part is measured, and `detail` tells."""


def correlation_dimension(
    x: Any,
    *,
    k1: int = 10,
    k2: int = 20,
    groups: Sequence[Any] | np.ndarray | None = None,
    noise: bool = True,
    resamples: int = 40,
    seed: int = 0,
) -> Estimate:
    """Return the correlation dimension of `x` [sample feature]: the slope of log C(r) on log r.

    C(r) is the share of pairs closer than r; the slope is taken between the median distances to the k1-th
    and k2-th neighbour. Too low above about 5 dimensions (8 for 10, 13 for 20 at n = 2000): compare with
    `controls`, as in `mle_dimension`. Rows and groups as there. Grassberger & Procaccia (1983).
    """
    if not 1 <= k1 < k2:
        raise ValueError(f"the two neighbour counts rise and are 1 or more, but got k1={k1}, k2={k2}")
    return _of_distances(
        x,
        _slope,
        {"k1": k1, "k2": k2},
        k2,
        groups=groups,
        noise=noise,
        resamples=resamples,
        seed=seed,
        bounds=(0.0, math.inf),
        undefined="the neighbour distances do not grow, so no dimension can be read from them",
    )


def isomap_residual(
    x: Any,
    *,
    components: int = 2,
    most_components: int = 10,
    k: int = 10,
    groups: Sequence[Any] | np.ndarray | None = None,
    noise: bool = True,
    resamples: int = 20,
    seed: int = 0,
) -> Estimate:
    """Return the share of geodesic distance that `components` Isomap coordinates of `x` miss, in [0, 1].

    1 - r² between geodesic distances (shortest paths over the k nearest neighbours) and distances in the
    embedding. `detail['curve']` gives it for 1 … `most_components`; its elbow, where the curve stops falling,
    is the dimension: `detail['elbow']` is the point farthest below the line between its ends. Pieces of the
    graph are joined by their shortest links; `detail['pieces']` counts them. Above 2000 observations a random
    part is taken. Rows, groups and controls as in `mle_dimension`; low is good. Tenenbaum et al. (2000).
    """
    if not 1 <= components <= most_components:
        raise ValueError(f"components lie between 1 and {most_components}, but got {components}")
    space, n, dropped = distinct_rows(x, groups, seed=seed)
    if len(space) > MOST:
        space = space.rows(np.sort(np.random.default_rng([seed, 12]).permutation(len(space))[:MOST]))

    curve, pieces = np.full(most_components, math.nan), 0
    if not too_few(space) and k < len(space) - 1:
        with one_thread():
            curve, pieces = isomap_curve(space.distances(), k, most_components)
    return _of_distances(
        space,
        _missed_by_isomap,
        {"components": components, "k": k},
        k,
        groups=None,
        noise=noise,
        resamples=resamples,
        seed=seed,
        detail={"curve": curve.tolist(), "elbow": _elbow(curve), "pieces": pieces},
        bounds=(0.0, 1.0),
        undefined="all geodesic distances are equal, so there is nothing to embed",
        counted=(n, dropped),
        known=float(curve[components - 1]),
    )


def lle_residual(
    x: Any,
    *,
    k: int = 10,
    regularise: float = 1e-3,
    groups: Sequence[Any] | np.ndarray | None = None,
    noise: bool = True,
    resamples: int = 40,
    seed: int = 0,
) -> Estimate:
    """Return the share of the variance of `x` [sample feature] that neighbours cannot rebuild.

    Σ|x_i - Σ_j w_ij x_j|² / Σ|x_i - x̄|², with the best weights of sum 1 over the k nearest (the first step of
    locally linear embedding). Small where the data bend gently and k exceeds their dimension. LLE itself
    estimates no dimension. `regularise` times the trace steadies the weights. May pass 1 for pure noise in
    many dimensions; compare with `controls`. Rows and groups as in `mle_dimension`. Roweis & Saul (2000).
    """
    if k < 1:
        raise ValueError(f"samples are rebuilt from 1 neighbour or more, but got k={k}")
    return _of_distances(
        x,
        _missed_by_neighbours,
        {"k": k, "regularise": regularise},
        k,
        groups=groups,
        noise=noise,
        resamples=resamples,
        seed=seed,
        bounds=(0.0, math.inf),
        undefined="all samples are one point",
    )


def isomap_curve(
    distances: Float[np.ndarray, "sample sample"], k: int, most: int
) -> tuple[Float[np.ndarray, " component"], int]:
    """Return the residual for 1 … `most` components, and how many pieces the neighbour graph had."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components, minimum_spanning_tree, shortest_path

    n = len(distances)
    near = np.argpartition(distances + np.diag(np.full(n, np.inf)), k - 1, axis=1)[:, :k]
    rows = np.repeat(np.arange(n), k)
    linked = np.zeros((n, n), dtype=bool)
    linked[rows, near.ravel()] = linked[near.ravel(), rows] = True
    pieces, _ = connected_components(csr_array(linked), directed=False)
    if pieces > 1:
        tree = minimum_spanning_tree(distances).tocoo()  # holds the shortest links between the pieces
        linked[tree.row, tree.col] = linked[tree.col, tree.row] = True
    geodesic = shortest_path(csr_array(np.where(linked, distances, 0.0)), method="D", directed=False)
    squared = -0.5 * np.square(geodesic)
    means = squared.mean(axis=0)
    centred = squared - means[:, None] - means[None, :] + means.mean()
    values, vectors = eigh(centred, subset_by_index=[max(n - most, 0), n - 1])
    upper = np.triu_indices(n, 1)
    path, curve, gone = geodesic[upper], np.full(most, math.nan), np.zeros(len(upper[0]))
    for c in range(min(most, n - 1)):
        axis = vectors[:, -1 - c] * math.sqrt(max(float(values[-1 - c]), 0.0))
        gone += np.square(axis[upper[0]] - axis[upper[1]])
        embedded = np.sqrt(gone)
        if path.std() > 1e-9 * path.max() and embedded.std() > 0:
            curve[c] = 1.0 - np.corrcoef(path, embedded)[0, 1] ** 2
    return curve, int(pieces)


def _slope(distances: np.ndarray, *, k1: int, k2: int) -> float:
    near = np.partition(distances, (k1, k2), axis=1)  # column 0 is the sample itself
    r1, r2 = np.median(near[:, k1]), np.median(near[:, k2])
    n = len(distances)
    c1, c2 = ((distances < r).sum() - n for r in (r1, r2))
    return math.log(c2 / c1) / math.log(r2 / r1) if r2 > r1 > 0 and c2 > c1 > 0 else math.nan


def _missed_by_isomap(distances: np.ndarray, *, components: int, k: int) -> float:
    return float(isomap_curve(distances, k, components)[0][components - 1])


def _missed_by_neighbours(distances: np.ndarray, *, k: int, regularise: float) -> float:
    n, squared = len(distances), np.square(distances)
    near = np.argpartition(distances + np.diag(np.full(n, np.inf)), k - 1, axis=1)[:, :k]
    to = np.take_along_axis(squared, near, axis=1)
    # inner products of x_i - x_j from distances alone
    local = (to[:, :, None] + to[:, None, :] - squared[near[:, :, None], near[:, None, :]]) / 2
    trace = np.trace(local, axis1=1, axis2=2)
    steady = local + np.where(trace > 0, regularise * trace, 1.0)[:, None, None] * np.eye(k)
    weights = np.linalg.solve(steady, np.ones((n, k, 1)))[:, :, 0]
    weights /= weights.sum(axis=1, keepdims=True)
    missed = np.einsum("ij,ijk,ik->", weights, local, weights)
    total = squared.sum() / (2 * n)
    return float(missed / total) if total > 0 else math.nan


def _elbow(curve: np.ndarray) -> int | None:
    if not np.isfinite(curve).all() or len(curve) < 3:
        return None
    line = np.linspace(curve[0], curve[-1], len(curve))
    return int(np.argmax(line - curve)) + 1


def _of_distances(
    x: Any,
    statistic: Callable[..., float],
    settings: Mapping[str, Any],
    k: int,
    *,
    groups: Sequence[Any] | np.ndarray | None,
    noise: bool,
    resamples: int,
    seed: int,
    bounds: tuple[float, float],
    undefined: str,
    detail: Mapping[str, Any] | None = None,
    counted: tuple[int, int] | None = None,
    known: float | None = None,
) -> Estimate:
    space, n, dropped = distinct_rows(x, groups, seed=seed)
    if counted is not None:
        n, dropped = counted
    g = len(space)
    why = too_few(space)
    if not why and k >= g - 1:
        why = f"k = {k} neighbours need more than k + 1 different groups, but got {g}"
    if why:
        return Estimate.undefined(why, n=n, n_effective=g)
    distances = space.distances("euclidean")
    off = distances[~np.eye(g, dtype=bool)]
    if np.ptp(off) <= 1e-9 * off.max():
        why = "all distances are equal, so no sample has a nearest neighbour"
        return Estimate.undefined(why, n=n, n_effective=g)
    with one_thread():
        value = statistic(distances, **settings) if known is None else known
        if not math.isfinite(value):
            return Estimate.undefined(undefined, n=n, n_effective=g)
        controls = noise_controls(space, statistic, settings, seed=seed) if noise else {}
    error = half_sample_error(
        lambda s: statistic(distances[np.ix_(s, s)], **settings),
        g,
        resamples=resamples if k < g // 2 - 1 else 0,
        seed=seed,
    )
    low, high = interval(value, float(error), g, bounds=bounds)
    return Estimate(
        value=value,
        low=low,
        high=high,
        null=controls.get("isotropic noise", math.nan),
        n=n,
        n_effective=g,
        controls=controls,
        detail={**settings, **(detail or {}), "duplicates dropped": dropped},
        why="" if math.isfinite(low) else f"no interval: half of {g} groups is too few for k = {k}",
    )

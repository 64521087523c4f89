"""Intrinsic dimension, each estimate beside what it gives for noise of the same size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from foresight.metrics.estimate import Estimate
from foresight.metrics.neighbours import neighbour_order, within
from foresight.metrics.noise import distinct_rows, isotropic_noise, noise_controls, too_few
from foresight.metrics.statistics import half_sample_error, interval


def pca_dimension(
    x: Any,
    *,
    share: float = 0.95,
    groups: Sequence[Any] | np.ndarray | None = None,
    noise: bool = True,
    resamples: int = 40,
    seed: int = 0,
) -> Estimate:
    """Return how many principal components of `x` [sample feature] hold `share` of the variance.

    Features are centred and not standardised. At most n - 1 whatever the truth: compare with
    `controls['isotropic noise']`, the same for Gaussian noise of this n and width (also `null`).
    `noise=False` leaves that out. `detail['participation ratio']` is (Σλ)² / Σλ², and `detail['spectrum']` the
    first shares of variance.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of variance lies between 0 and 1, but got {share}")
    space, n, dropped = distinct_rows(x, groups, seed=seed)
    why = too_few(space)
    if why:
        return Estimate.undefined(why, n=n, n_effective=len(space))
    values = space.spectrum[0]
    gram = space.gram

    def half(s: np.ndarray) -> float:
        part = gram[np.ix_(s, s)]
        means = part.mean(axis=0)
        part = part - means[:, None] - means[None, :] + means.mean()
        return float(_components(np.linalg.eigvalsh(part)[::-1], share))

    value = float(_components(values, share))
    error = float(half_sample_error(half, len(space), resamples=resamples, seed=seed))
    low, high = interval(value, error, len(space), bounds=(1.0, min(space.width, len(space) - 1)))
    if math.isfinite(low):
        low, high = math.floor(low), math.ceil(high)  # a count of components; halves that agree hide one step
    control = math.nan
    if noise:
        control = float(_components(isotropic_noise(len(space), space.width).spectrum[0], share))
    return Estimate(
        value=value,
        low=low,
        high=high,
        null=control,
        n=n,
        n_effective=len(space),
        controls={"isotropic noise": control} if noise else {},
        detail={
            "share": share,
            "participation ratio": float(values.sum() ** 2 / np.square(values).sum()),
            "spectrum": (values[:50] / values.sum()).tolist(),
            "duplicates dropped": dropped,
        },
    )


def mle_dimension(
    x: Any,
    *,
    k: int = 20,
    groups: Sequence[Any] | np.ndarray | None = None,
    noise: bool = True,
    resamples: int = 40,
    seed: int = 0,
) -> Estimate:
    """Return the Levina–Bickel maximum-likelihood dimension of `x` [sample feature], from k neighbours.

    The mean over samples of [1/(k-1) Σ_j log(T_k / T_j)]⁻¹ with T_j the distance to the j-th neighbour; the
    inverse of the mean inverse (MacKay & Ghahramani 2005) is `detail['mackay']`. Equal rows are counted once
    and one sample, drawn by `seed`, stands for its group: near-duplicates pull the estimate towards 1.
    Saturates: 128 dimensions of noise at n = 1000 read 47, so compare with `controls['isotropic noise']`
    (also `null`) and `'matched gaussian'`, a Gaussian with the covariance of the data; `noise=False` leaves both
    out.

    Levina & Bickel (2004).
    """
    if k < 2:
        raise ValueError(f"the estimate compares at least 2 neighbours, but got k={k}")
    return _local(
        x,
        _levina_bickel,
        k,
        ("levina-bickel", "mackay"),
        groups=groups,
        noise=noise,
        resamples=resamples,
        seed=seed,
        settings={"k": k},
    )


def two_nn(
    x: Any,
    *,
    discard: float = 0.1,
    groups: Sequence[Any] | np.ndarray | None = None,
    noise: bool = True,
    resamples: int = 40,
    seed: int = 0,
) -> Estimate:
    """Return the TwoNN dimension of `x` [sample feature], from the ratio μ of the first two distances.

    The slope through 0 of -log(1 - F(μ)) on log μ, without the largest `discard` of μ;
    `detail['maximum likelihood']` is (n - 1) / Σ log μ. Rows, groups and controls as in `mle_dimension`.

    Facco, d'Errico, Rodriguez & Laio (2017), doi:10.1038/s41598-017-11873-y.
    """
    if not 0 <= discard < 1:
        raise ValueError(f"the discarded share lies in [0, 1), but got {discard}")
    return _local(
        x,
        _ratio_line,
        2,
        ("line", "maximum likelihood"),
        groups=groups,
        noise=noise,
        resamples=resamples,
        seed=seed,
        settings={"discard": discard},
    )


def _levina_bickel(nearest: np.ndarray, *, k: int) -> Float[np.ndarray, " 2"]:
    logs = np.log(nearest[:, k - 1 : k] / nearest[:, : k - 1]).mean(axis=1)
    logs = logs[logs > 0]
    return np.array([np.mean(1.0 / logs), 1.0 / np.mean(logs)]) if len(logs) else np.full(2, math.nan)


def _ratio_line(nearest: np.ndarray, *, discard: float) -> Float[np.ndarray, " 2"]:
    n = len(nearest)
    logs = np.sort(np.log(nearest[:, 1] / nearest[:, 0]))
    keep = min(int(n * (1.0 - discard)), n - 1)  # the last point has F = 1, an infinite ordinate
    empirical = -np.log1p(-np.arange(1, keep + 1) / n)
    squares, total = float(np.dot(logs[:keep], logs[:keep])), float(logs.sum())
    line = float(np.dot(logs[:keep], empirical)) / squares if squares > 0 else math.nan
    return np.array([line, (n - 1) / total if total > 0 else math.nan])


def _local(
    x: Any,
    from_sorted: Callable[..., np.ndarray],
    k: int,
    names: tuple[str, str],
    *,
    groups: Sequence[Any] | np.ndarray | None,
    noise: bool,
    resamples: int,
    seed: int,
    settings: Mapping[str, Any],
) -> Estimate:
    space, n, dropped = distinct_rows(x, groups, seed=seed)
    why = too_few(space)
    if not why and k >= len(space) - 1:
        why = f"k = {k} neighbours need more than k + 1 different groups, but got {len(space)}"
    if why:
        return Estimate.undefined(why, n=n, n_effective=len(space))
    distances = space.distances("euclidean")
    value, other = from_sorted(_nearest(distances, k), **settings)
    if not math.isfinite(value):
        why = "the neighbour distances do not grow, so no dimension can be read from them"
        return Estimate.undefined(why, n=n, n_effective=len(space))
    error = np.array(math.nan)
    if k < len(space) // 2 - 1 and resamples > 1:
        order = neighbour_order(space, "euclidean", seed=seed)

        def half(s: np.ndarray) -> float:
            return float(from_sorted(distances[s[:, None], s[within(order, s)[:, :k]]], **settings)[0])

        error = half_sample_error(half, len(space), resamples=resamples, seed=seed)
    low, high = interval(float(value), float(error), len(space), bounds=(0.0, math.inf))
    controls = {}
    if noise:
        asked = {"from_sorted": from_sorted, "neighbours": k, **settings}
        controls = noise_controls(space, _of_distances, asked, seed=seed)
    return Estimate(
        value=float(value),
        low=low,
        high=high,
        null=controls.get("isotropic noise", math.nan),
        n=n,
        n_effective=len(space),
        controls=controls,
        detail={"estimator": names[0], names[1]: float(other), "duplicates dropped": dropped, **settings},
        why=""
        if math.isfinite(low)
        else f"no interval: a half of {len(space)} groups is too few for k = {k}",
    )


def _of_distances(
    distances: np.ndarray, *, from_sorted: Callable[..., np.ndarray], neighbours: int, **settings: Any
) -> float:
    return float(from_sorted(_nearest(distances, neighbours), **settings)[0])


def _nearest(distances: Float[np.ndarray, "sample sample"], k: int) -> Float[np.ndarray, "sample k"]:
    """Return the distances to the k nearest others, rising; column 0 of those sorted is the sample itself."""
    return np.sort(np.partition(distances, k, axis=1)[:, : k + 1], axis=1)[:, 1:]


def _components(values: Float[np.ndarray, " component"], share: float) -> int:
    values = np.maximum(values, 0.0)
    return int(np.searchsorted(np.cumsum(values) / values.sum(), share - 1e-12) + 1)

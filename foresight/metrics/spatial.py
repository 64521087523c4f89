"""Where latents vary over their grid: Moran's I and the radial power spectrum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from foresight.metrics.estimate import Estimate
from foresight.metrics.space import as_matrix, group_codes
from foresight.metrics.statistics import calibrated, gathered, half_sample_error, interval, permutation_p

FEWEST_BINS_FOR_SLOPE = 8
"""An 8 x 8 grid has 4 frequencies above 0: no straight line can be claimed from them."""


def morans_i(
    maps: Any,
    *,
    contiguity: Literal["rook", "queen"] = "rook",
    groups: Sequence[Any] | np.ndarray | None = None,
    permutations: int = 999,
    resamples: int = 60,
    seed: int = 0,
) -> Estimate:
    """Return Moran's I of `maps` [sample row col] or [sample row col feature], averaged over maps.

    N/W Σ w_ij z_i z_j / Σ z_i², binary neighbours (rook: 4, queen: 8), no wrapping, weights not standardised
    by row. Chance is -1/(N - 1), a smooth map is near 1, a chequered one near -1. p moves the same cells of
    all maps together, so features and samples that look alike are not taken for independent. Constant maps
    have no I; they are left out and counted. Averaged over the samples of a group first; `detail['per
    feature']` has the mean of each feature. Moran (1950).
    """
    if contiguity not in ("rook", "queen"):
        raise ValueError(f"contiguity is 'rook' or 'queen', but got {contiguity!r}")
    values, n = _maps(maps)
    _, rows, cols, _ = values.shape
    codes = group_codes(groups, n)
    g = int(codes.max()) + 1
    if rows * cols < 4:
        why = f"Moran's I needs at least 4 cells, but got {rows} x {cols}"
        return Estimate.undefined(why, n=n, n_effective=g)
    z = values - values.mean(axis=(1, 2), keepdims=True)
    squares = np.square(z).sum(axis=(1, 2))
    good = squares > 1e-20 * np.square(values).sum(axis=(1, 2)).max(initial=1e-300)
    per_sample = good.any(axis=1)
    if len(np.unique(codes[per_sample])) == 0:
        return Estimate.undefined("every map is constant", n=n, n_effective=g)
    unit = np.where(good[:, None, None, :], z / np.sqrt(np.where(good, squares, 1.0))[:, None, None, :], 0.0)
    weights = _neighbours(rows, cols, contiguity)
    size = rows * cols / weights.sum()
    flat = unit.reshape(n, rows * cols, -1)
    each = size * np.einsum("nif,nif->nf", flat, (weights @ flat))
    sample = np.where(good, each, 0.0).sum(axis=1) / np.maximum(good.sum(axis=1), 1)
    group = _group_mean(sample, codes, per_sample)
    value = float(np.nanmean(group))
    # how alike two cells are over all maps, each group weighing the same: its inner product with w is I
    weight = (
        per_sample / np.maximum(np.bincount(codes, weights=per_sample)[codes], 1) / np.isfinite(group).sum()
    )
    scaled = flat * np.sqrt(weight / np.maximum(good.sum(axis=1), 1))[:, None, None]
    wide = scaled.transpose(1, 0, 2).reshape(rows * cols, -1)
    null = size * gathered(wide @ wide.T, weights, permutations=permutations, seed=seed)[:, 0]
    known = group[np.isfinite(group)]
    error = half_sample_error(lambda s: known[s].mean(), len(known), resamples=resamples, seed=seed)
    low, high = interval(value, float(error), len(known))
    chance = -1.0 / (rows * cols - 1)
    with np.errstate(invalid="ignore"):
        per_feature = np.where(good, each, 0.0).sum(axis=0) / np.where(
            good.any(axis=0), good.sum(axis=0), np.nan
        )
    return Estimate(
        value=value,
        low=low,
        high=high,
        null=float(null.mean()) if len(null) else math.nan,
        p=permutation_p(value, null),
        n=n,
        n_effective=len(known),
        controls={"chance": chance, "calibrated": calibrated(value, chance)},
        detail={
            "contiguity": contiguity,
            "grid": [rows, cols],
            "constant maps": int((~good).sum()),
            "per feature": per_feature.tolist(),
        },
        why="" if math.isfinite(low) else f"no interval from {len(known)} groups",
    )


def radial_power_spectrum(
    maps: Any,
    *,
    window: Literal["hann", "none"] = "hann",
    groups: Sequence[Any] | np.ndarray | None = None,
    resamples: int = 60,
    seed: int = 0,
) -> Estimate:
    """Return the spectral centroid of `maps` [sample row col] or [sample row col feature], up to 1 at Nyquist.

    Power is |FFT|²/N² of the map without its mean, averaged in rings of round(|k|), k in cycles per map up to
    half the shorter side; the centroid is Σ k P / Σ P over rings 1 …, divided by the last ring. Low means
    coarse. `null` is white noise under the same window; p is not defined. A window (Hann) keeps the edges of
    a map that does not repeat from looking like detail. `detail`: 'frequency' (cycles per map), 'power' with
    'power low' and 'power high' per ring (mean over maps, 95 %), 'per feature' [feature ring] shares,
    'centroid per feature', and 'slope' of log power on log frequency over 'slope rings', or None below 8
    rings. Constant maps carry no power and are left out and counted.
    """
    if window not in ("hann", "none"):
        raise ValueError(f"window is 'hann' or 'none', but got {window!r}")
    values, n = _maps(maps)
    _, rows, cols, _ = values.shape
    codes = group_codes(groups, n)
    g, last = int(codes.max()) + 1, min(rows, cols) // 2
    if last < 2:
        why = f"a spectrum needs at least 4 rows and columns, but got {rows} x {cols}"
        return Estimate.undefined(why, n=n, n_effective=g)
    power = radial_power(values, window=window)
    total = power.sum(axis=-1)
    good = total > 1e-20 * np.square(values).mean(axis=(1, 2)).max(initial=1e-300)
    if not good.any():
        return Estimate.undefined("every map is constant", n=n, n_effective=g)
    share = np.where(good[..., None], power / np.where(good, total, 1.0)[..., None], 0.0)
    counts = good.sum(axis=1)
    by_sample = share.sum(axis=1) / np.maximum(counts, 1)[:, None]
    by_group = np.stack([_group_mean(column, codes, counts > 0) for column in by_sample.T], axis=1)
    by_group = by_group[np.isfinite(by_group[:, 0])]
    rings = np.arange(1, last + 1)

    def centroid(part: np.ndarray) -> np.ndarray:
        return (part @ rings) / part.sum(axis=-1) / last

    mean = by_group.mean(axis=0)
    value = float(centroid(mean))
    error = half_sample_error(
        lambda s: np.append(by_group[s].mean(axis=0), centroid(by_group[s].mean(axis=0))),
        len(by_group),
        resamples=resamples,
        seed=seed,
    )
    errors = np.broadcast_to(error, len(rings) + 1)
    low, high = interval(value, float(errors[-1]), len(by_group), bounds=(0.0, 1.0))
    bands = [
        interval(float(m), float(e), len(by_group), bounds=(0.0, 1.0))
        for m, e in zip(mean, errors, strict=False)
    ]
    white = _white(rows, cols, window)
    used = good.sum(axis=0)
    per_feature = share.sum(axis=0) / np.where(used > 0, used, np.nan)[:, None]
    slope = float(np.polyfit(np.log(rings), np.log(mean), 1)[0]) if last >= FEWEST_BINS_FOR_SLOPE else None
    return Estimate(
        value=value,
        low=low,
        high=high,
        null=float(centroid(white)),
        n=n,
        n_effective=len(by_group),
        controls={"white noise": float(centroid(white))},
        detail={
            "window": window,
            "grid": [rows, cols],
            "frequency": rings.tolist(),
            "power": mean.tolist(),
            "power low": [b[0] for b in bands],
            "power high": [b[1] for b in bands],
            "white noise": (white / white.sum()).tolist(),
            "per feature": per_feature.tolist(),
            "centroid per feature": centroid(per_feature).tolist(),
            "slope": slope,
            "slope rings": [1, last] if slope is not None else None,
            "constant maps": int((~good).sum()),
        },
        why="" if math.isfinite(low) else f"no interval from {len(by_group)} groups",
    )


def radial_power(
    maps: Float[np.ndarray, "sample row col feature"], *, window: str = "hann"
) -> Float[np.ndarray, "sample feature ring"]:
    """Return mean |FFT|²/N² in rings round(|k|) = 1 … half the shorter side, of maps without their mean."""
    _, rows, cols, _ = maps.shape
    taper = np.ones((rows, cols))
    if window == "hann":
        taper = np.outer(*(np.sin(np.pi * (np.arange(m) + 0.5) / m) ** 2 for m in (rows, cols)))
    mean = np.einsum("nrcf,rc->nf", maps, taper) / taper.sum()  # so that the window lets no mean through
    spectrum = np.fft.fft2((maps - mean[:, None, None, :]) * taper[None, :, :, None], axes=(1, 2))
    power = np.square(np.abs(spectrum)) / (rows * cols) ** 2
    ring = np.round(
        np.hypot(*np.meshgrid(np.fft.fftfreq(rows) * rows, np.fft.fftfreq(cols) * cols, indexing="ij"))
    )
    return np.stack([power[:, ring == r].mean(axis=1) for r in range(1, min(rows, cols) // 2 + 1)], axis=-1)


def _white(rows: int, cols: int, window: str) -> Float[np.ndarray, " ring"]:
    noise = np.random.default_rng([rows, cols]).standard_normal((4000, rows, cols, 1))
    return radial_power(noise, window=window).mean(axis=(0, 1))


def _neighbours(rows: int, cols: int, contiguity: str) -> Float[np.ndarray, "cell cell"]:
    r, c = (a.ravel() for a in np.meshgrid(np.arange(rows), np.arange(cols), indexing="ij"))
    down, right = np.abs(r[:, None] - r[None, :]), np.abs(c[:, None] - c[None, :])
    near = (down + right == 1) if contiguity == "rook" else (np.maximum(down, right) == 1)
    return near.astype(np.float64)


def _maps(maps: Any) -> tuple[Float[np.ndarray, "sample row col feature"], int]:
    array = np.asarray(maps)
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise ValueError(
            "maps are [sample row col] or [sample row col feature] and not empty, "
            f"but got shape {list(array.shape)}; put time into samples first"
        )
    flat = as_matrix(array.reshape(len(array), -1)).astype(np.float64)
    shape = array.shape if array.ndim == 4 else (*array.shape, 1)
    return flat.reshape(shape), len(array)


def _group_mean(values: np.ndarray, codes: np.ndarray, known: np.ndarray) -> Float[np.ndarray, " group"]:
    """Return the mean of the known values of each group; nan for a group without any."""
    sums = np.bincount(codes, weights=np.where(known, values, 0.0))
    counts = np.bincount(codes, weights=known.astype(np.float64))
    return np.where(counts > 0, sums / np.maximum(counts, 1.0), math.nan)

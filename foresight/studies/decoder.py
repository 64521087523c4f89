"""Q1.2: what the decoder's latent is like: its channels, how they vary over the picture, and how finely."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from foresight import metrics
from foresight.metrics import Estimate
from foresight.metrics.statistics import half_sample_error, interval
from foresight.studies.rows import Latent, Measurement, Spaces, row_of, undefined, unlabelled

MOST_VALUES = 1 << 25
"""Numbers of a latent that are looked at (256 MiB in float64); beyond, a random part of the groups."""
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BANDS = ("coarse", "middle", "fine")
PERMUTATIONS = 199

Maps = Float[np.ndarray, "map row col channel"]


def decoder_latent(spaces: Spaces) -> list[Measurement]:
    """Q1.2: variance and shape of every channel, spatial correlation, and power by frequency; the same for
    the random copy of the decoder. Its classes are Q1.1's business."""
    rows = []
    for latent in (spaces.decoder, *([spaces.decoder_copy] if spaces.decoder_copy else [])):
        names = ("effective channels", "channel excess kurtosis", "class share of channel variance")
        spatial = ("Moran's I", "spectral centroid")
        if latent.cells is None:
            why = "the decoder's tokens fill no regular grid, so channels have no maps"
            rows += [row_of("Q1.2", n, latent, undefined(why, latent.space)) for n in (*names, *spatial)]
            continue
        maps, groups, samples = part(latent, seed=spaces.seed)
        found = [
            effective_channels(maps, groups, samples=samples, seed=spaces.seed),
            excess_kurtosis(maps, groups, samples=samples, seed=spaces.seed),
            class_share(latent, spaces.labels, seed=spaces.seed),
            _morans_i(maps, groups, samples=samples, seed=spaces.seed),
            _centroid(maps, groups, samples=samples, seed=spaces.seed),
        ]
        rows += [row_of("Q1.2", n, latent, e) for n, e in zip((*names, *spatial), found, strict=True)]
    return rows


def part(latent: Latent, *, seed: int) -> tuple[Maps, Int[np.ndarray, " map"], int]:
    """Return maps, the group of each, and how many samples they are from: all, or a random part of the
    groups that keeps memory bounded. Every time step is a map."""
    maps, groups = latent.maps(), latent.space.groups
    if maps.size > MOST_VALUES:
        order = np.random.default_rng([seed, 20]).permutation(latent.space.n_groups)
        sizes = np.cumsum(np.bincount(groups)[order]) * (maps.size // len(maps))
        kept = np.isin(groups, order[: max(1, int(np.searchsorted(sizes, MOST_VALUES)))])
        maps, groups = maps[kept], groups[kept]
    steps = maps.shape[1]
    return maps.reshape(-1, *maps.shape[2:]), np.repeat(groups, steps), len(maps)


def effective_channels(
    maps: Maps, groups: np.ndarray, *, samples: int, seed: int = 0, resamples: int = 60
) -> Estimate:
    """Return how many channels share the variance evenly: (Σv)²/Σv² over the channels' variances.

    From 1, one channel holds all, to the number of channels, which is also `null`: noise of one size in every
    channel. Variance is over samples and places. `detail` holds per channel its share of variance, mean,
    standard deviation, excess kurtosis and quantiles.
    """
    sums = _moments(maps, groups)
    value = float(_effective(sums.sum(axis=0)))
    if not np.isfinite(value):
        return Estimate.undefined("every channel is constant", n=samples, n_effective=len(sums))
    error = half_sample_error(
        lambda s: _effective(sums[s].sum(axis=0)), len(sums), resamples=resamples, seed=seed
    )
    channels = maps.shape[-1]
    low, high = interval(value, float(error), len(sums), bounds=(1.0, float(channels)))
    variance, mean = _variance(sums.sum(axis=0))
    flat = maps.reshape(-1, channels)
    return Estimate(
        value=value,
        low=low,
        high=high,
        null=float(channels),
        n=samples,
        n_effective=len(sums),
        controls={"channels": float(channels)},
        detail={
            "variance share": (variance / variance.sum()).tolist(),
            "mean": mean.tolist(),
            "deviation": np.sqrt(variance).tolist(),
            "quantile levels": list(QUANTILES),
            "quantiles": np.quantile(flat, QUANTILES, axis=0).T.tolist(),
            "constant channels": int((variance <= 1e-12 * variance.max()).sum()),
        },
        why="" if np.isfinite(low) else f"no interval from {len(sums)} groups",
    )


def excess_kurtosis(
    maps: Maps, groups: np.ndarray, *, samples: int, seed: int = 0, resamples: int = 60
) -> Estimate:
    """Return the mean over channels of E(x-μ)⁴/σ⁴ - 3: 0 for Gaussian activations (`null`), more for rare
    large ones. Constant channels have none and are left out. `detail['per channel']` has each."""
    sums = _moments(maps, groups)

    def kurtosis(total: np.ndarray) -> np.ndarray:
        count, one, two, three, four = total
        mean = one / count
        centred = four - 4 * mean * three + 6 * mean**2 * two - 3 * count * mean**4
        variance = two / count - mean**2
        good = variance > 1e-12 * max(float(variance.max()), 1e-300)
        return np.where(good, centred / count / np.where(good, variance, 1.0) ** 2 - 3.0, np.nan)

    each = kurtosis(sums.sum(axis=0))
    if not np.isfinite(each).any():
        return Estimate.undefined("every channel is constant", n=samples, n_effective=len(sums))
    value = float(np.nanmean(each))
    error = half_sample_error(
        lambda s: np.nanmean(kurtosis(sums[s].sum(axis=0))), len(sums), resamples=resamples, seed=seed
    )
    low, high = interval(value, float(error), len(sums), bounds=(-2.0, np.inf))
    return Estimate(
        value=value,
        low=low,
        high=high,
        null=0.0,
        n=samples,
        n_effective=len(sums),
        detail={"per channel": each.tolist()},
        why="" if np.isfinite(low) else f"no interval from {len(sums)} groups",
    )


def class_share(latent: Latent, labels: Any, *, seed: int = 0) -> Estimate:
    """Return the share of variance between classes of the channels' means over the picture, averaged over
    channels, beside what permuted labels give: do channels, taken one by one, tell classes apart?

    `detail['per channel']` has each channel's share, `detail['above chance']` how many lie above the largest
    of 95 % of the permutations, which corrects for looking at all of them.
    """
    n, g = len(latent.space), latent.space.n_groups
    if why := unlabelled(labels):
        return Estimate.undefined(why, n=n, n_effective=g)
    means = latent.maps().mean(axis=(1, 2, 3), dtype=np.float64)
    groups = latent.space.groups
    counts = np.bincount(groups)
    rows = np.stack([np.bincount(groups, weights=c) for c in means.T], axis=1) / counts[:, None]
    first = np.array([int(np.argmax(groups == i)) for i in range(g)])
    named = [labels[i] for i in first]
    codes = np.unique(np.array(named, dtype=object).astype(str), return_inverse=True)[1]
    classes = int(codes.max()) + 1
    if classes == g or g < 8:
        why = f"{classes} classes in {g} groups leave no class with two members to compare"
        return Estimate.undefined(why, n=n, n_effective=g)
    centred = rows - rows.mean(axis=0)
    total = np.square(centred).sum(axis=0)
    good = total > 1e-12 * max(float(total.max()), 1e-300)
    if not good.any():
        return Estimate.undefined("every channel has the same mean in all samples", n=n, n_effective=g)
    centred, total = centred[:, good], total[good]

    def shares(codes: np.ndarray, x: np.ndarray) -> np.ndarray:
        hot = np.eye(classes)[codes]
        sizes = np.maximum(hot.sum(axis=0), 1)[:, None]
        away = x - x.mean(axis=0)
        return (np.square(hot.T @ away) / sizes).sum(axis=0) / np.maximum(np.square(away).sum(axis=0), 1e-300)

    each = shares(codes, centred)
    rng = np.random.default_rng([seed, 21])
    null = np.array([shares(codes[rng.permutation(g)], centred) for _ in range(PERMUTATIONS)])
    value, draws = float(each.mean()), null.mean(axis=1)
    error = half_sample_error(lambda s: shares(codes[s], centred[s]).mean(), g, resamples=60, seed=seed)
    low, high = interval(value, float(error), g, bounds=(0.0, 1.0))
    per_channel = np.full(len(good), np.nan)
    per_channel[good] = each
    return Estimate(
        value=value,
        low=low,
        high=high,
        null=float(draws.mean()),
        p=metrics.statistics.permutation_p(value, draws),
        n=n,
        n_effective=g,
        controls={"calibrated": metrics.statistics.calibrated(value, float(draws.mean()))},
        detail={
            "per channel": per_channel.tolist(),
            "above chance": int((each > np.quantile(null.max(axis=1), 0.95)).sum()),
        },
    )


def autocorrelation(maps: Maps, *, reach: int | None = None) -> Float[np.ndarray, "dy dx"]:
    """Return the correlation of cells that lie (dy, dx) apart, dy from 0 and dx from -reach to reach.

    Mean over maps and channels of the mean product of overlapping cells over the variance of the map; 1 at
    (0, 0). `reach` is half the shorter side unless given. nan when every map is constant.
    """
    _, rows, cols, _ = maps.shape
    reach = min(rows, cols) // 2 if reach is None else reach
    z = maps - maps.mean(axis=(1, 2), keepdims=True)
    scale = np.square(z).mean(axis=(1, 2), keepdims=True)
    good = scale > 1e-20 * max(float(np.square(maps).max()), 1e-300)
    z = np.where(good, z / np.sqrt(np.where(good, scale, 1.0)), 0.0)
    used = max(int(good.sum()), 1)
    out = np.full((reach + 1, 2 * reach + 1), np.nan)
    if not good.any():
        return out
    for dy in range(reach + 1):
        for dx in range(-reach, reach + 1):
            here = z[:, : rows - dy, max(0, -dx) : cols - max(0, dx)]
            there = z[:, dy:, max(0, dx) : cols - max(0, -dx)]
            out[dy, dx + reach] = np.einsum("nrcf,nrcf->", here, there) / here[0, :, :, 0].size / used
    return out


def bands(centroids: Any) -> list[str]:
    """Return 'coarse', 'middle' or 'fine' for every channel: thirds by its spectral centroid, the lowest first."""
    order = np.argsort(np.argsort(np.nan_to_num(np.asarray(centroids, float), nan=np.inf), kind="stable"))
    return [BANDS[int(3 * i // max(len(order), 1))] for i in order]


def _morans_i(maps: Maps, groups: np.ndarray, *, samples: int, seed: int) -> Estimate:
    found = metrics.morans_i(maps, groups=groups, permutations=PERMUTATIONS, seed=seed)
    return _told(found, samples, autocorrelation=autocorrelation(maps).tolist())


def _centroid(maps: Maps, groups: np.ndarray, *, samples: int, seed: int) -> Estimate:
    found = metrics.radial_power_spectrum(maps, groups=groups, seed=seed)
    each = found.detail.get("centroid per feature")
    return _told(found, samples, **({"bands": bands(each)} if each else {}))


def _told(found: Estimate, samples: int, **detail: Any) -> Estimate:
    return replace(found, n=samples, detail={**found.detail, **detail})


def _moments(maps: Maps, groups: np.ndarray) -> Float[np.ndarray, "group 5 channel"]:
    """Return count and sums of the first four powers of each channel, by group."""
    codes = np.unique(groups, return_inverse=True)[1]
    flat = maps.astype(np.float64)
    flat = flat - flat.mean(axis=(0, 1, 2))  # powers of centred values keep their digits
    powers = [np.full((len(maps), maps.shape[-1]), float(maps.shape[1] * maps.shape[2]))]
    product = np.ones_like(flat)
    for _ in range(4):
        product *= flat
        powers.append(product.sum(axis=(1, 2)))
    each = np.stack(powers, axis=1)
    out = np.zeros((int(codes.max()) + 1, 5, maps.shape[-1]))
    np.add.at(out, codes, each)
    return out


def _variance(total: Float[np.ndarray, "5 channel"]) -> tuple[np.ndarray, np.ndarray]:
    mean = total[1] / total[0]
    return np.maximum(total[2] / total[0] - mean**2, 0.0), mean


def _effective(total: Float[np.ndarray, "5 channel"]) -> float:
    variance, _ = _variance(total)
    squares = float(np.square(variance).sum())
    return float(variance.sum() ** 2 / squares) if squares > 0 else float("nan")

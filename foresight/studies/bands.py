"""Bands of decoder channels: which hold the coarse of a picture and which the fine."""

from __future__ import annotations

import numpy as np

from foresight.metrics import Space
from foresight.metrics.spatial import radial_power
from foresight.studies.decoder import part
from foresight.studies.rows import Latent

MOST_BANDS = 8


def channel_bands(decoder: Latent, *, most: int = MOST_BANDS, seed: int) -> dict[str, Space]:
    """Return at most `most` groups of channels, each a space, from the coarsest by spectral centroid.

    Where the latent has too few cells for a spectrum, or fills no grid, channels are grouped in their own order
    and named by their numbers. {} when there are fewer than two channels.
    """
    values = decoder.space.values
    cells = 1 if decoder.cells is None else int(np.prod(decoder.cells))
    channels = values.shape[1] // cells
    count = min(most, channels)
    if count < 2:
        return {}
    centroids = _centroids(decoder, seed=seed)
    order = np.arange(channels) if centroids is None else np.argsort(centroids, kind="stable")
    shaped = values.reshape(len(values), cells, channels)
    bands = {}
    for i, members in enumerate(np.array_split(order, count)):
        chosen = np.sort(members)
        place = "" if 0 < i < count - 1 else " (coarsest)" if i == 0 else " (finest)"
        name = f"band {i + 1}{place}" if centroids is not None else f"channels {chosen[0]} to {chosen[-1]}"
        space = Space(shaped[:, :, chosen].reshape(len(values), -1), groups=decoder.space.groups)
        bands[name] = space
    return bands


def _centroids(decoder: Latent, *, seed: int) -> np.ndarray | None:
    if decoder.cells is None or min(decoder.cells[1:]) < 4:
        return None
    maps, _, _ = part(decoder, seed=seed)
    power = radial_power(maps.astype(np.float64), window="hann").sum(axis=0)
    rings = np.arange(1, power.shape[-1] + 1)
    total = power.sum(axis=-1)
    # a constant channel has no spectrum; it counts as the coarsest
    found: np.ndarray = np.where(total > 0, power @ rings / np.where(total > 0, total, 1.0), 0.0)
    return found

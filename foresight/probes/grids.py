"""TokenGrids: the tokens of all samples at one point on their true grid, brought to one width; and its controls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, UInt8

WIDTH = 64
"""Features a probe reads of every token, whatever the model's width: so every point gets the same capacity."""
FIT_TOKENS = 20_000
"""Tokens of training samples the axes are fitted on, at most."""
EXACT_WIDTH = 1024
"""Up to this width the principal axes are exact; beyond it they are found by a seeded randomised method."""


@dataclass(frozen=True, kw_only=True)
class TokenGrids:
    """Tokens with their places. Row r, column c of `values` is the token whose cell has its centre there."""

    values: Float[np.ndarray, "sample time row col feature"]
    rows: Float[np.ndarray, " row"]
    """Centres of the cells as a share of the frame's height, rising, in (0, 1)."""
    cols: Float[np.ndarray, " col"]
    times_s: Float[np.ndarray, " time"]
    kept: float = 1.0
    """Share of the standardised features' variance that the kept axes hold."""

    def __post_init__(self) -> None:
        if self.values.ndim != 5 or self.values.shape[1:4] != (
            len(self.times_s), len(self.rows), len(self.cols),
        ):  # fmt: skip
            raise ValueError(
                f"token grids are [sample time row col feature] with one place per row, column and time, but got "
                f"shape {list(self.values.shape)} for {len(self.times_s)} times, {len(self.rows)} rows and "
                f"{len(self.cols)} columns"
            )
        for name in ("rows", "cols"):
            centres = getattr(self, name)
            if not (np.all(np.diff(centres) > 0) and centres[0] > 0 and centres[-1] < 1):
                raise ValueError(
                    f"the {name} of a grid rise from top or left inside (0, 1), but got "
                    f"{np.asarray(centres).tolist()}; put the tokens in raster order first"
                )

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(time, row, col) counts."""
        return self.values.shape[1], self.values.shape[2], self.values.shape[3]

    def take(self, indices: np.ndarray) -> TokenGrids:
        """Return the grids of these samples, in this order."""
        return replace(self, values=self.values[indices])

    def at(self, step: int) -> TokenGrids:
        """Return one time step alone."""
        return replace(self, values=self.values[:, step : step + 1], times_s=self.times_s[step : step + 1])

    def narrowed(self, width: int) -> TokenGrids:
        """Return the first `width` axes, which hold the most variance."""
        return replace(self, values=self.values[..., :width])


def mean_pooled(grids: TokenGrids) -> TokenGrids:
    """Return grids whose every token is its sample's mean: what is where is gone, what there is stays."""
    mean = grids.values.astype(np.float32).mean(axis=(1, 2, 3), keepdims=True)
    return replace(grids, values=np.broadcast_to(mean, grids.values.shape))


def shuffled(grids: TokenGrids, *, seed: int) -> TokenGrids:
    """Return grids whose tokens changed places at random, another way in every sample, over space and time."""
    rng = np.random.default_rng([seed, 11])
    n, *cells, features = grids.values.shape
    flat = grids.values.reshape(n, -1, features)
    order = rng.permuted(np.tile(np.arange(flat.shape[1]), (n, 1)), axis=1)
    moved = np.take_along_axis(flat, order[..., None], axis=1)
    return replace(grids, values=moved.reshape(n, *cells, features))


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Standardisation and principal axes of tokens: what brings every point to `WIDTH` features."""

    mean: Float[np.ndarray, " feature"]
    map: Float[np.ndarray, "feature width"]
    """Standardises, projects and scales every axis to unit variance; columns of zeros where axes are missing."""
    kept: float

    def __call__(self, values: np.ndarray) -> Float[np.ndarray, "... width"]:
        """Return tokens [… feature] as float16 [… width], cut at 30 standard deviations."""
        flat = np.asarray(values, np.float32) - self.mean
        return np.clip(flat @ self.map, -30, 30).astype(np.float16)


def fit_axes(tokens: Float[np.ndarray, "token feature"], *, width: int = WIDTH, seed: int = 0) -> Axes:
    """Return the `width` axes with the most variance of standardised `tokens`, of training samples only.

    Features are standardised first: a few features a thousand times larger than the rest would else be all the
    axes there are. A token has unit variance on every axis, so one training budget suits every point. Fewer
    features than `width` are padded with zeros. `ValueError` when the tokens are not finite or all alike.
    """
    from sklearn.decomposition import PCA

    values = np.asarray(tokens, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("tokens to probe are finite, but got nan or inf; look at the rows they came from")
    mean, spread = values.mean(axis=0), values.std(axis=0)
    if not (spread > 0).any():
        raise ValueError(f"tokens to probe differ from each other, but all {len(values)} are one vector")
    scale = np.where(spread > 1e-6 * spread.max(), 1.0 / np.where(spread > 0, spread, 1.0), 0.0)
    standard = (values - mean) * scale
    count = min(width, values.shape[1], len(values))
    exact = values.shape[1] <= EXACT_WIDTH
    found = PCA(
        count, svd_solver="covariance_eigh" if exact else "randomized", random_state=seed % 2**32
    ).fit(standard)
    deviation = np.sqrt(np.maximum(found.explained_variance_, 0.0))
    good = deviation > 1e-4 * deviation.max()
    projected = scale[:, None] * found.components_.T * np.where(good, 1.0 / np.where(good, deviation, 1.0), 0)
    padded = np.zeros((values.shape[1], width), np.float32)
    padded[:, :count] = projected
    return Axes(mean=mean, map=padded, kept=float(found.explained_variance_ratio_.sum()))


def reduced(
    blocks: Iterable[np.ndarray], axes: Axes, *, rows: np.ndarray, cols: np.ndarray, times_s: np.ndarray
) -> TokenGrids:
    """Return all samples' tokens on `axes`, from blocks [sample time row col feature] read one after the other."""
    values = np.concatenate([axes(block) for block in blocks])
    return TokenGrids(values=values, rows=rows, cols=cols, times_s=times_s, kept=axes.kept)


def patches(
    pixels: UInt8[np.ndarray, "sample time row col 3"], counts: tuple[int, int, int]
) -> Float[np.ndarray, "sample time row col feature"]:
    """Return the pixels of every cell of a (time, row, col) grid, in [0, 1]: what a model without layers knows.

    A time step shows the frame in its middle. Frames whose sides the grid does not divide are resampled to the
    nearest that it does.
    """
    n, frames, height, width, _ = pixels.shape
    steps, rows, cols = counts
    side = max(1, round(height / rows)), max(1, round(width / cols))
    shown = pixels[:, ((np.arange(steps) + 0.5) * frames / steps).astype(int)]
    if (rows * side[0], cols * side[1]) != (height, width):
        down = ((np.arange(rows * side[0]) + 0.5) * height / (rows * side[0])).astype(int)
        across = ((np.arange(cols * side[1]) + 0.5) * width / (cols * side[1])).astype(int)
        shown = shown[:, :, down][:, :, :, across]
    cut = shown.reshape(n, steps, rows, side[0], cols, side[1], 3).transpose(0, 1, 2, 4, 3, 5, 6)
    return cut.reshape(n, steps, rows, cols, -1).astype(np.float32) / 255.0

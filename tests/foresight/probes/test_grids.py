"""Token grids, their controls and the axes that give every point one width."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from foresight.probes import TokenGrids, fit_axes, mean_pooled, patches, shuffled


def made(n: int = 5, cells: int = 4, features: int = 3) -> TokenGrids:
    centres = (np.arange(cells) + 0.5) / cells
    values = np.random.default_rng(0).standard_normal((n, 1, cells, cells, features)).astype(np.float32)
    return TokenGrids(values=values, rows=centres, cols=centres, times_s=np.zeros(1))


def test_shuffling_moves_tokens_within_their_sample_and_changes_none() -> None:
    grids = made()
    moved = shuffled(grids, seed=1)
    before, after = grids.values.reshape(5, -1, 3), moved.values.reshape(5, -1, 3)
    assert not np.array_equal(before, after)
    for a, b in zip(before, after, strict=True):
        assert np.array_equal(np.sort(a, axis=0), np.sort(b, axis=0))
    orders = [[int(np.argmin(np.abs(a - t).sum(1))) for t in b] for a, b in zip(before, after, strict=True)]
    assert orders[0] != orders[1]
    assert np.array_equal(shuffled(grids, seed=1).values, moved.values)


def test_pooling_leaves_one_vector_in_every_cell() -> None:
    grids = made()
    pooled = mean_pooled(grids)
    assert pooled.shape == grids.shape
    assert np.allclose(pooled.values[:, 0, 0, 0], grids.values.mean(axis=(1, 2, 3)), atol=1e-6)
    assert (pooled.values == pooled.values[:, :1, :1, :1]).all()


def test_axes_bring_any_width_to_one_and_do_not_follow_the_loudest_feature() -> None:
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((400, 1))
    tokens = np.concatenate(
        [signal + 0.1 * rng.standard_normal((400, 5)), 1e4 * rng.standard_normal((400, 1))], 1
    )
    narrow = fit_axes(tokens, width=1)
    assert abs(np.corrcoef(narrow(tokens)[:, 0].astype(float), signal[:, 0])[0, 1]) > 0.95
    wide = fit_axes(tokens, width=12)
    assert wide(tokens).shape == (400, 12)
    assert (wide(tokens)[:, 6:] == 0).all()
    assert wide.kept == pytest.approx(1.0, abs=1e-5)
    assert wide(tokens)[:, 0].astype(float).std() == pytest.approx(1.0, abs=0.05)


def test_tokens_that_cannot_be_probed_are_refused() -> None:
    with pytest.raises(ValueError, match="all 10 are one vector"):
        fit_axes(np.ones((10, 4)))
    with pytest.raises(ValueError, match="nan or inf"):
        fit_axes(np.array([[1.0, np.nan], [2.0, 3.0]]))
    with pytest.raises(ValueError, match="put the tokens in raster order"):
        dataclasses.replace(made(), rows=np.array([0.6, 0.1, 0.7, 0.9]))
    with pytest.raises(ValueError, match="one place per row, column and time"):
        dataclasses.replace(made(), cols=np.array([0.5]))


def test_patches_hold_the_pixels_of_their_cell() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 8, 12, 3), dtype=np.uint8)
    cut = patches(pixels, (2, 4, 3))
    assert cut.shape == (2, 2, 4, 3, 2 * 4 * 3)
    assert np.allclose(cut[1, 0, 3, 2] * 255, pixels[1, 1, 6:8, 8:12].reshape(-1))
    assert np.allclose(cut[0, 1, 0, 0] * 255, pixels[0, 3, 0:2, 0:4].reshape(-1))


def test_patches_of_a_grid_that_does_not_divide_the_frame_still_stand_where_they_are() -> None:
    pixels = np.zeros((1, 1, 10, 10, 3), np.uint8)
    pixels[0, 0, 7:, :3] = 255
    cut = patches(pixels, (1, 3, 3)).mean(axis=-1)[0, 0]
    assert cut[2, 0] > 0.8
    assert cut[0].max() == 0
    assert cut[:, 2].max() == 0

"""Correlation dimension, Isomap and LLE residuals: planted shapes, scikit-dimension and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.metrics import correlation_dimension, isomap_residual, lle_residual
from foresight.metrics.curves import isomap_curve
from foresight.metrics.space import Space
from tests.foresight.metrics.planted import rotation

MEASURES = [correlation_dimension, isomap_residual, lle_residual]


def roll(n: int, *, seed: int = 0) -> np.ndarray:
    """Return a rolled-up sheet: two dimensions bent through three."""
    rng = np.random.default_rng(seed)
    turn, across = 1.5 * np.pi * (1 + 2 * rng.random(n)), 21 * rng.random(n)
    return np.stack([turn * np.cos(turn), across, turn * np.sin(turn)], axis=1)


def test_correlation_dimension_is_scikit_dimensions() -> None:
    import skdim

    x = np.random.default_rng(0).standard_normal((300, 4))
    assert correlation_dimension(x).value == pytest.approx(skdim.id.CorrInt().fit(x).dimension_, rel=1e-6)


def test_correlation_dimension_of_a_flat_sheet_is_two() -> None:
    sheet = np.pad(np.random.default_rng(0).random((600, 2)), ((0, 0), (0, 20))) @ rotation(22)
    got = correlation_dimension(sheet)
    assert got.value == pytest.approx(2.0, abs=0.25)
    assert got.low < got.value < got.high
    assert got.null > 6


def test_isomap_finds_that_a_rolled_sheet_is_two_dimensional_and_pca_does_not() -> None:
    x = roll(400)
    got = isomap_residual(x, components=2, most_components=5, k=6)
    assert got.value < 0.01
    assert got.detail["curve"][0] > 4 * got.value
    # ten neighbours jump between the layers of 400 points, and the residual says so
    assert isomap_residual(x, components=2, k=10).value > 0.05
    assert got.detail["elbow"] == 2
    assert got.low <= got.value <= got.high
    values = Space(x).spectrum[0]
    assert values[:2].sum() / values.sum() < 0.85


def test_isomap_residuals_agree_with_scikit_learn() -> None:
    from sklearn.manifold import Isomap

    x = roll(200, seed=2)
    model = Isomap(n_neighbors=10, n_components=2).fit(x)
    upper = np.triu_indices(200, 1)
    embedded = Space(model.embedding_).distances()[upper]
    want = 1 - np.corrcoef(model.dist_matrix_[upper], embedded)[0, 1] ** 2
    curve, pieces = isomap_curve(Space(x).distances(), 10, 2)
    assert pieces == 1
    assert curve[1] == pytest.approx(want, abs=1e-8)


def test_separate_clusters_are_joined_and_counted() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 3)) + 100 * np.repeat(np.eye(3), 30, axis=0)
    got = isomap_residual(x, k=5)
    assert got.detail["pieces"] == 3
    assert np.isfinite(got.value)


def test_lle_weights_are_scikit_learns_and_a_flat_sheet_is_rebuilt() -> None:
    from sklearn.manifold._locally_linear import barycenter_kneighbors_graph

    x = np.random.default_rng(0).standard_normal((150, 6))
    weights = barycenter_kneighbors_graph(x, 10, reg=1e-3)
    missed = np.square(x - weights @ x).sum() / np.square(x - x.mean(0)).sum()
    assert lle_residual(x).value == pytest.approx(missed, rel=1e-6)
    sheet = np.pad(np.random.default_rng(0).random((150, 2)), ((0, 0), (0, 20)))
    assert lle_residual(sheet).value < 0.01
    assert lle_residual(sheet).null > 0.3


@pytest.mark.parametrize("measure", MEASURES)
def test_rotation_scale_and_exact_copies_do_not_matter(measure) -> None:  # type: ignore[no-untyped-def]
    x = roll(120)
    want = measure(x, resamples=0)
    moved = measure(0.01 * np.vstack([x, x[:40]]) @ rotation(3) + 3.0, resamples=0)
    assert moved.value == pytest.approx(want.value, rel=1e-6, abs=1e-9)
    assert (moved.n, moved.n_effective) == (160, 120)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_group_is_one_observation(measure) -> None:  # type: ignore[no-untyped-def]
    x = np.repeat(roll(60), 4, axis=0) + 1e-3 * np.random.default_rng(0).standard_normal((240, 3))
    got = measure(x, groups=np.repeat(np.arange(60), 4), resamples=4)
    assert got.value == pytest.approx(measure(roll(60), resamples=0).value, rel=0.05, abs=0.01)
    assert (got.n, got.n_effective) == (240, 60)


@pytest.mark.parametrize("measure", MEASURES)
def test_constant_small_or_featureless_data_are_undefined(measure) -> None:  # type: ignore[no-untyped-def]
    assert "but got 1" in measure(np.ones((30, 3))).why
    assert "neighbours need more than k + 1" in measure(roll(11)).why
    few = measure(roll(25), resamples=4)
    assert np.isfinite(few.value)
    assert "all distances are equal" in measure(np.eye(40)).why


def test_settings_without_meaning_are_refused() -> None:
    with pytest.raises(ValueError, match="k1=20, k2=10"):
        correlation_dimension(roll(50), k1=20, k2=10)
    with pytest.raises(ValueError, match="components lie between 1 and 10"):
        isomap_residual(roll(50), components=11)
    with pytest.raises(ValueError, match="k=0"):
        lle_residual(roll(50), k=0)

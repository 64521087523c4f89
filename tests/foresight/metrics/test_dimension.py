"""Dimension estimates: planted answers, scikit-dimension, and the noise they cannot be told from."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.metrics import mle_dimension, pca_dimension, two_nn
from foresight.metrics.noise import noise_controls
from foresight.metrics.space import Space
from tests.foresight.metrics.planted import gaussians, rotation


def sphere(n: int, d: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Return points of the d-sphere, turned into `width` dimensions."""
    x = np.random.default_rng(seed).standard_normal((n, d + 1))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return np.pad(x, ((0, 0), (0, width - d - 1))) @ rotation(width)


@pytest.mark.parametrize("truth", [2, 5, 8])
def test_the_dimension_of_a_sphere_is_found_in_a_wide_space(truth: int) -> None:
    x = sphere(800, truth, 60)
    for estimate in (two_nn(x), mle_dimension(x)):
        assert estimate.value == pytest.approx(truth, rel=0.15)
        assert estimate.low < estimate.value < estimate.high
        assert estimate.high - estimate.low < 0.35 * truth
        assert estimate.null > 3 * truth  # 60 dimensions of noise
    assert pca_dimension(x).value == truth + 1


def test_two_nn_and_mle_agree_with_scikit_dimension() -> None:
    import skdim

    x = sphere(300, 5, 20)
    assert two_nn(x).value == pytest.approx(skdim.id.TwoNN().fit(x).dimension_, rel=1e-9)
    oracle = skdim.id.MLE()
    got = mle_dimension(x)
    assert got.value == pytest.approx(oracle.fit(x, n_neighbors=20, comb="mean").dimension_, rel=1e-9)
    assert got.detail["mackay"] == pytest.approx(
        oracle.fit(x, n_neighbors=20, comb="mle").dimension_, rel=1e-9
    )


def test_components_are_those_of_scikit_learn() -> None:
    from sklearn.decomposition import PCA

    x = np.random.default_rng(0).standard_normal((80, 30)) * np.geomspace(1, 0.05, 30)
    ratio = PCA().fit(x).explained_variance_ratio_
    got = pca_dimension(x, share=0.9)
    assert got.value == 1 + np.argmax(np.cumsum(ratio) >= 0.9)
    np.testing.assert_allclose(got.detail["spectrum"], ratio, rtol=1e-9)
    assert got.detail["participation ratio"] == pytest.approx(1 / np.square(ratio).sum())


def test_wide_noise_reads_far_below_its_dimension_and_equals_its_control() -> None:
    x = np.random.default_rng(3).standard_normal((500, 200))
    for estimate in (two_nn(x), mle_dimension(x)):
        assert estimate.value < 100
        assert estimate.value == pytest.approx(estimate.null, rel=0.35)
        assert estimate.controls["matched gaussian"] == pytest.approx(estimate.value, rel=0.35)


def test_near_duplicate_frames_pull_the_naive_estimate_down_and_groups_repair_it() -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_normal((200, 8)) @ rng.standard_normal((8, 64))
    videos = np.repeat(np.arange(200), 5)
    x = base[videos] + 0.02 * rng.standard_normal((1000, 64))
    assert mle_dimension(x, k=10).value > 1.5 * 8 or mle_dimension(x, k=4).value > 1.5 * 8
    assert two_nn(x, groups=videos).value == pytest.approx(8, rel=0.3)
    assert mle_dimension(x, groups=videos, k=10).value == pytest.approx(8, rel=0.3)
    assert mle_dimension(x, groups=videos).n_effective == 200


def test_exact_copies_are_counted_once() -> None:
    x = sphere(200, 3, 10)
    copies = np.vstack([x, x[:150]])
    for measure in (two_nn, mle_dimension, pca_dimension):
        once, twice = measure(x), measure(copies)
        assert twice.value == pytest.approx(once.value, rel=1e-6)
        assert (twice.n, twice.n_effective, twice.detail["duplicates dropped"]) == (350, 200, 150)


def test_scale_shift_and_rotation_do_not_matter() -> None:
    x = sphere(200, 3, 10)
    for measure in (two_nn, mle_dimension, pca_dimension):
        moved = measure(1e-3 * x @ rotation(10, seed=1) + 7.0)
        assert moved.value == pytest.approx(measure(x).value, rel=1e-6)


def test_tiny_and_huge_distances_in_one_set_keep_their_digits() -> None:
    x = sphere(300, 3, 10)
    far = np.vstack([x * 1e-5, np.full((1, 10), 1e4)])
    assert two_nn(far).value == pytest.approx(two_nn(x).value, rel=0.05)


def test_what_has_no_dimension_says_why() -> None:
    for measure in (two_nn, mle_dimension, pca_dimension):
        assert "at least 4 different groups, but got 1" in measure(np.ones((30, 4))).why
        assert "but got 3" in measure(np.eye(3)).why
    assert (
        mle_dimension(sphere(15, 2, 4)).why
        == "k = 20 neighbours need more than k + 1 different groups, but got 15"
    )
    assert "do not grow" in two_nn(np.eye(40)).why
    assert "do not grow" in mle_dimension(np.eye(40)).why
    with pytest.raises(ValueError, match="share of variance"):
        pca_dimension(np.eye(5), share=1.0)
    with pytest.raises(ValueError, match="at least 2 neighbours"):
        mle_dimension(np.eye(5), k=1)


@pytest.mark.slow
@pytest.mark.parametrize("measure", [two_nn, mle_dimension])
def test_dimension_intervals_cover_the_mean_of_repeated_samples(measure) -> None:  # type: ignore[no-untyped-def]
    values = [measure(sphere(100, 4, 12, seed=1000 + s), resamples=0).value for s in range(200)]
    inside = 0
    for seed in range(100):
        estimate = measure(sphere(100, 4, 12, seed=seed))
        inside += estimate.low <= np.mean(values) <= estimate.high
    assert inside >= 90


def test_isotropic_noise_is_measured_once_for_a_shape_and_settings() -> None:
    seen: list[tuple[int, float]] = []

    def largest(distances: np.ndarray, *, power: float) -> float:
        seen.append((len(distances), power))
        return float(distances.max() ** power)

    spaces = [Space(x) for x in gaussians(30, (7, 7))]
    first, second = (noise_controls(s, largest, {"power": 1.0}, seed=0) for s in spaces)
    assert len(seen) == 3
    assert first["isotropic noise"] == second["isotropic noise"]
    assert first["matched gaussian"] != second["matched gaussian"]
    other = noise_controls(spaces[0], largest, {"power": 2.0}, seed=0)
    assert other["isotropic noise"] == pytest.approx(first["isotropic noise"] ** 2)

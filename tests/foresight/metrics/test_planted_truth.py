"""What is planted is found: error rates, rotations, independence, dimension, rank and linear maps of known R²."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.metrics import (
    correlation_dimension,
    linear_cka,
    mantel_test,
    mle_dimension,
    pca_dimension,
    procrustes_distance,
    ridge_probe,
    rsa_spearman,
    two_nn,
)
from tests.foresight.metrics.planted import gaussians, rotation, shared

BARE = {"permutations": 0, "resamples": 0}


def test_the_mantel_test_is_wrong_five_times_in_a_hundred_when_nothing_is_shared() -> None:
    draws = (gaussians(24, (6, 5), seed=s) for s in range(1000, 1400))
    p = np.array([mantel_test(x, y, permutations=199, resamples=0).p for x, y in draws])
    # 400 draws of a 5 % event: 5 ± 2 is nearly two standard errors, and the draws are fixed
    assert 0.03 <= np.mean(p <= 0.05) <= 0.07
    assert np.mean(p <= 0.5) == pytest.approx(0.5, abs=0.06)


def test_a_rotation_is_cka_one_rho_one_and_procrustes_zero() -> None:
    for n, d in ((40, 7), (30, 90)):
        (x,) = gaussians(n, (d,), seed=n)
        turned = 0.3 * x @ rotation(d) - 2.0
        assert linear_cka(x, turned, **BARE).value == pytest.approx(1.0, abs=1e-10)
        assert linear_cka(x, turned, debiased=False, **BARE).value == pytest.approx(1.0, abs=1e-10)
        assert rsa_spearman(x, turned, **BARE).value == pytest.approx(1.0, abs=1e-6)
        assert procrustes_distance(x, turned, **BARE).value == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("widths", [(10, 8), (200, 400)])
def test_independent_spaces_have_debiased_cka_zero_within_its_interval_and_on_average(
    widths: tuple[int, int],
) -> None:
    found = [linear_cka(*gaussians(60, widths, seed=s), permutations=0, resamples=20) for s in range(100)]
    values = np.array([e.value for e in found])
    assert abs(values.mean()) < 3 * values.std() / 10
    assert sum(e.low <= 0 <= e.high for e in found) >= 90
    biased = np.array([e.controls["biased"] for e in found])
    assert biased.mean() > 10 * abs(values.mean()) + 0.1


@pytest.mark.parametrize("truth", [1, 2, 4])
def test_the_dimension_of_a_planted_sheet_is_found_by_every_estimator(truth: int) -> None:
    sheet = np.pad(np.random.default_rng(truth).random((600, truth)), ((0, 0), (0, 30 - truth))) @ rotation(
        30
    )
    for measure in (two_nn, mle_dimension, correlation_dimension):
        found = measure(sheet, noise=False, resamples=10)
        assert found.value == pytest.approx(truth, rel=0.2), measure.__name__
        assert np.isnan(found.null)
        assert not found.controls
    assert pca_dimension(sheet, share=0.999, noise=False, resamples=0).value == truth


@pytest.mark.parametrize("rank", [1, 3, 12])
def test_a_planted_rank_is_the_number_of_components_and_their_participation_is_at_most_that(
    rank: int,
) -> None:
    rng = np.random.default_rng(rank)
    x = rng.standard_normal((80, rank)) @ rng.standard_normal((rank, 50))
    found = pca_dimension(x, share=1 - 1e-9, resamples=0)
    assert found.value == rank
    assert 0.3 * rank <= found.detail["participation ratio"] <= rank + 1e-9


@pytest.mark.parametrize("truth", [0.2, 0.5, 0.8])
def test_a_linear_map_of_known_r2_is_found_again(truth: float) -> None:
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((600, 12)), rng.standard_normal((600, 7))
    signal = x @ np.linalg.qr(rng.standard_normal((12, 7)))[0]  # each output has variance 1
    found = ridge_probe(x, signal + np.sqrt(1 / truth - 1) * noise, permutations=99, shuffles=1)["r2"]
    assert found.value == pytest.approx(truth, abs=0.05)
    assert found.low < truth < found.high
    assert found.null < 0.01


def test_biased_cka_is_the_published_formula_in_both_its_forms() -> None:
    x, y = shared(50, (12, 9), noise=2.0)
    cx, cy = x - x.mean(0), y - y.mean(0)

    def norm(a: np.ndarray) -> float:
        return float(np.linalg.norm(a, "fro"))

    # Kornblith et al. (2019): eq. 3 with the centring matrix H, and the form over features of section 3
    features = norm(cy.T @ cx) ** 2 / (norm(cx.T @ cx) * norm(cy.T @ cy))
    h = np.eye(50) - 1 / 50
    k, m = x @ x.T, y @ y.T

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.trace(a @ h @ b @ h)) / 49**2

    kernels = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
    found = linear_cka(x, y, debiased=False, **BARE).value
    assert found == pytest.approx(features, rel=1e-10)
    assert found == pytest.approx(kernels, rel=1e-10)

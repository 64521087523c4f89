"""Linear and RBF CKA: laws, null level, agreement with the defining U-statistic."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from foresight.metrics import linear_cka, rbf_cka
from foresight.metrics.cka import u_centred
from tests.foresight.metrics.planted import gaussians, rotation, shared

FAST = {"permutations": 99, "resamples": 20}


@pytest.mark.parametrize("debiased", [True, False])
def test_a_rotated_scaled_and_shifted_copy_has_cka_one(debiased: bool) -> None:
    (x,) = gaussians(40, (7,))
    copy = 3.0 * x @ rotation(7) + 5.0
    assert linear_cka(x, copy, debiased=debiased, **FAST).value == pytest.approx(1.0, abs=1e-12)
    assert rbf_cka(x, copy, debiased=debiased, **FAST).value == pytest.approx(1.0, abs=1e-12)


def test_cka_does_not_change_when_a_side_is_rotated_scaled_or_the_sides_are_swapped() -> None:
    x, y = shared(50, (12, 9), noise=2.0)
    value = linear_cka(x, y, **FAST).value
    assert 0.1 < value < 0.95
    assert linear_cka(2.0 * x @ rotation(12) - 1.0, y, **FAST).value == pytest.approx(value, abs=1e-10)
    assert linear_cka(y, x, **FAST).value == pytest.approx(value, abs=1e-12)


def test_the_debiased_numerator_is_the_four_tuple_u_statistic() -> None:
    x, y = shared(7, (3, 4), noise=1.0)
    k, m = x @ x.T, y @ y.T
    total, count = 0.0, 0
    for i, j, q, r in permutations(range(7), 4):
        total += k[i, j] * (m[i, j] + m[q, r] - 2.0 * m[i, q])
        count += 1
    hsic = float(np.vdot(u_centred(k), u_centred(m))) / (7 * 4)
    assert hsic == pytest.approx(total / count, rel=1e-10)


def test_wide_independent_gaussians_read_zero_debiased_and_high_biased() -> None:
    x, y = gaussians(300, (1100, 2500))
    result = linear_cka(x, y, **FAST)
    law = 1 / np.sqrt((1 + 300 / 1100) * (1 + 300 / 2500))
    assert abs(result.value) < 0.02
    assert result.controls["biased"] == pytest.approx(0.835, abs=0.01)
    assert result.controls["biased"] == pytest.approx(law, abs=0.01)
    assert result.controls["biased null"] == pytest.approx(result.controls["biased"], abs=0.005)
    assert result.low < 0 < result.high
    assert result.p > 0.01


def test_the_biased_null_is_the_mean_over_all_permutations() -> None:
    x, y = gaussians(30, (20, 10))
    result = linear_cka(x, y, debiased=False, permutations=2000, resamples=0)
    assert result.null == pytest.approx(result.controls["biased null"], abs=0.003)
    assert result.controls["calibrated"] == pytest.approx((result.value - result.null) / (1 - result.null))


def test_a_planted_share_is_found_with_an_interval_and_a_small_p() -> None:
    x, y = shared(120, (30, 20), noise=1.0)
    result = linear_cka(x, y)
    assert 0 < result.low < result.value < result.high < 1
    assert result.p == pytest.approx(0.001)
    assert (result.n, result.n_effective) == (120, 120)


def test_the_permutation_p_of_independent_spaces_is_uniform() -> None:
    draws = [gaussians(24, (6, 5), seed=s) for s in range(200)]
    p = np.array([linear_cka(x, y, permutations=99, resamples=0).p for x, y in draws])
    # 200 draws of a 5 % event: 10 ± 3 x 3.1
    assert 1 <= (p <= 0.05).sum() <= 19
    assert p.mean() == pytest.approx(0.5, abs=0.06)


def test_undefined_cka_says_why_and_never_gives_a_number() -> None:
    x, y = gaussians(30, (5, 4))
    assert linear_cka(x, np.ones((30, 4))).why.startswith("the second space is constant")
    assert linear_cka(x[:3], y[:3]).why == "CKA needs at least 4 groups, but got 3"
    assert np.isnan(linear_cka(x[:3], y[:3]).value)
    few = linear_cka(x[:6], y[:6], permutations=9)
    assert np.isfinite(few.value)
    assert np.isnan(few.low)


def test_bad_input_is_refused_with_the_row_that_is_bad() -> None:
    x, y = gaussians(30, (5, 4))
    y[7, 2] = np.nan
    with pytest.raises(ValueError, match=r"must be finite, but 1 of 30 rows .* first row 7"):
        linear_cka(x, y)
    with pytest.raises(ValueError, match=r"but got 30 and 29 rows"):
        linear_cka(x, x[:29])
    with pytest.raises(ValueError, match=r"but got shape \[5\]"):
        linear_cka(x[0], y)
    with pytest.raises(ValueError, match=r"between 1e-60 and 1e60 .* the largest is \d\.\de\+150; rescale"):
        linear_cka(x * 1e150, x)
    with pytest.raises(ValueError, match="rescale them"):
        linear_cka(x * 1e-150, x)
    with pytest.raises(TypeError, match="dtype <U1; convert"):
        linear_cka(np.full((30, 2), "a"), x)
    with pytest.raises(ValueError, match="30 samples and 3 groups"):
        linear_cka(x, x, groups=[1, 2, 3])


def test_samples_that_are_equal_on_both_sides_count_once() -> None:
    x, y = shared(40, (6, 5), noise=1.0)
    twice = linear_cka(np.vstack([x, x[:30]]), np.vstack([y, y[:30]]), **FAST)
    once = linear_cka(x, y, **FAST)
    assert twice.value == pytest.approx(once.value, abs=1e-10)
    assert (twice.n, twice.n_effective) == (70, 40)


@pytest.mark.filterwarnings("ignore:.*characterize independence:UserWarning")
def test_debiased_cka_is_dcors_unbiased_correlation_of_squared_distances() -> None:
    # centring removes what squared distances add to -2 x the inner products; only rounding remains
    import dcor

    for n, widths, noise in ((12, (3, 5), 1.0), (80, (200, 40), 2.0), (60, (4, 4), 30.0)):
        x, y = shared(n, widths, noise=noise)
        oracle = dcor.u_distance_correlation_sqr(x, y, exponent=2)
        assert linear_cka(x, y, **FAST).value == pytest.approx(oracle, abs=1e-12)

"""RSA and Mantel against scipy, and their laws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import pearsonr, spearmanr

from foresight.metrics import Space, mantel_test, rsa_spearman
from tests.foresight.metrics.planted import gaussians, rotation, shared

FAST = {"permutations": 99, "resamples": 20}


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_rsa_is_scipys_spearman_of_the_condensed_distances(metric: str) -> None:
    x, y = shared(45, (9, 6), noise=2.0)
    got = rsa_spearman(x, y, metric=metric, **FAST).value
    assert got == pytest.approx(spearmanr(pdist(x, metric), pdist(y, metric)).statistic, abs=1e-10)
    got = mantel_test(x, y, metric=metric, **FAST).value
    assert got == pytest.approx(pearsonr(pdist(x, metric), pdist(y, metric)).statistic, abs=1e-10)


def test_ties_share_their_mean_rank_as_in_scipy() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 3, (30, 2)).astype(float), rng.integers(0, 3, (30, 2)).astype(float)
    x, y = np.unique(np.hstack([x, y]), axis=0)[:, :2], np.unique(np.hstack([x, y]), axis=0)[:, 2:]
    want = spearmanr(pdist(x), pdist(y)).statistic
    assert rsa_spearman(x, y, **FAST).value == pytest.approx(want, abs=1e-6)


def test_a_rotated_and_scaled_copy_has_rho_one_and_the_smallest_p() -> None:
    (x,) = gaussians(40, (7,))
    result = rsa_spearman(x, 2.0 * x @ rotation(7), **FAST)
    assert result.value == pytest.approx(1.0, abs=1e-12)
    assert result.p == pytest.approx(0.01)


def test_independent_spaces_read_zero_within_the_interval() -> None:
    result = rsa_spearman(*gaussians(80, (10, 10)), **FAST)
    assert result.low < 0 < result.high
    assert abs(result.null) < 0.02


def test_a_space_given_once_serves_many_measures_with_the_same_numbers() -> None:
    x, y = shared(40, (6, 5))
    a, b = Space(x), Space(y)
    assert rsa_spearman(a, b, **FAST).to_json() == rsa_spearman(x, y, **FAST).to_json()


def test_undefined_rsa_says_why() -> None:
    (x,) = gaussians(20, (4,))
    assert "all euclidean distances of the second space are equal" in rsa_spearman(x, np.eye(20)).why
    assert rsa_spearman(x[:3], x[:3] ** 2).why == "RSA needs at least 4 groups, but got 3"
    zero = x.copy()
    zero[5] = 0.0
    with pytest.raises(ValueError, match="row 5 is all zeros"):
        rsa_spearman(x, zero, metric="cosine")
    with pytest.raises(ValueError, match="'euclidean' or 'cosine', but got 'cosin'"):
        rsa_spearman(x, x**2, metric="cosin")  # type: ignore[arg-type]


def test_too_many_rows_for_a_matrix_of_pairs_are_refused_before_memory_is_asked_for() -> None:
    x = np.zeros((20_001, 1))
    x[0] = 1.0
    with pytest.raises(ValueError, match=r"at most 20000 rows, but got 20001 .*use cka_blockwise"):
        _ = Space(x).gram
    with pytest.raises(ValueError, match="use cka_blockwise"):
        Space(x + 1.0).distances("cosine")

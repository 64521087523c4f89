"""Neighbour overlap against brute force, exact chance levels, ties and impossible k."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from foresight.metrics import knn_overlap
from foresight.metrics.neighbours import chance_level, neighbour_order, within
from foresight.metrics.space import Space
from tests.foresight.metrics.planted import gaussians, rotation, shared

FAST = {"permutations": 99, "resamples": 20}


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_recall_jaccard_and_mrr_are_their_definitions(metric: str) -> None:
    x, y = shared(30, (8, 6), noise=1.5)
    orders = []
    for s in (x, y):
        d = cdist(s, s, metric)
        orders.append([[j for j in np.argsort(d[i]) if j != i] for i in range(30)])
    got = knn_overlap(x, y, ks=(4, 9), metric=metric, **FAST)
    for k in (4, 9):
        recall, jaccard, mrr, first = [], [], [], []
        for a, b in zip(*orders, strict=True):
            common = set(a[:k]) & set(b[:k])
            recall.append(len(common) / k)
            jaccard.append(len(common) / len(set(a[:k]) | set(b[:k])))
            mrr.append(np.mean([1 / (1 + b.index(j)) for j in a[:k]]))
            first.append(max(1 / (1 + b.index(j)) for j in a[:k]))
        assert got[f"recall@{k}"].value == pytest.approx(np.mean(recall))
        assert got[f"jaccard@{k}"].value == pytest.approx(np.mean(jaccard))
        assert got[f"mrr@{k}"].value == pytest.approx(np.mean(mrr), rel=1e-6)
        assert got[f"mrr@{k}"].detail["first"] == pytest.approx(np.mean(first))


def test_a_rotated_copy_keeps_all_neighbours_whatever_the_row_norms() -> None:
    (x,) = gaussians(60, (8,))
    x *= np.random.default_rng(1).uniform(0.1, 10.0, (60, 1))
    got = knn_overlap(x, 0.5 * x @ rotation(8), ks=(5,), **FAST)
    assert got["recall@5"].value == 1.0
    assert got["jaccard@5"].value == 1.0
    assert got["mrr@5"].value == pytest.approx(np.mean(1 / np.arange(1, 6)))
    assert got["mrr@5"].controls["calibrated"] == pytest.approx(1.0)


def test_the_null_is_the_exact_chance_level_for_every_measure_and_k() -> None:
    got = knn_overlap(*gaussians(101, (30, 20)), ks=(5, 10, 50), permutations=400, resamples=10)
    assert got["recall@10"].controls["chance"] == pytest.approx(0.1)
    for estimate in got.values():
        assert estimate.null == pytest.approx(estimate.controls["chance"], rel=0.03)
        assert estimate.low < estimate.controls["chance"] < estimate.high


def test_the_chance_of_jaccard_is_its_hypergeometric_mean() -> None:
    rng = np.random.default_rng(0)
    draws = [len(set(rng.permutation(20)[:6]) & set(range(6))) for _ in range(20_000)]
    assert chance_level("jaccard", 6, 21) == pytest.approx(np.mean([c / (12 - c) for c in draws]), rel=0.03)


def test_the_p_of_independent_spaces_is_uniform() -> None:
    p = [
        knn_overlap(*gaussians(40, (5, 5), seed=s), ks=(5,), permutations=99, resamples=0)["recall@5"].p
        for s in range(200)
    ]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.045)
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)  # ties push the mean above one half


def test_tied_distances_do_not_agree_by_their_order_in_the_file() -> None:
    rng = np.random.default_rng(0)
    # each space takes 3 values: nearly every neighbour is tied, and the two spaces are unrelated
    x, y = np.eye(3)[rng.integers(0, 3, 300)], np.eye(3)[rng.integers(0, 3, 300)]
    unlike = np.hstack([x, np.arange(300)[:, None] * 1e-12]), np.hstack([y, np.zeros((300, 1))])
    got = knn_overlap(*unlike, ks=(10,), metric="euclidean", **FAST)["recall@10"]
    assert got.value < 3 * got.controls["chance"] + 0.02


def test_too_many_neighbours_or_too_few_samples_are_undefined() -> None:
    x, y = gaussians(12, (3, 3))
    got = knn_overlap(x, y, ks=(5, 11, 100), permutations=9, resamples=9)
    assert np.isfinite(got["recall@5"].value)
    assert got["recall@11"].why == "k = 11 needs more than k + 1 groups, but got 12"
    assert np.isnan(got["mrr@100"].value)
    assert knn_overlap(x[:6], y[:6], ks=(2,), permutations=9)["recall@2"].why == "no interval from 6 groups"
    assert "at least 4 groups" in knn_overlap(x[:3], y[:3], ks=(1,))["recall@1"].why
    assert (
        "distances of the first space are equal" in knn_overlap(np.ones((12, 2)), y, ks=(2,))["recall@2"].why
    )
    with pytest.raises(ValueError, match=r"ks=\[0\]"):
        knn_overlap(x, y, ks=(0,))


def test_the_neighbour_order_of_a_subset_is_that_of_its_own_distances() -> None:
    (x,) = gaussians(25, (4,))
    subset = np.array([1, 4, 5, 9, 20, 24])
    want = neighbour_order(Space(x[subset]), "euclidean", seed=0)
    np.testing.assert_array_equal(within(neighbour_order(Space(x), "euclidean", seed=0), subset), want)

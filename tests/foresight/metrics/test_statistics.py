"""Intervals that cover, p that are valid, splits that keep groups whole."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from foresight.metrics import knn_overlap, linear_cka, rsa_spearman
from foresight.metrics.cka import u_centred
from foresight.metrics.neighbours import neighbour_order, overlap, ranks_of
from foresight.metrics.pairs import aligned
from foresight.metrics.space import Space
from foresight.metrics.statistics import (
    calibrated,
    cluster_bootstrap,
    gathered,
    grouped_folds,
    grouped_split,
    half_sample_error,
    holm,
    interval,
    max_t,
    permutation_p,
    shuffled_partner,
)
from tests.foresight.metrics.planted import gaussians, shared


def test_the_half_sample_error_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).standard_normal(400)
    error = half_sample_error(lambda s: values[s].mean(), 400, resamples=2000)
    assert float(error) == pytest.approx(values.std(ddof=1) / 20, rel=0.08)


def test_fewer_than_eight_observations_give_no_interval() -> None:
    assert math.isnan(float(half_sample_error(lambda s: 1.0, 7)))
    assert all(math.isnan(v) for v in interval(0.5, math.nan, 9))
    assert all(math.isnan(v) for v in cluster_bootstrap(np.ones((7, 2)), lambda t: t[:, 0] / t[:, 1]))


def _coverage(truth: float, draw: Any, times: int) -> float:
    inside = 0
    for seed in range(times):
        estimate = draw(seed)
        inside += estimate.low <= truth <= estimate.high
    return inside / times


def _spaces(seed: int) -> list[np.ndarray]:
    return shared(60, (12, 10), rank=5, noise=1.5, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cka", "rsa", "recall"])
def test_intervals_cover_the_expected_value_and_are_not_vacuous(name: str) -> None:
    # fixed mixing maps: only the samples are drawn anew, as in life
    rng = np.random.default_rng(99)
    maps = [rng.standard_normal((5, d)) for d in (12, 10)]

    def spaces(seed: int) -> list[np.ndarray]:
        draw = np.random.default_rng(seed)
        latent = draw.standard_normal((60, 5))
        return [latent @ m + 1.5 * draw.standard_normal((60, m.shape[1])) for m in maps]

    none = {"permutations": 0, "resamples": 60}
    measure: dict[str, Any] = {
        "cka": lambda x, y: linear_cka(x, y, **none),
        "rsa": lambda x, y: rsa_spearman(x, y, **none),
        "recall": lambda x, y: knn_overlap(x, y, ks=(5,), **none)["recall@5"],
    }
    bare: dict[str, Any] = {
        "cka": lambda x, y: linear_cka(x, y, permutations=0, resamples=0).value,
        "rsa": lambda x, y: rsa_spearman(x, y, permutations=0, resamples=0).value,
        "recall": lambda x, y: overlap(
            neighbour_order(Space(x), "cosine", seed=0),
            ranks_of(neighbour_order(Space(y), "cosine", seed=1)),
            [5],
        )[0, 0],
    }
    values = np.array([bare[name](*spaces(10_000 + s)) for s in range(400)])
    covered = _coverage(float(values.mean()), lambda s: measure[name](*spaces(s)), 200)
    assert covered >= 0.91  # 95 % less two standard errors of 200 draws (1.5 % each)
    estimate = measure[name](*spaces(1))
    assert (estimate.high - estimate.low) / (2 * 1.96) < 2.0 * values.std()


def test_drawing_with_replacement_would_inflate_what_half_samples_leave_alone() -> None:
    x, y = _spaces(0)
    rng = np.random.default_rng(0)
    value = linear_cka(x, y, permutations=0, resamples=0).value
    again = [rng.integers(0, 60, 60) for _ in range(200)]
    bootstrap = np.mean([aligned(u_centred(x[s] @ x[s].T), u_centred(y[s] @ y[s].T)) for s in again])
    halves = [rng.permutation(60)[:30] for _ in range(200)]
    half = np.mean([aligned(u_centred(x[s] @ x[s].T), u_centred(y[s] @ y[s].T)) for s in halves])
    assert bootstrap > value + 0.02
    assert abs(half - value) < 0.02


def test_the_frame_bootstrap_misses_what_the_group_bootstrap_covers() -> None:
    rng, frames, inside = np.random.default_rng(5), 10, {"group": 0, "frame": 0}
    for seed in range(120):
        video = rng.standard_normal(30)
        values = np.repeat(video, frames) + 0.3 * rng.standard_normal(300)
        for name, size in (("group", 30), ("frame", 300)):
            parts = values.reshape(size, -1).sum(axis=1)
            totals = np.stack([parts, np.full(size, 300 / size)], axis=1)
            low, high = cluster_bootstrap(totals, lambda t: t[:, 0] / t[:, 1], resamples=300, seed=seed)
            inside[name] += low <= 0.0 <= high
    assert inside["group"] >= 107
    assert inside["frame"] < 85


def test_gathered_sums_are_those_of_the_permuted_matrices() -> None:
    rng = np.random.default_rng(0)
    a, b, c = (m + m.T for m in rng.standard_normal((3, 19, 19)))
    got = gathered(a, b, c, permutations=5, seed=7)
    orders = np.random.default_rng([7, 3])
    for row in got:
        order = orders.permutation(19)
        moved = a[np.ix_(order, order)]
        np.testing.assert_allclose(row, [np.vdot(moved, b), np.vdot(moved, c)], rtol=1e-4, atol=1e-3)


def test_the_permutation_p_is_never_zero_and_counts_ties() -> None:
    assert permutation_p(5.0, np.zeros(99)) == pytest.approx(0.01)
    assert permutation_p(1.0, np.ones(99)) == 1.0
    assert permutation_p(-5.0, np.zeros(9), greater=False) == pytest.approx(0.1)
    assert math.isnan(permutation_p(1.0, np.empty(0)))


def test_calibration_maps_chance_to_zero_and_the_best_to_one() -> None:
    assert calibrated(0.2, 0.2) == 0.0
    assert calibrated(1.0, 0.2) == 1.0
    assert calibrated(0.0, 0.9, best=0.0) == pytest.approx(1.0)
    assert math.isnan(calibrated(1.0, 1.0))


def test_holm_steps_down_keeps_order_and_skips_what_is_unknown() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, math.nan, 0.03]), [0.03, 0.06, math.nan, 0.06])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]


def test_max_t_corrects_for_the_best_of_many_without_paying_for_copies() -> None:
    rng = np.random.default_rng(0)
    null = rng.standard_normal((999, 1))
    value = float(np.quantile(null, 0.99))
    single = max_t(np.array([value]), null)[0]
    copies = max_t(np.full(20, value), np.repeat(null, 20, axis=1))[0]
    apart = max_t(np.full(20, value), rng.standard_normal((999, 20)))[0]
    assert single == pytest.approx(0.011, abs=0.002)
    assert copies == pytest.approx(single)
    assert 0.1 < apart < 0.3
    with pytest.raises(ValueError, match="same seed"):
        max_t(np.zeros(2), np.zeros((9, 3)))


def test_groups_are_never_split_and_folds_are_even() -> None:
    groups = np.repeat(np.array(["a", "b", "c", "d", "e", "f", "g"]), [1, 9, 2, 4, 3, 5, 1])
    folds = grouped_folds(groups, folds=3, seed=1)
    owners = [set(groups[folds == f]) for f in range(3)]
    assert sorted(len(o) for o in owners) == [2, 2, 3]
    assert len(set().union(*owners)) == 7
    train, test = grouped_split(groups, test=0.3, seed=2)
    assert len(set(groups[test])) == 2
    assert not set(groups[train]) & set(groups[test])
    assert sorted([*train, *test]) == list(range(len(groups)))
    assert not np.array_equal(grouped_folds(groups, folds=3, seed=2), folds)
    with pytest.raises(ValueError, match="8 folds for 7 groups"):
        grouped_folds(groups, folds=8)
    with pytest.raises(ValueError, match=r"test=0\.99 of 7 groups"):
        grouped_split(groups, test=0.99)


def test_a_shuffle_of_whole_groups_gives_each_group_the_samples_of_one_other() -> None:
    groups = np.repeat(np.arange(8), 3)
    partner = shuffled_partner(groups, rng=np.random.default_rng(0))
    assert sorted(partner) == list(range(24))
    for g in range(8):
        assert len(set(groups[partner[groups == g]])) == 1


def test_the_p_of_rsa_is_uniform_where_the_textbook_p_is_not() -> None:
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr

    ours, naive = [], []
    for seed in range(200):
        x, y = gaussians(20, (4, 3), seed=seed)
        ours.append(rsa_spearman(x, y, permutations=99, resamples=0).p)
        naive.append(spearmanr(pdist(x), pdist(y), alternative="greater").pvalue)
    assert np.mean(np.array(ours) <= 0.05) == pytest.approx(0.05, abs=0.04)
    assert np.mean(np.array(naive) <= 0.05) > 0.12

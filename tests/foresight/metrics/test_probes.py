"""The ridge probe against plain scikit-learn, planted R², and its controls."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from foresight.metrics import Space, ridge_probe
from foresight.metrics.probes import ridge_probes
from foresight.metrics.statistics import grouped_folds
from tests.foresight.metrics.planted import frames_of_videos, gaussians, rotation

FAST = {"permutations": 99, "shuffles": 2, "resamples": 200}


def linear(n: int, *, r2: float, d: int = 10, out: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return x and a linear function of it with noise, so that the best possible R² is `r2`."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    signal = x @ rng.standard_normal((d, out)) / np.sqrt(d)
    return x, signal + np.sqrt((1 - r2) / r2) * signal.std() * rng.standard_normal((n, out))


@pytest.mark.parametrize("truth", [0.3, 0.6, 0.9])
def test_a_planted_r2_is_inside_the_interval(truth: float) -> None:
    x, y = linear(500, r2=truth)
    got = ridge_probe(x, y, **FAST)["r2"]
    assert got.value == pytest.approx(truth, abs=0.06)
    assert got.low < truth < got.high
    assert got.p == pytest.approx(0.01)
    assert got.controls["uniform"] == pytest.approx(truth, abs=0.08)


@pytest.mark.parametrize("widths", [(8, 5), (150, 200)])
def test_the_probe_is_scikit_learns_ridge_fold_by_fold(widths: tuple[int, int]) -> None:
    x, y = gaussians(60, widths)
    y[:, :3] += 2.0 * x[:, :3]
    got = ridge_probe(x, y, folds=4, **FAST)
    held = grouped_folds(np.arange(60), folds=4, seed=0)
    error = total = 0.0
    cosines, per_output = [], [np.zeros(widths[1]), np.zeros(widths[1])]
    for f, penalty in enumerate(got["r2"].detail["penalties"]):
        train, test = held != f, held == f
        scale = np.square(x[train] - x[train].mean(0)).sum(1).mean()
        guess = Ridge(alpha=penalty * scale).fit(x[train], y[train]).predict(x[test])
        away, mean = y[test] - y[train].mean(0), y[train].mean(0)
        error += np.square(y[test] - guess).sum()
        total += np.square(away).sum()
        per_output[0] += np.square(y[test] - guess).sum(0)
        per_output[1] += np.square(away).sum(0)
        p = guess - mean
        cosines += list((p * away).sum(1) / np.linalg.norm(p, axis=1) / np.linalg.norm(away, axis=1))
    assert got["r2"].value == pytest.approx(1 - error / total, abs=1e-6)
    assert got["cosine"].value == pytest.approx(np.mean(cosines), abs=1e-6)
    assert got["r2"].controls["uniform"] == pytest.approx(
        np.mean(1 - per_output[0] / per_output[1]), abs=1e-6
    )


def test_the_penalty_is_chosen_inside_the_training_groups() -> None:
    x, y = linear(80, r2=0.5)
    before = ridge_probe(x, y, **FAST)["r2"].detail["penalties"]
    held = grouped_folds(np.arange(80), folds=5, seed=0)
    spoiled = y.copy()
    spoiled[held == 0] = 1e3 * np.random.default_rng(5).standard_normal(spoiled[held == 0].shape)
    assert ridge_probe(x, spoiled, **FAST)["r2"].detail["penalties"][0] == before[0]


def test_independent_spaces_score_nothing_and_their_p_is_uniform() -> None:
    got = ridge_probe(*gaussians(200, (300, 40)), **FAST)
    assert got["r2"].value < 0.01
    assert got["r2"].low <= 0.0
    assert got["cosine"].value == pytest.approx(0.0, abs=0.05)
    p = [
        ridge_probe(*gaussians(30, (5, 4), seed=s), permutations=99, shuffles=0, resamples=2)["r2"].p
        for s in range(150)
    ]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.05)
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)


def test_baselines_stay_near_nothing_where_the_probe_finds_the_map() -> None:
    x, y = linear(300, r2=0.9, d=20, out=20)
    got = ridge_probe(x, y, **FAST)["r2"]
    assert got.value > 0.8
    for name in ("train mean", "random projection", "PCA-reduced random projection", "shuffled pairs"):
        assert -0.1 < got.controls[name] < 0.1, name
    assert got.null == got.controls["shuffled pairs"]


def test_predicting_the_mean_has_a_high_cosine_only_when_nothing_is_removed() -> None:
    x, y = gaussians(200, (20, 20))
    got = ridge_probe(x, y + 4.0, **FAST)["cosine"]
    assert got.controls["train mean, not centred"] > 0.9
    assert abs(got.value) < 0.05


def test_frames_of_a_video_never_stand_on_both_sides() -> None:
    x, y, videos = frames_of_videos(60, 5, (80, 20))
    assert ridge_probe(x, y, **FAST)["r2"].value > 0.7
    honest = ridge_probe(x, y, groups=videos, **FAST)["r2"]
    assert honest.value < 0.02
    assert honest.p > 0.02
    assert (honest.n, honest.n_effective) == (300, 60)


def test_rotating_or_scaling_either_side_changes_nothing() -> None:
    x, y = linear(100, r2=0.5)
    want = ridge_probe(x, y, **FAST)
    got = ridge_probe(10.0 * x @ rotation(10) + 1.0, 0.1 * y @ rotation(6) - 2.0, **FAST)
    assert got["r2"].value == pytest.approx(want["r2"].value, abs=1e-9)
    assert got["cosine"].value == pytest.approx(want["cosine"].value, abs=1e-9)


def test_a_constant_output_is_left_out_of_the_uniform_mean_and_told() -> None:
    x, y = linear(100, r2=0.7)
    got = ridge_probe(x, np.hstack([y, np.ones((100, 2))]), **FAST)["r2"]
    assert got.detail["constant outputs"] == 2
    assert got.controls["uniform"] == pytest.approx(
        ridge_probe(x, y, **FAST)["r2"].controls["uniform"], abs=1e-9
    )


def test_too_few_groups_and_constant_sides_are_undefined() -> None:
    x, y = linear(40, r2=0.5)
    assert "at least 10 groups, but got 4" in ridge_probe(x, y, groups=np.arange(40) % 4)["r2"].why
    assert "the first space is constant" in ridge_probe(np.ones((40, 3)), y)["cosine"].why
    with pytest.raises(ValueError, match="penalties are positive"):
        ridge_probe(x, y, penalties=(0.0,))


def test_spaces_computed_once_serve_both_directions() -> None:
    x, y = linear(60, r2=0.5)
    a, b = Space(x), Space(y)
    assert ridge_probe(b, a, **FAST)["r2"].value == ridge_probe(y, x, **FAST)["r2"].value


def test_probes_of_one_source_are_the_probes_one_by_one() -> None:
    x, y = linear(60, r2=0.5)
    source, targets = Space(x), [Space(y), Space(np.ones((60, 2))), Space(np.roll(y, 1, axis=0))]
    together = list(ridge_probes(source, targets))
    for got, target in zip(together, targets, strict=True):
        alone = ridge_probe(Space(x), target)
        assert {k: e.to_json() for k, e in got.items()} == {k: e.to_json() for k, e in alone.items()}


@pytest.mark.slow
def test_probe_intervals_cover_the_expected_r2() -> None:
    weights = np.random.default_rng(7).standard_normal((10, 6)) / np.sqrt(10)

    def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((80, 10))
        return x, x @ weights + rng.standard_normal((80, 6))

    none = {"permutations": 0, "shuffles": 0}
    truth = np.mean([ridge_probe(*draw(1000 + s), resamples=2, **none)["r2"].value for s in range(300)])
    inside = 0
    for seed in range(200):
        got = ridge_probe(*draw(seed), **none)["r2"]
        inside += got.low <= truth <= got.high
    assert inside >= 182  # 95 % less two standard errors

"""Rebuilt pictures: places are what a probe gains by, controls stand beside every number, floors are not passed."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.decisions.c1 import c1_decision
from foresight.studies import reconstruction as study
from foresight.studies.rebuilt import TRAINED, Rebuilt, best_point, linear_probe, merger
from foresight.studies.reconstruction import (
    MEAN_IMAGE,
    ONE_COLOUR,
    POOLED,
    RANDOM,
    ROUND_TRIP,
    SHUFFLED,
    TOKENS,
    Scores,
)

RNG = np.random.default_rng(0)
N = 40


def scores(level: float, spread: float = 0.02) -> Scores:
    """Scores around a quality `level` from 0, nothing right, to 1."""
    noise = RNG.normal(0, spread, (3, N))
    return Scores(
        distance=1 - level + noise[0], ssim=level + noise[1], error=0.1 * (1.01 - level) + 0.001 * noise[2]
    )


def held(level: float, *, grid: tuple[int, int, int] = (1, 8, 8), r2: float = 0.5) -> dict[str, object]:
    latents = np.stack([np.full(N, 1 - r2) + RNG.normal(0, 0.01, N), np.ones(N)], axis=1)
    return scores(level).to_json() | {"latents": latents.tolist(), "grid": list(grid)}


def rebuilt(**places: dict[str, object]) -> Rebuilt:
    references = {
        k: scores(v).to_json() for k, v in ((ROUND_TRIP, 0.95), (MEAN_IMAGE, 0.3), (ONE_COLOUR, 0.35))
    }
    return Rebuilt(
        places={("m", p, RANDOM if p.startswith("copy") else TRAINED): v for p, v in places.items()},
        references=references | {"distance": "LPIPS"},
        groups=[f"video {i // 2}" for i in range(N)],
    )  # fmt: skip


def find(rows: list[dict[str, object]], name: str, point: str) -> dict[str, object]:
    (row,) = (r for r in rows if r["name"] == name and r["point"] == point)
    return row


def test_a_probe_finds_what_depends_on_place_and_shuffling_takes_it_away() -> None:
    x = RNG.normal(size=(60, 16, 5)).astype(np.float32)
    y = (x @ RNG.normal(size=(5, 3))).astype(np.float32)
    folds = study.parted([str(i) for i in range(60)], seed=0)
    mixed = np.stack([s[RNG.permutation(16)] for s in x])
    good, bad = (
        study.fit_probe((folds[i : i + 7], v[i : i + 7], y[i : i + 7]) for i in range(0, 60, 7))
        for v in (x, mixed)
    )
    assert good.validation_r2 > 0.99
    assert bad.validation_r2 < 0.2
    test = folds == study.TEST
    assert np.abs(good.predict(x[test]) - y[test]).max() < 0.05


def test_the_scored_fold_is_never_trained_on() -> None:
    x, y = RNG.normal(size=(2, 40, 4, 3)).astype(np.float32)
    folds = study.parted([str(i) for i in range(40)], seed=1)
    moved = np.where((folds == study.TEST)[:, None, None], 1e6, y).astype(np.float32)
    a, b = (study.fit_probe([(folds, x, v)]) for v in (y, moved))
    assert np.array_equal(a.weights, b.weights)


def test_a_group_is_never_parted() -> None:
    groups = [f"video {i // 5}" for i in range(40)]
    folds = study.parted(groups, seed=0)
    assert all(len(set(folds[i : i + 5])) == 1 for i in range(0, 40, 5))


def test_every_number_stands_beside_every_control_and_the_better_constant_picture() -> None:
    given = rebuilt(vit={TOKENS: held(0.9), POOLED: held(0.4), SHUFFLED: held(0.5)})
    rows = linear_probe(given)
    for name in ("LPIPS", "SSIM", "PSNR (dB)"):
        row = find(rows, name, "vit")
        assert {ROUND_TRIP, MEAN_IMAGE, ONE_COLOUR, POOLED, SHUFFLED} <= set(row["controls"])
        assert row["null"] == row["controls"][ONE_COLOUR]
        assert row["detail"]["strongest floor"] == SHUFFLED
        assert row["p"] < 0.01
        assert row["low"] < row["value"] < row["high"]
        assert (row["n"], row["n_effective"]) == (N, N // 2)


def test_a_probe_that_only_matches_a_floor_is_not_significant() -> None:
    given = rebuilt(vit={TOKENS: held(0.4), POOLED: held(0.4), SHUFFLED: held(0.4)})
    ps = [find(linear_probe(given), name, "vit")["p"] for name in ("LPIPS", "SSIM")]
    assert max(ps) > 0.01


def test_the_copy_with_random_weights_stands_beside_the_trained_one() -> None:
    given = rebuilt(vit={TOKENS: held(0.9)}, copy={TOKENS: held(0.6)})
    places = {("m", "vit", k[2]): v for k, v in given.places.items()}
    rows = linear_probe(Rebuilt(places=places, references=given.references, groups=given.groups))
    trained, copy = (r for r in rows if r["name"] == "SSIM")
    assert trained["controls"][RANDOM] == pytest.approx(copy["value"])


def test_the_merger_is_where_the_grid_gets_coarser() -> None:
    given = rebuilt(
        vit1={TOKENS: held(0.9, grid=(1, 16, 16))}, vit2={TOKENS: held(0.8, grid=(1, 16, 16))},
        merged={TOKENS: held(0.6)}, llm={TOKENS: held(0.2)},
    )  # fmt: skip
    rows = merger(given, ["vit1", "vit2", "merged", "llm"])
    row = find(rows, "SSIM, after − before", "merged")
    assert row["detail"]["before"] == "vit2"
    assert row["detail"]["grids"] == {"vit2": [1, 16, 16], "merged": [1, 8, 8]}
    assert row["low"] < -0.2 < row["high"] < 0
    assert find(rows, "LPIPS, after − before", "merged")["value"] == pytest.approx(0.2, abs=0.02)


def test_without_a_merger_the_difference_is_undefined_and_says_why() -> None:
    rows = merger(rebuilt(a={TOKENS: held(0.9)}, b={TOKENS: held(0.8)}), ["a", "b"])
    assert all(r["value"] is None and "before and after the merger" in r["why"] for r in rows)


def test_a_point_without_a_grid_is_undefined_with_the_reason() -> None:
    rows = linear_probe(rebuilt(packed={"why": "the tokens fill no grid"}))
    assert {r["why"] for r in rows} == {"the tokens fill no grid"}
    assert all(r["value"] is None for r in rows)


def test_the_best_point_is_chosen_by_the_choosing_fold_among_trained_ones() -> None:
    told = {
        ("m", "a", TRAINED): 0.4,
        ("m", "b", TRAINED): 0.6,
        ("m", "b", RANDOM): 0.9,
        ("m", "c", TRAINED): None,
    }
    assert best_point(told) == ("m", "b", TRAINED)
    assert best_point({("m", "c", TRAINED): None}) is None


def numbers(value: float, half: float, null: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half, "null": null, "p": 0.001}


def decision(**change: object) -> dict[str, object]:
    given = {
        "distance": numbers(0.2, 0.02, 0.9), "published": True, "distance_name": "LPIPS",
        "ssim": numbers(0.9, 0.01, 0.5), "spatial_iou": numbers(0.7, 0.02, 0.1),
    }  # fmt: skip
    return c1_decision(**(given | change)).to_json()


def test_all_three_thresholds_passed_is_proceed() -> None:
    assert decision()["overall"] == "PROCEED"


def test_one_failure_is_a_pivot_that_names_it() -> None:
    found = decision(spatial_iou=numbers(0.3, 0.05, 0.1))
    assert found["overall"] == "PIVOT"
    assert found["reasons"] == ["Spatial IoU: FAIL, the whole 95 % interval [0.250, 0.350] misses > 0.6"]


def test_a_threshold_inside_the_interval_is_no_failure() -> None:
    assert decision(spatial_iou=numbers(0.59, 0.05, 0.1))["overall"] == "CAN'T TELL"


def test_ssim_above_the_threshold_does_not_pass_where_a_constant_picture_is_too() -> None:
    found = decision(ssim=numbers(0.97, 0.01, 0.96))
    assert found["overall"] == "CAN'T TELL"
    assert "chance alone gives 0.960" in found["reasons"][0]


def test_a_distance_without_the_published_networks_is_not_judged_as_lpips() -> None:
    found = decision(published=False, distance_name="perceptual distance (random AlexNet)")
    assert found["overall"] == "CAN'T TELL"
    assert "not comparable with the threshold" in found["reasons"][0]


def test_a_ceiling_below_the_threshold_and_a_copy_as_good_are_told() -> None:
    found = decision(ceiling={"c1.ssim": 0.7}, random_weights={"c1.lpips": 0.21})
    assert len(found["open_questions"]) == 2
    assert "round trip reaches 0.700, which does not pass > 0.75 itself" in " ".join(found["open_questions"])


def test_a_distance_that_is_no_lpips_is_not_held_against_its_threshold_elsewhere_either() -> None:
    found = decision(published=False, ceiling={"c1.lpips": 0.9}, random_weights={"c1.lpips": 0.2})
    assert found["open_questions"] == []

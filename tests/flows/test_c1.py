"""C1 from end to end: nothing extracted twice, places carry the picture, and what cannot be said is not said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import c1, q1
from flows.compare import compare_runs
from flows.engine import all_ready, perform, planned
from foresight.probes import CONTROLS
from foresight.studies.reconstruction import FLOORS, ROUND_TRIP
from tests.conftest import quickly_trained

pytestmark = pytest.mark.slow

SAMPLES = 48
POINTS = ["vit.4", "merged"]
ADAPTERS = ["linear", "mlp:16"]


def settings(**change: Any) -> c1.Settings:
    return c1.Settings(**{"samples": SAMPLES, "points": POINTS, "adapters": ADAPTERS} | change)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A workplace in which Q1's extraction was there before C1, with C1's document."""
    folder = tmp_path_factory.mktemp("c1")
    with quickly_trained(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        perform(q1, q1.Settings(samples=SAMPLES, points=POINTS))
        yield folder, perform(c1, settings()).to_json()


def numbers(document: dict[str, Any], row: str, name: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (m["point"], m["variant"]): m for m in document["metrics"] if (m["row"], m["name"]) == (row, name)
    }


def test_what_q1_extracted_is_not_extracted_again(ran: tuple[Path, dict[str, Any]]) -> None:
    assert ran[1]["forwards"] == 0
    assert ran[1]["rows_written"] == 0


def test_places_carry_the_picture_and_every_floor_is_beaten_by_a_margin(
    ran: tuple[Path, dict[str, Any]],
) -> None:
    found = numbers(ran[1], "C1.2", "latent R²")
    for point in POINTS:
        mine = found[point, "trained"]
        floors = [v for name, v in mine["controls"].items() if name in FLOORS]
        assert len(floors) == 2
        assert mine["value"] > max(floors) + 0.15
    for name in ("SSIM", "PSNR (dB)"):
        for m in numbers(ran[1], "C1.2", name).values():
            wanted = {ROUND_TRIP, *FLOORS} if m["variant"] == "trained" else {ROUND_TRIP}
            assert wanted <= set(m["controls"])
            assert m["n"] == SAMPLES // 4


def test_the_merger_is_measured_on_both_true_grids(ran: tuple[Path, dict[str, Any]]) -> None:
    mine = numbers(ran[1], "C1.3", "SSIM, after − before")["merged", "trained"]
    assert mine["detail"]["grids"] == {"vit.4": [1, 8, 8], "merged": [1, 4, 4]}
    assert mine["low"] <= mine["value"] <= mine["high"]


def test_places_stand_beside_all_their_controls_and_in_the_verdict(ran: tuple[Path, dict[str, Any]]) -> None:
    for m in numbers(ran[1], "C1.4", "spatial IoU").values():
        assert set(CONTROLS) <= set(m["controls"])
        assert m["detail"]["grid"] == {"vit.4": [1, 8, 8], "merged": [1, 4, 4]}[m["point"]]
    page = (ran[0] / ran[1]["report"]).read_text()
    assert "How exactly can the place of an object be read?" in page
    assert "it was not measured in this run" not in page


def test_the_pipeline_is_judged_at_the_point_that_the_choosing_fold_prefers(
    ran: tuple[Path, dict[str, Any]],
) -> None:
    (place,) = numbers(ran[1], "C1.5", "SSIM")
    mine = numbers(ran[1], "C1.5", "SSIM")[place]
    assert {"linear probe", "random weights", ROUND_TRIP, *FLOORS} <= set(mine["controls"])
    assert mine["detail"]["design"] == "mlp:16"
    assert f"at {place[0]}, with the mlp:16 adapter" in (ran[0] / ran[1]["report"]).read_text()


def test_ablations_change_one_factor_at_a_time(ran: tuple[Path, dict[str, Any]]) -> None:
    runs = [m for m in ran[1]["metrics"] if (m["row"], m["name"]) == ("C1.6", "SSIM")]
    best = next(iter(numbers(ran[1], "C1.5", "SSIM")))[0]
    told = {(m["point"], m["target"]) for m in runs}
    other = next(p for p in POINTS if p != best)
    full = SAMPLES * 3 // 4
    assert told == {
        (best, f"mlp:16, {full} samples"), (other, f"mlp:16, {full} samples"), (best, f"linear, {full} samples"),
        (best, f"mlp:16, {full // 2} samples"), (best, f"mlp:16, {full // 4} samples"),
    }  # fmt: skip
    sizes = {m["detail"]["design"]: m["detail"]["parameters"] for m in runs if m["point"] == best}
    assert set(sizes) == set(ADAPTERS)


def test_crossed_ablations_are_every_point_adapter_and_share_and_what_is_trained_stays(
    ran: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ran[0] / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    looks = {look.name: look.state for look in planned(c1, settings(ablations="cross"))}
    crossed = {
        f"adapter qwen2.5-vl-tiny {point} {design}{share}"
        for point in POINTS for design in ADAPTERS for share in ("", " 0.5", " 0.25")
    }  # fmt: skip
    assert crossed <= looks.keys()
    assert sum(looks[name] == "ready" for name in crossed) == 5


def test_the_distance_is_not_called_lpips_and_not_judged_without_the_published_network(
    ran: tuple[Path, dict[str, Any]],
) -> None:
    names = {m["name"] for m in ran[1]["metrics"]}
    assert "LPIPS" not in names
    page = (ran[0] / ran[1]["report"]).read_text()
    assert "not comparable with the threshold" in page
    assert ran[1]["verdict"] != "PROCEED"


def test_a_second_run_computes_nothing(
    ran: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ran[0] / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    assert all_ready(planned(c1, settings()))
    again = perform(c1, settings()).to_json()
    assert {s["state"] for s in again["stages"]} == {"cached"}
    assert again["metrics"] == ran[1]["metrics"]
    assert json.loads((tmp_path / "runs" / "c1" / "measurements.json").read_text())


def test_a_run_can_be_held_against_itself(
    ran: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ran[0])
    found = compare_runs("last", ran[1]["run"], url=ran[1]["store"], out=tmp_path)
    assert found.verdict == "IDENTICAL"
    assert found.comparison.before.decision["overall"] == ran[1]["verdict"]


def test_another_adapter_trains_that_one_alone(
    ran: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ran[0] / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    looks = {look.name: look.state for look in planned(c1, settings(adapters=["linear", "mlp:8", "mlp:16"]))}
    assert [n for n, state in looks.items() if n.startswith("adapter") and state != "ready"] == [
        "adapter best mlp:8"
    ]


def test_an_adapter_that_does_not_exist_is_refused_before_anything_is_done() -> None:
    with pytest.raises(ValueError, match="needs a hidden width"):
        settings(adapters=["mlp"])


def test_four_samples_give_numbers_without_intervals_and_no_verdict(
    ran: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ran[0] / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    few = perform(c1, settings(samples=4)).to_json()
    assert few["verdict"] == "CAN'T TELL"
    assert few["forwards"] == 0
    scored = numbers(few, "C1.2", "SSIM")["vit.4", "trained"]
    assert scored["low"] is None
    assert "interval needs 8 groups" in scored["why"]

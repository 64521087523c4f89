"""Q1.4's decoded prediction in a run: told everywhere, made once, stale when either model changes."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import q1
from flows.engine import perform, planned
from flows.plan import planned_against
from foresight.studies.decoded import GAIN, OF
from foresight.studies.reconstruction import MEAN_IMAGE, ONE_COLOUR, POOLED, RANDOM, ROUND_TRIP
from tests.conftest import quickly_trained

pytestmark = pytest.mark.slow

SAMPLES = 48
POINTS = ["vit.2", "merged"]
STAGE = "Q1.4 decoded prediction"


def settings(**change: Any) -> q1.Settings:
    return q1.Settings(**{"samples": SAMPLES, "points": POINTS} | change)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("decoded")
    with quickly_trained(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder, perform(q1, settings()).to_json()


@pytest.fixture
def place(ran: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the workplace in which the study ran once."""
    shutil.copytree(ran[0] / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_numbers_stand_with_every_control_at_the_point_of_the_decision(
    ran: tuple[Path, dict[str, Any]],
) -> None:
    folder, document = ran
    mine = [m for m in document["metrics"] if m["name"].endswith(OF)]
    decision = json.loads((folder / document["report"]).with_name("report.json").read_text())
    assert len(mine) == 4
    assert dict(decision["summary"])["Best extraction point"] == mine[0]["point"]
    for m in mine[:3]:
        assert {ROUND_TRIP, MEAN_IMAGE, ONE_COLOUR, POOLED, RANDOM} == set(m["controls"])
        assert m["n"] == m["n_effective"] == SAMPLES // 4
        assert m["low"] < m["value"] < m["high"]
        assert m["detail"][GAIN]["low"] <= m["detail"][GAIN]["value"] <= m["detail"][GAIN]["high"]


def test_they_are_in_the_page_the_files_and_the_figures(ran: tuple[Path, dict[str, Any]]) -> None:
    report = (ran[0] / ran[1]["report"]).parent
    page = (report / "report.html").read_text()
    assert "The decoded prediction at " in page
    assert "not comparable with the threshold" in page
    with (report / "measurements.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["name"] == f"SSIM {OF}"]
    assert [line["control: mean-pooled tokens"] != "" for line in lines] == [True]
    assert sum(m["name"].endswith(OF) for m in json.loads((report / "measurements.json").read_text())) == 4
    assert [f.name for f in report.glob("figures/*decoded-prediction*.png")]


def test_a_second_run_makes_nothing_and_the_plan_shows_it(place: Path) -> None:
    assert {look.name: look.state for look in planned(q1, settings())}[STAGE] == "ready"
    again = perform(q1, settings()).to_json()
    assert again["forwards"] == again["rows_written"] == 0
    assert {s["state"] for s in again["stages"]} == {"cached"}


@pytest.mark.parametrize(
    "change",
    [{"vlm": ["qwen2.5-vl-tiny@seed1"]}, {"decoder": "ltx-video-tiny@seed1"}],
    ids=["vlm", "decoder"],
)
def test_another_model_on_either_side_makes_it_stale(place: Path, change: dict[str, Any]) -> None:
    looks = {look.name: look for look in planned(q1, settings(**change))}
    (model,) = (name for name in looks if name.startswith("model") and name.endswith("@seed1"))
    assert looks[STAGE].state == "waiting"
    assert model in looks[STAGE].roots


def test_the_decision_does_not_hang_on_the_pictures(place: Path) -> None:
    plan = planned_against(q1, settings(refresh=[STAGE]), "last")
    states = {look.name: look.state for look in plan.looks}
    assert states[STAGE] == "missing"
    assert states["Q1.D decision"] == "ready"

"""The spatial study through whole runs: what it re-uses, what it says it cannot measure, and its report."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flows import q1, q2
from flows.engine import Outcome, perform, planned
from foresight import probes
from foresight.probes import CONTROLS
from foresight.studies import spatial
from tasks.stages import Look
from tests.conftest import quickly_trained
from tests.foresight.data.benchmarks_on_disk import coco, something

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

POINTS = ["patch", "merged"]
SAMPLES = 40
PLANS: dict[str, list[Look]] = {}


def asked(experiment: ModuleType, **settings: Any) -> Any:
    return experiment.Settings(**settings)


@contextmanager
def short_training() -> Iterator[None]:
    """Train real probes for a few steps: what they find is not looked at here."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("box_probe", "set_probe", "motion_probe"):
            patch.setattr(spatial, name, functools.partial(getattr(probes, name), steps=3))
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    with quickly_trained(), short_training(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("q2"))
        coco(Path("coco"))
        something(Path("ssv2"), train=2, validation=10, test=1)
        q1_run = perform(q1, asked(q1, samples=SAMPLES, points=POINTS))
        first = perform(q2, asked(q2, samples=SAMPLES, points=POINTS))
        PLANS["a point more"] = planned(q2, asked(q2, samples=SAMPLES, points=[*POINTS, "vit.2"]))
        yield {
            "q1": q1_run,
            "first": first,
            "again": perform(q2, asked(q2, samples=SAMPLES, points=POINTS)),
            "clips": perform(
                q2, asked(q2, out="clips", data="synthetic:moving", samples=24, frames=8, points=["merged"])
            ),
            "moments": perform(
                q2, asked(q2, out="moments", data="synthetic:moving", samples=24, points=["merged"])
            ),
            "coco": perform(q2, asked(q2, out="coco-report", data="coco:coco", points=["merged"])),
            "ssv2": perform(q2, asked(q2, out="ssv2-report", data="ssv2:ssv2", frames=4, points=["merged"])),
        }


def metrics(outcome: Outcome, row: str) -> list[dict[str, Any]]:
    return [m for m in outcome.to_json()["metrics"] if m["row"] == row]


def test_what_the_alignment_study_extracted_is_read_and_not_computed_again(place: dict[str, Outcome]) -> None:
    assert place["q1"].house.forwards > 0
    assert place["first"].house.forwards == 0
    assert place["first"].house.rows_reused == SAMPLES * len(POINTS) * 2


def test_every_number_stands_beside_every_control(place: dict[str, Outcome]) -> None:
    rows = [m for m in place["first"].to_json()["metrics"] if m["value"] is not None]
    assert {m["row"] for m in rows} == {"Q2.1", "Q2.2", "Q2.3"}
    assert {m["point"] for m in rows} == set(POINTS)
    for m in rows:
        assert set(m["controls"]) == set(CONTROLS), m["name"]
        assert m["low"] <= m["value"] <= m["high"]


def test_a_second_run_does_nothing_and_says_the_same(place: dict[str, Outcome]) -> None:
    assert {r.state for r in place["again"].ran} == {"cached"}
    assert place["again"].to_json()["metrics"] == place["first"].to_json()["metrics"]


def test_stills_have_no_motion_and_the_report_says_so(place: dict[str, Outcome]) -> None:
    (motion,) = metrics(place["first"], "Q2.4")
    assert motion["value"] is None
    assert "stills do not move" in motion["why"]
    page = place["first"].report
    assert page is not None
    assert "stills do not move" in page.read_text()


def test_an_unpublished_perceptual_network_is_no_lpips(place: dict[str, Outcome]) -> None:
    names = {m["name"] for m in metrics(place["first"], "Q2.3")}
    assert names == {"edge F1", "perceptual distance (random AlexNet)"}
    verdicts = place["first"].looks["Q2.D decision"]
    assert verdicts.values["verdict"] in ("PIVOT", "CAN'T TELL")


def test_clips_are_read_for_boxes_at_their_middle_and_for_motion(place: dict[str, Outcome]) -> None:
    assert {m["row"] for m in place["clips"].to_json()["metrics"] if m["value"] is not None} == {
        "Q2.1", "Q2.2", "Q2.3", "Q2.4",
    }  # fmt: skip
    (motion,) = metrics(place["clips"], "Q2.4")
    assert motion["detail"]["grid"] == [4, 4, 4]


def test_one_frame_a_clip_has_boxes_but_no_motion(place: dict[str, Outcome]) -> None:
    (motion,) = metrics(place["moments"], "Q2.4")
    assert "ask for more frames" in motion["why"]
    assert metrics(place["moments"], "Q2.1")[0]["value"] is not None


def test_a_point_more_leaves_the_others_as_they_are(place: dict[str, Outcome]) -> None:
    states = {look.name: look.state for look in PLANS["a point more"]}
    assert states["extract qwen2.5-vl-tiny"] == "missing"
    assert states["Q2.1 raw patches 1x8x8 at 64x64 px"] == "ready"
    assert states["Q2.1 boxes vit.2"] == "waiting"


def test_annotated_pictures_on_disk_give_every_row_of_stills(place: dict[str, Outcome]) -> None:
    rows = place["coco"].to_json()["metrics"]
    assert {m["row"] for m in rows if m["value"] is not None} == {"Q2.1", "Q2.2", "Q2.3"}
    (objects,) = metrics(place["coco"], "Q2.2")
    assert objects["detail"]["classes"] == ["cat", "dog"]
    assert "it needs 8" in objects["why"]


def test_clips_without_boxes_say_which_rows_are_missing_and_why(place: dict[str, Outcome]) -> None:
    whys = {m["row"]: m["why"] for m in place["ssv2"].to_json()["metrics"] if m["value"] is None}
    assert set(whys) == {"Q2.1", "Q2.2", "Q2.4"}
    assert "clips of ssv2 have no boxes" in whys["Q2.1"]
    assert "fewer than two directions" in whys["Q2.4"]
    assert any(m["value"] is not None for m in metrics(place["ssv2"], "Q2.3"))

"""The spatial study of two models side by side: what it adds, what it leaves alone, what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import store
from flows import q2
from flows.build import extraction, open_house
from flows.engine import Outcome, perform, planned
from foresight.data import Sampling
from foresight.probes import CONTROLS
from foresight.studies import spatial
from foresight.studies.spatial_truth import Truth
from tasks import token_grids
from tasks.house import WrongRequest
from tasks.spatial import Probe
from tests.conftest import quickly_trained
from tests.flows.test_q2 import metrics, short_training

POINTS = ["patch", "merged"]
BESIDE = "dinov2-tiny@random0:vit.2"


def asked(**change: Any) -> q2.Settings:
    return q2.Settings(**{"samples": 16, "points": POINTS, "hybrid": "dinov2-tiny:vit.2"} | change)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    with quickly_trained(), short_training(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("hybrids"))
        moving = asked(out="clips", data="synthetic:moving", samples=12, frames=4, points=["merged"])
        yield {
            "alone": perform(q2, asked(hybrid="")),
            "both": perform(q2, asked()),
            "again": perform(q2, asked()),
            "clips": perform(q2, moving),
        }


def hybrids(outcome: Outcome, row: str) -> list[dict[str, Any]]:
    return [m for m in metrics(outcome, row) if m["detail"].get("beside")]


def probes_of(outcome: Outcome) -> list[Probe]:
    return [s for s in q2.stages(asked(), outcome.house) if isinstance(s, Probe)]


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestWholeRuns:
    def test_a_second_model_adds_its_rows_beside_those_of_the_first(self, place: dict[str, Outcome]) -> None:
        for row in ("Q2.1", "Q2.2", "Q2.3"):
            added = hybrids(place["both"], row)
            assert {m["point"] for m in added} == {f"{p}+{BESIDE}" for p in POINTS}
            for m in added:
                assert set(m["controls"]) == set(CONTROLS), m["name"]
        of_one = [m for m in place["both"].to_json()["metrics"] if not m["detail"].get("beside")]
        assert of_one == place["alone"].to_json()["metrics"]

    def test_the_first_model_is_not_read_again_and_a_second_run_does_nothing(
        self, place: dict[str, Outcome]
    ) -> None:
        states = {r.name: r.state for r in place["both"].ran}
        assert states["extract qwen2.5-vl-tiny"] == states["Q2.1 boxes merged"] == "cached"
        assert states["Q2.1 raw patches 1x4x4 at 64x64 px"] == "cached"
        assert states[f"Q2.1 boxes merged+{BESIDE}"] == "completed"
        assert {r.state for r in place["again"].ran} == {"cached"}

    def test_the_coarser_grid_is_that_of_the_rows_controls(self, place: dict[str, Outcome]) -> None:
        grids = {m["point"]: m["detail"]["grid"] for m in hybrids(place["both"], "Q2.1")}
        assert grids == {f"patch+{BESIDE}": [1, 8, 8], f"merged+{BESIDE}": [1, 4, 4]}
        boxes = {m["point"]: m["controls"]["raw patches"] for m in metrics(place["both"], "Q2.1")}
        assert boxes[f"merged+{BESIDE}"] == boxes["merged"]

    def test_clips_that_one_model_merges_in_time_have_motion_side_by_side(
        self, place: dict[str, Outcome]
    ) -> None:
        (motion,) = hybrids(place["clips"], "Q2.4")
        assert motion["detail"]["grid"] == [2, 4, 4]
        assert motion["value"] is not None

    def test_the_report_draws_and_names_them(self, place: dict[str, Outcome]) -> None:
        page = place["both"].report
        assert page is not None
        text = page.read_text()
        assert "Does a second model bring places back?" in text
        assert f"merged+{BESIDE}" in text
        assert "raw patches" in text

    def test_another_second_model_makes_only_what_it_stands_in_stale(self, place: dict[str, Outcome]) -> None:
        assert place["again"].report is not None
        looks = planned(q2, asked(hybrid="dinov2-tiny@random1:vit.2"))
        stale = {look.name for look in looks if look.state != "ready"}
        rest = {"Q2.D decision", "report"}
        assert rest < stale
        assert all("dinov2-tiny@random1" in name for name in stale - rest)
        ready = {look.name for look in looks} - stale
        assert {"Q2.1 boxes patch", "Q2.3 fine detail merged", "extract qwen2.5-vl-tiny"} <= ready

    def test_what_made_a_row_names_both_models_tokens(self, place: dict[str, Outcome]) -> None:
        both = place["both"]
        (probe,) = (p for p in probes_of(both) if p.name == f"Q2.1 boxes merged+{BESIDE}")
        recipe = probe.recipe(both.house, both.looks)
        assert probe.beside is not None
        assert recipe.inputs["tokens"] == both.looks["extract qwen2.5-vl-tiny"].outputs["merged"]
        assert recipe.inputs["tokens beside"] == both.looks[probe.beside.extract.name].outputs["vit.2"]

    def test_tokens_side_by_side_do_not_hang_on_how_many_rows_are_read_at_a_time(
        self, place: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        both = place["both"]
        (probe,) = (p for p in probes_of(both) if p.name == f"Q2.1 boxes merged+{BESIDE}")
        assert probe.beside is not None
        every = np.arange(len(both.house.manifest))
        truth = Truth(indices=every, values=np.zeros((len(every), 4)))
        where = spatial.split(both.house.manifest.groups, truth, seed=0)
        parts = [(probe.extract, "merged"), (probe.beside.extract, "vit.2")]

        def read(parts: list[Any]) -> np.ndarray:
            found = token_grids.read_grids(both.house, parts, both.looks, truth, where, row="Q2.1", seed=0)
            return found.values.astype(np.float32)

        whole = read(parts)
        monkeypatch.setattr(token_grids, "BLOCK", 5)
        np.testing.assert_allclose(read(parts), whole, atol=5e-3)  # values are kept in float16
        # standardised twice the same features are the same axes: a model beside itself says nothing new
        np.testing.assert_allclose(abs(read(parts[:1] * 2)), abs(read(parts[:1])), atol=2e-2)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"hybrid": "ltx-video-tiny"}, "is a decoder, but an encoder was asked for"),
        ({"hybrid": "dinov2-tiny:vit.9"}, r"vit\.9"),
        ({"hybrid": "dinov2-tiny:all"}, "one point stands beside the others, but all names patch, vit.1"),
        ({"hybrid": "dinov3-tiny"}, "no model card is called 'dinov3-tiny'"),
    ],
)
def test_a_second_model_that_is_not_there_is_refused(
    workplace: Path, change: dict[str, Any], why: str
) -> None:
    with pytest.raises((WrongRequest, KeyError, ValueError), match=why):
        planned(q2, asked(**change))


def test_models_given_other_frames_are_refused_before_anything_is_loaded(workplace: Path) -> None:
    settings = asked(vlm=["qwen2.5-vl-tiny@random0"])
    house = open_house(settings, store.open("runs/store", create=True))
    first = extraction("qwen2.5-vl-tiny@random0", settings, house, points=["merged"])
    second = extraction("dinov2-tiny", settings, house, points=["vit.2"])
    token_grids.check_same_frames(first, second)
    with pytest.raises(WrongRequest, match=r"is given 64x64 px .* 64x128 px .*; give both one --size"):
        token_grids.check_same_frames(first, replace(second, framing=replace(second.framing, size=(64, 128))))
    longer = replace(second, framing=replace(second.framing, sampling=Sampling(frames=4)))
    with pytest.raises(WrongRequest, match="see the same frames"):
        token_grids.check_same_frames(first, longer)


def test_the_point_is_what_follows_the_last_colon_of_a_model(workplace: Path) -> None:
    looks = planned(q2, asked(vlm=["qwen2.5-vl-tiny@random0"], hybrid="dinov2-tiny@random3"))
    names = {look.name for look in looks}
    assert "Q2.1 boxes merged+dinov2-tiny@random3:vit.final" in names
    looks = planned(q2, asked(vlm=["qwen2.5-vl-tiny@random0"], hybrid="dinov2-tiny@random3:vit.1"))
    assert "Q2.1 boxes merged+dinov2-tiny@random3:vit.1" in {look.name for look in looks}

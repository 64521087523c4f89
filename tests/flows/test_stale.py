"""What is stale and why: plans held against earlier runs, stages computed again on request, early cut-off."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import store
from flows import extract, q1
from flows.cli import main
from flows.engine import all_ready, perform, planned, prepare
from flows.plan import Plan, planned_against
from tasks.extract import Extract
from tasks.house import House, WrongRequest
from tasks.measure import Measure
from tasks.stages import StageFailed, run
from tests.conftest import quickly_trained

pytestmark = pytest.mark.slow

SAMPLES = 16
MODEL = "extract qwen2.5-vl-tiny"


def settings(**change: Any) -> q1.Settings:
    return q1.Settings(**{"samples": SAMPLES, "points": ["vit.1", "merged"]} | change)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("first")
    with quickly_trained(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        perform(q1, settings())
        yield folder


@pytest.fixture
def place(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the workplace in which the study ran once."""
    shutil.copytree(first / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(plan: Plan) -> dict[str, str]:
    return {d.name: d.word for d in plan.differences}


def reasons(plan: Plan) -> dict[str, str]:
    return {d.name: d.why for d in plan.differences}


def test_the_same_request_against_the_run_before_differs_nowhere(place: Path) -> None:
    plan = planned_against(q1, settings(), "last")
    assert set(words(plan).values()) == {"same"}
    assert plan.left_out == []


def test_a_change_is_told_field_by_field_against_the_run_it_is_held_against(place: Path) -> None:
    plan = planned_against(q1, settings(vlm=["qwen2.5-vl-tiny@seed1"], samples=SAMPLES + 2), "last")
    assert reasons(plan)["data"] == "manifest +2 −0 samples"
    assert reasons(plan)["model qwen2.5-vl-tiny@seed1"] == "training.seed 0 → 1"
    assert words(plan)["model ltx-video-tiny"] == "same"
    assert reasons(plan)["extract ltx-video-tiny"] == "over other samples"
    assert words(plan)["Q1.4 linear probes"] == "unknown"
    assert plan.left_out == [MODEL]


def test_fewer_points_are_told_by_name(place: Path) -> None:
    plan = planned_against(q1, settings(points=["vit.1"]), "last")
    assert reasons(plan)[MODEL] == "a part of what that run had"
    assert '−["qwen2.5-vl-tiny","merged","trained"]' in reasons(plan)["Q1.5 distances"]


def test_the_command_line_prints_the_comparison_as_one_document(place: Path) -> None:
    asked = ["plan", "q1", "--samples", str(SAMPLES), "--points", "vit.1,merged", "--dtype", "bfloat16"]
    result = CliRunner().invoke(main, [*asked, "--against", "last", "--json"])
    assert result.exit_code == 0, result.output
    stages = {s["name"]: s for s in json.loads(result.stdout)["stages"]}
    assert stages[MODEL]["against"] == {"word": "other", "why": "dtype float32 → bfloat16"}


def test_a_run_that_is_not_there_is_refused_with_those_that_are(place: Path) -> None:
    (record,) = [r for r in store.open("runs/store").recipes() if r.operation == "run"]
    with pytest.raises(WrongRequest, match=f"0 in .* are called 'abcdef'; the newest are {record.id[:12]}"):
        planned_against(q1, settings(), "abcdef")
    assert words(planned_against(q1, settings(), record.id[:8]))["data"] == "same"


def test_a_run_that_came_out_the_same_is_the_same_run(place: Path) -> None:
    assert perform(q1, settings()).run == perform(q1, settings(workers=1)).run


def test_refreshed_rows_are_computed_again_and_found_equal(place: Path) -> None:
    before = planned(q1, settings(refresh=[MODEL]))
    (look,) = [look for look in before if look.state != "ready"]
    assert (look.name, look.rows_missing) == (MODEL, 2 * SAMPLES)
    outcome = perform(q1, settings(refresh=[MODEL]))
    (again,) = [r for r in outcome.ran if r.state == "completed"]
    assert again.why == f"refreshed: {2 * SAMPLES} rows computed again, {2 * SAMPLES} equal to the bit"
    assert outcome.house.forwards > 0
    assert outcome.house.rows_written == 0


def test_a_refreshed_row_that_differs_fails_and_the_stored_one_stays(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = planned(q1, settings())
    from foresight.models import qwen2_5_vl

    forward = qwen2_5_vl.QwenVision.extract

    def of_other_weights(self: Any, batch: Any, asked: Any) -> Any:
        rows = forward(self, batch, asked)
        return [{p: dataclasses.replace(t, values=t.values * 1.5) for p, t in row.items()} for row in rows]

    monkeypatch.setattr(qwen2_5_vl.QwenVision, "extract", of_other_weights)
    with pytest.raises(StageFailed, match=r"32 of 32 rows computed again differ.*the stored rows stay"):
        perform(q1, settings(refresh=[MODEL]))
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert [look.outputs for look in planned(q1, settings())] == [look.outputs for look in before]


def test_a_refreshed_result_that_moved_is_used_from_there_on(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foresight.studies import alignment

    real = alignment.ROWS["Q1.5"]

    def moved(spaces: alignment.Spaces) -> Any:
        return [m | {"value": m["value"] and m["value"] * 0.5} for m in real(spaces)]

    monkeypatch.setitem(alignment.ROWS, "Q1.5", moved)
    outcome = perform(q1, settings(refresh=["Q1.5"]))
    ran = {r.name: r for r in outcome.ran}
    assert "refreshed: other content than before" in ran["Q1.5 distances"].why
    assert ran["report"].state == "completed"
    assert ran["Q1.6 neighbours"].state == "cached"
    assert all_ready(planned(q1, settings()))


def test_a_stage_to_refresh_is_named_by_a_beginning_that_only_it_has(place: Path) -> None:
    with pytest.raises(WrongRequest, match=r"2 stages begin with 'extract qwen'; there are extract qwen2\.5"):
        planned(q1, settings(refresh=["extract qwen"]))
    with pytest.raises(WrongRequest, match="no stage is called 'Q9'; there are data, model"):
        planned(q1, settings(refresh=["Q9"]))


def test_equal_content_below_a_changed_stage_is_cut_off_and_said_so(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder's latents are extracted under a new version and come out as before: nothing below runs."""
    real = Extract.recipes

    def next_version(self: Extract, house: House, fingerprint: Any) -> dict[str, store.Recipe]:
        found = real(self, house, fingerprint)
        if self.ref.card.role == "vlm":
            return found
        return {
            p: store.Recipe(operation=r.operation, version=r.version + 1, settings=r.settings)
            for p, r in found.items()
        }

    earlier = planned_against(q1, settings(), "last").looks
    monkeypatch.setattr(Extract, "recipes", next_version)
    before = {look.name: look.state for look in planned(q1, settings())}
    assert before["extract ltx-video-tiny"] == "missing"
    assert before["Q1.5 distances"] == "waiting"
    outcome = perform(q1, settings())
    ran = {r.name: r for r in outcome.ran}
    both = {"extract ltx-video-tiny", "extract ltx-video-tiny@random0"}
    assert {n for n, r in ran.items() if r.state == "completed"} == both
    assert ran["Q1.5 distances"].why.endswith("not run, what it reads came out as stored before")
    run_before = [r for r in store.open("runs/store").recipes() if r.operation == "run"][-1]
    plan = planned_against(q1, settings(), run_before.id)
    assert words(plan)["extract ltx-video-tiny"] == "other"
    assert reasons(plan)["extract ltx-video-tiny"] == "extract version 1 → 2"
    assert words(plan)["Q1.5 distances"] == "cut off"
    assert len(earlier) == len(plan.looks)


def test_a_run_looks_at_each_stage_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for kind in (Extract, Measure):
        real = kind.look
        monkeypatch.setattr(
            kind,
            "look",
            lambda self, house, given, real=real: (asked.append(self.name), real(self, house, given))[1],
        )
    perform(q1, settings())
    assert asked
    assert len(asked) == len(set(asked))


def test_a_stage_another_run_finished_meanwhile_is_not_run_again(place: Path) -> None:
    wanted = extract.Settings(samples=SAMPLES + 2, points=["vit.1"])
    prepared = prepare(extract, wanted)
    perform(extract, wanted)
    prepared.house.store = store.open("runs/store")
    ran, _ = run(prepared.stages, prepared.house, known={look.name: look for look in prepared.looks})
    assert {r.state for r in ran} == {"cached"}
    assert prepared.house.forwards == 0


def test_refreshed_rows_within_rounding_are_told_apart_from_equal_ones(tmp_path: Path) -> None:
    from foresight.nouns import Sample
    from tasks.refresh import Again

    latents = store.open(tmp_path / "store", create=True)
    recipe = store.Recipe(operation="extract", version=1, settings={"point": "p"})
    values = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    zeros = np.zeros(4, np.float32)
    sample = Sample(digest="ab" * 32, key="a.png", label=None, group="a", media="image")
    with latents.writer(recipe) as writer:
        writer.put(
            sample=sample.digest, values=values, time_s=zeros, row=zeros, col=zeros,
            kind=np.zeros(4, np.uint8), tile=np.zeros(4, np.int16), grid=(1, 2, 2),
        )  # fmt: skip
    again = Again()
    again.compare(latents, recipe, sample, values * np.float32(1 + 1e-5))
    assert (
        again.verdict()
        == "refreshed: 1 rows computed again, 0 equal to the bit, the rest within 1e-05 (rounding)"
    )
    again.compare(latents, recipe, sample, values[:3])
    with pytest.raises(RuntimeError, match=r"1 of 2 rows .* the first is a\.png at p"):
        again.verdict()

"""The life of a run: nothing twice, only what is new, and every change told beforehand with its reason."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import store
from flows import extract, q1
from flows.engine import Outcome, all_ready, perform, planned
from foresight.studies.choice import UNFLATTERED
from foresight.studies.decoded import OF
from tasks.measure import TITLES
from tasks.stages import Look
from tests.conftest import quickly_trained

pytestmark = pytest.mark.slow

SAMPLES = 16
POINTS = ["vit.2", "merged", "llm.2"]


def settings(**change: Any) -> q1.Settings:
    return q1.Settings(**{"samples": SAMPLES, "points": POINTS} | change)


def states(looks: list[Look]) -> dict[str, str]:
    return {look.name: look.state for look in looks}


def worked(outcome: Outcome) -> set[str]:
    return {r.name for r in outcome.ran if r.state == "completed"}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any], list[Look]]]:
    """A workplace in which the study ran once, with its document and the plan before it."""
    folder = tmp_path_factory.mktemp("first")
    with quickly_trained(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        before = planned(q1, settings())
        assert not (folder / "runs" / "store").exists()  # planning makes no store
        document = perform(q1, settings()).to_json()
        yield folder, document, before


@pytest.fixture
def place(
    first: tuple[Path, dict[str, Any], list[Look]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of that workplace, moved elsewhere."""
    shutil.copytree(first[0] / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_does_what_its_plan_listed(first: tuple[Path, dict[str, Any], list[Look]]) -> None:
    _, document, before = first
    planned_states = states(before)
    assert [s["name"] for s in document["stages"]] == list(planned_states)
    for stage in document["stages"]:
        assert (stage["state"] == "cached") == (planned_states[stage["name"]] == "ready")


def test_every_number_of_the_study_stands_with_interval_chance_and_controls(
    first: tuple[Path, dict[str, Any], list[Look]],
) -> None:
    folder, document, _ = first
    assert document["verdict"] in ("PROCEED", "PIVOT", "CAN'T TELL")
    assert {m["row"] for m in document["metrics"]} == {*TITLES, "Q1.D"}
    assert {m["variant"] for m in document["metrics"]} == {"trained", "random weights"}
    for m in document["metrics"]:
        part = 2 if m["name"] == UNFLATTERED else 4 if m["name"].endswith(OF) else 1
        assert m["n"] == SAMPLES // part
        if m["value"] is None:
            assert m["why"]
        else:
            assert m["low"] is None or m["low"] <= m["high"]
    probes = [m for m in document["metrics"] if m["name"].startswith("ridge R²")]
    assert probes
    assert all({"random projection", "shuffled pairs"} <= set(m["controls"]) for m in probes)
    kernels = [m for m in document["metrics"] if m["row"] == "Q1.7"]
    assert all("biased" in m["controls"] for m in kernels)
    page = (folder / document["report"]).read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert (folder / "runs" / "q1" / "measurements.csv").is_file()
    assert list((folder / "runs" / "q1" / "figures").glob("*.png"))


def test_a_second_identical_run_computes_nothing(place: Path) -> None:
    assert all_ready(planned(q1, settings()))
    again = perform(q1, settings()).to_json()
    assert again["forwards"] == 0
    assert again["rows_written"] == 0
    assert {s["state"] for s in again["stages"]} == {"cached"}


def test_more_samples_extract_only_the_new_rows(place: Path) -> None:
    looks = {look.name: look for look in planned(q1, settings(samples=SAMPLES + 4))}
    assert "+4 −0 samples" in looks["data"].why
    assert looks["extract qwen2.5-vl-tiny"].rows_missing == 4 * len(POINTS)
    assert looks["extract qwen2.5-vl-tiny"].why == f"4 of {SAMPLES + 4} samples are new"
    assert looks["model qwen2.5-vl-tiny"].state == "ready"
    more = perform(q1, settings(samples=SAMPLES + 4)).to_json()
    assert more["rows_written"] == 4 * 2 * (len(POINTS) + 1)  # trained and random weights of both models


def test_a_subset_extracts_nothing(place: Path) -> None:
    fewer = perform(q1, settings(samples=SAMPLES - 4)).to_json()
    assert fewer["forwards"] == 0
    assert fewer["rows_written"] == 0


def test_another_experiment_and_point_list_extracts_only_missing_points(place: Path) -> None:
    wanted = extract.Settings(samples=SAMPLES, points=["merged", "vit.1"])
    (look,) = [look for look in planned(extract, wanted) if look.name == "extract qwen2.5-vl-tiny"]
    assert look.rows_missing == SAMPLES
    assert "vit.1: never extracted" in look.why
    assert "merged: in the store" in look.why
    outcome = perform(extract, wanted).to_json()
    assert outcome["rows_written"] == SAMPLES
    assert outcome["rows_reused"] == SAMPLES


def test_a_model_change_reruns_only_what_changed(place: Path) -> None:
    changed = settings(vlm=["qwen2.5-vl-tiny@seed1"])
    looks = {look.name: look for look in planned(q1, changed)}
    retrained = "model qwen2.5-vl-tiny@seed1"
    assert looks[retrained].state == "missing"
    assert looks[retrained].why == "training.seed 0 → 1"
    for name in (
        "model ltx-video-tiny",
        "extract ltx-video-tiny",
        "extract qwen2.5-vl-tiny@random0",
        "decode examples",
    ):
        assert looks[name].state == "ready", name
    for name in (
        "extract qwen2.5-vl-tiny@seed1",
        "Q1.1 categories",
        "Q1.7 kernel alignment",
        "Q1.D decision",
        "report",
    ):
        assert looks[name].state == "waiting"
        assert looks[name].why == f"waits for {retrained}"
    outcome = perform(q1, changed)
    assert worked(outcome) == {n for n, look in looks.items() if look.state != "ready"}
    assert outcome.house.rows_written == SAMPLES * len(POINTS)
    # once the new weights are known, the reason names them
    latents = store.open("runs/store")
    new = next(r for r in latents.recipes() if r.operation == "extract" and r.settings["point"] == "merged")
    old = [r for r in latents.recipes() if r.operation == "extract" and r.settings["point"] == "merged"]
    assert any(
        line.startswith("model.weights ") and "→" in line
        for r in old
        for line in store.explain_change(r, new)
    )


def test_planning_holds_no_model_in_memory(place: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from flows import q1; from flows.engine import planned; "
        f"planned(q1, q1.Settings(samples={SAMPLES}, vlm=['qwen2.5-vl-tiny@seed1'])); "
        "sys.exit(' '.join(m for m in ('torch', 'transformers', 'diffusers', 'prefect') if m in sys.modules) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_equal_bytes_after_a_retraining_cut_off_what_reads_them(place: Path) -> None:
    """The decoder's fingerprint changes, its latents do not: nothing below its extraction runs again."""
    latents = store.open("runs/store")
    recipes = [r for r in latents.recipes() if r.operation == "extract" and r.settings["point"] == "latent"]
    ids = {latents.latents(recipes[0].id, m.id).content_id for m in latents.manifests()}
    assert len(ids) == 1
    # the same values under another recipe have the same content id: keys downstream name content
    other = store.Recipe(
        operation="extract",
        version=recipes[0].version + 1,
        settings=recipes[0].settings,
        inputs=recipes[0].inputs,
    )
    (manifest,) = latents.manifests()
    with latents.writer(other, rows_per_shard=3) as writer:
        for sample in latents.manifest(manifest.id)["samples"]:
            row = latents.row(recipes[0].id, sample["sample"])
            writer.put(
                sample=sample["sample"], values=row.values, time_s=row.time_s, row=row.row, col=row.col,
                kind=row.kind, tile=row.tile, grid=row.grid,
            )  # fmt: skip
    assert latents.latents(other.id, manifest.id).content_id in ids


def test_a_swept_result_is_missing_again_never_a_broken_hit(place: Path) -> None:
    blobs = place / "runs" / "store" / "blobs"
    assert blobs.is_dir()
    shutil.rmtree(blobs)
    blobs.mkdir()
    looks = {look.name: look for look in planned(q1, settings())}
    assert looks["extract ltx-video-tiny"].state == "waiting"
    assert looks["model ltx-video-tiny"].why == "computed before, but its content was swept or damaged"
    assert perform(q1, settings()).to_json()["verdict"]
    assert all_ready(planned(q1, settings()))

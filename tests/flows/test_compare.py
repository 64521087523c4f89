"""`foresight compare RUN RUN`: what moved between two runs, from the store or from their reports' folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flows import extract, q1
from flows.cli import main
from flows.engine import Outcome, perform
from tests.conftest import quickly_trained


def compare(*words: str) -> Result:
    return CliRunner().invoke(main, ["compare", *words])


def found(*words: str) -> dict[str, Any]:
    result = compare(*words, "--json")
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_runs_that_wrote_no_report_are_refused_by_name(workplace: Path) -> None:
    run = perform(extract, extract.Settings(samples=4, vlm=["qwen2.5-vl-tiny@random0"], points=["vit.1"])).run
    result = compare(run, run)
    assert result.exit_code == 2
    assert f"extract run {run[:12]} has none" in result.stderr
    result = compare("ffffff", "last")
    assert result.exit_code == 2
    assert run[:12] in result.stderr


def test_a_folder_without_numbers_is_refused(workplace: Path) -> None:
    result = compare("some/where", "some/where")
    assert result.exit_code == 2
    assert "some/where has no measurements.json" in result.stderr


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Outcome, Outcome]]:
    """A study before and after its language model was trained again."""
    folder = tmp_path_factory.mktemp("ran")
    with quickly_trained(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        before = perform(q1, q1.Settings(samples=16, points=["vit.1"]))
        retrained = q1.Settings(samples=16, points=["vit.1"], vlm=["qwen2.5-vl-tiny@seed1"], out="runs/after")
        yield folder, before, perform(q1, retrained)


@pytest.fixture
def place(ran: tuple[Path, Outcome, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ran[0] / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_model_change_is_named_and_numbers_of_the_decoder_alone_are_identical(
    place: Path, ran: tuple[Path, Outcome, Outcome]
) -> None:
    _, before, after = ran
    document = found(before.run[:8], "last")
    assert document["after"] == f"q1 run {after.run[:12]}"
    told = {s["what"]: (s["before"], s["after"]) for s in document["settings"]}
    assert told["vlm.card"] == ("qwen2.5-vl-tiny", "qwen2.5-vl-tiny@seed1")
    assert "vlm.fingerprint" in told
    assert not any(what.startswith(("decoder.", "data.")) for what in told)
    decoder = [c for c in document["changes"] if c["point"] == "latent"]
    assert decoder
    assert {c["word"] for c in decoder} == {"identical"}
    assert any(c["difference"] for c in document["changes"] if c["point"].startswith("vit.1"))
    page = (place / "runs" / "compare" / "report.html").read_text()
    assert "qwen2.5-vl-tiny@seed1" in page


@pytest.mark.slow
def test_a_run_against_itself_is_identical(place: Path) -> None:
    document = found("last", "last", "--out", "elsewhere")
    assert document["verdict"] == "IDENTICAL"
    assert Path(document["report"]).parent.name == "elsewhere"
    assert (place / "elsewhere" / "report.html").exists()


@pytest.mark.slow
def test_a_number_far_beyond_its_interval_is_what_moved(place: Path) -> None:
    shutil.copytree(place / "runs" / "q1", place / "moved")
    path = place / "moved" / "measurements.json"
    numbers = json.loads(path.read_text())
    one = next(m for m in numbers if m["low"] is not None)
    shift = 10 * (one["high"] - one["low"])
    for end in ("value", "low", "high"):
        one[end] += shift
    path.write_text(json.dumps(numbers))
    document = found("runs/q1", "moved")
    assert document["verdict"] == "MOVED"
    (moved,) = [c for c in document["changes"] if c["word"] == "moved"]
    assert (moved["name"], moved["point"].split(" ")[0]) == (one["name"], one["point"])
    assert moved["difference"] == pytest.approx(shift)
    result = compare("runs/q1", "moved")
    assert "MOVED" in result.stdout
    assert one["name"] in result.stdout

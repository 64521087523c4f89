"""Dying well: processes killed at the worst moment, and two equal runs at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import store
from flows import extract
from flows.engine import perform, planned

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

REF = "qwen2.5-vl-tiny@random0"
STAGE = f"extract {REF}"
POINTS = ["vit.1", "merged"]
PATIENCE_S = 240

RUN = """
import json, sys
from flows import extract
from flows.engine import perform
print(json.dumps(perform(extract, extract.Settings(**json.loads(sys.argv[1]))).to_json()))
"""

TRAIN = """
import dataclasses, json
from flows import extract
from flows.engine import perform
from foresight import models
from foresight.models import zoo
card = models.cards()["qwen2.5-vl-tiny"]
training = dict(card.training) | {"images": 48, "steps": 130, "batch": 2}
models.cards()[card.name] = dataclasses.replace(card, training=training)
zoo.HELD_OUT = 8
steps = []
def worker(stage, look, work):
    return work(lambda done, whole, text: steps.append(done) if stage.name.startswith("model") else None)
done = perform(extract, extract.Settings(samples=4, vlm=[card.name], points=["vit.1"]), worker=worker)
outputs = dict(done.looks["model " + card.name].outputs)
print(json.dumps({"first": steps[0], "last": steps[-1], "outputs": outputs}))
"""


def settings(**change: Any) -> dict[str, Any]:
    return {"samples": 24, "vlm": [REF], "points": POINTS, "batch": 1} | change


def python(script: str, *words: str, **environment: str) -> subprocess.Popen[str]:
    known = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    return subprocess.Popen(
        [sys.executable, "-c", script, *words],
        env=known | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def document(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=2 * PATIENCE_S)
    assert process.returncode == 0, err[-3000:]
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def until(
    there: Callable[[], Any], process: subprocess.Popen[Any] | None = None, patience_s: float = PATIENCE_S
) -> Any:
    """Return what `there` returns once it is true; `process` must not end before."""
    end = time.monotonic() + patience_s
    while not (found := there()):
        assert time.monotonic() < end, "it did not happen in time"
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the process ended before: {process.communicate()[1][-3000:]}")
        time.sleep(0.02)
    return found


def rows(url: str = "runs/store") -> int:
    try:
        return sum(used.rows for used in store.open(url).du())
    except store.StoreError:
        return 0


def contents(url: str = "runs/store") -> dict[str, str]:
    """Return the content id at every point, of a store that holds nothing torn."""
    (look,) = [k for k in planned(extract, extract.Settings(**settings(store=url))) if k.name == STAGE]
    assert look.state == "ready", look.why
    assert store.open(url).verify().problems == []
    return dict(look.outputs)


def test_an_extraction_killed_half_way_goes_on_with_the_rows_that_are_missing(workplace: Path) -> None:
    wanted = extract.Settings(**settings(samples=300))
    killed = python(RUN, wanted.model_dump_json())
    until(rows, killed)
    killed.kill()
    killed.communicate()
    assert store.open("runs/store").verify().problems == []
    kept = rows()
    (look,) = [k for k in planned(extract, wanted) if k.name == STAGE]
    assert look.rows_missing == 300 * len(POINTS) - kept
    assert 0 < look.rows_missing < 300 * len(POINTS)
    after = perform(extract, wanted)
    assert (after.house.rows_written, after.house.rows_reused) == (look.rows_missing, kept)
    perform(extract, extract.Settings(**settings(store="runs/other")))
    assert contents() == contents("runs/other")


def test_two_equal_runs_at_once_both_finish_and_leave_what_one_would(workplace: Path) -> None:
    wanted = extract.Settings(**settings(store="runs/both")).model_dump_json()
    both = [python(RUN, wanted) for _ in range(2)]
    documents = [document(one) for one in both]
    assert documents[0]["run"] == documents[1]["run"]
    assert all(d["rows_written"] + d["rows_reused"] == 24 * len(POINTS) for d in documents)
    perform(extract, extract.Settings(**settings()))
    assert contents("runs/both") == contents()


def test_a_training_killed_half_way_ends_with_the_weights_of_one_that_was_not(
    workplace: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = python(TRAIN)
    until(lambda: list(Path("runs/cache/training").glob("*/training.safetensors")), killed)
    killed.kill()
    killed.communicate()
    resumed = document(python(TRAIN))
    assert resumed["first"] == 101
    assert resumed["last"] == 130
    assert not list(Path("runs/cache/training").glob("*/*"))
    monkeypatch.chdir(tmp_path_factory.mktemp("undisturbed"))
    assert document(python(TRAIN)) == {"first": 1, "last": 130, "outputs": resumed["outputs"]}

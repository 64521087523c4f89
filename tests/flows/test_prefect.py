"""Runs as Prefect shows them: a real server, one for this file, under the runs folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SETTINGS = {"samples": 6, "vlm": ["qwen2.5-vl-tiny@random0"], "points": ["vit.1"], "store": "runs/store"}

SCRIPT = """
import json, sys
from pathlib import Path
from tasks.prefect_home import keep_prefect_in
keep_prefect_in(Path("runs"))
import socket
connect = socket.socket.connect
def loopback_only(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise SystemExit(f"asked the network for {address}")
    return connect(self, address)
socket.socket.connect = loopback_only
from prefect.client.orchestration import get_client
from prefect.settings import temporary_settings
from flows import extract
from flows._as_flow import as_flow
found = []
settings = json.loads(sys.argv[1])
flow = as_flow(extract)
for _ in range(2):
    state = flow(extract.Settings(**settings), return_state=True)
    found.append({"type": state.type.value, "name": state.name, "run": str(state.state_details.flow_run_id)})
import time
with get_client(sync_client=True) as client:
    from prefect.client.schemas.filters import (
        ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterId,
    )
    for one in found:
        for _ in range(120):
            runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[one["run"]])))
            if len(runs) == 3 and all(r.state and r.state.is_final() for r in runs):
                break
            time.sleep(0.5)
        one["tasks"] = {r.name: [r.state.name, r.state.message] for r in runs}
    for one in found:
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[one["run"]]))
        )
        artifacts.sort(key=lambda a: a.created)
        one["artifacts"] = [[a.key, a.type, a.data, a.description] for a in artifacts]
    wanted = extract.Settings(**settings | {"samples": 8})
    state = extract.plan(wanted, against="last", return_state=True)
    planned = client.read_artifacts(
        artifact_filter=ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[str(state.state_details.flow_run_id)])
        )
    )
    runs = client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[str(state.state_details.flow_run_id)]))
    )
    plan = {
        "state": [state.type.value, state.name],
        "artifacts": [[a.key, json.loads(a.data)] for a in planned],
        "task_runs": len(runs),
    }
    from foresight.models import qwen2_5_vl

    def fails(self, batch, asked):
        raise ValueError("the pixels are not what this model was trained on")

    qwen2_5_vl.QwenVision.extract = fails
    state = as_flow(extract)(extract.Settings(**settings | {"points": ["vit.2"]}), return_state=True)
    shown = client.read_artifacts(
        artifact_filter=ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[str(state.state_details.flow_run_id)])
        )
    )
    failed = {"state": [state.type.value, state.name, state.message], "shown": {a.key: a.data for a in shown}}
print("FOUND " + json.dumps({"runs": found, "plan": plan, "failed": failed}))
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What the server holds after the same flow ran twice."""
    folder = tmp_path_factory.mktemp("prefect")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(SETTINGS)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")] or [
        done.stderr[-3000:]
    ]
    assert line.startswith("FOUND "), line
    return folder, json.loads(line.removeprefix("FOUND "))


def test_stages_show_as_completed_and_then_as_cached_with_the_reason(
    shown: tuple[Path, dict[str, Any]],
) -> None:
    first, second = shown[1]["runs"]
    stage = "extract qwen2.5-vl-tiny@random0"
    assert first["tasks"][stage][0] == "Completed"
    assert first["tasks"][stage][1] == "computed because: never extracted"
    assert {name for name, _ in second["tasks"].values()} == {"Cached"}
    assert second["tasks"][stage][1] == "6 rows in the store"


def test_a_flow_of_cached_stages_ends_in_completed(shown: tuple[Path, dict[str, Any]]) -> None:
    # a flow that ended in a state named Cached would be taken for a zombie later
    assert [(r["type"], r["name"]) for r in shown[1]["runs"]] == [("COMPLETED", "Completed")] * 2


def test_the_plan_is_the_first_thing_a_run_shows_and_what_came_of_it_the_last(
    shown: tuple[Path, dict[str, Any]],
) -> None:
    for run, state in zip(shown[1]["runs"], ("missing", "ready"), strict=True):
        (first, kind, plan, _), *_, (last, _, text, told) = run["artifacts"]
        assert (first, kind) == ("extract-plan", "table")
        states = {row["stage"]: row["state"] for row in json.loads(plan)}
        assert states["extract qwen2.5-vl-tiny@random0"] == state
        assert last == "extract-result"
        assert told in text
        assert "* store: runs/store" in text
    assert "3 of 3 stages were in the store; 0 forward passes" in told


def test_a_stage_that_works_shows_how_far_it_is(shown: tuple[Path, dict[str, Any]]) -> None:
    first, second = shown[1]["runs"]
    kinds = [kind for _, kind, _, _ in first["artifacts"]]
    assert "progress" in kinds
    (told,) = [told for _, kind, _, told in first["artifacts"] if kind == "progress"]
    assert told.startswith("extract qwen2.5-vl-tiny@random0 · 6 of 6")
    assert "progress" not in [kind for _, kind, _, _ in second["artifacts"]]


def test_a_plan_alone_shows_its_table_and_carries_out_nothing(shown: tuple[Path, dict[str, Any]]) -> None:
    plan = shown[1]["plan"]
    assert plan["state"] == ["COMPLETED", "Completed"]
    assert plan["task_runs"] == 0
    ((key, rows),) = plan["artifacts"]
    assert key == "extract-plan"
    told = {row["stage"]: row for row in rows}
    assert told["data"]["against that run"] == "other: manifest +2 −0 samples"
    assert told["extract qwen2.5-vl-tiny@random0"]["rows to compute"] == 2


def test_a_failed_stage_says_which_samples_and_what_to_do_on_the_run_s_page(
    shown: tuple[Path, dict[str, Any]],
) -> None:
    failed = shown[1]["failed"]
    assert failed["state"][:2] == ["FAILED", "Failed"]
    told = "extract qwen2.5-vl-tiny@random0: 6 samples, "
    for text in (failed["state"][2], failed["shown"]["extract-result"]):
        assert told in text
        assert "the pixels are not what this model was trained on; run again with --batch 1" in text
    assert "the same run goes on from there" in failed["shown"]["extract-result"]


def test_everything_prefect_keeps_lies_under_the_runs_folder(shown: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = shown
    assert (folder / "runs" / "prefect" / "prefect.db").is_file()
    assert [p.name for p in folder.iterdir()] == ["runs"]


def test_a_stage_s_failure_is_the_run_s_failure_with_its_own_words(workplace: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    (workplace / "runs").mkdir()
    command = [str(Path(sys.executable).parent / "foresight"), "run", "extract", "--samples", "4", "--json"]
    model = ["--vlm", "qwen2.5-vl-3b", "--points", "vit.1"]
    environment |= {"HF_HUB_CACHE": str(workplace / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, *model],
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 2, done.stderr[-2000:]
    document = json.loads(done.stdout)
    assert "hf download Qwen/Qwen2.5-VL-3B-Instruct" in document["error"]
    assert [s["state"] for s in document["stages"]] == ["completed", "failed"]

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
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, ArtifactFilter
    for one in found:
        for _ in range(120):
            runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[one["run"]])))
            if len(runs) == 3 and all(r.state and r.state.is_final() for r in runs):
                break
            time.sleep(0.5)
        one["tasks"] = {r.name: [r.state.name, r.state.message] for r in runs}
    artifacts = client.read_artifacts()
    rows = [json.loads(a.data) for a in artifacts if a.key == "extract-plan"]
print("FOUND " + json.dumps({"runs": found, "plans": rows}))
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


def test_the_plan_is_the_first_thing_a_run_shows(shown: tuple[Path, dict[str, Any]]) -> None:
    plans = shown[1]["plans"]
    assert len(plans) == 2
    states = sorted(
        {row["stage"]: row["state"] for row in plan}["extract qwen2.5-vl-tiny@random0"] for plan in plans
    )
    assert states == ["missing", "ready"]


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

"""Dying well: processes killed at the worst moment, a server that restarts, two equal runs at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

import store
from flows import extract
from flows.engine import perform, planned
from tests.deployments.test_local import ask

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

REF = "qwen2.5-vl-tiny@random0"
STAGE = f"extract {REF}"
POINTS = ["vit.1", "merged"]
PATIENCE_S = 400

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

HELD = """
import json, sys, time
from pathlib import Path
from tasks.prefect_home import keep_prefect_in
keep_prefect_in(Path("runs"))
from flows import extract
from flows._as_flow import as_flow
from foresight.models.qwen2_5_vl import QwenVision
from tasks import stage
stage.EVERY_S = 0.0
settings = extract.Settings(**json.loads(sys.argv[1]))
plain, seen = QwenVision.extract, []
def wait_for(name):
    while not Path(name).exists():
        time.sleep(0.05)
def held(self, batch, asked):
    seen.extend(batch)
    if len(seen) == 1:
        Path("working").touch()
        wait_for("killed")
    if len(seen) == settings.samples:
        Path("last").touch()
        wait_for("restarted")
    return plain(self, batch, asked)
QwenVision.extract = held
state = as_flow(extract)(settings, return_state=True)
print(json.dumps({"state": state.name, "run": str(state.state_details.flow_run_id), "said": state.message}))
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


def document(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=2 * PATIENCE_S)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


def until(
    there: Callable[[], Any], process: subprocess.Popen[Any] | None = None, patience_s: float = PATIENCE_S
) -> Any:
    """Return what `there` returns once it is true; `process` must not end before."""
    end = time.monotonic() + patience_s
    while not (found := there()):
        assert time.monotonic() < end, "it did not happen in time"
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the process ended before: {process.communicate()[1][-3000:]}")
        time.sleep(0.1)
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


@dataclass(kw_only=True)
class Prefect:
    """A Prefect server and one worker, in a folder of their own."""

    api: str
    environment: dict[str, str]
    log: Path
    server: subprocess.Popen[bytes] | None = None
    worker: subprocess.Popen[bytes] | None = None

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "prefect", *words],
                env=os.environ | self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_server(self) -> None:
        port = self.api.split(":")[2].split("/")[0]
        self.server = self.start("server", "start", "--host", "127.0.0.1", "--port", port)
        until(self.healthy, self.server)

    def healthy(self) -> bool:
        try:
            return bool(ask(f"{self.api}/health"))
        except OSError:
            return False

    def kill(self, process: subprocess.Popen[bytes] | None) -> None:
        """End a process and all it started, at once."""
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def run(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = ask(f"{self.api}/flow_runs/{run}")
        return found

    def ends_as(self, run: str) -> str:
        ends = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        until(lambda: self.run(run)["state"]["type"] in ends)
        return str(self.run(run)["state"]["name"])


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    folder = tmp_path_factory.mktemp("dying")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    environment = {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "OMP_NUM_THREADS": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        found = Prefect(api=api, environment=environment, log=folder / "prefect.log")
        try:
            found.start_server()
            yield found
        finally:
            found.kill(found.worker)
            found.kill(found.server)


def test_a_run_outlives_a_server_that_is_killed_and_started_again(prefect: Prefect) -> None:
    """Progress goes unseen meanwhile; the work goes on, and its end is told to the server that came back."""
    quick = {"PREFECT_CLIENT_MAX_RETRIES": "2"}
    process = python(HELD, json.dumps(settings()), **prefect.environment, **quick)
    until(Path("working").exists, process)
    prefect.kill(prefect.server)
    Path("killed").touch()
    until(Path("last").exists, process)
    prefect.start_server()
    Path("restarted").touch()
    ended = document(process)
    assert ended["state"] == "Completed", ended["said"]
    assert prefect.ends_as(ended["run"]) == "Completed"
    assert contents()


def test_a_killed_run_is_shown_as_crashed_and_the_same_run_again_goes_on(prefect: Prefect) -> None:
    register = "from deployments.local import register; print(len(register('cpu')))"
    assert document(python(register, **prefect.environment))
    prefect.worker = prefect.start("worker", "start", "--pool", "cpu", "--type", "process")
    (deployment,) = [
        d["id"] for d in ask(f"{prefect.api}/deployments/filter", {}) if d["name"] == "extract-cpu"
    ]  # fmt: skip
    wanted = settings(samples=600, store="runs/killed")

    def trigger() -> str:
        made = ask(
            f"{prefect.api}/deployments/{deployment}/create_flow_run", {"parameters": {"settings": wanted}}
        )
        return str(made["id"])

    first = trigger()
    until(lambda: rows("runs/killed"), prefect.worker)
    (running,) = psutil.Process(prefect.worker.pid).children()
    running.kill()
    assert prefect.ends_as(first) == "Crashed"
    kept = rows("runs/killed")
    assert 0 < kept < 600 * len(POINTS)
    second = trigger()
    assert prefect.ends_as(second) == "Completed"
    filters = {"artifacts": {"flow_run_id": {"any_": [second]}, "key": {"any_": ["extract-result"]}}}
    (result,) = ask(f"{prefect.api}/artifacts/filter", filters)
    assert f"{600 * len(POINTS) - kept} rows written, {kept} reused" in result["description"]
    assert store.open("runs/killed").verify().problems == []

"""`foresight ui`: a real server and worker on loopback, every experiment in it, gone after Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.experiments import experiments

pytestmark = pytest.mark.slow

FORESIGHT = str(Path(sys.executable).parent / "foresight")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[str], Path]]:
    folder = tmp_path_factory.mktemp("ui")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    process = subprocess.Popen(
        [FORESIGHT, "ui", "--port", str(port)], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        told = process.stdout.readline()
        if told.startswith("no GPU here"):
            told = process.stdout.readline()
        assert told.startswith(f"open http://127.0.0.1:{port}/deployments")
        yield f"http://127.0.0.1:{port}/api", process, folder
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def ask(url: str, body: Any = None) -> Any:
    request = urllib.request.Request(url, headers={"Content-Type": "application/json"})
    if body is not None:
        request.data = json.dumps(body).encode()
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def test_every_experiment_can_be_triggered_and_runs_where_it_was_started(
    served: tuple[str, subprocess.Popen[str], Path],
) -> None:
    api, _, folder = served
    pools = {p["name"]: p for p in ask(f"{api}/work_pools/filter", {})}
    assert {name: pool["concurrency_limit"] for name, pool in pools.items()} == {"cpu": None, "gpu": 1}
    deployments = {d["entrypoint"].split(".")[-1]: d for d in ask(f"{api}/deployments/filter", {})}
    assert {"extract", "q1"} <= set(deployments)
    form = deployments["q1"]["parameter_openapi_schema"]["definitions"]["AlignmentSettings"]["properties"]
    assert all(field.get("description") for field in form.values())
    shown = [field["title"] for field in sorted(form.values(), key=lambda field: field["position"])]
    first = ["Data", "Samples", "Seed", "Frames", "Vision-language models", "Extraction points"]
    assert shown[:8] == [*first, "Video decoder", "Point of the decoder"]
    assert len({d["name"] for d in deployments.values()} & {"q1-cpu", "extract-cpu"}) == 2
    settings = deployments["extract"]["parameters"]["settings"]
    settings |= {"samples": 4, "vlm": ["qwen2.5-vl-tiny@random0"], "points": ["patch"]}
    made = ask(
        f"{api}/deployments/{deployments['extract']['id']}/create_flow_run",
        {"parameters": {"settings": settings}},
    )
    until = time.monotonic() + 240
    while (state := ask(f"{api}/flow_runs/{made['id']}")["state"])["type"] not in (
        "COMPLETED",
        "FAILED",
        "CRASHED",
    ):
        assert time.monotonic() < until, state
        time.sleep(1)
    assert state["type"] == "COMPLETED", state
    assert (folder / "runs" / "store" / "format.json").is_file()


def test_every_field_of_every_form_has_a_name_and_a_description_in_plain_words() -> None:
    for experiment in experiments().values():
        for name, field in experiment.Settings.model_fields.items():
            assert field.title, (experiment.NAME, name)
            assert field.description, (experiment.NAME, name)


def test_a_port_in_use_is_refused(served: tuple[str, subprocess.Popen[str], Path], tmp_path: Path) -> None:
    port = served[0].split(":")[2].split("/")[0]
    again = subprocess.run(
        [FORESIGHT, "ui", "--port", port], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert again.returncode == 2
    assert "is in use; give another one with --port" in again.stderr
    assert list(tmp_path.iterdir()) == []


def test_stopping_it_stops_everything_it_started(served: tuple[str, subprocess.Popen[str], Path]) -> None:
    _, process, _ = served
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []

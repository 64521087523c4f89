"""A Prefect server on a real PostgreSQL: what a shared server needs, as SQLite locks when several people write."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployments.test_remote import ask, deploy

pytestmark = pytest.mark.slow

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty database of a PostgreSQL server that lives as long as the test."""
    if not BINARIES:
        pytest.skip("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    binaries, port = BINARIES[-1], _free_port()
    folder = Path("/tmp") / f"foresight-postgres-{os.getpid()}"
    folder.mkdir()
    person: dict[str, str] = {}
    if os.getuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "postgres")
        person = {"user": "postgres", "group": pwd.getpwnam("postgres").pw_name}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True, "cwd": "/"}
    subprocess.run(
        [binaries / "initdb", "-D", folder / "data", "-U", "prefect", "-A", "trust"], **person, **quiet
    )  # type: ignore[call-overload]
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    control = [binaries / "pg_ctl", "-D", folder / "data", "-o", options, "-l", folder / "log", "-w"]
    subprocess.run([*control, "start"], **person, **quiet)  # type: ignore[call-overload]
    try:
        subprocess.run(
            [binaries / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "prefect", "prefect"], **quiet
        )  # type: ignore[call-overload]
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **person, **quiet)  # type: ignore[call-overload]
        shutil.rmtree(folder)


def test_a_server_on_postgresql_takes_deployments_and_runs(database: str, tmp_path: Path) -> None:
    home, port = tmp_path / "prefect", _free_port()
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    api = f"http://127.0.0.1:{port}/api"
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)],
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    worker = None
    try:
        _until(lambda: ask(f"{api}/health") is True, 180)
        done = deploy("--pool", "cpu", "--gpus", "0", api=api, folder=tmp_path, home=home)
        assert done.returncode == 0, done.stderr
        (made,) = (
            d for d in ask(f"{api}/deployments/filter", {}) if d["entrypoint"].endswith("extract.extract")
        )
        settings = made["parameters"]["settings"] | {"samples": 4, "vlm": ["qwen2.5-vl-tiny@random0"]}
        run = ask(f"{api}/deployments/{made['id']}/create_flow_run", {"parameters": {"settings": settings}})
        with (home / "worker.log").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "prefect", "worker", "start", "--pool", "cpu", "--type", "process"],
                env=environment | {"PREFECT_API_URL": api}, stdout=log, stderr=log,
            )  # fmt: skip
        ended = {"COMPLETED", "FAILED", "CRASHED"}
        _until(lambda: ask(f"{api}/flow_runs/{run['id']}")["state"]["type"] in ended, 300)
        state = ask(f"{api}/flow_runs/{run['id']}")["state"]
        assert state["type"] == "COMPLETED", state
        assert not list(home.glob("*.db")), "SQLite was used after all"
    finally:
        for process in (worker, server):
            if process:
                process.terminate()
                process.wait(30)


def _until(true, patience_s: float) -> None:  # type: ignore[no-untyped-def]
    until = time.monotonic() + patience_s
    while True:
        try:
            if true():
                return
        except OSError:
            pass
        assert time.monotonic() < until
        time.sleep(0.5)

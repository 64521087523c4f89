"""Prefect on this machine: server, UI, a work pool with its worker, and one deployment per experiment."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import click

from flows.build import RUNS
from flows.experiments import experiments
from tasks.prefect_home import keep_prefect_in

HOST = "127.0.0.1"
POOL = "cpu"
PATIENCE_S = 180


@click.command()
@click.option("--port", default=4200, show_default=True, type=click.IntRange(1, 65535))
def main(port: int) -> None:
    """Serve the Prefect UI on this machine, with every experiment ready to be triggered from it.

    Ctrl-C stops what this command started and nothing else.
    """
    if _taken(port):
        click.echo(f"foresight: port {port} of {HOST} is in use; give another one with --port", err=True)
        sys.exit(2)
    keep_prefect_in(RUNS)
    os.environ["PREFECT_API_URL"] = f"http://{HOST}:{port}/api"
    # both unwind, so that children never outlive this process; a shell that starts it in the background
    # would have SIGINT ignored otherwise
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            server = stack.enter_context(_child("server", "start", "--host", HOST, "--port", str(port)))
            _wait_for(f"http://{HOST}:{port}/api/health", server)
            names = register()
            worker = stack.enter_context(
                _child("worker", "start", "--pool", POOL, "--type", "process", "--name", "this machine")
            )
            click.echo(f"open http://{HOST}:{port}/deployments and run {' or '.join(names)}; Ctrl-C stops it")
            while server.poll() is None and worker.poll() is None:
                time.sleep(0.5)
            click.echo(
                "foresight: the server or the worker stopped by itself; see runs/prefect/*.log", err=True
            )
            sys.exit(1)
    except KeyboardInterrupt:
        click.echo("stopped")


def register() -> list[str]:
    """Register one deployment per experiment with the configured Prefect API; return their names."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.deployments.runner import EntrypointType
    from prefect.exceptions import ObjectAlreadyExists

    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    names = []
    for name, experiment in experiments().items():
        deployment = getattr(experiment, name).to_deployment(
            name="local",
            description=(experiment.__doc__ or "").strip(),
            parameters={"settings": experiment.Settings().model_dump()},
            work_pool_name=POOL,
            entrypoint_type=EntrypointType.MODULE_PATH,
            # flows read and write below the folder this command was started in
            job_variables={
                "working_dir": str(Path.cwd()),
                "env": {"PREFECT_HOME": os.environ["PREFECT_HOME"]},
            },
        )
        deployment.apply()
        names.append(f"{name}/local")
    return names


@contextmanager
def _child(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Prefect command in its own process group, its output in a log; stop the whole group at the end."""
    log = Path(os.environ["PREFECT_HOME"]) / f"{words[0]}.log"
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *words], stdout=file, stderr=file, start_new_session=True
        )
        try:
            yield process
        finally:
            _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    for sign, patience_s in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, sign)
            process.wait(patience_s)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _wait_for(url: str, server: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    click.echo(
        f"foresight: the Prefect server did not come up in {PATIENCE_S} s; see runs/prefect/server.log",
        err=True,
    )
    sys.exit(1)


if __name__ == "__main__":
    main()

"""Prefect on this machine: server, UI, a pool for the CPU and one for the GPU, and every flow registered."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from deployments.pools import Pool
from flows.build import RUNS
from foresight.models.device import resolve_device
from tasks.prefect_home import keep_prefect_in

HOST = "127.0.0.1"
PATIENCE_S = 180
POOLS = (Pool(name="cpu"), Pool(name="gpu", gpu=True, at_once=1))


@click.command()
@click.option("--port", default=4200, show_default=True, type=click.IntRange(1, 65535))
def main(port: int) -> None:
    """Serve the Prefect UI on this machine, with every experiment ready to be triggered from it.

    Plans and experiments each have a form. Ctrl-C stops what this command started and nothing else.
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
            has_gpu = resolve_device("auto") == "cuda"
            names = register("gpu" if has_gpu else "cpu")
            workers = [stack.enter_context(_worker(pool)) for pool in POOLS if not pool.gpu or has_gpu]
            if not has_gpu:
                click.echo(
                    "no GPU here: everything runs on the cpu pool; the gpu pool waits for a worker elsewhere"
                )
            listed = " or ".join(name.split("/")[1] for name in names)
            click.echo(f"open http://{HOST}:{port}/deployments and run {listed}; Ctrl-C stops it")
            while server.poll() is None and all(worker.poll() is None for worker in workers):
                time.sleep(0.5)
            click.echo(
                "foresight: the server or a worker stopped by itself; see runs/prefect/*.log", err=True
            )
            sys.exit(1)
    except KeyboardInterrupt:
        click.echo("stopped")


def register(pool: str) -> list[str]:
    """Register both pools and every flow, experiments on `pool`; return the experiments' deployments."""
    from deployments.registry import register_automations, register_flows, register_pool

    for each in POOLS:
        register_pool(each)
    register_automations()
    return register_flows(pool=pool, kind="process", planning_pool="cpu")


@contextmanager
def _worker(pool: Pool) -> Iterator[subprocess.Popen[bytes]]:
    words = [
        "worker",
        "start",
        "--pool",
        pool.name,
        "--type",
        pool.kind,
        "--name",
        f"this machine's {pool.name}",
    ]
    if pool.at_once:
        words += ["--limit", str(pool.at_once)]
    with _child(*words, log=f"worker-{pool.name}") as process:
        yield process


@contextmanager
def _child(*words: str, log: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Run a Prefect command in its own process group, its output in a log; stop the whole group at the end."""
    path = Path(os.environ["PREFECT_HOME"]) / f"{log or words[0]}.log"
    with path.open("ab") as file:
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

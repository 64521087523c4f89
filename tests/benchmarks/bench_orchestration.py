"""What orchestration costs a stage: this project, with and without Prefect, beside DVC, Snakemake and Dagster.

`python -m tests.benchmarks.bench_orchestration [--stages 40] [--rounds 3] [--venvs DIR] [--json]`

Each tool runs N stages that do nothing, then the same again when all is done, for N = 1 and N = `--stages`. Times
are CPU seconds of the tool's processes (a server's not counted), the least of the rounds, so that a busy machine
matters little; `a stage` is the difference over the stages between. Peers are installed from PyPI into
environments of their own; one that cannot be had is said so.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.orchestration_peers import PEERS, OursInPrefect, Peer

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stages", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--venvs", type=Path, default=Path("runs/cache/bench-venvs"))
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as environment:
        found = [
            measure(peer(asked.venvs.resolve()), Path(folder), environment, asked.stages, asked.rounds)
            for peer in PEERS
        ]
    if asked.json:
        print(json.dumps({"stages": asked.stages, "tools": found}, indent=1))
        return
    print(f"{'CPU s':22}{'first 1':>9}{f'first {asked.stages}':>10}{'a stage':>10}"
          f"{'again 1':>9}{f'again {asked.stages}':>10}{'a stage':>10}")  # fmt: skip
    for row in found:
        if "why" in row:
            print(f"{row['tool']:22}not measured: {row['why']}")
            continue
        times = [row[k] for k in ("first_one", "first", "first_each", "again_one", "again", "again_each")]
        print(f"{row['tool']:22}" + "".join(f"{t:{w}.4g}" for t, w in zip(times, (9, 10, 10) * 2, strict=True))
              + f"  {row['note']}")  # fmt: skip


def measure(
    peer: Peer, folder: Path, environment: dict[str, str], stages: int, rounds: int
) -> dict[str, Any]:
    """Return the CPU seconds of a peer's first and second run, of one stage and of many."""
    try:
        peer.install()
    except subprocess.CalledProcessError as error:
        return {"tool": peer.name, "why": (error.stderr or b"").decode().strip().rpartition("\n")[2]}
    known = environment if isinstance(peer, OursInPrefect) else {}
    least: dict[tuple[str, int], float] = {}
    for turn in range(rounds):
        for n in (1, stages):
            place = folder / f"{peer.name}-{turn}-{n}"
            place.mkdir()
            peer.write(place, n)
            for when in ("first", "again"):
                took = cpu_s(peer.command(), place, known)
                least[when, n] = min(took, least.get((when, n), took))
    return {"tool": peer.name, "note": peer.note} | {
        key: value
        for when in ("first", "again")
        for key, value in {
            f"{when}_one": least[when, 1],
            when: least[when, stages],
            f"{when}_each": (least[when, stages] - least[when, 1]) / (stages - 1),
        }.items()
    }


def cpu_s(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Return the CPU seconds of a command and all it waited for. Raises `CalledProcessError` when it fails."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command,
        cwd=folder,
        env=clean | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "DO_NOT_TRACK": "1"} | environment,
        check=True,
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@contextmanager
def server(folder: Path) -> Iterator[dict[str, str]]:
    """Run a Prefect server; give the environment that finds it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    words = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    process = subprocess.Popen(
        words,
        env=os.environ | environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                urllib.request.urlopen(f"{environment['PREFECT_API_URL']}/health", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise
                time.sleep(0.5)
        yield environment
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    main()

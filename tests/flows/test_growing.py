"""Past one machine: workers that share one store on S3, and analyses on a Dask cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

import store
from flows import extract, q1
from flows.engine import perform, planned
from store.index import RowIndex
from tasks.house import WrongRequest
from tests.store.conftest import s3, s3_endpoint

pytestmark = pytest.mark.slow

__all__ = ["s3", "s3_endpoint"]

REF = "qwen2.5-vl-tiny@random0"
POINTS = ["vit.1", "merged"]

WORKER = """
import json, sys
from flows import extract, q1
from flows.engine import perform
print(json.dumps(perform(extract, extract.Settings(**json.loads(sys.argv[1]))).to_json()))
"""


SLOW = """
import time
from store import view
if not hasattr(view, "at_once"):  # Dask imports this twice
    view.at_once = view.pool
    def pool(values, how):
        time.sleep(0.02)
        return view.at_once(values, how)
    view.pool = pool
"""


def settings(url: str, **change: Any) -> extract.Settings:
    return extract.Settings(
        **{"samples": 24, "vlm": [REF], "points": POINTS, "store": url, "batch": 2} | change
    )


def worker(folder: Path, wanted: extract.Settings) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, wanted.model_dump_json()],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def document(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def copies(latents: store.Store) -> Counter[str]:
    """Return how often each row lies in the store, those no one sees too."""
    found: Counter[str] = Counter()
    for recipe in (r for r in latents.recipes() if r.operation == "extract"):
        for table in RowIndex(latents.place, recipe.id).refresh().tables:
            joined = table.samples.tobytes()
            found.update(
                f"{recipe.settings['point']} {joined[i : i + 32].hex()}" for i in range(0, len(joined), 32)
            )
    return found


def test_workers_on_parts_of_one_data_set_fill_one_store_with_no_row_twice(s3: str, workplace: Path) -> None:
    workers = [worker(workplace / str(i), settings(s3, part=f"{i}/3")) for i in (1, 2, 3)]
    documents = [document(w) for w in workers]
    assert sum(d["rows_written"] for d in documents) == 24 * len(POINTS)
    assert all(d["rows_written"] for d in documents)
    found = copies(store.open(s3))
    assert len(found) == 24 * len(POINTS)
    assert set(found.values()) == {1}
    last = perform(extract, settings(s3))
    assert last.house.forwards == 0
    assert last.house.rows_reused == 24 * len(POINTS)


def test_what_a_killed_worker_left_is_done_by_a_last_pass_over_everything(s3: str, workplace: Path) -> None:
    killed, other = (worker(workplace / str(i), settings(s3, part=f"{i}/2", samples=200)) for i in (1, 2))
    until = time.monotonic() + 120
    while killed.poll() is None and not rows_in(s3):
        assert time.monotonic() < until
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    theirs = document(other)["rows_written"]
    (look,) = [k for k in planned(extract, settings(s3, samples=200)) if k.name == f"extract {REF}"]
    assert look.rows_missing is not None
    assert 0 < look.rows_missing <= 200 * len(POINTS) - theirs
    last = perform(extract, settings(s3, samples=200))
    assert last.house.rows_written == look.rows_missing
    found = copies(store.open(s3))
    assert len(found) == 200 * len(POINTS)
    assert set(found.values()) == {1}
    assert store.open(s3).verify().problems == []


def rows_in(url: str) -> int:
    try:
        return sum(used.rows for used in store.open(url).du())
    except store.StoreError:
        return 0


def test_parts_hold_every_sample_once_whatever_their_order(workplace: Path) -> None:
    from flows.build import open_house

    def part(text: str) -> list[str]:
        wanted = settings("runs/store", part=text)
        return list(open_house(wanted, store.open("runs/store", create=True)).manifest.digests)

    whole = part("")
    parts = [part(f"{i}/4") for i in (1, 2, 3, 4)]
    assert sorted(d for p in parts for d in p) == sorted(whole)
    assert all(p == [d for d in whole if d in p] for p in parts)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="part"):
        settings("runs/store", part=text)


def test_a_part_without_samples_is_refused(workplace: Path) -> None:
    with pytest.raises(WrongRequest, match="part 1/1000000 of 24 holds none; use fewer parts"):
        planned(extract, settings("runs/store", part="1/1000000"))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A real scheduler with two one-thread workers that take a moment over every row."""
    slow = tmp_path / "slowly.py"
    slow.write_text(SLOW)
    file = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    work = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-nanny", "--nthreads", "1"]
    work += ["--host", "127.0.0.1", "--no-dashboard", "--preload", str(slow), "--scheduler-file", str(file)]
    log = (tmp_path / "dask.log").open("wb")
    (tmp_path / "elsewhere").mkdir()

    def start(command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path / "elsewhere")

    started = [start([*dask, "--no-dashboard", "--scheduler-file", str(file)])]
    try:
        until = time.monotonic() + 90
        while not file.exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        started += [start(work), start(work)]
        yield json.loads(file.read_text())["address"]
    finally:
        for process in started:
            process.kill()
            process.wait()
        log.close()


def reading(client: Client) -> list[int]:
    """Return the processes of the workers that have a store open."""

    def opened() -> tuple[int, int]:
        from store import view

        return os.getpid(), view._rows.cache_info().currsize

    return [pid for pid, stores in client.run(opened).values() if stores]


def test_analyses_run_on_the_cluster_and_a_killed_worker_is_made_up_for(
    cluster: str, workplace: Path
) -> None:
    wanted = q1.Settings(samples=40, vlm=[REF], decoder="ltx-video-tiny@random0", points=["vit.1"])
    perform(extract, extract.Settings(samples=40, vlm=[REF], decoder=wanted.decoder, points=["vit.1"]))
    killed = []

    def kill(client: Client) -> None:
        until = time.monotonic() + 120
        while not killed and time.monotonic() < until:
            killed.extend(reading(client)[:1])
        os.kill(killed[0], signal.SIGKILL)

    with Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=90)
        killer = threading.Thread(target=kill, args=[client])
        killer.start()
        there = perform(q1, wanted.model_copy(update={"dask": cluster}))
        killer.join()
        (left,) = reading(client)
    assert left != killed[0]
    assert "Q1.5 distances" in {r.name for r in there.ran if r.state == "completed"}
    latents = store.open("runs/store")
    (distances,) = [r for r in latents.recipes() if r.operation == "q1.5"]
    latents.forget(distances.id)
    here = perform(q1, wanted)
    assert [r.name for r in here.ran if r.state == "completed"] == ["Q1.5 distances"]
    assert here.run == there.run  # the same numbers, to the bit


def test_a_cluster_that_is_not_there_is_refused_in_one_sentence(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import cluster as module

    monkeypatch.setattr(module, "CONNECT_S", 1)
    with pytest.raises(WrongRequest, match=r"no scheduler answers at tcp://127\.0\.0\.1:9"):
        perform(extract, settings("runs/store", dask="tcp://127.0.0.1:9"))
    with pytest.raises(ValueError, match="dask"):
        settings("runs/store", dask="somewhere")

"""Past one machine: workers that share one store on S3, and analyses on a Dask cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import store
from flows import extract
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
from flows import extract
from flows.engine import perform
print(json.dumps(perform(extract, extract.Settings(**json.loads(sys.argv[1]))).to_json()))
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

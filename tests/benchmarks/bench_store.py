"""The store against a raw memory-mapped file and against peers: same rows, same run, interleaved rounds.

`python -m tests.benchmarks.bench_store [--gib 1] [--rounds 3] [--large] [--json] [--folder DIR]`

Rows are 256 tokens of 1024 heavy-tailed bfloat16. Cold means the files' pages were dropped from the page cache
(POSIX_FADV_DONTNEED) before the task; a virtual machine's host may still hold them, which helps all alike. Every
task's bytes are compared with what was put, so that nobody is fast by being wrong. Peers that are not installed,
or cannot do a task in their usual way, say so in the table. `--large` adds the scale of shards, rows and memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import store
import store.view  # xarray and Dask are imported once a process, before any clock runs
from tests.benchmarks.store_peers import FEATURES, PEERS, TOKENS, Peer, Raw, row_of, used

TASKS = ("write", "scan", "gather", "shuffled", "token")
BARS = {"write": 0.85, "scan": 0.95, "gather": 1.0, "shuffled": 0.95, "token": 10.0}
"""Least share of the raw file's speed; one random token in at most a tenth of its time."""


class Ours(Peer):
    """This store, by its public names."""

    name = "foresight store"

    def write(self) -> None:
        catalog = store.open(self.folder, create=True)
        recipe = store.Recipe(operation="extract", version=1, settings={"point": "bench"})
        row, col = np.divmod(np.arange(TOKENS, dtype=np.float32), 16)
        zeros = np.zeros(TOKENS, np.float32)
        with catalog.writer(recipe) as writer:
            for i in range(self.rows):
                writer.put(
                    sample=_sample(i),
                    values=row_of(i).view(ml_dtypes.bfloat16),
                    time_s=zeros,
                    row=row,
                    col=col,
                    kind=zeros.astype(np.uint8),
                    tile=zeros.astype(np.int32),
                    grid=(1, 16, 16),
                )

    def open(self) -> None:
        self.catalog = store.open(self.folder)
        (self.recipe,) = self.catalog.recipes()
        samples = [{"sample": _sample(i)} for i in range(self.rows)]
        self.manifest = self.catalog.put_manifest({"source": "bench", "samples": samples})

    def batches(self, seed: int | None) -> Any:
        reader = self.catalog.reader(recipe=self.recipe.id, manifest=self.manifest, seed=seed)
        return (batch.values.view(np.uint16) for batch in reader)

    def scan(self) -> int:
        return sum(used(values) for values in self.batches(None))

    def gather(self, rows: np.ndarray) -> np.ndarray:
        samples = [_sample(int(i)) for i in rows]
        return self.catalog.gather(self.recipe.id, samples).view(np.uint16)  # type: ignore[union-attr]

    def shuffled(self, order: np.ndarray) -> int:
        return sum(used(values) for values in self.batches(1))

    def token(self, row: int, token: int) -> np.ndarray:
        return self.catalog.token(self.recipe.id, _sample(row), token).view(np.uint16)


def main() -> None:
    """Run, and print one table or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--alone", action="store_true", help="without the peers")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--pooled", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.pooled:
        return _pool(asked.pooled)
    root = Path(tempfile.mkdtemp(prefix="bench-store-", dir=asked.folder))
    try:
        said = compared(root, rows=max(64, int(asked.gib * 2048)), rounds=asked.rounds, peers=not asked.alone)
        if asked.large:
            said["large"] = large(root)
    finally:
        shutil.rmtree(root)
    print(json.dumps(said, indent=1) if asked.json else table(said))
    return None


def compared(root: Path, *, rows: int, rounds: int, peers: bool) -> dict[str, Any]:
    """Return seconds per peer, task and cache state: medians over interleaved rounds."""
    contestants = [Raw, Ours, *(PEERS if peers else [])]
    row_of(0)  # made before any clock runs
    seconds: dict[tuple[str, str, str], list[float]] = {}
    notes: dict[str, str] = {}
    for lap in range(rounds):
        for kind in contestants:
            if kind.name in notes:
                continue
            try:
                for (task, cache), spent in _lap(kind(root / f"{kind.__name__}-{lap}", rows), lap).items():
                    seconds.setdefault((kind.name, task, cache), []).append(spent)
            except ImportError as error:
                notes[kind.name] = f"not installed ({error.name})"
            shutil.rmtree(root / f"{kind.__name__}-{lap}", ignore_errors=True)
    medians = {key: statistics.median(spent) for key, spent in seconds.items()}
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d"),
        "gib": rows * TOKENS * FEATURES * 2 / (1 << 30),
        "rounds": rounds,
        "seconds": {f"{name} · {task} · {cache}": value for (name, task, cache), value in medians.items()},
        "share_of_raw": {
            name: {
                f"{task} {cache}": medians[Raw.name, task, cache] / medians[name, task, cache]
                for task in TASKS
                for cache in ("cold", "warm")
                if (name, task, cache) in medians
            }
            for name in [kind.name for kind in contestants]
            if name not in notes
        },
        "notes": notes,
    }


def _lap(peer: Peer, lap: int) -> dict[tuple[str, str], float]:
    """Do every task once, cold then warm, and check each answer."""
    random = np.random.default_rng(lap)
    chosen, order = random.permutation(peer.rows)[:1000], random.permutation(peer.rows)
    places = [(int(random.integers(peer.rows)), int(random.integers(TOKENS))) for _ in range(100)]
    peer.folder.mkdir()
    os.sync()
    spent = {("write", "cold"): _timed(peer.write)[0]}
    for cache in ("cold", "warm"):
        for task in TASKS[1:]:
            if not peer.can(task):
                continue
            # a new one, for pages that are still mapped cannot be dropped
            peer = type(peer)(peer.folder, peer.rows)
            if cache == "cold":
                _dropped(peer.folder)
            peer.open()
            seconds, right = _timed(_works(peer, chosen, order, places)[task])
            if not right:
                raise AssertionError(f"{peer.name} gave other bytes at {task}")
            spent[task, cache] = seconds / (len(places) if task == "token" else 1)
    return spent


def _works(
    peer: Peer, chosen: np.ndarray, order: np.ndarray, places: list[tuple[int, int]]
) -> dict[str, Any]:
    def gather() -> bool:
        got = peer.gather(chosen)
        return all(np.array_equal(got[k, 7], row_of(int(i))[7]) for k, i in enumerate(chosen[:50]))

    def tokens() -> bool:
        return all(np.array_equal(peer.token(i, t), row_of(i)[t]) for i, t in places)

    return {
        "scan": lambda: peer.scan() > 0,
        "gather": gather,
        "shuffled": lambda: peer.shuffled(order) > 0,
        "token": tokens,
    }


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    answer = work()
    return time.perf_counter() - start, answer


def _dropped(folder: Path) -> None:
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def table(said: dict[str, Any]) -> str:
    """Return the shares as a Markdown table, with what was measured under what."""
    lines = [
        f"Share of a raw memory-mapped file's speed ({said['gib']:.2f} GiB, medians of {said['rounds']} interleaved "
        f"rounds; {said['machine']}; {said['date']}).",
        "",
        "| | "
        + " | ".join(f"{task} cold" for task in TASKS)
        + " | scan warm | gather warm | shuffled warm |",
        "|---" * (len(TASKS) + 4) + "|",
    ]
    columns = [f"{task} cold" for task in TASKS] + ["scan warm", "gather warm", "shuffled warm"]
    for name, shares in said["share_of_raw"].items():
        cells = [f"{shares[c]:.2f}" if c in shares else "cannot" for c in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("| bar | " + " | ".join(f"≥ {BARS[task]:g}" for task in TASKS) + " | | | |")
    lines += [f"{name}: {note}" for name, note in said["notes"].items()]
    lines += [f"{name}: {value}" for name, value in said.get("large", {}).items()]
    return "\n".join(lines)


def large(root: Path) -> dict[str, str]:
    """Return the cost of many shards, many rows and much memory, each beside its limit."""
    said = {}
    for rows, per_shard in ((20_000, 4), (25_000, 64), (100_000, 64)):
        folder = root / f"rows-{rows}"
        spent, _ = _timed(
            lambda rows=rows, per_shard=per_shard, folder=folder: _many(folder, rows, per_shard)
        )
        said[f"write {rows} small rows in shards of {per_shard}"] = f"{1e6 * spent / rows:.0f} µs a row"
        catalog = store.open(folder)
        (recipe,), (listed,) = catalog.recipes(), catalog.manifests()
        digests = [s["sample"] for s in catalog.manifest(listed.id)["samples"]]
        _dropped(folder)
        catalog = store.open(folder)
        looked, missing = _timed(lambda c=catalog, r=recipe, d=digests: c.missing(r.id, d))
        said[f"look up {rows} rows, cold (limit 1 s)"] = f"{looked:.2f} s, {len(missing)} missing"
        _dropped(folder)
        catalog = store.open(folder)
        opened, view = _timed(lambda c=catalog, r=recipe, m=listed: c.view(recipe=r.id, manifest=m.id))
        first, _ = _timed(lambda v=view: v["values"][:1].compute())
        chunks = len(view["values"].chunks[0])
        said[f"open a view of {chunks} shards, cold (limit 1 s)"] = f"{opened:.2f} s, first row {first:.2f} s"
        shutil.rmtree(folder)
    big = Ours(root / "big", 20_480)
    big.folder.mkdir()
    big.write()
    big.open()
    command = [sys.executable, "-m", "tests.benchmarks.bench_store", "--pooled", str(big.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said["peak memory of a pooled mean over 10 GiB (limit 1.5 GB)"] = done.stdout.strip()
    shutil.rmtree(big.folder)
    return said


def _many(folder: Path, rows: int, per_shard: int) -> None:
    catalog = store.open(folder, create=True)
    values, zeros = np.zeros((4, 8), np.float32), np.zeros(4, np.float32)
    kind, tile = zeros.astype(np.uint8), zeros.astype(np.int32)
    recipe = store.Recipe(operation="extract", version=1, settings={"point": "small"})
    with catalog.writer(recipe, rows_per_shard=per_shard) as writer:
        for i in range(rows):
            values[:] = i
            writer.put(
                sample=_sample(i), values=values, time_s=zeros, row=zeros, col=zeros, kind=kind, tile=tile
            )
    samples = [{"sample": _sample(i), "key": str(i)} for i in range(rows)]
    catalog.put_manifest({"source": "bench", "samples": samples})


def _pool(folder: Path) -> None:
    catalog = store.open(folder)
    (recipe,), (listed,) = catalog.recipes(), catalog.manifests()
    start = time.perf_counter()
    pooled = catalog.pooled(recipe=recipe.id, manifest=listed.id).compute()
    spent = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{peak / 1e9:.2f} GB, {spent:.1f} s, {pooled.shape}")


def _sample(i: int) -> str:
    return f"{i:064x}"


if __name__ == "__main__":
    main()

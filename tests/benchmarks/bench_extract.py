"""What extracting costs beside the bare forward pass, and beside other ways to do it, in one run.

Run by hand: `python -m tests.benchmarks.bench_extract [--images 48] [--rounds 5] [--threads 1] [--peers DIR]`. A
Qwen2.5-VL of middle size with random weights reads JPEG files at four blocks of its vision tower. CPU seconds of this
process and of those it started, all threads; rounds are interleaved, medians are shown. The model is loaded
before the clocks run. Prints ratios, gates nothing.

The bare loop is the least any extraction can do: inputs prepared beforehand, hooks, a stop after the deepest block,
activations kept in memory. Ours is the pipeline's own stage: decode, preprocess, forward, every token put at its
place, rows with digests in the store, synced.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import store
import tasks.extract
from flows import extract
from flows.build import open_house
from flows.engine import perform
from foresight import models
from foresight.models import tap
from foresight.models.qwen2_5_vl import QwenVision
from tasks.extract import Extract
from tasks.stages import plan
from tests.benchmarks.extract_peers import (
    NOT_HERE,
    brain_score,
    copied_whole,
    hooked,
    inputs_of,
    into_memory_map,
    traced,
)

DEPTH, BLOCKS, SIZE, BATCH = 12, (1, 3, 5, 7), 168, 8
BAR = 1.05

CARD = dataclasses.replace(
    models.get("qwen2.5-vl-tiny"),
    name="qwen2.5-vl-bench",
    size=(SIZE, SIZE),
    training={},
    config={
        "vision": {"depth": DEPTH, "hidden_size": 640, "num_heads": 10, "intermediate_size": 1720, "patch_size": 14,
                   "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
                   "fullatt_block_indexes": [2, 5, 8, 11]},
        "text": {"num_hidden_layers": 4, "hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8,
                 "num_key_value_heads": 2, "mrope_section": [8, 12, 12]},
    },
)  # fmt: skip

EXPERIMENTS = {
    "q1": ("patch", "vit.2", "vit.4", "merged", "llm.2", "llm.4"),
    "c1": ("vit.4", "merged"),
    "q2": ("vit.2", "vit.4", "merged"),
    "c2": ("vit.4",),
    "p4": ("vit.2", "vit.4", "merged", "llm.2", "llm.4"),
}
"""The points each experiment reads of one model; together they are one forward pass a sample."""


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--images", type=int, default=48)
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument(
        "--threads", type=int, default=1, help="One: threads that wait for work take CPU time too."
    )
    asked.add_argument("--peers", help="Folder with packages of peers that this environment cannot hold.")
    args = asked.parse_args()
    sys.path += [args.peers] if args.peers else []  # at the end: this project's own libraries come first
    torch.set_num_threads(args.threads)
    with (
        tempfile.TemporaryDirectory() as name,
        _at(Path(name)) as root,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setitem(models.cards(), CARD.name, CARD)
        ref = models.parse_ref(CARD.name)
        vlm = models.family(CARD).load(ref, None, device="cpu", dtype="float32", attention="sdpa")
        patch.setattr(tasks.extract, "load", lambda *_, **__: vlm)
        files = photographs(root / "photographs", args.images)
        print(f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, Python "
              f"{platform.python_version()}, torch {torch.__version__}; {time.strftime('%Y-%m-%d')}")  # fmt: skip
        print(f"{sum(p.numel() for p in vlm.model.parameters()) / 1e6:.0f} M parameters; {len(files)} JPEG files, "
              f"batches of {BATCH} at {SIZE} px, blocks {[b + 1 for b in BLOCKS]} of {DEPTH}\n")  # fmt: skip
        print(contest(vlm, files, args.rounds, root), flush=True)
        print(around_forward(args.rounds), flush=True)
        print(by_depth(vlm, files, args.rounds), flush=True)
        patch.undo()
        print(forwards())


def contest(vlm: QwenVision, files: list[Path], rounds: int, root: Path) -> str:
    """Return every contestant's CPU time as a share of the bare loop's and of the whole tower's, as Markdown."""
    batches = [files[i : i + BATCH] for i in range(0, len(files), BATCH)]
    ready = [inputs_of(vlm, part, SIZE) for part in batches]
    mapped = root / "mapped"
    works: dict[str, Callable[[], Any]] = {
        "whole tower, nothing kept": lambda: [hooked(vlm, [], inputs, stop=False) for inputs in ready],
        "bare loop": lambda: [hooked(vlm, BLOCKS, inputs, stop=True) for inputs in ready],
        "this pipeline": pipeline,
        "hooks, stop, memory map": lambda: into_memory_map(
            partial(hooked, vlm, BLOCKS, stop=True), vlm, batches, SIZE, mapped
        ),
        "hooks, no stop, memory map": lambda: into_memory_map(
            partial(hooked, vlm, BLOCKS, stop=False), vlm, batches, SIZE, mapped
        ),
    }
    notes = dict(NOT_HERE)
    works["what thingsvision does, written out (no stop)"] = lambda: copied_whole(
        vlm, BLOCKS, batches, SIZE, mapped
    )
    for name, reader in {
        "nnsight, stop, memory map": traced,
        "brain-score's extractor (no stop), memory map": brain_score,
    }.items():
        try:
            read = partial(reader(vlm), BLOCKS)
        except ImportError as error:
            notes[name] = str(error)
            continue
        works[name] = partial(into_memory_map, read, vlm, batches, SIZE, mapped)
    spent = interleaved(works, rounds)
    lines = [
        f"CPU time, medians over {rounds} interleaved rounds (bar of this pipeline: ≤ {BAR} × the bare loop)",
        "",
        "| | CPU s | × the bare loop | × the whole tower |",
        "|---|---|---|---|",
        *(
            f"| {name} | {statistics.median(times):.2f} | {ratio(times, spent['bare loop']):.3f} "
            f"| {ratio(times, spent['whole tower, nothing kept']):.2f} |"
            for name, times in spent.items()
        ),
        *(f"| {name} | not installable here: {why} | | |" for name, why in notes.items()),
    ]
    return "\n".join(lines) + "\n"


def pipeline() -> None:
    """Carry out the extraction stage on the files, into a new store."""
    settings = extract.Settings(
        data="folder:photographs", vlm=[CARD.name], points=[f"vit.{b + 1}" for b in BLOCKS],
        batch=BATCH, store=tempfile.mkdtemp(dir=Path.cwd()) + "/store",
    )  # fmt: skip
    house = open_house(settings, store.open(settings.store, create=True))
    stages = extract.stages(settings, house)
    looks = {look.name: look for look in plan(stages, house)}
    (stage,) = (s for s in stages if isinstance(s, Extract))
    stage.run(house, {n: looks[n] for n in stage.needs}, lambda *_: None)
    assert house.rows_written == len(BLOCKS) * len(house.manifest)


def around_forward(rounds: int) -> str:
    """Return the pipeline's CPU time over that of the forward passes inside it: both of one run, so little noise."""
    plain, inside = tap.record, []
    pipeline()  # what decodes is started by the first run

    def timed(*given: Any) -> Any:
        begun = time.thread_time()
        try:
            return plain(*given)
        finally:
            inside[-1] += time.thread_time() - begun

    spent = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tap, "record", timed)
        for _ in range(rounds):
            inside.append(0.0)
            begun = cpu_s()
            pipeline()
            spent.append(cpu_s() - begun)
    return (
        f"This pipeline over its own forward passes: {ratio(spent, inside):.3f} (median of {rounds} runs)\n"
    )


def by_depth(vlm: QwenVision, files: list[Path], rounds: int) -> str:
    """Return what points at depth k cost as a share of the whole tower, beside k / depth, as Markdown."""
    inputs = inputs_of(vlm, files[:BATCH], SIZE)
    depths = (2, 4, 6, 8, 10, 12)
    works = {str(k): partial(hooked, vlm, [k - 1], inputs, stop=True) for k in depths}
    spent = interleaved({"whole": partial(hooked, vlm, [], inputs, stop=False), **works}, 2 * rounds)
    shares = " | ".join(f"{ratio(spent[str(k)], spent['whole']):.2f}" for k in depths)
    return "\n".join([
        f"A point after k of {DEPTH} blocks, as a share of the whole tower",
        "",
        "| k | " + " | ".join(map(str, depths)) + " |",
        "|---" * (len(depths) + 1) + "|",
        f"| measured | {shares} |",
        "| k / depth | " + " | ".join(f"{k / DEPTH:.2f}" for k in depths) + " |",
        "",
    ])  # fmt: skip


def forwards(samples: int = 24) -> str:
    """Return how many forward passes five experiments take on one store, and one by one, as Markdown."""
    ref = "qwen2.5-vl-tiny@random0"
    union = [p for p in EXPERIMENTS["q1"] if any(p in points for points in EXPERIMENTS.values())]

    def run(points: tuple[str, ...] | list[str], place: str) -> int:
        settings = extract.Settings(samples=samples, vlm=[ref], points=list(points), store=place, batch=1)
        return int(perform(extract, settings).to_json()["forwards"])

    first = run(union, "one")
    ours = {name: run(points, "one") for name, points in EXPERIMENTS.items()}
    apart = {name: run(points, f"apart-{name}") for name, points in EXPERIMENTS.items()}
    per_point = {name: apart[name] * len(points) for name, points in EXPERIMENTS.items()}
    return "\n".join([
        f"Forward passes per (model, sample) of five experiments on the same {samples} samples, counted",
        "",
        "| | first | " + " | ".join(EXPERIMENTS) + " | in all |",
        "|---" * (len(EXPERIMENTS) + 3) + "|",
        _counts("one store", [first, *ours.values()], samples),
        _counts("a script per experiment, all points at once", [0, *apart.values()], samples),
        _counts("a script per experiment and point", [0, *per_point.values()], samples),
        "",
    ])  # fmt: skip


def _counts(name: str, passes: list[int], samples: int) -> str:
    cells = " | ".join(f"{n / samples:g}" for n in passes)
    return f"| {name} | {cells} | {sum(passes) / samples:g} |"


def interleaved(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each in every round, done in turn after one round that does not count."""
    spent: dict[str, list[float]] = {name: [] for name in works}
    for lap in range(rounds + 1):
        for name, work in works.items():
            begun = cpu_s()
            work()
            if lap:
                spent[name].append(cpu_s() - begun)
    return spent


def ratio(times: list[float], others: list[float]) -> float:
    """Return the median over rounds of one's time as a share of the other's in the same round."""
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


def cpu_s() -> float:
    """Return the CPU seconds of this process and of the living ones it started, such as those that decode."""
    here = psutil.Process()
    return sum(t.user + t.system for t in (p.cpu_times() for p in (here, *here.children(recursive=True))))


def photographs(folder: Path, count: int) -> list[Path]:
    """Write JPEG files of smooth noise, 320 x 280 px, and return them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (18, 20, 3), dtype=np.uint8))
        coarse.resize((320, 280), Image.Resampling.BICUBIC).save(folder / f"{i:04d}.jpg", quality=90)
    return sorted(folder.iterdir())


@contextmanager
def _at(folder: Path) -> Iterator[Path]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)


if __name__ == "__main__":
    main()

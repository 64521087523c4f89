"""What the spatial and the reconstruction study cost once latents are stored: CPU, wall clock and memory by stage.

Run by hand: `python -m tests.benchmarks.bench_spatial [scenes moving c1] [--samples 1000] [--wide] [--work DIR]`.
Each study runs in a process of its own after another has extracted all it reads, and does no forward pass of a VLM.
CPU seconds count all threads; MB is the most the process held while stages of a kind ran, weights and libraries
included. `--wide` writes planted tokens of a model's real width, 256 a sample of 3,584 features in bfloat16, and runs
the box study on them; its time and memory are of one point with its random copy.

21 November 2026, two cores of an AMD EPYC that had three to five times as much work (wall clock was 3 to 4 times CPU).
`scenes`, 1,000 samples, 8 points, 0 forward passes: CPU s a point 14 for boxes, 51 for objects, 8 for fine detail; 616
in all, most memory 1.4 GB. `c1`, 1,000 samples, 8 points, 0 forward passes: 258 CPU s, of them 85 for 13 adapters,
84 for 16 rebuilds, 52 for places; 1.6 GB. `--wide`, 1,000 samples: 167 CPU s a point with its copy, 119 of them to
read 2 x 1.8 GB (since made a fifth less), 1.6 GB; so 8 points are about 20 minutes of CPU in the same memory, as one
point is held at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

POINTS = ["patch", "vit.1", "vit.2", "vit.3", "vit.4", "merged", "llm.2", "llm.4"]
STUDIES: dict[str, tuple[str, dict[str, Any]]] = {
    "scenes": ("q2", {"data": "synthetic:scenes"}),
    "moving": ("q2", {"data": "synthetic:moving", "frames": 8}),
    "c1": ("c1", {"data": "synthetic"}),
}
"""By name: the experiment, and the settings that are its own."""
WIDE = "wide"
WIDE_POINT, SIDE, FEATURES = "llm.8", 16, 3584
"""The point of qwen2.5-vl-7b whose rows are planted: SIDE x SIDE tokens of FEATURES."""
ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("studies", nargs="*", default=[])
    parser.add_argument("--samples", type=int, default=250)
    parser.add_argument("--wide", action="store_true")
    parser.add_argument("--work", type=Path, help="where stores are kept; default: a folder that is removed")
    parser.add_argument("--part", choices=["extract", "measure"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        (study,) = asked.studies
        extract, measure = (planted, wide) if study == WIDE else (extracted, measured)
        print(json.dumps((extract if asked.part == "extract" else measure)(study, asked.samples)))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = (asked.work or Path(folder)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for study in asked.studies or [*STUDIES, *([WIDE] if asked.wide else [])]:
            child(study, asked.samples, "extract", work)
            show(study, asked.samples, child(study, asked.samples, "measure", work))


def child(study: str, samples: int, part: str, work: Path) -> Any:
    """Return what one part of a study prints, run in `work` in a process of its own."""
    module = "tests.benchmarks.bench_spatial"
    command = [sys.executable, "-m", module, study, f"--samples={samples}", f"--part={part}"]
    # as the command line starts
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GOMP_SPINCOUNT": "1000"}
    done = subprocess.run(command, cwd=work, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def show(study: str, samples: int, found: dict[str, Any]) -> None:
    print(f"{study}, {samples} samples, {len(POINTS)} points, {found['forwards']} forward passes")
    print(f"{'':28}{'stages':>8}{'CPU s':>9}{'wall s':>9}{'peak MB':>9}")
    for kind, told in (*found["kinds"].items(), ("in all", found["whole"])):
        print(f"{kind:28}{told['stages']:8}{told['cpu_s']:9.1f}{told['wall_s']:9.1f}{told['peak_mb']:9.0f}")


def planted(_: str, samples: int) -> Any:
    """Write rows as wide as a real model's, in which some features tell what the object covers, and rows of noise."""
    import ml_dtypes
    import numpy as np

    from foresight.probes import coverage

    extracts, latents, house, truth = opened(samples)
    rng = np.random.default_rng(0)
    centres = (np.arange(SIDE) + 0.5) / SIDE
    held = coverage(truth.values, centres, centres).reshape(len(truth), -1, 1)
    told = 3 * rng.standard_normal(FEATURES).astype(np.float32)
    noise = rng.standard_normal((SIDE * SIDE + len(truth), FEATURES)).astype(np.float32)
    down, across = (np.repeat(centres, SIDE) * 448, np.tile(centres, SIDE) * 448)
    zeros = np.zeros(SIDE * SIDE)
    for strength, (_, recipe) in zip((1, 0), extracts, strict=True):
        with latents.writer(recipe, rows_per_shard=8, provenance={}) as writer:
            for i, sample in enumerate(house.manifest.digests):
                values = strength * held[i] * told + noise[i : i + SIDE * SIDE]
                writer.put(
                    sample=sample, values=values.astype(ml_dtypes.bfloat16), time_s=zeros.astype("f4"),
                    row=down.astype("f4"), col=across.astype("f4"), kind=zeros.astype("u1"),
                    tile=zeros.astype("i4"), grid=(1, SIDE, SIDE),
                )  # fmt: skip
    return {}


def wide(_: str, samples: int) -> Any:
    """Return what the box study of one point costs on planted rows."""
    from foresight.studies import spatial
    from tasks.stages import Look
    from tasks.token_grids import read_grids

    extracts, _, house, truth = opened(samples)
    where = spatial.split(house.manifest.groups, truth, seed=0)
    kinds, begun = {}, cost(None)

    def timed(kind: str, work: Callable[[], Any]) -> Any:
        forget_peak()
        before = cost(None)
        found = work()
        kinds[kind] = cost(before) | {"stages": 1}
        return found

    def read(extract: Any, recipe: Any) -> Any:
        given = {
            extract.name: Look(
                name=extract.name, state="ready", why="", values={"recipes": {WIDE_POINT: recipe.id}}
            )
        }
        return read_grids(house, [(extract, WIDE_POINT)], given, truth, where, row="Q2.1", seed=0)

    main, copy = (timed(f"read {e.ref.kind}", lambda e=e, r=r: read(e, r)) for e, r in extracts)
    probe = spatial.ROWS["Q2.1"]
    most = {"box IoU": 1.0, "heat-map IoU": 1.0}
    found, _ = timed(
        "probe and controls", lambda: spatial.measure(probe, main, copy, truth, where, ceiling=most, seed=0)
    )
    timed("other capacities", lambda: spatial.capacities(main, truth, where, seed=0))
    iou = found["box IoU"]
    print(f"box IoU {iou.value:.3f}, floor {iou.floor:.3f}", file=sys.stderr)
    whole = cost(begun) | {"stages": len(kinds)}
    whole["peak_mb"] = max(t["peak_mb"] for t in kinds.values())
    return {"kinds": kinds, "whole": whole, "forwards": house.forwards}


def opened(samples: int) -> Any:
    """Return (extraction, recipe) of a point and of its random copy, the store, the house and the boxes."""
    import store
    from flows.build import control_of, extraction, open_house
    from flows.q2 import Settings
    from foresight.studies import spatial_truth

    settings = Settings(samples=samples, vlm=["qwen2.5-vl-7b"], points=[WIDE_POINT], store="runs/wide")
    latents = store.open(settings.store, create=True)
    house = open_house(settings, latents)
    vlm = extraction(settings.vlm[0], settings, house, points=settings.points)
    truth = spatial_truth.largest(
        spatial_truth.objects(house.manifest, size=(448, 448), how=vlm.framing.fit, time_s=0.0)
    )
    both = [e for e in (vlm, control_of(vlm, settings, house)) if e]
    recipes = [
        (e, store.Recipe(operation="planted", version=1, settings={"model": e.ref.kind}, inputs={}))
        for e in both
    ]
    return recipes, latents, house, truth


def prepared(study: str, samples: int) -> Any:
    from flows import c1, q2
    from flows.engine import prepare

    experiment, own = STUDIES[study]
    module = {"q2": q2, "c1": c1}[experiment]
    settings = module.Settings(samples=samples, points=POINTS, **own)
    return module, settings, prepare(module, settings)


def extracted(study: str, samples: int) -> Any:
    """Extract all that a study reads."""
    import store
    from tasks.extract import Extract
    from tasks.ingest import Ingest
    from tasks.model import Model
    from tasks.stages import run

    _, settings, held = prepared(study, samples)
    held.house.store = store.open(settings.store, create=True)
    run([s for s in held.stages if isinstance(s, Ingest | Model | Extract)], held.house)
    return {"rows": held.house.rows_written}


def measured(study: str, samples: int) -> Any:
    """Return what the stages of a study cost by kind, and in all."""
    from flows.engine import perform

    kinds: dict[str, dict[str, float]] = {}
    begun = cost(None)

    def worker(stage: Any, look: Any, work: Callable[[Any], Any]) -> Any:
        if look.state == "ready":
            return work(lambda *_: None)
        told = kinds.setdefault(kind_of(stage), {"stages": 0, "cpu_s": 0.0, "wall_s": 0.0, "peak_mb": 0.0})
        forget_peak()
        before = cost(None)
        after = work(lambda *_: None)
        spent = cost(before)
        told["stages"] += 1
        told["cpu_s"] += spent["cpu_s"]
        told["wall_s"] += spent["wall_s"]
        told["peak_mb"] = max(told["peak_mb"], spent["peak_mb"])
        return after

    module, settings, held = prepared(study, samples)
    done = perform(module, settings, worker=worker, prepared=held)
    whole = cost(begun) | {"stages": sum(t["stages"] for t in kinds.values())}
    whole["peak_mb"] = max([whole["peak_mb"], *(t["peak_mb"] for t in kinds.values())])
    return {"kinds": kinds, "whole": whole, "forwards": done.house.forwards}


def kind_of(stage: Any) -> str:
    """Return the row a stage works for, else its class."""
    row = getattr(stage, "row", "")
    return f"{row} {type(stage).__name__}".strip()


def cost(since: dict[str, float] | None) -> dict[str, float]:
    """Return CPU and wall seconds, since a time, and the most memory held since the peak was forgotten."""
    times = os.times()
    now = {"cpu_s": times.user + times.system + times.children_user + times.children_system,
           "wall_s": time.perf_counter()}  # fmt: skip
    spent = {k: v - (since or {}).get(k, 0.0) for k, v in now.items()}
    return spent | {"peak_mb": peak_mb()}


def peak_mb() -> float:
    """Return the most memory this process held, MB; Linux alone tells it."""
    status = Path("/proc/self/status").read_text()
    (told,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(told.split()[1]) / 1024


def forget_peak() -> None:
    """Let the peak begin again at what is held now."""
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()

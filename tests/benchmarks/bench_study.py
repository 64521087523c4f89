"""Time the alignment study on latents of full size: CPU and wall seconds and peak memory of every row.

Run by hand: `python -m tests.benchmarks.bench_study [--samples 1000] [--points 8] [--threads 1] [--profile Q1.5 …]`.
Eight VLM points of 3,584 features and a decoder latent of 8 x 8 cells in 128 channels, each with a copy with random
weights: 18 spaces of float32, all kept while the rows are measured one after the other, as a run keeps them. With
labels, one attribute that crosses them, all nulls and all intervals.

21 November 2026, one thread on an AMD EPYC of two cores with five times as much other work, 1,000 samples: CPU
seconds, and the process's peak while the row was measured; 724 numbers. Wall clock was 1,283 s, four times the CPU's.

    Q1.1 categories            36   0.88 GiB
    Q1.2 decoder latent         4   1.12
    Q1.3 dimensions            57   1.06
    Q1.4 linear probes        106   1.39
    Q1.5 distances             47   1.27
    Q1.6 neighbours            22   1.39
    Q1.7 kernel alignment      52   1.68
    Q1.D decision               0   1.53
    all                       324   1.68
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from foresight.metrics import Space
from foresight.studies import alignment
from foresight.studies.alignment import RANDOM, TRAINED, Latent, Measurement, Spaces

CLASSES, SCENES, SHARED = 10, 4, 24
CELLS, CHANNELS = (1, 8, 8), 128


def planted(n: int, points: int, width: int) -> Spaces:
    """Return spaces that share directions, the VLM's later points more of them; copies share a few."""
    rng = np.random.default_rng(0)
    labels, scenes = rng.integers(0, CLASSES, n), rng.integers(0, SCENES, n)
    hidden = rng.standard_normal((n, SHARED))
    hidden[:, :4] += 2 * rng.standard_normal((CLASSES, 4))[labels]
    hidden[:, 4:6] += 2 * rng.standard_normal((SCENES, 2))[scenes]

    def space(d: int, strength: float) -> Space:
        turn = rng.standard_normal((SHARED, d)) / np.arange(1, SHARED + 1)[:, None] ** 0.5
        return Space((strength * hidden @ turn + rng.standard_normal((n, d))).astype("f4"))

    def vlm(variant: str, strength: float) -> list[Latent]:
        return [
            Latent(
                model="vlm", point=f"p{i}", variant=variant, space=space(width, strength * (1 + i / points))
            )
            for i in range(points)
        ]

    def decoder(variant: str, strength: float) -> Latent:
        wide = space(int(np.prod(CELLS)) * CHANNELS, strength)
        return Latent(model="decoder", point="latent", variant=variant, space=wide, cells=CELLS)

    return Spaces(
        vlm=(*vlm(TRAINED, 0.5), *vlm(RANDOM, 0.2)),
        decoder=decoder(TRAINED, 0.5),
        decoder_copy=decoder(RANDOM, 0.2),
        labels=tuple(str(label) for label in labels),
        attributes={"scene": [str(scene) for scene in scenes]},
    )


def measured(name: str, work: Callable[[], Any]) -> Any:
    """Return the result of `work` and print what it took; the peak is this process's while it ran."""
    Path("/proc/self/clear_refs").write_text("5")  # begins a new peak
    cpu, wall = time.process_time(), time.perf_counter()
    found = work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"{name:6s} cpu {cpu:7.1f} s  wall {wall:7.1f} s  peak {_peak_gib():5.2f} GiB", flush=True)
    return found


def _peak_gib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 2**20


def profiled(row: str, spaces: Spaces) -> None:
    """Print where one row spends its time."""
    import cProfile
    import pstats

    with cProfile.Profile() as profile:
        alignment.ROWS[row](spaces)
    pstats.Stats(profile).sort_stats("tottime").print_stats(25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--width", type=int, default=3584)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--profile", nargs="*", choices=alignment.ROWS, help="only where these rows spend time"
    )
    args = parser.parse_args()
    with threadpool_limits(args.threads):
        spaces = planted(args.samples, args.points, args.width)
        if args.profile:
            for row in args.profile:
                profiled(row, spaces)
            return
        measurements: list[Measurement] = []

        cpu, wall = time.process_time(), time.perf_counter()
        for name, row in alignment.ROWS.items():
            measurements += measured(name, partial(row, spaces))
        measured("Q1.D", lambda: alignment.decide(measurements, "latent"))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(f"all    cpu {cpu:7.1f} s  wall {wall:7.1f} s  {len(measurements)} numbers")


if __name__ == "__main__":
    main()

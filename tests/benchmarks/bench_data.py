"""Measure reading data against the decoders used directly and against the limits that were set.

By hand: `python -m tests.benchmarks.bench_data [decode|digest|manifest|memory|render]`. Prints one JSON
document. Every comparison interleaves its sides, repeats them and reports medians, so that a busy machine
slows all alike.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import decord
import numpy as np
import psutil
from PIL import Image
from skimage import data as photographs

from foresight import data
from foresight.data import clips, isolated

FRAMES = 8
THREADS = 2
ROUNDS = 7
UNITS = ("per_s", "per_cpu_s")


def encode_pan(path: Path, *, seed: int, frames: int = 45, height: int = 240, width: int = 426) -> None:
    """Encode a hand-held pan over a photograph, as VP9 of some 190 kbit/s: the size and rate of the real clips."""
    rng = np.random.default_rng(seed)
    photo = np.tile(photographs.astronaut(), (2, 3, 1))
    way = np.cumsum(rng.normal(0, 2.5, (frames, 2)), axis=0) + rng.uniform(120, 200, 2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libvpx-vp9", rate=12, options={"cpu-used": "8", "deadline": "realtime"}
        )
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 190_000
        for row, col in way.astype(int):
            part = photo[row : row + height, col : col + width].astype(np.int16)
            noisy = np.clip(part + rng.normal(0, 1, part.shape), 0, 255).astype(np.uint8)
            for packet in stream.encode(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(noisy), format="rgb24")
            ):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)


def with_decord(path: str) -> np.ndarray:
    video = decord.VideoReader(path, num_threads=1)
    return video.get_batch([(2 * i + 1) * len(video) // (2 * FRAMES) for i in range(FRAMES)]).asnumpy()


def with_pyav(path: str) -> np.ndarray:
    with av.open(path) as container:
        count = container.streams.video[0].frames or sum(p.pts is not None for p in container.demux(video=0))
        wanted = {(2 * i + 1) * count // (2 * FRAMES) for i in range(FRAMES)}
        container.seek(0)
        container.streams.video[0].thread_type = "NONE"
        taken = []
        for i, frame in enumerate(container.decode(video=0)):
            if i in wanted:
                taken.append(frame.to_ndarray(format="rgb24"))
                if len(taken) == FRAMES:
                    break
    return np.stack(taken)


def decode(folder: Path) -> dict[str, Any]:
    """Frames per second at 8 uniform frames a clip, ours through `prefetch` against each decoder directly."""
    clips_dir = folder / "clips"
    clips_dir.mkdir()
    for seed in range(24):
        encode_pan(clips_dir / f"{seed}.webm", seed=seed)
    paths = [str(p) for p in sorted(clips_dir.iterdir())]
    src = data.open(f"folder:{clips_dir}")
    samples = src.manifest.samples
    sampling = data.Sampling(frames=FRAMES)
    for path, (_, frames) in zip(
        sorted(paths, key=lambda p: Path(p).name), data.prefetch(src, samples, sampling), strict=True
    ):
        np.testing.assert_array_equal(frames.pixels, with_decord(path))
        np.testing.assert_array_equal(frames.pixels, with_pyav(path))

    def direct(read: Callable[[str], Any]) -> Callable[[], Iterable[Any]]:
        def run() -> Iterable[Any]:
            with ThreadPoolExecutor(THREADS) as pool:
                yield from pool.map(read, paths)

        return run

    header = clips.Header(height=240, pixel_format="yuv420p")
    sides = {
        "decord directly": direct(with_decord),
        "pyav directly": direct(with_pyav),
        "ours, in this process": direct(lambda p: clips.read_clip(p, sampling)),
        "ours, in other processes": direct(lambda p: isolated.read(p, sampling)),
        "ours, in other processes, header known": direct(lambda p: isolated.read(p, sampling, header)),
        "ours, prefetch": lambda: data.prefetch(src, samples, sampling, workers=THREADS, ahead=8),
    }
    rates = _interleaved(sides, count=FRAMES * len(paths))
    best = {unit: max(rates[k][unit] for k in ("decord directly", "pyav directly")) for unit in UNITS}
    return {
        "clips": len(paths),
        "bytes_per_clip": sum(Path(p).stat().st_size for p in paths) // len(paths),
        "frames": rates,
        "share_of_the_better": {k: {u: round(v[u] / best[u], 3) for u in UNITS} for k, v in rates.items()},
    }


def read_whole(path: str) -> bytes:
    """Return a file's bytes, by the fewest calls that Python has for it."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, os.fstat(file).st_size)
    finally:
        os.close(file)


def digest(folder: Path) -> dict[str, Any]:
    """Bytes per second of a first scan without decoding, against reading and against hashing the bytes.

    The other sides are as fast as we can write them: bare calls, handed to the threads 16 files at a time.
    From memory, hashing alone is far below reading: what the processor takes for SHA-256 is the limit there.
    """
    root, count, size = folder / "ssv2", 2000, 90_000
    _write_ssv2(root, count, lambda i: _webm_like(i, size))
    paths = sorted(str(path) for path in (root / "videos").iterdir())
    parts = [paths[i : i + 16] for i in range(0, count, 16)]

    def over_parts(work: Callable[[bytes], Any]) -> Callable[[], Iterable[Any]]:
        def run() -> Iterable[Any]:
            with ThreadPoolExecutor(THREADS) as pool:
                yield from pool.map(lambda part: [work(read_whole(path)) for path in part], parts)

        return run

    sides = {
        "reading": over_parts(len),
        "hashing": over_parts(lambda content: hashlib.sha256(content).hexdigest()),
        "ours": lambda: data.open(f"ssv2:{root}", workers=THREADS).manifest,
    }
    warm = _interleaved(sides, count=count * size)
    cold = _interleaved(sides, count=count * size, before=lambda: _forget_pages(paths))
    return {
        "bytes_from_memory": warm,
        "bytes_from_disk": cold,
        "share_of_reading_from_disk": _shares(cold, "reading"),
        "share_of_hashing_from_disk": _shares(cold, "hashing"),
        "share_of_reading_from_memory": _shares(warm, "reading"),
        "share_of_hashing_from_memory": _shares(warm, "hashing"),
    }


def manifest(folder: Path) -> dict[str, Any]:
    """Seconds for the manifest of as many clips as Something-Something v2 has, from cached digests."""
    root, count = folder / "ssv2", 220_847
    _write_ssv2(root, count, lambda i: _webm_like(i, 64))
    cache = folder / "cache"
    times = []
    for _ in range(4):
        start, cpu = time.perf_counter(), time.process_time()
        scanned = data.open(f"ssv2:{root}", cache_dir=cache).manifest
        times.append((round(time.perf_counter() - start, 2), round(time.process_time() - cpu, 2)))
        assert len(scanned) == count
        # outside the clock: a command scans once, and never takes an earlier scan apart
        del scanned
    return {
        "clips": count,
        "first_s": times[0][0],
        "from_cache_s": [clock for clock, _ in times[1:]],
        "from_cache_cpu_s": [cpu for _, cpu in times[1:]],
    }


def memory(folder: Path) -> dict[str, Any]:
    """Resident memory over 5,000 opens, MB after each 1,000, of this process and of those that decode for it."""
    encode_pan(folder / "clip.webm", seed=0, frames=12)
    Image.fromarray(photographs.astronaut()[:240, :426]).save(folder / "still.jpg")
    clip, still = str(folder / "clip.webm"), str(folder / "still.jpg")
    two = data.Sampling(frames=2)
    grown: dict[str, list[float]] = {}
    for name, read in {
        "clips, in this process": lambda: clips.read_clip(clip, two),
        "clips, in other processes": lambda: isolated.read(clip, two),
        "stills, in other processes": lambda: isolated.read_still(still),
    }.items():
        grown[name] = []
        for i in range(5001):
            read()
            if i % 1000 == 0:
                alive = [psutil.Process(), *psutil.Process().children(recursive=True)]
                grown[name].append(round(sum(p.memory_info().rss for p in alive) / 1e6, 1))
    return {"resident_mb": grown}


def render(folder: Path) -> dict[str, Any]:
    """Samples rendered and digested per second, one thread."""
    rates = {}
    for world, count in (("shapes", 3000), ("scenes", 1500), ("moving", 600)):
        start = time.process_time()
        _ = data.open(f"synthetic:{world}", samples=count).manifest
        rates[world] = round(count / (time.process_time() - start))
    return {"samples_per_cpu_s": rates}


def _interleaved(
    sides: dict[str, Callable[[], Iterable[Any]]],
    *,
    count: int,
    before: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, float]]:
    """Return `count` over the median time of each side.

    By the clock, and by the processor time of this process and its children: other work on the machine
    lengthens only the first.
    """
    clock: dict[str, list[float]] = {name: [] for name in sides}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, run in sides.items():
            before()
            start, cpu = time.perf_counter(), _cpu_s()
            for _ in run():
                pass
            clock[name].append(time.perf_counter() - start)
            spent[name].append(_cpu_s() - cpu)
    return {
        name: {
            "per_s": round(count / statistics.median(clock[name]), 1),
            "per_cpu_s": round(count / statistics.median(spent[name]), 1),
        }
        for name in sides
    }


def _shares(rates: dict[str, dict[str, float]], side: str) -> dict[str, float]:
    return {unit: round(rates["ours"][unit] / rates[side][unit], 3) for unit in UNITS}


def _forget_pages(paths: list[str]) -> None:
    """Drop the files from the page cache, as far as the system lets us."""
    for path in paths:
        with Path(path).open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _cpu_s() -> float:
    alive = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(p.cpu_times()[:2]) for p in alive)


def _webm_like(number: int, size: int) -> bytes:
    """Return bytes that are whole as far as a container's outside goes, and differ by number."""
    return b"\x1a\x45\xdf\xa3\x80" + number.to_bytes(8, "big") + b"\0" * (size - 13)


def _write_ssv2(root: Path, count: int, content: Callable[[int], bytes]) -> None:
    (root / "videos").mkdir(parents=True)
    classes = [f"Doing something {i}" for i in range(174)]
    entries = [
        {"id": str(i), "template": f"Doing [something] {i % 174}", "placeholders": ["x"]}
        for i in range(count)
    ]
    for i in range(count):
        (root / "videos" / f"{i}.webm").write_bytes(content(i))
    (root / "labels.json").write_text(json.dumps({name: str(i) for i, name in enumerate(classes)}))
    (root / "validation.json").write_text(json.dumps(entries))


def main(names: list[str]) -> None:
    every = {f.__name__: f for f in (decode, digest, manifest, memory, render)}
    results = {}
    for name in names or list(every):
        with tempfile.TemporaryDirectory() as folder:
            results[name] = every[name](Path(folder))
    results["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])

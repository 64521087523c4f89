"""Synthetic data: rendered shapes whose masks, boxes and classes are known exactly."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from foresight.data.moving import Moving
from foresight.data.sampling import Sampling
from foresight.data.scenes import Scenes
from foresight.data.source import DataSource, Progress
from foresight.data.thumbnails import thumbnail_png
from foresight.data.worlds import Rendered, Shapes, World
from foresight.nouns import Frames, Manifest, Sample, Skip

KIND = "synthetic"
WORLDS: dict[str, World] = {world.name: world for world in (Shapes(), Scenes(), Moving())}
SPELLING = "synthetic, " + ", ".join(f"synthetic:{name}" for name in list(WORLDS)[1:])
DEFAULT_SAMPLES = 500
RENDERER = "synthetic 1"


def open(
    location: str,
    *,
    samples: int | None,
    seed: int,
    cache_dir: Path | None = None,
    size: int | tuple[int, int] | None = None,
) -> DataSource:
    """Open the world named by `location`; '' is 'shapes'. `size` is a side or (height, width), px.

    There are no files, so `cache_dir` is not used. `samples=None` renders 500.
    """
    name = location or "shapes"
    if name not in WORLDS:
        raise ValueError(f"a synthetic world is one of {list(WORLDS)}, but got {name!r}")
    world = WORLDS[name]
    sides = world.size if size is None else ((size, size) if isinstance(size, int) else tuple(size))
    if len(sides) != 2 or min(sides) < 16 or max(sides) > 4096:
        raise ValueError(f"a synthetic frame has sides of 16 to 4096 px, (height, width), but got {size!r}")
    return Synthetic(world, samples=samples or DEFAULT_SAMPLES, seed=seed, size=(sides[0], sides[1]))


class Synthetic:
    """Samples 0 … n - 1 of one world. Sample 712 is the same among 1,000 as among 100,000."""

    def __init__(self, world: World, *, samples: int, seed: int, size: tuple[int, int]) -> None:
        self.scan_progress: Progress | None = None
        self.ignored: dict[str, int] = {}
        self._world = world
        self._samples = samples
        self._seed = seed
        self._size = size
        self._manifest: Manifest | None = None
        self._index: dict[str, int] = {}

    @property
    def manifest(self) -> Manifest:
        if self._manifest is None:
            self._manifest = self._scan()
        return self._manifest

    def frames(self, sample: Sample, sampling: Sampling) -> Frames:
        rendered = self._render(sample)
        if self._world.media == "image":
            return Frames(pixels=rendered.pixels, times_s=rendered.times_s, decoder=RENDERER)
        chosen = sampling.indices(rendered.times_s)
        return Frames(pixels=rendered.pixels[chosen], times_s=rendered.times_s[chosen], decoder=RENDERER)

    def facts(self, sample: Sample) -> dict[str, Any]:
        """Return `size`; of a clip also `frames` and `duration_s`."""
        rendered = self._render(sample)
        facts: dict[str, Any] = {"size": list(self._size)}
        if self._world.media == "clip":
            step_s = float(rendered.times_s[1] - rendered.times_s[0])
            facts |= {"frames": len(rendered.times_s), "duration_s": len(rendered.times_s) * step_s}
        return facts

    def thumbnail(self, sample: Sample, size: int = 96) -> bytes:
        return thumbnail_png(self.frames(sample, Sampling(frames=1)), size)

    def mask(self, sample: Sample) -> UInt8[np.ndarray, "row col"]:
        """Return what shows at each pixel centre: 0 the ground, k the k-th box. Of a clip, frame 0."""
        return self._render(sample).masks[0]

    def masks(self, sample: Sample, sampling: Sampling) -> UInt8[np.ndarray, "time row col"]:
        """Return the masks of the frames that `frames` returns."""
        rendered = self._render(sample)
        if self._world.media == "image":
            return rendered.masks
        return rendered.masks[sampling.indices(rendered.times_s)]

    def _render(self, sample: Sample) -> Rendered:
        _ = self.manifest
        if sample.digest not in self._index:
            raise KeyError(
                f"frames are rendered for samples of this data set, but {sample.key!r} "
                f"({sample.digest[:12]}) is not one of them; open the same world, samples, seed and size"
            )
        return self._world.render(self._seed, self._index[sample.digest], self._size)

    def _scan(self) -> Manifest:
        samples: list[Sample] = []
        skipped: list[Skip] = []
        first: dict[str, str] = {}
        for index in range(self._samples):
            rendered = self._world.render(self._seed, index, self._size)
            digest = pixels_digest(rendered.pixels)
            key = f"{self._world.name}/{index:06d}"
            if digest in first:
                skipped.append(Skip(key=key, why=f"same pixels as {first[digest]}"))
            else:
                first[digest] = key
                self._index[digest] = index
                samples.append(
                    Sample(
                        digest=digest,
                        key=key,
                        media=self._world.media,
                        label=rendered.label,
                        annotations=rendered.annotations,
                    )
                )
            if self.scan_progress is not None:
                self.scan_progress(index + 1, self._samples)
        return Manifest(source=KIND, samples=tuple(samples), skipped=tuple(skipped))


def pixels_digest(pixels: UInt8[np.ndarray, "time row col 3"]) -> str:
    """Return the SHA-256 of rendered frames: their shape as text, then their bytes."""
    header: Any = "x".join(str(side) for side in pixels.shape).encode() + b"\n"
    return hashlib.sha256(header + np.ascontiguousarray(pixels).tobytes()).hexdigest()

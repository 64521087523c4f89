"""What annotations say about places: boxes and objects in the model's frame, and directions of motion."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Int

from foresight.data import fit
from foresight.nouns import Frames, Manifest, Sample
from foresight.probes import Objects

SMALLEST = 1e-3
"""Objects of which less than this share of the frame's area is left after cropping are not looked for."""
DIRECTIONS = {
    "right": re.compile(r"\bfrom left to right\b"),
    "left": re.compile(r"\bfrom right to left\b"),
    "up": re.compile(r"^moving something up$"),
    "down": re.compile(r"^moving something down$"),
}
"""Class names that say where the thing moves. 'Turning the camera left' moves the picture right, so camera motions
are left out, and so is 'closer' and 'away', which have no direction in the picture."""
FEWEST_A_CLASS = 2


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What one row of the study has to find, for the samples that have it."""

    indices: Int[np.ndarray, " sample"]
    """Which samples of the manifest."""
    values: Any
    """[sample]: boxes (an array), objects (a list) or direction codes (an array)."""
    names: tuple[str, ...] = ()
    """Of the classes or directions, by code."""
    groups: Sequence[Any] = ()
    """[sample], where they are scored by group."""

    def __len__(self) -> int:
        return len(self.indices)

    def part(self, which: np.ndarray, *, groups: Sequence[Any] = ()) -> Truth:
        """Return the truth of some of these samples, by position."""
        values = self.values
        chosen = values[which] if isinstance(values, np.ndarray) else [values[i] for i in which]
        return Truth(indices=self.indices[which], values=chosen, names=self.names, groups=groups)


def objects(manifest: Manifest, *, size: tuple[int, int], how: str, time_s: float) -> Truth:
    """Return the annotated objects of every sample that has some, in shares of the frame fitted to `size`.

    Of a clip, where they are at `time_s`.
    """
    names = class_names(manifest)
    codes = {name: i for i, name in enumerate(names)}
    indices, values = [], []
    for i, sample in enumerate(manifest):
        found = _objects(sample, codes, size, how, time_s)
        if found is not None and len(found):
            indices.append(i)
            values.append(found)
    return Truth(indices=np.array(indices, np.int64), values=values, names=names)


def largest(found: Truth) -> Truth:
    """Return the largest object's box of every sample, crowds left out."""
    indices, boxes = [], []
    for i, o in zip(found.indices, found.values, strict=True):
        alone = o.boxes if o.crowd is None else o.boxes[~o.crowd]
        if len(alone):
            indices.append(i)
            boxes.append(alone[np.argmax(np.prod(alone[:, 2:] - alone[:, :2], axis=1))])
    return Truth(indices=np.array(indices, np.int64), values=np.array(boxes, np.float64).reshape(-1, 4))


def directions(manifest: Manifest) -> Truth:
    """Return the direction of motion of every clip that has one: annotated, or told by its class name."""
    told = [_direction(s) for s in manifest]
    names = tuple(sorted(k for k, n in Counter(d for d in told if d).items() if n >= FEWEST_A_CLASS))
    indices = np.array([i for i, d in enumerate(told) if d in names], np.int64)
    codes = np.array([names.index(told[i] or "") for i in indices], np.int64)
    return Truth(indices=indices, values=codes, names=names)


def class_names(manifest: Manifest) -> tuple[str, ...]:
    """Return the classes of annotated objects, sorted."""
    return tuple(sorted({str(c) for s in manifest for c in s.annotations.get("classes") or ()}))


def without_boxes(manifest: Manifest) -> str:
    """Return why nothing can be said about boxes; '' when there are some."""
    clips = [s for s in manifest if s.media == "clip"]
    if clips and not any(s.annotations.get("track") for s in clips):
        return f"clips of {manifest.source} have no boxes"
    if not clips and not any(s.annotations.get("boxes") for s in manifest):
        return f"no sample of {manifest.source} has an annotated box"
    return ""


def without_directions(manifest: Manifest, steps: int) -> str:
    """Return why nothing can be said about motion; '' when something can."""
    if all(s.media == "image" for s in manifest):
        return "stills do not move; ask for clips, as in --data synthetic:moving --frames 8"
    if steps < 2:
        return "one time step a clip shows no motion; ask for more frames, as in --frames 8"
    if len(directions(manifest).names) < 2:
        return f"fewer than two directions are told by the classes of {manifest.source}"
    return ""


def _objects(
    sample: Sample, codes: dict[str, int], size: tuple[int, int], how: str, time_s: float
) -> Objects | None:
    known = sample.annotations
    boxes = _boxes(sample, time_s)
    if boxes is None or not len(boxes) or "size" not in known:
        return None
    height, width = size
    fitted = _geometry(tuple(known["size"]), size, how).boxes(boxes, clip=True)
    shares = fitted / [width, height, width, height]
    kept = np.prod(shares[:, 2:] - shares[:, :2], axis=1) > SMALLEST
    classes = [codes[str(c)] for c in known.get("classes") or ["object"] * len(boxes) if str(c) in codes]
    crowd = known.get("crowd") or [False] * len(boxes)
    return Objects(
        boxes=shares[kept],
        classes=np.array(classes if classes else np.zeros(len(boxes)), np.int64)[kept],
        crowd=np.array(crowd, bool)[kept],
    )


def _boxes(sample: Sample, time_s: float) -> Any:
    known = sample.annotations
    if sample.media == "image":
        return known.get("boxes")
    track = known.get("track")
    if not track or not known.get("fps"):
        return None
    return [track[int(np.clip(round(time_s * known["fps"]), 0, len(track) - 1))]]


def _direction(sample: Sample) -> str | None:
    if sample.media == "image":
        return None
    if sample.annotations.get("direction"):
        return str(sample.annotations["direction"])
    said = (sample.label or "").replace("[", "").replace("]", "").lower()
    return next((name for name, rule in DIRECTIONS.items() if rule.search(said)), None)


@lru_cache(maxsize=4096)
def _geometry(given: Sequence[int], size: tuple[int, int], how: str) -> Any:
    blank = Frames(pixels=np.zeros((1, given[0], given[1], 3), np.uint8), times_s=np.zeros(1))
    return fit(blank, size=size, how=how)[1]  # type: ignore[arg-type]

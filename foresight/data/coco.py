"""COCO: images with boxes, classes and masks of the objects in them."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from foresight.data.coco_instances import Image, Instances, Object, read_instances
from foresight.data.errors import NoUsableData
from foresight.data.files import Files
from foresight.data.listing import Entry
from foresight.data.on_disk import OnDisk, folder_at
from foresight.data.source import DataSource
from foresight.data.subset import in_turns
from foresight.nouns import Manifest, Sample, Skip

KIND = "coco"
SPELLING = "coco:DIR"


def open(
    location: str,
    *,
    samples: int | None,
    seed: int,
    cache_dir: Path | None = None,
    workers: int | None = None,
    split: str | None = None,
    categories: Sequence[str] = (),
) -> DataSource:
    """Open the folder that holds `annotations/instances_<split>.json` and the images under `<split>/`.

    `split` is val2017, train2017, … (None: val2017 if it is there, else the only one). With `categories`,
    only images that show one of these are taken, and only these objects are told.
    """
    root = folder_at(location, SPELLING)
    names = (categories,) if isinstance(categories, str) else tuple(categories)
    files = Files(root, cache_dir=cache_dir, workers=workers, decode=True)
    return Coco(files, samples=samples, seed=seed, split=_find_split(root, split), categories=names)


class Coco(OnDisk):
    """One split. The label of an image is the category that covers most of it; crowds do not count."""

    def __init__(
        self, files: Files, *, samples: int | None, seed: int, split: str, categories: tuple[str, ...]
    ) -> None:
        super().__init__(files, samples=samples, seed=seed)
        self._split = split
        self._categories = categories
        self._objects: dict[str, tuple[Object, ...]] = {}

    def masks(self, sample: Sample) -> UInt8[np.ndarray, "object row col"]:
        """Return 1 inside and 0 outside each object, in the order of the sample's boxes.

        Polygons and run lengths are drawn by pycocotools, so they are the ones that the benchmark scores.
        """
        _ = self.manifest
        height, width = sample.annotations["size"]
        drawn = [_draw(o.segmentation, height, width) for o in self._objects[sample.digest]]
        return np.stack(drawn) if drawn else np.zeros((0, height, width), np.uint8)

    def _scan(self) -> Manifest:
        instances = read_instances(
            self._files.root / "annotations" / f"instances_{self._split}.json", self._categories
        )
        skipped = list(instances.skipped)
        candidates = self._candidates(instances, skipped)
        ordered = sorted(candidates)
        if self._samples is not None:
            pairs = [(_label(instances.objects[candidates[key].id]), key) for key in ordered]
            ordered = [ordered[position] for position in in_turns(pairs, seed=self._seed)]
        samples: list[Sample] = []
        entries = [_entry(self._files.root, key) for key in ordered]
        taken, unusable = self._files.take(
            entries,
            self._samples,
            total=len(entries),
            progress=self.scan_progress,
            refuse=lambda entry, facts: _other_size(candidates[entry.key], facts),
        )
        for entry, seen in sorted(taken, key=lambda pair: pair[0].key):
            image = candidates[entry.key]
            objects = instances.objects[image.id]
            self._objects[seen.digest] = objects
            samples.append(_sample(entry.key, seen.digest, image, objects))
        skipped += unusable
        if not samples:
            first = f", such as {skipped[0].key!r}: {skipped[0].why}" if skipped else ""
            raise NoUsableData(
                f"COCO {self._split} is images with their annotations, but {str(self._files.root)!r} has no "
                f"usable image among {len(instances.images)} listed; {len(skipped)} skipped{first}",
                skipped=skipped,
            )
        return Manifest(source=KIND, samples=tuple(samples), skipped=tuple(skipped))

    def _candidates(self, instances: Instances, skipped: list[Skip]) -> dict[str, Image]:
        """Return the listed images whose file is there, by key; whatever has no counterpart is a skip."""
        folder = self._files.root / self._split
        there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        found: dict[str, Image] = {}
        for image in instances.images:
            key = f"{self._split}/{image.file_name}"
            if image.file_name not in there:
                skipped.append(Skip(key=key, why="the annotations list it, but the file is not there"))
            elif key in found:
                skipped.append(Skip(key=key, why=f"image {image.id} names the same file as {found[key].id}"))
            elif not self._categories or instances.objects[image.id]:
                found[key] = image
        listed = {image.file_name for image in instances.images} | instances.refused_files
        for name in sorted(there - listed):
            skipped.append(Skip(key=f"{self._split}/{name}", why="no annotations list this file"))
        return found


def _sample(key: str, digest: str, image: Image, objects: tuple[Object, ...]) -> Sample:
    return Sample(
        digest=digest,
        key=key,
        label=_label(objects),
        annotations={
            "size": [image.height, image.width],
            "boxes": [list(o.box) for o in objects],
            "classes": [o.category for o in objects],
            "crowd": [o.crowd for o in objects],
            "areas": [o.area for o in objects],
            "object_ids": [o.id for o in objects],
            "image_id": image.id,
        },
    )


def _label(objects: tuple[Object, ...]) -> str | None:
    """Return the category with the largest area, the first by name of equals; None without one."""
    areas: dict[str, float] = defaultdict(float)
    for o in objects:
        if not o.crowd:
            areas[o.category] += o.area
    return min(areas, key=lambda category: (-areas[category], category)) if areas else None


def _other_size(image: Image, facts: dict[str, Any]) -> str:
    height, width = facts["size"]
    if (height, width) == (image.height, image.width):
        return ""
    return (
        f"its boxes are for {image.width} x {image.height} px, but the upright image has {width} x {height}"
    )


def _entry(root: Path, key: str) -> Entry:
    return Entry(key=key, path=str(root / key), media="image")


def _draw(segmentation: Any, height: int, width: int) -> UInt8[np.ndarray, "row col"]:
    try:
        from pycocotools import mask
    except ImportError:
        raise ImportError(
            "COCO masks are drawn by pycocotools; install it: pip install pycocotools"
        ) from None
    if isinstance(segmentation, list):
        # outlines of one object in several parts
        encoded = mask.merge(mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        encoded = mask.frPyObjects(segmentation, height, width)
    else:
        encoded = segmentation
    with warnings.catch_warnings():
        # pycocotools 2.0.11 hands numpy an array type without the `copy` of numpy 2; the values are right
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept", DeprecationWarning)
        return np.ascontiguousarray(mask.decode(encoded), dtype=np.uint8)


def _find_split(root: Path, split: str | None) -> str:
    there = sorted(p.stem.removeprefix("instances_") for p in root.glob("annotations/instances_*.json"))
    if split is None and "val2017" in there:
        return "val2017"
    if split is None and len(there) == 1:
        return there[0]
    if split is None or split not in there:
        asked = "val2017, or the only one there" if split is None else repr(split)
        raise ValueError(
            f"a COCO split has annotations/instances_<split>.json, but {str(root)!r} has those of {there} "
            f"and the split asked for is {asked}; name one of these or add the file"
        )
    return split

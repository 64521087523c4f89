"""The instances file of a COCO split, checked entry by entry."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from foresight.data.json_files import read_json
from foresight.nouns import Skip

SLACK_PX = 1.0
"""Annotators drew boxes up to a pixel over the edge; further out, a box is for another image."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """One listed image."""

    id: int
    file_name: str
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Object:
    """One annotated object of an image."""

    id: int
    category: str
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in px."""
    area: float
    """px², as annotated: of the segmentation, not of the box."""
    crowd: bool
    segmentation: Any
    """Polygons, or run lengths: what pycocotools draws."""


@dataclass(frozen=True, kw_only=True)
class Instances:
    """A whole file. `objects` has an entry for every image, in the order of the object ids."""

    images: tuple[Image, ...]
    objects: dict[int, tuple[Object, ...]]
    skipped: tuple[Skip, ...]
    refused_files: frozenset[str]
    """File names whose entry was refused: they are skips already."""


def read_instances(path: Path, categories: Sequence[str] = ()) -> Instances:
    """Return what the file lists. Entries that make no sense are skips, named after their place in the file.

    `categories` keeps only objects of these. Raises ValueError for a file that is no COCO file at all and for
    an unknown category.
    """
    rule = "the JSON object with COCO's images, annotations and categories"
    value = read_json(path, dict, rule)
    for part in ("images", "annotations", "categories"):
        if not isinstance(value.get(part), list):
            raise ValueError(
                f"{path.name} is {rule}, but its {part!r} is not a list; is it an instances file?"
            )
    skipped: list[Skip] = []
    names = _categories(path, value["categories"])
    if unknown := sorted(set(categories) - set(names.values())):
        raise ValueError(f"categories are among {sorted(names.values())}, but got {unknown}")
    images: dict[int, Image] = {}
    refused: set[str] = set()
    for position, entry in enumerate(value["images"]):
        image = _image(entry)
        key = f"{path.name}#images/{position}"
        if isinstance(image, str):
            skipped.append(Skip(key=key, why=image))
            refused.add(str(entry.get("file_name")) if isinstance(entry, dict) else "")
        elif image.id in images:
            why = f"image id {image.id} stands a second time, for {image.file_name!r}"
            skipped.append(Skip(key=key, why=why))
            if image.file_name != images[image.id].file_name:
                refused.add(image.file_name)
        else:
            images[image.id] = image
    objects: dict[int, dict[int, Object]] = defaultdict(dict)
    seen: set[int] = set()
    for position, entry in enumerate(value["annotations"]):
        found = _object(entry, images, names)
        if isinstance(found, str) or found[1].id in seen:
            why = found if isinstance(found, str) else f"annotation id {found[1].id} stands a second time"
            skipped.append(Skip(key=f"{path.name}#annotations/{position}", why=why))
            continue
        image_id, thing = found
        seen.add(thing.id)
        if not categories or thing.category in categories:
            objects[image_id][thing.id] = thing
    return Instances(
        images=tuple(images[key] for key in sorted(images)),
        objects={key: tuple(objects[key][i] for i in sorted(objects[key])) for key in images},
        skipped=tuple(skipped),
        refused_files=frozenset(refused),
    )


def _categories(path: Path, entries: list[Any]) -> dict[int, str]:
    names: dict[int, str] = {}
    for entry in entries:
        number = entry.get("id") if isinstance(entry, dict) else None
        name = entry.get("name") if isinstance(entry, dict) else None
        if not _is_id(number) or not isinstance(name, str) or number in names:
            raise ValueError(f"{path.name} gives each category its id and name, but one is {str(entry)[:80]}")
        names[number] = name
    return names


def _image(entry: Any) -> Image | str:
    """Return the image, or why there is none."""
    if not isinstance(entry, dict) or not _is_id(entry.get("id")):
        return "an image has a whole number as its id, but this one has none"
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        return f"image {entry['id']} has no file name"
    # a name is looked up among the listed files of one folder, so a path can lead nowhere; say it clearly
    if "/" in name or "\\" in name or name in (".", "..") or "\0" in name:
        return f"image {entry['id']} has a path for a name, {name[:80]!r}; a file name stays in its folder"
    height, width = entry.get("height"), entry.get("width")
    if not (_is_id(height) and _is_id(width) and height > 0 and width > 0):
        return f"image {entry['id']} has no size in whole pixels"
    return Image(id=entry["id"], file_name=name, height=height, width=width)


def _object(entry: Any, images: dict[int, Image], names: dict[int, str]) -> tuple[int, Object] | str:
    """Return (image id, object), or why there is none."""
    if not isinstance(entry, dict) or not _is_id(entry.get("id")):
        return "an annotation has a whole number as its id, but this one has none"
    number = entry["id"]
    image = images.get(entry["image_id"]) if _is_id(entry.get("image_id")) else None
    if image is None:
        return f"annotation {number} is of image {str(entry.get('image_id'))[:40]}, which is not listed"
    category = entry.get("category_id")
    if not _is_id(category) or category not in names:
        return f"annotation {number} has the category {str(category)[:40]}, which is not listed"
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(v) for v in box):
        return f"annotation {number} has no box of four numbers"
    x, y, w, h = (float(v) for v in box)
    if w <= 0 or h <= 0:
        return f"annotation {number} has a box without area, {w:g} x {h:g} px"
    if min(x, y) < -SLACK_PX or x + w > image.width + SLACK_PX or y + h > image.height + SLACK_PX:
        return f"annotation {number} has a box that leaves its image of {image.width} x {image.height} px"
    area = entry.get("area", w * h)
    segmentation = entry.get("segmentation")
    if not _is_number(area) or area < 0 or not _is_segmentation(segmentation, image):
        return f"annotation {number} has no segmentation with its area"
    return image.id, Object(
        id=number,
        category=names[category],
        box=(x, y, round(x + w, 4), round(y + h, 4)),
        area=float(area),
        crowd=bool(entry.get("iscrowd", 0)),
        segmentation=segmentation,
    )


def _is_segmentation(value: Any, image: Image) -> bool:
    """Say whether these are polygons, or run lengths of the image's size."""
    if isinstance(value, list):
        return bool(value) and all(
            isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 and all(_is_number(v) for v in p)
            for p in value
        )
    if not isinstance(value, dict) or value.get("size") != [image.height, image.width]:
        return False
    counts = value.get("counts")
    runs = _unpack(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(_is_id(run) and run >= 0 for run in runs):
        return False
    # pycocotools 2.0.11 returns memory it never wrote where the runs end before the image does
    return sum(runs) == image.height * image.width


def _unpack(text: str) -> list[int]:
    """Return the run lengths of a compressed mask.

    Each run is written in characters of 5 bits and a sixth that says 'more', lowest bits first, counted from
    '0'; the last one's top bit is the sign. From the fourth on, a run is the difference to the run two
    before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            return [-1]
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs if not shift else [-1]


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

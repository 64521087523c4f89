"""Small data sets in the official layouts of Something-Something v2 and COCO, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .media import save_clip, save_picture

TEMPLATES = [
    "Holding [something]",
    "Moving [something] closer to [something]",
    "Putting [number of] [something] onto [something]",
]
FILLINGS = {1: ["a cup"], 2: ["pen", "book"], 3: ["2", "coins", "a plate"]}


def plain(template: str) -> str:
    return template.replace("[", "").replace("]", "")


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def something(
    root: Path,
    *,
    train: int = 6,
    validation: int = 9,
    test: int = 2,
    prefix: str = "",
    labels: str = "labels",
    videos: str = "20bn-something-something-v2",
    small: bool = True,
) -> Path:
    """Write clips `<id>.webm` (VP9) and the label files: ids count from 101, classes take turns."""
    side = {"height": 32, "width": 48} if small else {"height": 240, "width": 426}
    number = 100
    for split, count in (("train", train), ("validation", validation), ("test", test)):
        entries = []
        for i in range(count):
            number += 1
            template = TEMPLATES[i % 3]
            filling = FILLINGS[i % 3 + 1]
            text = template
            for word in filling:
                text = text[: text.index("[")] + word + text[text.index("]") + 1 :]
            entry = {"id": str(number), "label": text, "template": template, "placeholders": filling}
            entries.append({"id": str(number)} if split == "test" else entry)
            save_clip(root / videos / f"{number}.webm", frames=8 + i % 5, fps=12, seed=number, **side)
        write_json(root / labels / f"{prefix}{split}.json", entries)
    classes = {plain(template): str(i) for i, template in enumerate(TEMPLATES)}
    write_json(root / labels / f"{prefix}labels.json", classes)
    return root


def coco_value(images: int = 6) -> dict[str, Any]:
    """Return an instances file: a cat in each image, a dog in every second, a crowd of dogs in the third."""
    value: dict[str, Any] = {
        "info": {"year": 2017},
        "images": [],
        "annotations": [],
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
    }
    for i in range(images):
        value["images"].append({"id": 1000 + i, "file_name": f"{i:012d}.jpg", "height": 60, "width": 80})
        x, y, w, h = 10 + i, 20, 20, 15
        value["annotations"].append(
            {
                "id": 10 * i,
                "image_id": 1000 + i,
                "category_id": 17,
                "bbox": [x, y, w, h],
                "area": w * h,
                "iscrowd": 0,
                "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
            }
        )
        if i % 2:
            value["annotations"].append(
                {
                    "id": 10 * i + 1,
                    "image_id": 1000 + i,
                    "category_id": 18,
                    "bbox": [40, 5, 30, 40],
                    "area": 1200,
                    "iscrowd": 0,
                    "segmentation": [[40, 5, 70, 5, 70, 45, 40, 45]],
                }
            )
    # 28 columns of 18 px, run by run down the columns: the last run reaches the end of 60 x 80
    runs = [50 * 60 + 40, *[18, 42] * 27, 18]
    runs.append(60 * 80 - sum(runs))
    value["annotations"].append(
        {
            "id": 999,
            "image_id": 1002,
            "category_id": 18,
            "bbox": [50, 40, 28, 18],
            "area": 504,
            "iscrowd": 1,
            "segmentation": {"size": [60, 80], "counts": runs},
        }
    )
    return value


def coco(root: Path, *, split: str = "val2017", value: dict[str, Any] | None = None) -> Path:
    value = coco_value() if value is None else value
    write_json(root / "annotations" / f"instances_{split}.json", value)
    for i in range(6):
        save_picture(root / split / f"{i:012d}.jpg", height=60, width=80, seed=200 + i, quality=95)
    return root

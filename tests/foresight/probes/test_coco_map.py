"""mAP is COCO's own number, on COCO's own format."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

from foresight.probes import Objects, average_precision, coco_documents


def scene(seed: int, *, images: int = 30) -> tuple[list[Objects], list[Objects]]:
    """Return annotated objects of three classes, and noisy findings of them with false ones among them."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(images):
        n = int(rng.integers(0, 5))
        low = rng.uniform(0, 0.6, (n, 2))
        boxes = np.concatenate([low, low + rng.uniform(0.05, 0.4, (n, 2))], axis=1)
        classes = rng.integers(0, 3, n)
        truth.append(Objects(boxes=boxes, classes=classes, crowd=rng.random(n) < 0.1))
        false = rng.uniform(0, 0.5, (3, 2))
        seen = np.concatenate(
            [boxes + 0.03 * rng.standard_normal((n, 4)), np.concatenate([false, false + 0.3], 1)]
        )
        kinds = np.concatenate([np.where(rng.random(n) < 0.8, classes, 0), rng.integers(0, 3, 3)])
        found.append(Objects(boxes=seen, classes=kinds, scores=rng.random(n + 3)))
    return truth, found


def reference(truth: list[Objects], found: list[Objects], folder: Path) -> tuple[float, float]:
    """Return (AP@0.5, AP) as pycocotools summarises the files."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    whole, results = coco_documents(truth, found)
    (folder / "truth.json").write_text(json.dumps(whole))
    (folder / "found.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = COCO(str(folder / "truth.json"))
        evaluation = COCOeval(annotated, annotated.loadRes(str(folder / "found.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[1]), float(evaluation.stats[0])


@pytest.mark.parametrize("seed", range(3))
def test_the_value_is_what_pycocotools_says_of_the_same_files(seed: int, tmp_path: Path) -> None:
    truth, found = scene(seed)
    mine = average_precision(truth, found)
    half, over = reference(truth, found, tmp_path)
    assert mine.value == half
    assert mine.over_ious == over
    assert mine.low < mine.value < mine.high


def test_one_class_and_perfect_findings_give_one() -> None:
    boxes = np.array([[0.1, 0.1, 0.4, 0.5]])
    truth = [Objects(boxes=boxes, classes=np.array([2]))] * 3
    found = [Objects(boxes=boxes, classes=np.array([2]), scores=np.array([0.9]))] * 3
    whole = average_precision(truth, found)
    assert whole.value == 1.0
    assert whole.by_class == {2: 1.0}
    assert math.isnan(whole.low)


def test_no_annotations_is_undefined_and_no_findings_is_zero() -> None:
    none = Objects(boxes=np.zeros((0, 4)), classes=np.zeros(0, int), scores=np.zeros(0))
    some = Objects(boxes=np.array([[0.1, 0.1, 0.4, 0.5]]), classes=np.array([0]))
    assert math.isnan(average_precision([none] * 10, [none] * 10).value)
    assert average_precision([some] * 10, [none] * 10).value == 0.0


def test_images_of_one_group_are_drawn_together() -> None:
    truth, found = scene(0)
    alone = average_precision(truth, found, seed=1)
    together = average_precision(truth, found, groups=np.repeat(np.arange(10), 3), seed=1)
    assert alone.value == together.value
    assert (alone.low, alone.high) != (together.low, together.high)
    assert math.isnan(average_precision(truth, found, groups=np.repeat(np.arange(5), 6)).low)


def test_lists_of_unequal_length_and_findings_without_scores_are_refused() -> None:
    truth, found = scene(0, images=3)
    with pytest.raises(ValueError, match="got 2 for 3 images"):
        average_precision(truth, found[:2])
    with pytest.raises(ValueError, match="found objects have scores"):
        average_precision(truth, [Objects(boxes=f.boxes, classes=f.classes) for f in found])

"""Average precision as COCO scores it: pycocotools matches and sums; images are redrawn for the interval."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from foresight.metrics.space import group_codes
from foresight.metrics.statistics import FEWEST_FOR_INTERVAL

RESAMPLES = 200
SIDE_PX = 1000.0
"""Shares of the frame are scored in units of 1/1000, so that COCO's limits in px² do not bite."""


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The objects of one image, annotated or found."""

    boxes: Float[np.ndarray, "object 4"]
    """x0, y0, x1, y1 as shares of the frame."""
    classes: Int[np.ndarray, " object"]
    scores: Float[np.ndarray, " object"] | None = None
    """Of found objects."""
    crowd: np.ndarray | None = None
    """Of annotated ones: True where the box stands for many; matches with it do not count either way."""

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, kw_only=True)
class Precision:
    """mAP@0.5 with its 95 % interval over groups."""

    value: float
    """nan when no class has an annotated object."""
    low: float
    high: float
    by_class: dict[int, float]
    over_ious: float
    """COCO's headline AP, averaged over IoU 0.50 to 0.95."""


def coco_documents(
    truth: Sequence[Objects], found: Sequence[Objects]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return annotations and results in COCO's own format, image i + 1 for the i-th of either."""
    classes = sorted({int(c) for o in (*truth, *found) for c in o.classes})
    annotations: list[dict[str, Any]] = []
    for image, objects in enumerate(truth, start=1):
        crowd = np.zeros(len(objects), bool) if objects.crowd is None else objects.crowd
        for box, kind, many in zip(objects.boxes, objects.classes, crowd, strict=True):
            x, y, w, h = _sides(box)
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": image, "category_id": int(kind) + 1,
                    "bbox": [x, y, w, h], "area": w * h, "iscrowd": int(many),
                }
            )  # fmt: skip
    results = [
        {"image_id": image, "category_id": int(kind) + 1, "bbox": _sides(box), "score": float(score)}
        for image, objects in enumerate(found, start=1)
        for box, kind, score in zip(objects.boxes, objects.classes, _scores(objects), strict=True)
    ]
    whole = {
        "info": {},
        "images": [{"id": i, "width": SIDE_PX, "height": SIDE_PX} for i in range(1, len(truth) + 1)],
        "annotations": annotations,
        "categories": [{"id": c + 1, "name": str(c)} for c in classes],
    }
    return whole, results


def average_precision(
    truth: Sequence[Objects], found: Sequence[Objects], *, groups: Any = None, seed: int = 0
) -> Precision:
    """Return mAP@0.5 of the found objects: pycocotools' own number, 101 recall points, up to 100 an image.

    Classes without an annotated object are left out. The interval redraws groups of images with replacement and
    accumulates their matches again; nan below 8 groups.
    """
    if len(truth) != len(found):
        raise ValueError(f"one list of found objects per image, but got {len(found)} for {len(truth)} images")
    codes = group_codes(groups, len(truth))
    if not any(len(o) for o in truth):
        return Precision(value=math.nan, low=math.nan, high=math.nan, by_class={}, over_ious=math.nan)
    evaluation = _evaluated(*coco_documents(truth, found))
    precision = evaluation.eval["precision"]  # [iou recall class area count]
    value, by_class = _mean_precision(precision, evaluation)
    members = [np.flatnonzero(codes == g) for g in range(int(codes.max()) + 1)]
    low = high = math.nan
    if len(members) >= FEWEST_FOR_INTERVAL:
        rng = np.random.default_rng([seed, 8])
        images = list(evaluation.evalImgs)
        draws = [
            _redrawn(
                evaluation,
                images,
                np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))]),
            )
            for _ in range(RESAMPLES)
        ]
        known = np.array([d for d in draws if math.isfinite(d)])
        low, high = (float(q) for q in np.quantile(known, [0.025, 0.975]))
    return Precision(
        value=value, low=min(low, value), high=max(high, value), by_class=by_class,
        over_ious=_mean(precision[:, :, :, 0, -1]),
    )  # fmt: skip


def _evaluated(whole: dict[str, Any], results: list[dict[str, Any]]) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        annotated = COCO()
        annotated.dataset = whole
        annotated.createIndex()
        if results:
            detected = annotated.loadRes(results)
        else:
            detected = COCO()
            detected.dataset = {**whole, "annotations": []}
            detected.createIndex()
        evaluation = COCOeval(annotated, detected, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _redrawn(evaluation: Any, images: list[Any], draw: np.ndarray) -> float:
    """Return mAP@0.5 of a draw of images, from the matches that were found once."""
    import copy

    p = evaluation.params
    count, areas = len(p.imgIds), len(p.areaRng)
    thresholds = [0]  # of `iouThrs`, 0.5
    again = copy.copy(evaluation)
    per = np.array(images, dtype=object).reshape(-1, areas, count)[:, :1, draw]
    again.params = copy.copy(p)
    again.params.areaRng, again.params.areaRngLbl = p.areaRng[:1], p.areaRngLbl[:1]
    again.params.maxDets = p.maxDets[-1:]
    again.params.iouThrs = p.iouThrs[thresholds]
    # as many images as were drawn, a repeated one under a number of its own
    again.params.imgIds = list(range(len(draw)))
    again._paramsEval = again.params
    again.evalImgs = [None if e is None else _first_iou(e) for e in per.reshape(-1)]
    with contextlib.redirect_stdout(io.StringIO()):
        again.accumulate()
    return _mean(again.eval["precision"][0, :, :, 0, -1])


def _first_iou(entry: dict[str, Any]) -> dict[str, Any]:
    return {**entry, "dtMatches": entry["dtMatches"][:1], "dtIgnore": entry["dtIgnore"][:1]}


def _mean_precision(precision: np.ndarray, evaluation: Any) -> tuple[float, dict[int, float]]:
    at_half = precision[0, :, :, 0, -1]
    by_class = {
        int(kind) - 1: _mean(at_half[:, k])
        for k, kind in enumerate(evaluation.params.catIds)
        if (at_half[:, k] > -1).any()
    }
    return _mean(at_half), by_class


def _mean(values: np.ndarray) -> float:
    kept = values[values > -1]
    return float(kept.mean()) if kept.size else math.nan


def _sides(box: np.ndarray) -> list[float]:
    x0, y0, x1, y1 = (float(v) * SIDE_PX for v in box)
    return [x0, y0, x1 - x0, y1 - y0]


def _scores(objects: Objects) -> np.ndarray:
    if objects.scores is None:
        raise ValueError("found objects have scores, but got none; give each the probe's confidence")
    return objects.scores

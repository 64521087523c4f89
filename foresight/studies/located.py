"""C1.4: how exactly the place of the largest object is read off tokens, beside what knows no places."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from foresight.data.fitting import Fit
from foresight.metrics.threads import one_thread
from foresight.probes import (
    CONSTANT,
    FIT_TOKENS,
    PATCHES,
    POOLED,
    RANDOM,
    SHUFFLED,
    Controlled,
    TokenGrids,
    box_probe,
    controlled,
    fit_axes,
    iou,
    mean_pooled,
    reduced,
    shuffled,
)
from foresight.studies.reconstruction import TEST

FEWEST = 8
"""Samples with a box that a probe learns from, at least."""
SMALLEST = 1e-3
"""Objects of which less than this share of the frame is left after cropping are not looked for."""

Boxes = Float[np.ndarray, "sample 4"]
METRICS: Mapping[str, tuple[Callable[[Boxes, Boxes], np.ndarray], bool]] = {
    "spatial IoU": (iou, True),
    "share of IoU > 0.5": (lambda a, b: (iou(a, b) > 0.5).astype(float), True),
    "share of IoU > 0.75": (lambda a, b: (iou(a, b) > 0.75).astype(float), True),
    "centre error": (lambda a, b: centre_error(a, b), False),
    "size error": (lambda a, b: size_error(a, b), False),
}
"""By name: the score of found and true boxes, and whether higher is better."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The largest object of every sample that has one."""

    indices: Int[np.ndarray, " sample"]
    boxes: Boxes
    """x0, y0, x1, y1 as shares of the frame the model was given."""


def largest_box(boxes: Any, where: Fit) -> list[float] | None:
    """Return the largest of a file's boxes (px) as shares of the fitted frame; None when none is left of them."""
    height, width = where.size_out
    cut = where.boxes(boxes, clip=True) / [width, height, width, height]
    areas = np.prod(cut[:, 2:] - cut[:, :2], axis=1)
    if not len(areas) or areas.max() < SMALLEST:
        return None
    found: list[float] = cut[int(np.argmax(areas))].tolist()
    return found


def centre_error(found: Boxes, truth: Boxes) -> Float[np.ndarray, " sample"]:
    """Return the distance between centres, in shares of the frame's sides."""
    return np.asarray(np.linalg.norm((_centre(found) - _centre(truth)), axis=1))


def size_error(found: Boxes, truth: Boxes) -> Float[np.ndarray, " sample"]:
    """Return the mean absolute error of width and height, in shares of the frame's sides."""
    return np.asarray(np.abs((found[:, 2:] - found[:, :2]) - (truth[:, 2:] - truth[:, :2])).mean(axis=1))


def on_axes(
    blocks: Callable[[], Iterable[np.ndarray]],
    training: np.ndarray,
    *,
    rows: np.ndarray,
    cols: np.ndarray,
    seed: int,
) -> TokenGrids:
    """Return tokens on axes fitted to the samples where `training` holds.

    `blocks()` gives [sample 1 row col feature] a few samples at a time, and is read twice.
    """
    each = -(-FIT_TOKENS // max(int(training.sum()), 1))
    rng = np.random.default_rng([seed, 13])
    chosen, at = [], 0
    for block in blocks():
        flat = block.reshape(len(block), -1, block.shape[-1])
        for i in np.flatnonzero(training[at : at + len(block)]):
            chosen.append(flat[i, rng.permutation(flat.shape[1])[:each]])
        at += len(block)
    axes = fit_axes(np.concatenate(chosen), seed=seed)
    return reduced(blocks(), axes, rows=rows, cols=cols, times_s=np.zeros(1))


@one_thread()
def located(
    main: TokenGrids,
    copy: TokenGrids,
    raw: TokenGrids,
    truth: Truth,
    *,
    folds: Int[np.ndarray, " sample"],
    groups: Sequence[Any],
    seed: int,
) -> dict[str, Controlled]:
    """Return every number of `METRICS` on the scored fold.

    `main`, `copy` (random weights) and `raw` (patches of pixels) hold the truth's samples in its order; `folds` and
    `groups` too. One probe with one budget reads them all.
    """
    test = folds == TEST
    train, wanted = np.flatnonzero(~test), truth.boxes[test]

    def found(tokens: TokenGrids) -> Boxes:
        return box_probe(
            tokens.take(train), truth.boxes[train], tokens.take(np.flatnonzero(test)), seed=seed
        ).boxes

    readings = {
        "": found(main),
        CONSTANT: np.tile(np.median(truth.boxes[train], axis=0), (len(wanted), 1)),
        POOLED: found(mean_pooled(main)),
        SHUFFLED: found(shuffled(main, seed=seed)),
        RANDOM: found(copy),
        PATCHES: found(raw),
    }
    held = [g for g, mine in zip(groups, test, strict=True) if mine]
    detail = {
        "grid": list(main.shape),
        "trained on": len(train),
        "parameters read": main.values.shape[-1],
        "kept variance": main.kept,
    }
    numbers = {}
    for name, (measure, higher) in METRICS.items():
        scores = {k: measure(v, wanted) for k, v in readings.items()}
        mine = scores.pop("")
        numbers[name] = controlled(
            mine, scores, held, seed=seed, higher_is_better=higher, detail=detail | _boxes(name, readings[""], wanted)
        )  # fmt: skip
    return numbers


def _boxes(name: str, found: Boxes, truth: Boxes) -> dict[str, Any]:
    if name != "spatial IoU":
        return {}
    return {"found": np.round(found[:8], 5).tolist(), "truth": np.round(truth[:8], 5).tolist()}


def _centre(boxes: Boxes) -> Float[np.ndarray, "sample 2"]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2

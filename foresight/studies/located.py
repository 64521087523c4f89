"""C1.4: how exactly the place of the largest object is read off tokens.

The box study's probe, truth and controls, on C1's own parting of the samples and with the numbers that C1 asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from foresight.metrics.threads import one_thread
from foresight.probes import TokenGrids, box_probe, iou
from foresight.studies.reconstruction import TEST, parted
from foresight.studies.spatial import Row, Scores, Split
from foresight.studies.spatial_truth import Truth
from foresight.training.threads import one_torch_thread

FEWEST = 8
"""Samples with a box that a probe learns from, at least."""

Boxes = Float[np.ndarray, "sample 4"]


def centre_error(found: Boxes, truth: Boxes) -> Float[np.ndarray, " sample"]:
    """Return the distance between centres, in shares of the frame's sides."""
    return np.asarray(np.linalg.norm((_centre(found) - _centre(truth)), axis=1))


def size_error(found: Boxes, truth: Boxes) -> Float[np.ndarray, " sample"]:
    """Return the mean absolute error of width and height, in shares of the frame's sides."""
    return np.asarray(np.abs((found[:, 2:] - found[:, :2]) - (truth[:, 2:] - truth[:, :2])).mean(axis=1))


METRICS: Mapping[str, Callable[[Boxes, Boxes], np.ndarray]] = {
    "spatial IoU": iou,
    "share of IoU > 0.5": lambda a, b: (iou(a, b) > 0.5).astype(float),
    "share of IoU > 0.75": lambda a, b: (iou(a, b) > 0.75).astype(float),
    "centre error": centre_error,
    "size error": size_error,
}
"""By name: the score of found and true boxes, one a sample."""


def split(groups: Sequence[Any], truth: Truth, *, seed: int) -> Split:
    """Return C1's scored fold of the manifest's `groups` and the rest, cut to the samples the truth has."""
    scored = parted(groups, seed=seed)[truth.indices] == TEST
    test = np.flatnonzero(scored)
    return Split(train=np.flatnonzero(~scored), test=test, groups=[groups[i] for i in truth.indices[test]])


def too_few(where: Split) -> str:
    """Return why boxes cannot be read on this split; '' when they can."""
    if len(where.train) >= FEWEST and len(where.test):
        return ""
    return (
        f"a box probe learns from at least {FEWEST} samples and is scored on others, but {len(where.train)} and "
        f"{len(where.test)} have a box there"
    )


@one_torch_thread()
@one_thread()
def _places(
    tokens: TokenGrids, truth: Truth, test: TokenGrids, wanted: Truth, seed: int
) -> tuple[Scores, Boxes]:
    found = box_probe(tokens, truth.values, test, seed=seed).boxes
    return _scores(found, wanted), found


def _one_box(train: Truth, test: Truth, _: TokenGrids) -> Scores:
    return _scores(np.tile(np.median(train.values, axis=0), (len(test), 1)), test)


ROW = Row(
    lead="spatial IoU",
    about="Every token says how much of the largest object its cell holds; the box follows from where that is.",
    probe=_places,
    constant=_one_box,
)
"""The row as `spatial.measure` takes it."""


def _scores(found: Boxes, wanted: Truth) -> Scores:
    return {name: score(found, wanted.values) for name, score in METRICS.items()}


def _centre(boxes: Boxes) -> Float[np.ndarray, "sample 2"]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2

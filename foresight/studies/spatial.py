"""The spatial study, Q2: what every point of a model knows about places, each number beside all its controls.

One row of the study is a `Row`: a probe, the truth it has to find and the constant guess. `measure` runs it on the
tokens of one point, on the same tokens pooled and shuffled, and on those of random weights, all on one split; what
the pixels themselves give on the same grid (`ceiling`) is measured once a grid and handed in.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from foresight.metrics.perceptual import FEWEST_PX, perceptual
from foresight.metrics.statistics import grouped_split
from foresight.metrics.threads import one_thread
from foresight.probes import (
    BLOCK,
    CONSTANT,
    PATCHES,
    POOLED,
    RADIUS_PX,
    RANDOM,
    SHUFFLED,
    WIDTH,
    Controlled,
    Precision,
    TokenGrids,
    average_precision,
    box_probe,
    constant_set,
    controlled,
    coverage,
    edge_f1,
    heat_iou,
    hits,
    iou,
    mean_pooled,
    motion_probe,
    rebuilt_parts,
    set_probe,
    shuffled,
)
from foresight.studies.spatial_truth import Truth
from foresight.training.threads import one_torch_thread

Measurement = dict[str, Any]
Scores = dict[str, Any]
"""By metric: a score per test sample, or a `Precision` over all of them."""

TEST = 0.3
"""Share of the groups that probes never see."""
CAPACITIES = (0, 16, 256)
"""Hidden features the box probe is trained with once more, besides the one it is reported with."""
BAND_PX = 32
"""Rows of all training pictures that are averaged at once."""
LOWER_IS_BETTER = ("LPIPS", "perceptual distance", "centre error", "size error")


@dataclass(frozen=True, kw_only=True)
class Split:
    """Positions, in the truth of one row, of the samples probes learn from and of those they are scored on."""

    train: Int[np.ndarray, " sample"]
    test: Int[np.ndarray, " sample"]
    groups: Sequence[Any]
    """Of the test samples."""


def split(groups: Sequence[Any], truth: Truth, *, seed: int) -> Split:
    """Return the split of the manifest's `groups`, cut to the samples the truth has.

    Which group is held out depends on the seed and the manifest alone, so it is the same for every point and row.
    `ValueError` when a side is left empty.
    """
    train, test = grouped_split(groups, test=TEST, seed=seed)
    sides = [np.flatnonzero(np.isin(truth.indices, side)) for side in (train, test)]
    if min(map(len, sides)) < 1:
        raise ValueError(
            f"a probe learns from some samples and is scored on others, but {len(sides[0])} and {len(sides[1])} "
            "samples are annotated there; give it more samples"
        )
    held = [groups[i] for i in truth.indices[sides[1]]]
    return Split(train=sides[0], test=sides[1], groups=held)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the study."""

    lead: str
    """The metric that is judged."""
    about: str
    """What is trained and what is scored, in one sentence."""
    probe: Callable[[TokenGrids, Truth, TokenGrids, Truth, int], tuple[Scores, Any]]
    """(training tokens, their truth, test tokens, their truth, seed) → scores, and what was read off each sample."""
    constant: Callable[[Truth, Truth, TokenGrids], Scores]
    """(training truth, test truth, any tokens) → the scores of one guess for all."""
    still: bool = True
    """Whether it looks at one moment; a clip's middle step is then taken."""
    width: int = WIDTH
    """Features of a token the probe reads."""


def measure(
    row: Row,
    main: TokenGrids,
    copy: TokenGrids,
    truth: Truth,
    where: Split,
    *,
    ceiling: Mapping[str, float],
    seed: int,
) -> tuple[dict[str, Controlled], Any]:
    """Return the row's numbers at one point and what the probe read off the test samples.

    `main` and `copy` hold the tokens of the truth's samples, in its order: of the model and of its architecture
    with random weights. `ceiling` is what `ceiling` gave on the same grid.
    """
    train, test = _parts(truth, where)

    def scores(tokens: TokenGrids) -> tuple[Scores, Any]:
        return row.probe(tokens.take(where.train), train, tokens.take(where.test), test, seed)

    found, read = scores(main)
    beside = {
        CONSTANT: row.constant(train, test, main),
        POOLED: scores(mean_pooled(main))[0],
        SHUFFLED: scores(shuffled(main, seed=seed))[0],
        RANDOM: scores(copy)[0],
    }
    told = {"kept variance": main.kept, "grid": list(main.shape), "training samples": len(where.train)}
    numbers = {
        name: _number(name, value, {k: v[name] for k, v in beside.items()}, ceiling[name], where, seed, told)
        for name, value in found.items()
    }
    return numbers, read


def ceiling(row: Row, patches: TokenGrids, truth: Truth, where: Split, *, seed: int) -> dict[str, float]:
    """Return what the same probe gets from raw patches on the grid: what could be had."""
    train, test = _parts(truth, where)
    found, _ = row.probe(patches.take(where.train), train, patches.take(where.test), test, seed)
    return {name: _value(v) for name, v in found.items()}


def capacities(tokens: TokenGrids, truth: Truth, where: Split, *, seed: int) -> dict[str, float]:
    """Return the box IoU by hidden features of the probe: whether its size decides the order of the points."""
    train, test = _parts(truth, where)
    found = {}
    for hidden in CAPACITIES:
        with one_thread(), one_torch_thread():
            read = box_probe(
                tokens.take(where.train), train.values, tokens.take(where.test), hidden=hidden, seed=seed
            )
        found[str(hidden)] = float(iou(read.boxes, test.values).mean())
    return found


@one_torch_thread()
@one_thread()
def _boxes(
    tokens: TokenGrids, truth: Truth, test: TokenGrids, wanted: Truth, seed: int
) -> tuple[Scores, Any]:
    read = box_probe(tokens, truth.values, test, seed=seed)
    cells = coverage(wanted.values, test.rows, test.cols)
    return {"box IoU": iou(read.boxes, wanted.values), "heat-map IoU": heat_iou(read.heat, cells)}, read.boxes


def _constant_box(train: Truth, test: Truth, tokens: TokenGrids) -> Scores:
    box = np.median(train.values, axis=0)
    cells = coverage(train.values, tokens.rows, tokens.cols).mean(axis=0)
    wanted = coverage(test.values, tokens.rows, tokens.cols)
    return {
        "box IoU": iou(np.tile(box, (len(test), 1)), test.values),
        "heat-map IoU": heat_iou(np.tile(cells, (len(test), 1, 1)), wanted),
    }


@one_torch_thread()
@one_thread()
def _sets(tokens: TokenGrids, truth: Truth, test: TokenGrids, wanted: Truth, seed: int) -> tuple[Scores, Any]:
    found = set_probe(tokens, truth.values, test, classes=len(truth.names), seed=seed)
    return {"mAP@0.5": average_precision(wanted.values, found, groups=wanted.groups, seed=seed)}, found


def _constant_objects(train: Truth, test: Truth, _: TokenGrids) -> Scores:
    guess = constant_set(train.values, images=len(test))
    return {"mAP@0.5": average_precision(test.values, guess, groups=test.groups)}


@one_thread()
def _pictures(
    tokens: TokenGrids, truth: Truth, test: TokenGrids, wanted: Truth, _: int
) -> tuple[Scores, Any]:
    """Return the scores of all test samples, and the first of their pictures."""
    parts = rebuilt_parts(tokens, truth.values, test)
    first = next(parts)
    return _picture_scores(itertools.chain([first], parts), wanted), first


def _constant_picture(train: Truth, test: Truth, tokens: TokenGrids) -> Scores:
    shape = rebuilt_shape(tokens, train.values.shape[1:3])
    bands = (slice(start, start + BAND_PX) for start in range(0, shape[1], BAND_PX))
    # band by band: all training pictures as floats would be four times what they are kept in
    mean = np.concatenate([_target(train.values, shape, band).mean(axis=0) for band in bands])
    counts = (len(test.values[i : i + BLOCK]) for i in range(0, len(test), BLOCK))
    return _picture_scores((np.tile(mean, (n, 1, 1, 1)) for n in counts), test)


def _picture_scores(parts: Iterable[np.ndarray], wanted: Truth) -> Scores:
    """Return the scores of pictures given a few at a time, in the order of the truth."""
    net = perceptual()
    found: dict[str, list[np.ndarray]] = {}
    at = 0
    for given in parts:
        true = _target(wanted.values[at : at + len(given)], given.shape)
        at += len(given)
        found.setdefault("edge F1", []).append(edge_f1(given, true))
        if min(true.shape[1:3]) >= FEWEST_PX:
            pair = (np.ascontiguousarray(side[:, None]) for side in (given, true))
            found.setdefault(net.name, []).append(net(*pair))
    return {name: np.concatenate(scores) for name, scores in found.items()}


@one_torch_thread()
@one_thread()
def _directions(
    tokens: TokenGrids, truth: Truth, test: TokenGrids, wanted: Truth, seed: int
) -> tuple[Scores, Any]:
    found = motion_probe(tokens, truth.values, test, classes=len(truth.names), seed=seed)
    return {"direction accuracy": hits(found, wanted.values)}, found


def _most_frequent(train: Truth, test: Truth, _: TokenGrids) -> Scores:
    often = np.bincount(train.values).argmax()
    return {"direction accuracy": hits(np.full(len(test), often), test.values)}


ROWS: Mapping[str, Row] = {
    "Q2.1": Row(
        lead="box IoU",
        about="Every token says how much of the largest object its cell holds; the box follows from where that is.",
        probe=_boxes,
        constant=_constant_box,
    ),
    "Q2.2": Row(
        lead="mAP@0.5",
        about="A set of boxes with classes, matched one to one to the annotated objects, scored as COCO does.",
        probe=_sets,
        constant=_constant_objects,
    ),
    "Q2.3": Row(
        lead="edge F1",
        about="Every token gives the pixels of its cell by one linear map; the edges of the rebuilt picture are "
        f"compared with the true ones within {RADIUS_PX:g} px.",
        probe=_pictures,
        constant=_constant_picture,
        width=2 * WIDTH,
    ),
    "Q2.4": Row(
        lead="direction accuracy",
        about="Tokens say what belongs together; where that goes over time tells the direction.",
        probe=_directions,
        constant=_most_frequent,
        still=False,
    ),
}
"""Every row that is measured from latents; its controls are Q2.5."""


def rebuilt_shape(tokens: TokenGrids, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the shape of pictures of `size` as they come back from the grid."""
    _, rows, cols = tokens.shape
    return len(tokens), rows * max(1, round(size[0] / rows)), cols * max(1, round(size[1] / cols)), 3


def _target(pixels: np.ndarray, shape: Sequence[int], rows: slice = slice(None)) -> np.ndarray:
    """Return true pictures, or some rows of them, at the size they are rebuilt at, in [0, 1]."""
    down = ((np.arange(shape[1])[rows] + 0.5) * pixels.shape[1] / shape[1]).astype(int)
    across = ((np.arange(shape[2]) + 0.5) * pixels.shape[2] / shape[2]).astype(int)
    same = pixels.shape[1:3] == tuple(shape[1:3])
    chosen = pixels[:, rows] if same else pixels[:, down][:, :, across]
    found: np.ndarray = chosen.astype(np.float32) / 255.0
    return found


def _parts(truth: Truth, where: Split) -> tuple[Truth, Truth]:
    return truth.part(where.train), truth.part(where.test, groups=where.groups)


def _value(scores: Any) -> float:
    return scores.value if isinstance(scores, Precision) else float(np.nanmean(scores))


def _number(
    name: str, found: Any, beside: Mapping[str, Any], patches: float, where: Split, seed: int, told: Any
) -> Controlled:
    if not isinstance(found, Precision):
        return controlled(
            found,
            {**beside, PATCHES: patches},
            where.groups,
            seed=seed,
            higher_is_better=not name.startswith(LOWER_IS_BETTER),
            detail=told,
        )
    return Controlled(
        value=found.value,
        low=found.low,
        high=found.high,
        controls={k: _value(v) for k, v in beside.items()} | {PATCHES: patches},
        p=math.nan,
        n=len(where.test),
        n_effective=len(set(where.groups)),
        detail={
            **told,
            "by class": {str(k): v for k, v in found.by_class.items()},
            "AP over IoU 0.50 to 0.95": found.over_ious,
        },
    )

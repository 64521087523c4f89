"""The box probe: it finds places where tokens stand in order, and cannot where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.probes import TokenGrids, box_probe, coverage, heat_iou, iou, mean_pooled, shuffled
from tests.foresight.probes.toy import boxes, grids, pictures

TRAIN, TEST = np.arange(120), np.arange(120, 200)
STEPS = 150


@pytest.fixture(scope="module")
def shapes() -> tuple[TokenGrids, np.ndarray]:
    manifest, pixels = pictures("synthetic", samples=200)
    return grids(pixels), boxes(manifest)


def score(tokens: TokenGrids, truth: np.ndarray, *, hidden: int = 64, seed: int = 0) -> float:
    found = box_probe(
        tokens.take(TRAIN), truth[TRAIN], tokens.take(TEST), hidden=hidden, steps=STEPS, seed=seed
    )
    return float(iou(found.boxes, truth[TEST]).mean())


@pytest.mark.slow
def test_tokens_in_order_beat_every_control_by_a_third_of_the_scale(
    shapes: tuple[TokenGrids, np.ndarray],
) -> None:
    tokens, truth = shapes
    constant = iou(np.tile(np.median(truth[TRAIN], axis=0), (len(TEST), 1)), truth[TEST]).mean()
    floors = [constant, score(mean_pooled(tokens), truth), score(shuffled(tokens, seed=0), truth)]
    assert score(tokens, truth) > max(floors) + 0.3
    assert max(floors) < 0.25


def test_the_same_seed_reads_the_same_boxes(shapes: tuple[TokenGrids, np.ndarray]) -> None:
    tokens, truth = shapes
    found = [
        box_probe(tokens.take(TRAIN), truth[TRAIN], tokens.take(TEST), steps=10, seed=s).boxes
        for s in (3, 3, 4)
    ]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_every_width_gets_the_same_capacity(shapes: tuple[TokenGrids, np.ndarray]) -> None:
    tokens, truth = shapes
    coarse = TokenGrids(
        values=tokens.values[:, :, ::2, ::2],
        rows=tokens.rows[::2],
        cols=tokens.cols[::2],
        times_s=tokens.times_s,
    )
    counts = {
        box_probe(t.take(TRAIN), truth[TRAIN], t.take(TEST), steps=1).parameters for t in (tokens, coarse)
    }
    assert len(counts) == 1


def test_clips_are_refused_before_any_training() -> None:
    centres = (np.arange(4) + 0.5) / 4
    clip = TokenGrids(
        values=np.zeros((3, 2, 4, 4, 5), np.float32), rows=centres, cols=centres, times_s=np.arange(2.0)
    )
    with pytest.raises(ValueError, match="take one with `at` first"):
        box_probe(clip, np.zeros((3, 4)), clip)


def test_coverage_sums_to_the_area_of_the_box() -> None:
    centres = (np.arange(8) + 0.5) / 8
    box = np.array([[0.1, 0.2, 0.55, 0.8]])
    assert coverage(box, centres, centres).sum() / 64 == pytest.approx(0.45 * 0.6, abs=1e-6)


def test_iou_by_hand() -> None:
    a = np.array([[0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]], float)
    b = np.array([[1, 1, 3, 3], [0, 0, 1, 1], [2, 2, 3, 3], [0, 0, 0, 0]], float)
    assert iou(a, b) == pytest.approx([1 / 7, 1, 0, 0])
    masks = np.array([[[1.0, 0.0], [0.5, 0.0]]])
    assert heat_iou(masks, np.array([[[1.0, 1.0], [0.0, 0.0]]])) == pytest.approx([1 / 2.5])

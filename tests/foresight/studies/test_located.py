"""Places read off tokens: right with tokens in place, lost when they are mixed, and every error in its unit."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.data.fitting import fit
from foresight.nouns import Frames
from foresight.probes import CONSTANT, CONTROLS, POOLED, SHUFFLED, TokenGrids, coverage
from foresight.studies import reconstruction
from foresight.studies.located import METRICS, Truth, centre_error, largest_box, located, on_axes, size_error

CENTRES = (np.arange(8) + 0.5) / 8


def planted(n: int = 64, *, mixed: bool = False) -> tuple[TokenGrids, Truth]:
    """Tokens of which some features tell how much of the box their cell holds."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.6, (n, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.25, 0.4, (n, 1))], axis=1)
    held = coverage(boxes, CENTRES, CENTRES)
    if mixed:
        held = np.stack([rng.permutation(h.ravel()).reshape(8, 8) for h in held])
    values = held[..., None] * rng.normal(size=12) + rng.normal(0, 0.02, (n, 8, 8, 12))
    folds = reconstruction.parted([str(i) for i in range(n)], seed=0)
    grids = on_axes(
        lambda: [values[:40, None].astype(np.float32), values[40:, None].astype(np.float32)],
        folds != reconstruction.TEST,
        rows=CENTRES,
        cols=CENTRES,
        seed=0,
    )
    return grids, Truth(indices=np.arange(n), boxes=boxes)


@pytest.mark.parametrize("mixed", [False, True])
def test_boxes_are_read_off_tokens_in_place_and_not_off_mixed_ones(mixed: bool) -> None:
    tokens, truth = planted(mixed=mixed)
    names = [str(i) for i in range(len(truth.boxes))]
    folds = reconstruction.parted(names, seed=0)
    found = located(tokens, tokens, tokens, truth, folds=folds, groups=names, seed=0)
    assert set(found) == set(METRICS)
    iou = found["spatial IoU"]
    assert set(CONTROLS) <= set(iou.controls)
    assert iou.n == 16
    best = max(iou.controls[c] for c in (CONSTANT, POOLED, SHUFFLED))
    if mixed:
        assert iou.value < best + 0.1
        assert not iou.knows_places
    else:
        assert iou.value > best + 0.3
        assert found["centre error"].value < 0.1 < found["centre error"].controls[CONSTANT]
        assert found["centre error"].knows_places


def test_errors_are_in_shares_of_the_frame() -> None:
    truth = np.array([[0.1, 0.1, 0.3, 0.5]])
    assert centre_error(np.add(truth, [0.03, 0.04, 0.03, 0.04]), truth) == pytest.approx([0.05])
    assert size_error(np.add(truth, [0, 0, 0.1, 0.3]), truth) == pytest.approx([0.2])


def test_the_largest_box_is_that_of_what_is_left_after_cropping() -> None:
    wide = Frames(pixels=np.zeros((1, 100, 300, 3), np.uint8), times_s=np.zeros(1))
    _, where = fit(wide, size=(64, 64), how="crop")
    assert largest_box([[0, 0, 110, 100], [150, 50, 200, 100]], where) == pytest.approx([0.5, 0.5, 1.0, 1.0])
    assert largest_box([[0, 0, 90, 100]], where) is None

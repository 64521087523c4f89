"""Places read off tokens: right with tokens in place, lost when they are mixed, and every error in its unit."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.probes import CONSTANT, CONTROLS, POOLED, SHUFFLED, TokenGrids, coverage
from foresight.studies import located, reconstruction, spatial
from foresight.studies.located import METRICS, ROW, centre_error, size_error
from foresight.studies.spatial_truth import Truth

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
    grids = TokenGrids(
        values=values[:, None].astype(np.float16), rows=CENTRES, cols=CENTRES, times_s=np.zeros(1)
    )
    return grids, Truth(indices=np.arange(n), values=boxes)


@pytest.mark.parametrize("mixed", [False, True])
def test_boxes_are_read_off_tokens_in_place_and_not_off_mixed_ones(mixed: bool) -> None:
    tokens, truth = planted(mixed=mixed)
    where = located.split([str(i) for i in range(len(truth))], truth, seed=0)
    most = spatial.ceiling(ROW, tokens, truth, where, seed=0)
    found, _ = spatial.measure(ROW, tokens, tokens, truth, where, ceiling=most, seed=0)
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


def test_boxes_are_scored_where_pictures_are_and_a_probe_learns_from_eight_at_least() -> None:
    groups = [str(i // 2) for i in range(40)]
    truth = Truth(indices=np.arange(0, 40, 3), values=np.zeros((14, 4)))
    where = located.split(groups, truth, seed=5)
    scored = np.flatnonzero(reconstruction.parted(groups, seed=5) == reconstruction.TEST)
    assert set(truth.indices[where.test]) == set(truth.indices) & set(scored)
    assert sorted([*where.train, *where.test]) == list(range(14))
    assert list(where.groups) == [groups[i] for i in truth.indices[where.test]]
    assert located.too_few(where) == ""
    few = located.split(groups, Truth(indices=np.arange(6), values=np.zeros((6, 4))), seed=5)
    assert "at least 8 samples" in located.too_few(few)

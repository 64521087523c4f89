"""Rebuilding pictures from tokens, comparing edges, and reading motion off places."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.probes import TokenGrids, edge_f1, hits, motion_probe, rebuilt, shuffled
from foresight.probes.rebuild import joined
from tests.foresight.probes.toy import grids, pictures


def test_patches_rebuild_their_picture_and_shuffled_ones_do_not() -> None:
    _, pixels = pictures("synthetic", samples=60)
    tokens = grids(pixels, fitted_on=40)
    train, test = np.arange(40), np.arange(40, 60)
    true = pixels[40:] / np.float32(255)
    scores = {}
    for name, given in (("ordered", tokens), ("shuffled", shuffled(tokens, seed=0))):
        found = rebuilt(given.take(train), pixels[:40], given.take(test))
        assert found.shape == true.shape
        scores[name] = float(np.nanmean(edge_f1(found, true)))
    assert scores["ordered"] > 0.9
    assert scores["shuffled"] < 0.3


def test_joining_undoes_cutting() -> None:
    from foresight.probes import patches

    pixels = np.random.default_rng(0).integers(0, 256, (2, 12, 8, 3), dtype=np.uint8)
    assert np.allclose(joined(patches(pixels[:, None], (1, 3, 2)), (12, 8)) * 255, pixels, atol=1e-3)


def test_edges_match_within_a_pixel_and_not_further() -> None:
    picture = np.zeros((3, 32, 32, 3), np.float32)
    for i, left in enumerate((10, 11, 14)):
        picture[i, 8:24, left : left + 10] = 1.0
    near, far = edge_f1(picture[1:], picture[[0, 0]])
    assert near > 0.99
    assert far < 0.7


def test_a_picture_without_edges_has_no_score_and_a_blank_guess_scores_zero() -> None:
    blank, square = np.zeros((1, 32, 32, 3), np.float32), np.zeros((1, 32, 32, 3), np.float32)
    square[0, 8:24, 8:24] = 1.0
    assert np.isnan(edge_f1(square, blank)[0])
    assert edge_f1(blank, square)[0] == 0.0


def test_direction_is_read_off_places_and_lost_with_them() -> None:
    rng = np.random.default_rng(0)
    n, steps, cells = 160, 4, 6
    codes = rng.integers(0, 2, n)
    values = 0.1 * rng.standard_normal((n, steps, cells, cells, 3)).astype(np.float32)
    rows, start = rng.integers(0, cells, n), rng.integers(0, cells - steps + 1, n)
    for i in range(n):
        for t in range(steps):
            values[i, t, rows[i], start[i] + (t if codes[i] else steps - 1 - t), 0] += 3.0
    centres = (np.arange(cells) + 0.5) / cells
    clip = TokenGrids(values=values, rows=centres, cols=centres, times_s=np.arange(4.0))
    train, test = np.arange(100), np.arange(100, n)

    def accuracy(given: TokenGrids) -> float:
        found = motion_probe(given.take(train), codes[train], given.take(test), classes=2, steps=60)
        return float(hits(found, codes[test]).mean())

    assert accuracy(clip) > 0.95
    assert accuracy(shuffled(clip, seed=0)) < 0.75


def test_one_time_step_shows_no_motion_and_several_no_picture() -> None:
    centres = (np.arange(4) + 0.5) / 4
    clip = TokenGrids(
        values=np.zeros((3, 2, 4, 4, 5), np.float32), rows=centres, cols=centres, times_s=np.arange(2.0)
    )
    with pytest.raises(ValueError, match="ask for more frames"):
        motion_probe(clip.at(0), np.zeros(3, int), clip.at(0), classes=2)
    with pytest.raises(ValueError, match="rebuilt from one time step"):
        rebuilt(clip, np.zeros((3, 8, 8, 3), np.uint8), clip)

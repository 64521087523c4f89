"""Procrustes distance: scipy, rotations, and how well a rotation fits noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import procrustes

from foresight.metrics import procrustes_distance
from tests.foresight.metrics.planted import frames_of_videos, gaussians, rotation, shared

FAST = {"permutations": 49, "resamples": 10}


def test_the_disparity_is_scipys_and_the_distance_follows_from_it() -> None:
    x, y = shared(40, (6, 6), noise=1.0)
    got = procrustes_distance(x, y, **FAST)
    disparity = procrustes(x, y)[2]
    assert got.detail["disparity"] == pytest.approx(disparity, abs=1e-10)
    assert got.value == pytest.approx(2 - 2 * np.sqrt(1 - disparity), abs=1e-10)
    padded = procrustes(x, np.hstack([y[:, :4], np.zeros((40, 2))]))[2]
    assert procrustes_distance(x, y[:, :4], **FAST).detail["disparity"] == pytest.approx(padded, abs=1e-10)


def test_a_rotated_scaled_shifted_copy_is_at_distance_zero() -> None:
    (x,) = gaussians(30, (5,))
    got = procrustes_distance(x, 3.0 * x @ rotation(5) + 1.0, **FAST)
    assert got.value == pytest.approx(0.0, abs=1e-9)
    assert got.p == pytest.approx(0.02)
    assert got.controls["calibrated"] == pytest.approx(1.0, abs=1e-9)


def test_a_rotation_fits_wide_noise_and_the_null_tells() -> None:
    got = procrustes_distance(*gaussians(100, (400, 300)), **FAST)
    assert got.detail["disparity"] == pytest.approx(0.14, abs=0.02)
    assert got.value == pytest.approx(got.null, abs=0.02)
    assert abs(got.controls["calibrated"]) < 0.1
    assert got.p > 0.02


def test_the_p_of_independent_spaces_is_uniform() -> None:
    p = [
        procrustes_distance(*gaussians(15, (4, 3), seed=s), permutations=39, resamples=0).p
        for s in range(150)
    ]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.05)
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)


def test_frames_of_unrelated_videos_are_far_apart_once_videos_are_counted_once() -> None:
    x, y, videos = frames_of_videos(40, 5, (20, 20), seed=1)
    honest = procrustes_distance(x, y, groups=videos, **FAST)
    assert honest.p > 0.05
    assert honest.value == pytest.approx(honest.null, abs=0.1)
    assert honest.n_effective == 40
    assert procrustes_distance(x, y, **FAST).p < 0.05


def test_constant_and_tiny_input_is_undefined() -> None:
    x, y = gaussians(20, (3, 3))
    assert "second space is constant" in procrustes_distance(x, np.ones((20, 2))).why
    assert "at least 4 groups" in procrustes_distance(x[:3], y[:3]).why
    with pytest.raises(ValueError, match="at least one component"):
        procrustes_distance(x, y, components=0)

"""Scenes hide what they say they hide, and motion shows only in time."""

from __future__ import annotations

import numpy as np
import pytest

from foresight import data
from foresight.data.moving import DIRECTIONS, FPS, FRAMES
from foresight.data.scenes import MIN_VISIBLE


@pytest.fixture(scope="module")
def scenes():
    return data.open("synthetic:scenes", samples=200, seed=0)


@pytest.fixture(scope="module")
def moving():
    return data.open("synthetic:moving", samples=400, seed=0)


@pytest.mark.parametrize("world", ["scenes", "moving"])
def test_a_sample_of_any_world_is_the_same_in_a_larger_data_set(world):
    small = data.open(f"synthetic:{world}", samples=7, seed=4).manifest
    assert small.samples == data.open(f"synthetic:{world}", samples=15, seed=4).manifest.samples[:7]


PINNED = {
    "shapes": ["96ad28674aff52cf", "f480f21f6d9e2c21"],
    "scenes": ["2e6f0baa3548d765", "041cd9af46e535b8"],
    "moving": ["4cc23291891f4764", "6a00a4bbc7b6f8b2"],
}


@pytest.mark.parametrize("world", PINNED)
def test_the_first_samples_of_every_world_are_pinned(world):
    """They are other samples when this fails: raise the renderer's number, and expect every row to be new."""
    manifest = data.open(f"synthetic:{world}", samples=2, seed=0).manifest
    assert [digest[:16] for digest in manifest.digests] == PINNED[world]


def test_worlds_share_no_draws():
    boxes = [
        data.open(f"synthetic:{world}", samples=1, size=64).manifest.samples[0].annotations["boxes"][0]
        for world in ("shapes", "scenes", "moving")
    ]
    assert boxes[0] != boxes[1] != boxes[2] != boxes[0]


def test_a_scene_shows_every_shape_and_says_how_much_of_it(scenes):
    hidden = 0
    for sample in scenes.manifest:
        told = sample.annotations
        assert 2 <= told["count"] == len(told["boxes"]) == len(set(told["classes"])) <= 4
        mask = scenes.mask(sample)
        assert set(np.unique(mask)) == set(range(told["count"] + 1))
        for k, (box, share, shape) in enumerate(
            zip(told["boxes"], told["visible"], told["shapes"], strict=True), start=1
        ):
            rows, cols = np.nonzero(mask == k)
            assert cols.min() >= box[0] - 0.5
            assert rows.max() + 1 <= box[3] + 0.5
            whole = {"circle": np.pi / 4, "square": 1.0, "triangle": 0.5}[shape] * (box[2] - box[0]) ** 2
            # whole areas are counted in pixel centres: within 10 % at these radii
            assert len(rows) == pytest.approx(share * whole, rel=0.1)
            assert MIN_VISIBLE - 0.01 <= share <= 1
        assert told["visible"][-1] == 1.0
        assert sample.label == told["classes"][-1]
        hidden += min(told["visible"]) < 0.98
    assert hidden > 100


def test_the_mask_of_a_scene_is_where_each_colour_shows(scenes):
    from foresight.data.painting import COLOURS

    for sample in scenes.manifest.samples[:40]:
        pixels = scenes.frames(sample, data.Sampling()).pixels[0]
        mask = scenes.mask(sample)
        for k, colour in enumerate(sample.annotations["classes"], start=1):
            assert np.abs(np.median(pixels[mask == k], axis=0) - COLOURS[colour]).max() <= 13


def test_a_moving_shape_goes_where_its_label_says(moving):
    for sample in moving.manifest.samples[:60]:
        masks = moving.masks(sample, data.Sampling(frames=FRAMES))
        centres = np.array([[np.nonzero(m)[axis].mean() for axis in (0, 1)] for m in masks])
        went = centres[-1] - centres[0]
        velocity = np.array(sample.annotations["velocity_px_s"])
        # a mask's centre of mass is within half a pixel of the shape's
        np.testing.assert_allclose(went, velocity * (FRAMES - 1) / FPS, atol=0.6)
        assert (np.sign(velocity) == DIRECTIONS[sample.label]).all()
        assert sample.annotations["boxes"][0] == sample.annotations["track"][FRAMES // 2]


def test_a_moving_shape_never_leaves_the_frame():
    for size in (64, (48, 80)):
        manifest = data.open("synthetic:moving", samples=150, seed=2, size=size).manifest
        for sample in manifest:
            track = np.array(sample.annotations["track"])
            height, width = sample.annotations["size"]
            assert track.min() >= 0
            assert track[:, 2].max() <= width
            assert track[:, 3].max() <= height


def test_fast_is_faster_than_slow(moving):
    speeds = {"slow": [], "fast": []}
    for sample in moving.manifest:
        speeds[sample.annotations["speed"]].append(np.abs(sample.annotations["velocity_px_s"]).sum())
    assert max(speeds["slow"]) < min(speeds["fast"])
    assert min(len(speeds["slow"]), len(speeds["fast"])) > 150


def test_the_middle_frame_alone_does_not_tell_the_direction(moving):
    """The first frame does: a shape that goes right starts left. So N = 1 takes the middle frame."""

    def place(sample, t):
        box = sample.annotations["track"][t]
        return [(box[1] + box[3]) / 2, (box[0] + box[2]) / 2]

    def accuracy(t):
        places = np.array([place(s, t) for s in moving.manifest])
        labels = np.array(moving.manifest.labels)
        train, test = np.arange(len(labels)) % 2 == 0, np.arange(len(labels)) % 2 == 1
        distance = np.linalg.norm(places[test][:, None] - places[train][None], axis=-1)
        near = labels[train][np.argsort(distance, axis=1)[:, :15]]
        guess = [max(DIRECTIONS, key=lambda d, row=row: (row == d).sum()) for row in near]
        return float(np.mean(np.array(guess) == labels[test]))

    # chance is 0.25; 200 held-out clips put three standard errors at 0.34
    assert accuracy(FRAMES // 2) < 0.34
    assert accuracy(0) > 0.4


def test_clips_are_sampled_like_any_clip(moving):
    sample = moving.manifest.samples[0]
    assert sample.media == "clip"
    whole = moving.frames(sample, data.Sampling(frames=FRAMES))
    np.testing.assert_allclose(whole.times_s, np.arange(FRAMES) / FPS)
    four = moving.frames(sample, data.Sampling(frames=4))
    np.testing.assert_array_equal(four.pixels, whole.pixels[[2, 6, 10, 14]])
    assert moving.masks(sample, data.Sampling(frames=4)).shape == (4, 64, 64)

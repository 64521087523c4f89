"""Which frames of a clip are taken."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.data import Sampling, causal_length

STEADY = np.arange(20) / 10


def test_uniform_frames_are_the_centres_of_equal_spans():
    assert Sampling(frames=4).indices(STEADY).tolist() == [2, 7, 12, 17]
    assert Sampling(frames=1).indices(STEADY).tolist() == [10]
    assert Sampling(frames=20).indices(STEADY).tolist() == list(range(20))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_clip_shorter_than_asked_repeats_frames_in_order(count):
    taken = Sampling(frames=8).indices(np.arange(count) / 10)
    assert len(taken) == 8
    assert (np.diff(taken) >= 0).all()
    assert set(taken) == set(range(count))


def test_uniform_frames_never_leave_the_clip_and_mirror():
    for count in range(1, 60):
        for frames in range(1, 20):
            taken = Sampling(frames=frames).indices(np.zeros(count))
            assert taken.min() >= 0
            assert taken.max() < count
            if count % frames == 0 and (count // frames) % 2:
                assert (taken == count - 1 - taken[::-1]).all()


def test_a_fixed_rate_takes_what_is_shown_at_each_tick_and_holds_the_last_frame():
    assert Sampling(frames=4, rate_hz=5).indices(STEADY).tolist() == [0, 2, 4, 6]
    assert Sampling(frames=4, rate_hz=1).indices(STEADY).tolist() == [0, 10, 19, 19]
    uneven = np.array([0.0, 0.1, 0.9, 1.0])
    assert Sampling(frames=3, rate_hz=2).indices(uneven).tolist() == [0, 1, 3]


def test_explicit_times_take_what_is_shown_then():
    assert Sampling(times_s=(0, 0.55, 1.9)).indices(STEADY).tolist() == [0, 5, 19]
    assert Sampling(times_s=(0, 0.55)).frames == 2
    with pytest.raises(ValueError, match=r"asked for at 7 s, but the clip ends at 2 s"):
        Sampling(times_s=(0, 7)).indices(STEADY)


def test_times_count_from_the_first_frame():
    assert Sampling(frames=2, rate_hz=5).indices(STEADY + 100).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"frames": 0}, "whole number from 1 on"),
        ({"frames": True}, "whole number from 1 on"),
        ({"frames": 2, "rate_hz": 0}, "above 0"),
        ({"times_s": (2, 1)}, "ascending"),
        ({"times_s": ()}, "ascending"),
        ({"times_s": (1, 2), "frames": 3}, "already say"),
        ({"times_s": (1, 2), "rate_hz": 3}, "already say"),
    ],
)
def test_bad_settings_are_refused(settings, rule):
    with pytest.raises(ValueError, match=rule):
        Sampling(**settings)


def test_the_canonical_form_tells_samplings_apart():
    forms = [
        Sampling(frames=2).canonical(),
        Sampling(frames=2, rate_hz=2).canonical(),
        Sampling(times_s=(0, 1)).canonical(),
    ]
    assert forms == [
        {"rule": "uniform", "frames": 2},
        {"rule": "rate", "frames": 2, "rate_hz": 2.0},
        {"rule": "times", "times_s": [0.0, 1.0]},
    ]


def test_causal_lengths_are_8k_plus_1():
    assert [causal_length(n) for n in (1, 2, 9, 10, 16, 17)] == [1, 9, 9, 17, 17, 17]

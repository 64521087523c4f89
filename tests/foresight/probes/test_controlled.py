"""A spatial number cannot be had without its controls."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.probes import CONTROLS, Controlled, controlled

N = 60


def control_scores(level: float = 0.1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: level + 0.02 * rng.standard_normal(N) for name in CONTROLS}


def scores(level: float, seed: int = 0) -> np.ndarray:
    return level + 0.05 * np.random.default_rng(seed).standard_normal(N)


@pytest.mark.parametrize("left_out", CONTROLS)
def test_a_number_without_one_of_its_controls_cannot_be_made(left_out: str) -> None:
    given = {k: v for k, v in control_scores().items() if k != left_out}
    with pytest.raises(ValueError, match=f"stands beside all of .*'{left_out}'"):
        controlled(scores(0.7), given, range(N), seed=0)


def test_a_control_that_is_undefined_is_missing() -> None:
    with pytest.raises(ValueError, match="missing or undefined"):
        Controlled(value=1, low=1, high=1, controls=dict.fromkeys(CONTROLS, np.nan), p=1, n=1, n_effective=1)


def test_a_clear_number_knows_places_and_an_unclear_one_does_not() -> None:
    clear = controlled(scores(0.7), control_scores(), range(N), seed=0)
    assert clear.low < 0.7 < clear.high
    assert clear.knows_places
    assert clear.p == pytest.approx(1 / 1000)
    same = control_scores()
    assert not controlled(same["mean-pooled tokens"], same, range(N), seed=0).knows_places


def test_frames_of_one_video_are_one_observation() -> None:
    alone = controlled(scores(0.7), control_scores(), range(N), seed=0)
    groups = np.repeat(np.arange(10), 6)
    shift = np.random.default_rng(2).standard_normal(10)[groups] * 0.1
    together = controlled(scores(0.7) + shift, control_scores(), groups, seed=0)
    assert together.n_effective == 10
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_too_few_groups_give_a_number_without_an_interval_that_says_why() -> None:
    few = controlled(scores(0.7)[:3], {k: v[:3] for k, v in control_scores().items()}, range(3), seed=0)
    assert few.knows_places is None
    assert "3 test groups" in few.estimate().why


def test_errors_are_better_when_lower() -> None:
    low = controlled(scores(0.1), control_scores(0.5), range(N), seed=0, higher_is_better=False)
    assert low.knows_places
    assert low.p < 0.01
    assert low.floor < 0.52

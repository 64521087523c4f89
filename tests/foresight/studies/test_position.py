"""Whether tokens tell where they lie: planted places are found, their absence is told from chance."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.metrics import Estimate
from foresight.studies import position
from foresight.studies.position import GAIN, Placed, beside_copy, position_probe, probed
from foresight.studies.reconstruction import RANDOM, SHUFFLED

SAMPLES = 24
GROUPS = [str(i // 2) for i in range(SAMPLES)]


def grids(strength: float, *, width: int = 12, side: int = 4, seed: int = 0) -> list[Placed]:
    """Tokens of noise in which the place is written along two random directions, `strength` times the noise."""
    rng = np.random.default_rng(seed)
    where = (
        np.stack(np.meshgrid(*[np.arange(side)] * 2, indexing="ij"), axis=-1).reshape(-1, 2) + 0.5
    ) / side
    axes = rng.normal(size=(2, width))
    return [
        Placed(
            values=(strength * where @ axes + rng.normal(size=(len(where), width))).astype(np.float32),
            places=where,
        )
        for _ in range(SAMPLES)
    ]


def test_a_place_that_is_written_into_tokens_is_read_back() -> None:
    found = position_probe(grids(30.0), GROUPS)
    assert found.low > 0.95
    assert found.null == 0.0
    assert found.p <= 0.005
    assert found.controls[SHUFFLED] < 0.05
    assert (found.n, found.n_effective) == (SAMPLES, SAMPLES // 2)


def test_tokens_that_say_nothing_of_their_place_are_not_told_from_chance() -> None:
    found = [position_probe(grids(0.0, seed=i), GROUPS, seed=i) for i in range(6)]
    assert all(f.value < 0.05 for f in found)
    assert sum(f.p <= 0.05 for f in found) <= 2


def test_mean_pooled_tokens_reach_the_null_and_no_more() -> None:
    pooled = [
        Placed(values=t.values.mean(axis=0).repeat(16).reshape(-1, 16).T, places=t.places)
        for t in grids(30.0)
    ]
    assert position_probe(pooled, GROUPS).value <= 1e-9


def test_a_place_in_wide_tokens_survives_the_random_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(position, "WIDEST", 24)
    found = position_probe(grids(30.0, width=96), GROUPS)
    assert found.value > 0.9
    assert (found.detail["features"], found.detail["width"]) == (24, 96)


def test_equal_seeds_give_equal_numbers() -> None:
    first, second = (position_probe(grids(1.0), GROUPS, seed=3).to_json() for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("tokens", "groups", "why"),
    [
        (grids(1.0), ["a", "b"] * (SAMPLES // 2), "need 3 groups, but there are 2"),
        (grids(1.0, side=1), GROUPS, "tokens in a single place"),
    ],
)
def test_what_cannot_be_probed_says_why(tokens: list[Placed], groups: list[str], why: str) -> None:
    found: Estimate = position_probe(tokens, groups)
    assert not found.defined
    assert why in found.why


def test_a_copy_of_the_same_tokens_is_held_against_the_model_group_by_group() -> None:
    strong, weak = (probed(grids(s), GROUPS) for s in (30.0, 2.0))
    found = beside_copy(strong, weak, GROUPS)
    gain = found.detail[GAIN]
    assert found.controls == {**strong.estimate.controls, RANDOM: weak.estimate.value}
    assert gain["value"] == pytest.approx(strong.estimate.value - weak.estimate.value)
    assert 0 < gain["low"] < gain["value"] < gain["high"]
    same = beside_copy(strong, strong, GROUPS).detail[GAIN]
    assert (same["value"], same["low"], same["high"]) == (0.0, 0.0, 0.0)
    undefined = probed(grids(1.0, side=1), GROUPS)
    assert beside_copy(strong, undefined, GROUPS) == strong.estimate
    assert not beside_copy(undefined, strong, GROUPS).defined


def test_few_samples_are_looked_at_whole_and_very_many_in_part() -> None:
    assert position.sizes(200) == (200, 81)
    assert position.sizes(10**6) == (2048, 8)

"""Decoded predictions: which samples are looked at, and what stands beside every number."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.studies import decoded
from foresight.studies.decoded import GAIN, OF, decoded_prediction, spread
from foresight.studies.rebuilt import TRAINED, Rebuilt
from foresight.studies.reconstruction import (
    MEAN_IMAGE,
    ONE_COLOUR,
    POOLED,
    RANDOM,
    ROUND_TRIP,
    TOKENS,
    Scores,
)

N = 12
HERE, COPY = ("m", "p", TRAINED), ("m", "p", RANDOM)
NAMES = [f"{n} {OF}" for n in ("LPIPS", "SSIM", "PSNR (dB)", "latent R²")]


def held(level: float, seed: int = 0) -> dict[str, list[object]]:
    """Scores around a quality `level` from 0, nothing right, to 1; what differs by sample depends on `seed` alone."""
    noise = np.random.default_rng(seed).normal(0, 0.1, N)
    scores = Scores(
        distance=1 - level + noise,
        ssim=level - noise,
        error=np.full(N, 0.1 * (1.01 - level)) + noise**2 / 100,
    )
    return scores.to_json() | {"latents": [[1 - level, 1.0]] * N}


def found(copy: float | None = 0.4) -> Rebuilt:
    levels = {ROUND_TRIP: 0.95, MEAN_IMAGE: 0.3, ONE_COLOUR: 0.35}
    places = {HERE: {TOKENS: held(0.6), POOLED: held(0.5)}}
    places |= {} if copy is None else {COPY: {TOKENS: held(copy)}}
    return Rebuilt(
        places=places,
        references={k: held(v, seed=1) for k, v in levels.items()} | {"distance": "LPIPS"},
        groups=[f"video {i}" for i in range(N)],
    )


def test_every_control_stands_beside_every_number_of_the_pictures() -> None:
    rows = decoded_prediction(found(), HERE)
    assert [m["name"] for m in rows] == NAMES
    assert {(m["row"], m["model"], m["point"], m["variant"]) for m in rows} == {("Q1.4", *HERE)}
    for m in rows[:3]:
        assert set(m["controls"]) == {ROUND_TRIP, MEAN_IMAGE, ONE_COLOUR, POOLED, RANDOM}
        assert (m["n"], m["n_effective"]) == (N, N)
        assert m["low"] < m["value"] < m["high"]
    assert set(rows[3]["controls"]) == {POOLED, RANDOM}
    assert rows[3]["value"] == pytest.approx(0.6)
    assert rows[0]["null"] == min(rows[0]["controls"][c] for c in (MEAN_IMAGE, ONE_COLOUR))
    assert rows[1]["null"] == max(rows[1]["controls"][c] for c in (MEAN_IMAGE, ONE_COLOUR))


def test_the_copy_is_held_against_the_model_sample_by_sample() -> None:
    rows = {m["name"]: m for m in decoded_prediction(found(copy=0.4), HERE)}
    for name, difference in ((NAMES[0], -0.2), (NAMES[1], 0.2)):
        gain = rows[name]["detail"][GAIN]
        # the samples' own ups and downs are the same on both sides, so they are no part of the difference
        assert gain["low"] == pytest.approx(gain["high"])
        assert gain["value"] == pytest.approx(difference)
        assert rows[name]["high"] - rows[name]["low"] > 0.05
    same = decoded_prediction(found(copy=0.6), HERE)[1]["detail"][GAIN]
    assert same == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_without_a_copy_nothing_is_said_of_one() -> None:
    for m in decoded_prediction(found(copy=None), HERE):
        assert RANDOM not in m["controls"]
        assert GAIN not in m["detail"]


def test_what_was_not_decoded_is_undefined_with_the_reason() -> None:
    why = "the decoder's latent fills no grid"
    nothing = Rebuilt(places={HERE: {"why": why}}, references={"why": why}, groups=["a", "b"])
    rows = decoded_prediction(nothing, HERE)
    assert len(rows) == len(NAMES)
    for m in rows:
        assert m["value"] is None
        assert (m["why"], m["n"], m["n_effective"]) == (why, 2, 2)


@pytest.mark.parametrize("count", [0, 1, 5, decoded.MOST, decoded.MOST + 1, 50, 2500])
def test_samples_are_spread_from_the_first_to_the_last(count: int) -> None:
    scored = np.arange(count) * 4 + 1
    kept = spread(scored)
    assert len(kept) == min(count, decoded.MOST)
    assert len(set(kept)) == len(kept)
    assert set(kept) <= set(scored)
    if count:
        assert kept[0] == scored[0]
    if count > 1:
        assert kept[-1] == scored[-1]
        assert np.ptp(np.diff(kept)) <= 4

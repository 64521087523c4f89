"""The composite score: its weights, its border cases, its widest interval."""

from __future__ import annotations

import math

import pytest

from foresight.metrics import Estimate, composite_score


def part(value: float, half: float = 0.05, **more: float) -> Estimate:
    return Estimate(
        value=value, low=value - half, high=value + half, null=0.0, n=100, n_effective=20, controls=more
    )


def test_the_score_is_the_weighted_sum_with_the_widest_interval() -> None:
    got = composite_score(r2=part(0.5), spearman=part(0.6), recall=part(0.2), cka=part(0.4, biased=0.7))
    assert got.value == pytest.approx(0.3 * 0.5 + 0.3 * 0.6 + 0.2 * 0.2 + 0.2 * 0.4)
    assert (got.low, got.high) == (pytest.approx(got.value - 0.05), pytest.approx(got.value + 0.05))
    assert got.controls["biased CKA"] == pytest.approx(got.value + 0.2 * 0.3)
    assert (got.n, got.n_effective) == (100, 20)


def test_a_diverged_probe_counts_as_nothing_and_the_reader_is_told() -> None:
    got = composite_score(r2=part(-2.0), spearman=part(0.5), recall=part(0.1), cka=part(-0.1))
    assert got.value == pytest.approx(0.15 + 0.02 - 0.02)
    assert got.controls["not floored"] == pytest.approx(got.value - 0.6)


def test_an_undefined_part_makes_the_score_undefined_and_is_named() -> None:
    missing = Estimate.undefined("one class", n=9, n_effective=9)
    got = composite_score(r2=part(0.5), spearman=missing, recall=part(0.2), cka=part(0.4))
    assert math.isnan(got.value)
    assert got.why == "a part is undefined; spearman: one class"


def test_a_part_without_interval_leaves_the_score_without_one() -> None:
    bare = Estimate(value=0.5, n=5, n_effective=5)
    got = composite_score(r2=bare, spearman=part(0.5), recall=part(0.2), cka=part(0.4))
    assert math.isnan(got.low)
    assert got.why == "no interval: r2 has none"


def test_the_calibrated_score_appears_when_every_part_is_calibrated() -> None:
    got = composite_score(
        r2=part(0.5, calibrated=0.5),
        spearman=part(0.5, calibrated=0.4),
        recall=part(0.2, calibrated=0.1),
        cka=part(0.4, calibrated=0.3),
    )
    assert got.controls["calibrated"] == pytest.approx(0.15 + 0.12 + 0.02 + 0.06)

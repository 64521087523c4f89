"""One number against one threshold, its borders included."""

import json
import math

import pytest

from foresight.decisions import gate, judge, threshold_table

EXPERIMENTS = ("q1", "c1", "q2", "c2", "p4")


def estimate(value, low, high, **more):
    return {"value": value, "low": low, "high": high, "null": 0.0, "p": 0.001, "n": 300, **more}


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.41, 0.60, "PASS"),
        (0.40, 0.60, "CAN'T TELL"),
        (math.nextafter(0.40, 1), 0.60, "PASS"),
        (0.20, 0.40, "FAIL"),
        (0.20, math.nextafter(0.40, 1), "CAN'T TELL"),
        (0.40, 0.40, "FAIL"),
        (0.20, 0.30, "FAIL"),
    ],
)
def test_the_interval_decides_and_the_border_is_on_the_bad_side(low, high, word):
    assert judge("q1.cka", estimate((low + high) / 2, low, high)).verdict == word


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.20, 0.34, "PASS"), (0.20, 0.35, "CAN'T TELL"), (0.35, 0.50, "FAIL"), (0.34, 0.50, "CAN'T TELL")],
)
def test_a_lower_better_number_is_judged_by_its_upper_bound(low, high, word):
    verdict = judge("c1.lpips", estimate((low + high) / 2, low, high, null=1.0))
    assert verdict.verdict == word
    assert verdict.comparison == "<"


def test_the_bound_used_is_the_one_that_decided():
    assert judge("q1.cka", estimate(0.5, 0.45, 0.6)).bound_used == 0.45
    assert judge("q1.cka", estimate(0.2, 0.10, 0.3)).bound_used == 0.3


@pytest.mark.parametrize("undefined", [None, math.nan])
def test_an_undefined_number_is_never_judged_and_says_why(undefined):
    verdict = judge("q1.r2", {"value": undefined, "low": None, "high": None, "why": "only one class"})
    assert verdict.verdict == "CAN'T TELL"
    assert "only one class" in verdict.why
    assert verdict.to_json()["value"] is None
    json.dumps(verdict.to_json(), allow_nan=False)


def test_a_number_without_interval_is_not_judged():
    assert judge("q1.r2", {"value": 0.9, "why": "one group"}).verdict == "CAN'T TELL"


def test_a_threshold_that_chance_reaches_is_not_passed():
    verdict = judge("q1.recall@10", estimate(0.4, 0.3, 0.5, null=10 / 39))
    assert verdict.verdict == "CAN'T TELL"
    assert "chance" in verdict.why


def test_a_number_no_better_than_its_permutations_is_not_passed():
    assert judge("q1.cka", estimate(0.5, 0.45, 0.6, p=0.2)).verdict == "CAN'T TELL"
    assert judge("q1.cka", estimate(0.5, 0.45, 0.6, p=None)).verdict == "PASS"


def test_bad_input_is_refused_with_the_rule():
    with pytest.raises(KeyError, match=r"no threshold is named 'q1\.nope'"):
        judge("q1.nope", estimate(0.5, 0.4, 0.6))
    with pytest.raises(ValueError, match="runs low to high"):
        judge("q1.cka", estimate(0.5, 0.6, 0.4))
    with pytest.raises(ValueError, match="a measurement is a number or None"):
        judge("q1.cka", {"value": "0.5"})
    with pytest.raises(KeyError, match="no thresholds for experiment 'q9'"):
        threshold_table("q9")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_threshold_has_a_source_a_rule_and_a_direction(experiment):
    table = threshold_table(experiment)
    assert set(table["must_pass"]) | set(table["should_pass"]) == set(table["thresholds"])
    for name, row in table["thresholds"].items():
        assert name.startswith(f"{experiment}.")
        assert row["source"]
        assert row["rule"]
        assert row["comparison"] in ("<", ">")
        assert judge(name, {"value": None}).verdict == "CAN'T TELL"


def test_the_table_cannot_be_changed_by_a_reader():
    threshold_table("q1")["thresholds"].clear()
    assert threshold_table("q1")["thresholds"]


def test_one_fail_pivots_and_one_open_verdict_is_not_a_pass():
    good = judge("q1.cka", estimate(0.5, 0.45, 0.6))
    bad = judge("q1.r2", estimate(0.2, 0.1, 0.3))
    unclear = judge("q1.r2", estimate(0.5, 0.4, 0.6))
    assert gate([good])[0] == "PROCEED"
    assert gate([good, unclear])[0] == "CAN'T TELL"
    assert gate([good, unclear, bad])[0] == "PIVOT"
    assert gate([good], triggered=["Anti-correlated structure"])[0] == "PIVOT"
    assert gate([])[0] == "CAN'T TELL"

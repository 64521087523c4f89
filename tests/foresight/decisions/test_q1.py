"""The Q1 decision on numbers whose answer is known."""

import json
import math

import pytest

from foresight.decisions import q1_decision


def e(value, half=0.02, **more):
    return {
        "value": value,
        "low": value - half,
        "high": value + half,
        "null": 0.0,
        "p": 0.001,
        "n": 300,
        **more,
    }


def decide(**change):
    parts = {"r2": e(0.7), "spearman": e(0.8), "recall": e(0.4, null=0.03), "cka": e(0.6)}
    parts |= {"composite": e(0.65)}
    parts |= {"dimension_vlm": e(10, 1), "dimension_decoder": e(20, 2)}
    return q1_decision(**(parts | change))


def state(decision, name):
    return next(c.state for c in decision.criteria if c.name == name)


def test_all_four_passing_proceeds_and_lists_what_is_open():
    decision = decide()
    assert decision.overall == "PROCEED"
    assert [v.verdict for v in decision.verdicts] == ["PASS"] * 4
    assert any("position probe" in line for line in decision.open_questions)


def test_one_missed_threshold_pivots_and_is_named():
    decision = decide(cka=e(0.2))
    assert decision.overall == "PIVOT"
    assert any("CKA" in reason for reason in decision.reasons)


def test_an_interval_over_a_threshold_cannot_be_told():
    assert decide(r2=e(0.5)).overall == "CAN'T TELL"


@pytest.mark.parametrize(
    ("score", "word"),
    [
        (math.nextafter(0.6, 1), "Excellent"),
        (0.6, "Good"),
        (0.4, "Good"),
        (math.nextafter(0.4, 0), "Challenging"),
        (0.2, "Challenging"),
        (math.nextafter(0.2, 0), "Poor"),
        (-0.3, "Poor"),
    ],
)
def test_the_bands_have_exact_borders(score, word):
    band = decide(composite=e(score, 0.0)).band
    assert band["word"] == word
    assert band["settled"]


def test_a_band_is_settled_only_when_the_whole_interval_lies_in_it():
    band = decide(composite=e(0.45, 0.1)).band
    assert band["word"] == "Good"
    assert not band["settled"]
    assert "Challenging to Good" in band["why"]


def test_an_undefined_composite_has_no_band_and_no_adapter():
    decision = decide(composite={"value": None, "why": "CKA is undefined"})
    assert decision.band["word"] == "CAN'T TELL"
    assert "CKA is undefined" in decision.band["why"]
    assert decision.adapter["adapter"] is None


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"r2": e(0.0)}, "q1.fail.linear"),
        ({"spearman": e(-0.4)}, "q1.fail.structure"),
        ({"recall": e(0.02, 0.01, null=0.03)}, "q1.fail.neighbours"),
        ({"dimension_vlm": e(2, 0.1), "dimension_decoder": e(60, 2)}, "q1.fail.dimension"),
        ({"dimension_vlm": e(60, 2), "dimension_decoder": e(2, 0.1)}, "q1.fail.dimension"),
        ({"decoder_semantics": e(0.10, 0.02, null=0.125)}, "q1.fail.semantics"),
        ({"vlm_spatial": e(0.05, 0.01, null=0.1)}, "q1.fail.spatial"),
    ],
)
def test_each_failure_criterion_can_trigger_and_then_pivots(change, name):
    decision = decide(**change)
    assert state(decision, name) == "TRIGGERED"
    assert decision.overall == "PIVOT"
    assert state(decide(), name) != "TRIGGERED"


def test_a_failure_criterion_across_its_limit_cannot_be_told():
    assert state(decide(r2=e(0.1)), "q1.fail.linear") == "CAN'T TELL"
    assert state(decide(dimension_decoder=e(100, 20)), "q1.fail.dimension") == "CAN'T TELL"


def test_neighbours_shared_at_another_k_lift_the_criterion():
    low = e(0.02, 0.01, null=0.03)
    name = "q1.fail.neighbours"
    assert state(decide(recall=low, recall_by_k={50: e(0.3, null=0.1)}), name) == "NOT TRIGGERED"
    assert state(decide(recall=low, recall_by_k={50: e(0.1, null=0.1)}), name) == "TRIGGERED"


def test_chance_above_the_bar_raises_the_bar():
    small = e(0.15, 0.02, null=10 / 39)
    assert state(decide(recall=small), "q1.fail.neighbours") == "TRIGGERED"


def test_a_control_with_random_weights_that_also_passes_is_told():
    decision = decide(random_weights={"q1.cka": e(0.7)})
    assert any("random weights" in line for line in decision.open_questions)


def spatial(copy=None, value=0.05, half=0.02):
    decision = decide(vlm_spatial=e(value, half), random_weights={"q1.fail.spatial": copy} if copy else {})
    told = [line for line in decision.open_questions if "discards all spatial" in line]
    return state(decision, "q1.fail.spatial"), told


@pytest.mark.parametrize(
    ("copy", "open_"),
    [
        ({"value": 0.0, "difference": e(0.02, 0.02)}, True),
        ({"value": 0.0, "difference": e(0.02, math.nextafter(0.02, 0))}, False),
        ({"value": 0.4, "difference": e(-0.35)}, True),
        ({"value": 0.05 - 0.02}, True),
        ({"value": math.nextafter(0.05 - 0.02, 0)}, False),
        ({"value": 0.4, "difference": {"value": None}}, True),
        ({"value": None}, False),
    ],
)
def test_places_that_a_copy_with_random_weights_tells_as_well_are_an_open_question(copy, open_):
    found, told = spatial(copy)
    assert found == "NOT TRIGGERED"
    assert bool(told) == open_
    if told:
        assert f"is not above the {copy['value']:.3f} of a copy with random weights" in told[0]


def test_a_copy_changes_no_state_and_is_told_beside_the_number():
    for value, expected in (
        (0.02, "CAN'T TELL"),
        (math.nextafter(0.02, 1), "NOT TRIGGERED"),
        (-0.02, "TRIGGERED"),
    ):
        assert spatial(None, value)[0] == spatial({"value": 0.9}, value)[0] == expected
    decision = decide(vlm_spatial=e(0.05), random_weights={"q1.fail.spatial": {"value": 0.9}})
    (criterion,) = [c for c in decision.criteria if c.name == "q1.fail.spatial"]
    assert criterion.why.endswith("a copy with random weights reads 0.900")
    assert "neither the plan nor a source names one" in criterion.rule


def test_adapter_counts_are_real_and_checked_against_the_budget():
    sizes = {"vlm_width": 1536, "decoder_channels": 128, "decoder_cells": 64}
    adapter = decide(**sizes).adapter
    assert adapter["adapter"] == "linear"
    counts = [(d["parameters"], d["in_budget"]) for d in adapter["designs"]]
    assert counts == [(12_591_104, False), (196_736, True)]
    middle = decide(composite=e(0.5), **sizes).adapter
    assert middle["adapter"] == "mlp"
    assert middle["designs"][0]["parameters"] == 24_129_536
    assert all(d["in_budget"] for d in middle["designs"])
    assert decide(composite=e(0.3), **sizes).adapter["designs"][-1]["in_budget"]


def test_where_the_plans_tables_disagree_the_other_adapter_is_named():
    assert decide(composite=e(0.55)).adapter["alternative"].startswith("linear projection")
    assert decide(composite=e(0.45)).adapter["alternative"] is None


def test_without_widths_no_count_is_invented():
    adapter = decide().adapter
    assert adapter["designs"] == []
    assert "no parameters were counted" in adapter["why"]


def test_the_decision_is_plain_json():
    text = json.dumps(decide().to_json(), allow_nan=False)
    assert json.loads(text)["overall"] == "PROCEED"

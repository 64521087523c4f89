"""Two runs side by side: what moved, what is noise, what cannot be told."""

import copy
import json
import math

import numpy as np
import pytest

from foresight.reports import Run, build_comparison_report, compare, render
from foresight.reports.comparison import holm
from tests.foresight.reports.fakes import HOSTILE, measured, measurements, q1_inputs


def run(name="a", rows=None, **change) -> Run:
    if rows is not None:
        return Run(name=name, measurements=rows, **change)
    inputs = q1_inputs()
    return Run(name=name, measurements=measurements(), decision=inputs.decision, models=inputs.models)


def one(value, half=0.05, **more):
    place = {"row": "Q1.7", "name": "linear CKA", "point": "vit.2", "variant": "trained"}
    return place | measured(value, half, **more)


def word(before, after):
    return compare(run(rows=[before]), run(rows=[after])).changes[0].word


def test_a_change_beyond_both_intervals_moved_and_a_small_one_is_noise():
    assert word(one(0.3), one(0.6)) == "moved"
    assert word(one(0.3), one(0.34)) == "within noise"
    assert word(one(0.3), one(0.3)) == "identical"


def test_an_undefined_number_is_never_compared_as_zero():
    change = compare(run(rows=[one(None, why="one class")]), run(rows=[one(0.3)])).changes[0]
    assert change.word == "can't tell"
    assert "one class" in change.why
    assert math.isnan(change.difference)


def test_a_number_without_interval_cannot_be_told():
    bare = one(0.3) | {"low": None, "high": None}
    assert word(bare, one(0.6)) == "can't tell"


def test_the_difference_interval_is_the_normal_one():
    change = compare(run(rows=[one(0.3, 0.03)]), run(rows=[one(0.4, 0.04)])).changes[0]
    assert change.difference == pytest.approx(0.1)
    assert (change.low, change.high) == pytest.approx((0.05, 0.15))
    assert change.p == pytest.approx(8.85e-5, rel=0.01)  # two-sided normal at 1.96 · 0.1 / 0.05


def test_holm_is_the_step_down_procedure_and_skips_undefined_tests():
    assert holm([0.01, 0.04, 0.03, math.nan]) == pytest.approx([0.03, 0.06, 0.06, math.nan], nan_ok=True)
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_noise_alone_moves_something_in_at_most_about_five_percent_of_comparisons():
    rng = np.random.default_rng(0)
    false_alarms = 0
    for _ in range(400):
        noise = rng.normal(0, 0.05 / 1.959964, (2, 20))
        sides = [[one(0.5 + v) | {"point": str(i)} for i, v in enumerate(side)] for side in noise]
        false_alarms += compare(run(rows=sides[0]), run(rows=sides[1])).count("moved") > 0
    # 400 draws at 5 %: 20 expected, standard error 4.4
    assert 5 <= false_alarms <= 34


def test_a_model_change_is_joined_by_place_and_named_as_the_cause():
    before = [one(0.3) | {"model": "tiny@seed0"}]
    after = [one(0.6) | {"model": "tiny@seed1"}]
    old = [{"role": "vlm", "card": "tiny@seed0", "fingerprint": "a" * 64}]
    new = [{"role": "vlm", "card": "tiny@seed1", "fingerprint": "b" * 64}]
    c = compare(run(rows=before, models=old), run(rows=after, models=new))
    assert [x.word for x in c.changes] == ["moved"]
    assert c.settings == [
        ("vlm.card", "tiny@seed0", "tiny@seed1"),
        ("vlm.fingerprint", "a" * 12, "b" * 12),
    ]


def test_numbers_in_one_run_only_are_listed_and_not_compared():
    extra = one(0.9) | {"name": "only here"}
    c = compare(run(rows=[one(0.3)]), run(rows=[one(0.3), extra]))
    assert [m["name"] for m in c.only_after] == ["only here"]
    page = render(build_comparison_report(run(rows=[one(0.3)]), run(rows=[one(0.3), extra])))
    assert "Numbers without a partner" in page


def test_the_page_tells_identical_runs_from_moved_ones():
    same = build_comparison_report(run("a"), run("b"))
    assert same.verdict.word == "IDENTICAL"
    rows = copy.deepcopy(measurements())
    for m in rows:
        if m["row"] == "Q1.5":
            m |= {k: m[k] + 0.4 for k in ("value", "low", "high")}
    moved = build_comparison_report(run("a"), run("b", rows=rows))
    assert moved.verdict.word == "MOVED"
    assert "Spearman" in moved.verdict.sentence
    assert render(moved) == render(build_comparison_report(run("a"), run("b", rows=rows)))
    json.dumps(moved.to_json(), allow_nan=False)


def test_hostile_run_names_are_escaped():
    page = render(build_comparison_report(run(HOSTILE, rows=[one(0.3)]), run("b", rows=[one(0.3)])))
    assert "<script>alert" not in page


def test_runs_that_share_nothing_are_refused():
    with pytest.raises(ValueError, match="share none"):
        build_comparison_report(run(rows=[one(0.3)]), run(rows=[one(0.3) | {"name": "other"}]))
    with pytest.raises(ValueError, match="each number once"):
        compare(run(rows=[one(0.3), one(0.4)]), run(rows=[one(0.3)]))

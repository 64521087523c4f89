"""The Q2 decision: thresholds by the interval's bound, controls that veto, and steps where places are lost."""

from __future__ import annotations

from typing import Any

from foresight.decisions.spatial import LEADS, q2_decision


def number(
    name: str, point: str, value: float, *, half: float = 0.03, floor: float = 0.1, ceiling: float = 0.95
) -> dict[str, Any]:
    row, metric = LEADS[name]
    return {
        "row": row, "name": metric, "model": "m", "point": point, "value": value, "low": value - half,
        "high": value + half, "null": 0.1 if metric != "LPIPS" else 0.9, "p": 0.001, "why": "",
        "controls": {"raw patches": ceiling},
        "detail": {"floor": floor, "knows places": value - half > floor if metric != "LPIPS" else True},
    }  # fmt: skip


def everything(**changed: Any) -> list[dict[str, Any]]:
    values = {"q2.bbox_iou": 0.8, "q2.lpips": 0.1, "q2.edge_f1": 0.9, "q2.map@0.5": 0.6, "q2.direction": 0.9}
    return [number(k, "vit.2", v, **changed) for k, v in values.items()]


def words(decision: dict[str, Any]) -> dict[str, str]:
    return {v["name"]: v["verdict"] for v in decision["verdicts"]}


def test_all_thresholds_met_is_proceed() -> None:
    assert q2_decision(everything(), absent={})["overall"] == "PROCEED"


def test_one_whole_interval_below_its_threshold_is_pivot_and_named() -> None:
    measured = [m for m in everything() if m["name"] != "box IoU"] + [number("q2.bbox_iou", "vit.2", 0.4)]
    decision = q2_decision(measured, absent={})
    assert decision["overall"] == "PIVOT"
    assert "Bounding-box IoU: FAIL" in decision["reasons"][0]


def test_a_threshold_out_of_reach_of_the_pixels_fails_no_model() -> None:
    measured = [number("q2.bbox_iou", "vit.2", 0.6, ceiling=0.68)]
    decision = q2_decision(measured, absent={})
    assert words(decision)["q2.bbox_iou"] == "CAN'T TELL"
    why = next(v["why"] for v in decision["verdicts"] if v["name"] == "q2.bbox_iou")
    assert "gets 0.680 from the pixels themselves" in why
    measured[0]["controls"]["raw patches"] = 0.71
    assert words(q2_decision(measured, absent={}))["q2.bbox_iou"] == "FAIL"


def test_two_models_side_by_side_are_not_judged_as_one() -> None:
    weak = number("q2.bbox_iou", "merged", 0.4)
    strong = number("q2.bbox_iou", "merged+dinov2:vit.2", 0.9)
    strong["detail"]["beside"] = "dinov2:vit.2"
    alone, both = (q2_decision(rows, absent={}) for rows in ([weak], [weak, strong]))
    assert words(both)["q2.bbox_iou"] == "FAIL"
    assert both == alone


def test_what_this_data_cannot_give_is_cannot_tell_with_its_reason() -> None:
    measured = [m for m in everything() if m["name"] not in ("direction accuracy", "LPIPS")]
    decision = q2_decision(measured, absent={"Q2.4": "stills do not move"})
    assert decision["overall"] == "CAN'T TELL"
    whys = {v["name"]: v["why"] for v in decision["verdicts"]}
    assert "stills do not move" in whys["q2.direction"]
    assert "published network is not on this machine" in whys["q2.lpips"]


def test_a_number_that_a_control_without_places_reaches_does_not_pass() -> None:
    measured = [m for m in everything() if m["name"] != "box IoU"]
    measured.append(number("q2.bbox_iou", "vit.2", 0.8, floor=0.79))
    decision = q2_decision(measured, absent={})
    assert words(decision)["q2.bbox_iou"] == "CAN'T TELL"
    assert "does not clear 0.790" in decision["open_questions"][0]


def test_the_best_point_is_judged_and_only_clear_drops_are_losses() -> None:
    path = [("patch", 0.80), ("vit.2", 0.82), ("merged", 0.60), ("llm.2", 0.58)]
    decision = q2_decision([number("q2.bbox_iou", p, v) for p, v in path], absent={})
    assert decision["best_point"] == "vit.2"
    (loss,) = decision["losses"]
    assert (loss["before"], loss["after"]) == ("vit.2", "merged")

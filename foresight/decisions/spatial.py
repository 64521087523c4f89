"""The Q2 decision: which thresholds hold at the best point, and between which points places are lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from foresight.decisions.verdicts import FAIL, OPEN, PASS, Verdict, gate, judge, number, threshold_table
from foresight.probes import PATCHES

LEADS = {
    "q2.bbox_iou": ("Q2.1", "box IoU"),
    "q2.lpips": ("Q2.3", "LPIPS"),
    "q2.edge_f1": ("Q2.3", "edge F1"),
    "q2.map@0.5": ("Q2.2", "mAP@0.5"),
    "q2.direction": ("Q2.4", "direction accuracy"),
}
"""Row and metric each threshold of the data file judges."""
Numbers = Mapping[str, Any]


def q2_decision(measured: Sequence[Numbers], *, absent: Mapping[str, str]) -> dict[str, Any]:
    """Return the decision over all numbers of the study, as plain values.

    `absent` says why a row could not be measured, by row. Each threshold is judged at the point where its metric
    is best. A number whose interval does not clear every control without the grid cannot pass, and a threshold that
    the same probe does not reach on the pixels themselves cannot fail a model. Numbers of two models side by side
    are not judged: they would pass for the first what the second knows.
    """
    measured = alone(measured)
    table = threshold_table("q2")
    verdicts, points, blind = [], {}, []
    for name in table["must_pass"]:
        row, metric = LEADS[name]
        mine = [m for m in measured if m["row"] == row and m["name"] == metric]
        top = best(mine, lower=table["thresholds"][name]["comparison"] == "<")
        if top is None:
            why = absent.get(row) or _unnamed(metric) or "it was not measured in this run"
            verdicts.append(judge(name, {"value": None, "why": why}))
            continue
        points[name] = top["point"]
        verdict = judge(name, top)
        if verdict.verdict == PASS and not top["detail"]["knows places"]:
            verdict = _blind(verdict, top)
        if verdict.verdict == FAIL:
            verdict = _within_reach(verdict, mine)
        if top["detail"]["knows places"] is False:
            blind.append(f"{metric} at {top['point']} does not clear {number(top['detail']['floor']):.3f}, which a "
                         "control without the grid reaches")  # fmt: skip
        verdicts.append(verdict)
    overall, reasons = gate(verdicts)
    return {
        "overall": overall,
        "reasons": reasons,
        "open_questions": blind,
        "verdicts": [v.to_json() for v in verdicts],
        "composite": {},
        "band": {},
        "criteria": [],
        "best_point": points.get("q2.bbox_iou", ""),
        "judged_at": points,
        "losses": losses(measured),
        "rules": {
            "best point": "each threshold is judged where its metric is best, chosen on the samples it is reported "
            "on: an upper bound over the points",
            "loss": "a step from one point to the next loses places when the intervals before and after it do not "
            "touch; the samples are the same, so this errs towards saying nothing",
        },
    }


def best(rows: Sequence[Numbers], *, lower: bool) -> Numbers | None:
    """Return the row with the best defined value; None when there is none."""
    known = [m for m in rows if not math.isnan(number(m.get("value")))]
    pick = min if lower else max
    return pick(known, key=lambda m: number(m["value"])) if known else None


def alone(measured: Sequence[Numbers]) -> list[Numbers]:
    """Return the numbers of one model by itself."""
    return [m for m in measured if not m["detail"].get("beside")]


def hybrids(measured: Sequence[Numbers]) -> list[Numbers]:
    """Return the numbers of two models side by side; their `detail` names the second as `beside`."""
    return [m for m in measured if m["detail"].get("beside")]


def losses(measured: Sequence[Numbers]) -> list[dict[str, Any]]:
    """Return the steps along each model's points at which a judged metric drops: points, values, intervals.

    Lists of `measured` go along the path, from the first point to the last.
    """
    found = []
    for row, metric in LEADS.values():
        lower = metric == "LPIPS"
        for model in dict.fromkeys(m["model"] for m in measured):
            path = [m for m in measured if (m["row"], m["name"], m["model"]) == (row, metric, model)]
            path = [m for m in path if not math.isnan(number(m.get("low")))]
            for before, after in pairwise(path):
                drop = after["low"] > before["high"] if lower else after["high"] < before["low"]
                if drop:
                    found.append(
                        {
                            "row": row, "metric": metric, "model": model,
                            "before": before["point"], "after": after["point"],
                            "from": [before["value"], before["low"], before["high"]],
                            "to": [after["value"], after["low"], after["high"]],
                        }
                    )  # fmt: skip
    return found


def _unnamed(metric: str) -> str:
    if metric != "LPIPS":
        return ""
    return (
        "the published network is not on this machine, so the number made has another name and no threshold"
    )


def _within_reach(verdict: Verdict, rows: Sequence[Numbers]) -> Verdict:
    """Return a FAIL as it is when raw patches meet the threshold on some grid, else CAN'T TELL."""
    higher = verdict.comparison == ">"
    most = (max if higher else min)(number(m["controls"][PATCHES]) for m in rows)
    if most > verdict.threshold if higher else most < verdict.threshold:
        return verdict
    return replace(
        verdict,
        verdict=OPEN,
        why=f"{verdict.why}, but the probe gets {most:.3f} from the pixels themselves: it or the data is the limit",
    )


def _blind(verdict: Verdict, top: Numbers) -> Verdict:
    floor = number(top["detail"]["floor"])
    return replace(
        verdict,
        verdict=OPEN,
        why=f"{verdict.why}, but a control without the grid reaches {floor:.3f}",
    )

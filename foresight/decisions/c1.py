"""The C1 decision: are a model's latents enough to rebuild the picture? Three thresholds, and what they rest on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from foresight.decisions.verdicts import Verdict, gate, judge, number, threshold_table

Numbers = Mapping[str, Any]
"""An estimate as plain values: value, low, high, null, p, n, why."""
ABSENT: Numbers = {"value": None, "why": "it was not measured in this run"}


@dataclass(frozen=True, kw_only=True)
class C1Decision:
    """PROCEED, PIVOT or CAN'T TELL, and everything it was decided on."""

    overall: str
    reasons: tuple[str, ...]
    open_questions: tuple[str, ...]
    """What weakens or bounds the numbers. It does not block."""
    verdicts: tuple[Verdict, ...]
    best_point: str = ""
    pipeline: str = ""
    """What rebuilt the pictures that are judged: the linear probe, or an adapter."""
    rules: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain = asdict(self) | {"verdicts": [v.to_json() for v in self.verdicts]}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}


def c1_decision(
    *,
    distance: Numbers,
    published: bool,
    distance_name: str,
    ssim: Numbers,
    spatial_iou: Numbers = ABSENT,
    random_weights: Mapping[str, float | None] | None = None,
    ceiling: Mapping[str, float | None] | None = None,
    best_point: str = "",
    pipeline: str = "",
) -> C1Decision:
    """Decide C1 at the best point.

    `distance` is the perceptual distance, called `distance_name`; only when its networks are the `published` ones
    it is LPIPS and is judged. `random_weights` holds the same numbers of the copy, and `ceiling` those of the
    decoder's own round trip, by threshold name.
    """
    table = threshold_table("c1")
    given = {"c1.lpips": distance, "c1.ssim": ssim, "c1.spatial_iou": spatial_iou}
    if not published:
        why = f"not comparable with the threshold: it was measured as {distance_name} {_told(distance)}"
        given["c1.lpips"] = {**ABSENT, "why": why}
    verdicts = tuple(judge(name, given[name]) for name in table["must_pass"])
    overall, reasons = gate(verdicts)
    return C1Decision(
        overall=overall,
        reasons=tuple(reasons),
        open_questions=tuple(_open(verdicts, random_weights or {}, ceiling or {})),
        verdicts=verdicts,
        best_point=best_point,
        pipeline=pipeline,
        rules={v.title: table["thresholds"][v.name]["rule"] for v in verdicts}
        | {
            "verdict": "PROCEED when all three thresholds PASS, PIVOT when one FAILs; a threshold inside an interval, "
            "or a number without one, is CAN'T TELL and no failure",
        },
    )


def _told(e: Numbers) -> str:
    value, low, high = (number(e.get(k)) for k in ("value", "low", "high"))
    if math.isnan(value):
        return f"(undefined: {e.get('why') or 'no reason was given'})"
    return f"{value:.3f}" + ("" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]")


def _open(
    verdicts: tuple[Verdict, ...], copies: Mapping[str, float | None], ceiling: Mapping[str, float | None]
) -> list[str]:
    found = []
    for v in verdicts:
        if math.isnan(v.value):
            continue
        top = number(ceiling.get(v.name))
        beyond = top <= v.threshold if v.comparison == ">" else top >= v.threshold
        if not math.isnan(top) and beyond:
            found.append(
                f"{v.title}: the decoder's own round trip reaches {top:.3f}, which does not pass "
                f"{v.comparison} {v.threshold:g} itself: with this decoder the threshold says little about the model"
            )
        copy = number(copies.get(v.name))
        if v.low <= copy <= v.high:
            found.append(
                f"{v.title}: a copy with random weights gives {copy:.3f}, which lies in the interval "
                f"[{v.low:.3f}, {v.high:.3f}] of the trained model: training is not what makes the difference"
            )
    return found

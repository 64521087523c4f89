"""PASS, FAIL or CAN'T TELL for one number against one threshold of the data file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

Word = Literal["PASS", "FAIL", "CAN'T TELL"]
PASS: Word = "PASS"
FAIL: Word = "FAIL"
OPEN: Word = "CAN'T TELL"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one threshold says about one number.

    `PASS` only when the whole 95 % interval is on the good side, `FAIL` only when it is wholly on the bad.
    """

    name: str
    """Key in `thresholds.json`, 'q1.cka'."""
    verdict: Word
    threshold: float
    bound_used: float
    """The end of the interval that decided; nan when the number or its interval is undefined."""
    why: str
    """One sentence with the numbers."""
    comparison: str = ">"
    """'>' when higher is better, '<' when lower is."""
    title: str = ""
    source: str = ""
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan

    def to_json(self) -> dict[str, Any]:
        """Return plain values; nan becomes None, and `why` keeps the reason."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}


def judge(name: str, estimate: Mapping[str, Any]) -> Verdict:
    """Return the verdict of threshold `name` on `estimate`.

    `estimate` holds `value`, `low`, `high` and, where they exist, `null`, `p`, `why`; None and nan both mean
    undefined. `KeyError` for an unknown name, `ValueError` for an interval that runs backwards.
    """
    row = _row(name)
    comparison, threshold = row["comparison"], float(row["threshold"])
    value, low, high = (number(estimate.get(k)) for k in ("value", "low", "high"))
    if low > high:
        raise ValueError(f"an interval runs low to high, but {name} has [{low:g}, {high:g}]; swap its ends")

    def say(word: Word, bound: float, why: str) -> Verdict:
        return Verdict(
            name=name, verdict=word, threshold=threshold, bound_used=bound, why=why, comparison=comparison,
            title=row["title"], source=row["source"], value=value, low=low, high=high,
        )  # fmt: skip

    if math.isnan(value):
        return say(OPEN, math.nan, f"the number is undefined: {estimate.get('why') or 'no reason was given'}")
    if math.isnan(low) or math.isnan(high):
        return say(
            OPEN, math.nan, f"{value:.3f} has no interval: {estimate.get('why') or 'none was computed'}"
        )

    def good(x: float) -> bool:
        return x > threshold if comparison == ">" else x < threshold

    worst, best = (low, high) if comparison == ">" else (high, low)
    side = "above" if comparison == ">" else "below"
    interval = f"[{low:.3f}, {high:.3f}]"
    if not good(best):
        return say(FAIL, best, f"the whole 95 % interval {interval} misses {comparison} {threshold:g}")
    if not good(worst):
        return say(OPEN, worst, f"the 95 % interval {interval} contains the threshold {threshold:g}")
    null, p, p_max = number(estimate.get("null")), number(estimate.get("p")), float(_data()["rules"]["p_max"])
    if good(null):
        return say(OPEN, worst, f"chance alone gives {null:.3f}, already {side} the threshold {threshold:g}")
    if p > p_max:
        return say(OPEN, worst, f"{interval} is {side} {threshold:g}, but p = {p:.3g} against chance")
    return say(PASS, worst, f"the whole 95 % interval {interval} is {side} {threshold:g}")


def threshold_table(experiment: str) -> dict[str, Any]:
    """Return everything the data file says about one experiment (a fresh copy)."""
    table = _data()["experiments"]
    if experiment not in table:
        raise KeyError(f"no thresholds for experiment {experiment!r}; there are some for {sorted(table)}")
    copy: dict[str, Any] = json.loads(json.dumps(table[experiment]))
    return copy


def gate(verdicts: Iterable[Verdict], *, triggered: Iterable[str] = ()) -> tuple[str, list[str]]:
    """Return (PROCEED | PIVOT | CAN'T TELL, reasons) over the must-pass verdicts of one experiment.

    PIVOT when anything FAILs or a failure criterion (its title in `triggered`) holds; PROCEED when every
    verdict is PASS; CAN'T TELL otherwise, and when there is no verdict at all.
    """
    verdicts, triggered = list(verdicts), list(triggered)
    reasons = [f"failure criterion holds: {title}" for title in triggered]
    reasons += [f"{v.title}: FAIL, {v.why}" for v in verdicts if v.verdict == FAIL]
    if reasons:
        return "PIVOT", reasons
    unclear = [f"{v.title}: CAN'T TELL, {v.why}" for v in verdicts if v.verdict == OPEN]
    if unclear or not verdicts:
        return OPEN, unclear or ["nothing was judged"]
    return "PROCEED", [f"{v.title}: PASS, {v.why}" for v in verdicts]


def number(value: Any) -> float:
    """Return `value` as a float, nan for None. Booleans and text are refused: they are not measurements."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise ValueError(f"a measurement is a number or None, but got {value!r}; pass None for undefined")
    return float(value)


@cache
def _data() -> dict[str, Any]:
    text = files("foresight.decisions").joinpath("thresholds.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def _row(name: str) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for table in _data()["experiments"].values():
        rows |= table["thresholds"]
    if name not in rows:
        raise KeyError(f"no threshold is named {name!r}; there are {sorted(rows)}")
    row: dict[str, Any] = rows[name]
    return row

"""What the numbers of one Q1 row say, in plain sentences worked out from the numbers themselves."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from foresight.decisions.verdicts import number
from foresight.reports.page import number_text
from foresight.reports.q1_rows import baselines, lower_is_better
from foresight.reports.tables import known, p_text, point_name
from foresight.studies.position import GAIN, POSITION

Row = Mapping[str, Any]
TRAINED = "trained"
HALVES = "between halves of the decoder's channels"
"""How a number is named that compares the decoder with itself."""
NO_CEILING = (
    "No noise ceiling is given: the same picture gives the same latents every time, so there are no repeats to take "
    "one from, and the only bound that holds for certain is 1. In its place stands the same number between two random "
    "halves of the decoder's own channels, which share every picture. That is a reference, not an upper bound: "
    "channels may be made to share little with each other, and then a VLM point can lie above it."
)
"""What stands where a noise ceiling would, and why."""


def begun(sentence: str) -> str:
    """Return the sentence with a capital, unless it begins with a symbol such as k-NN."""
    return sentence[0].upper() + sentence[1:] if re.match(r"[a-z]+ ", sentence) else sentence


def is_control(m: Row) -> bool:
    """Return whether the measurement is of an untrained copy."""
    return "random" in str(m.get("variant") or "").lower()


def trained(measurements: Sequence[Row], name: str | None = None) -> list[Row]:
    return [m for m in measurements if not is_control(m) and (name is None or m["name"] == name)]


def best(measurements: Sequence[Row], *, lower: bool = False) -> Row | None:
    """Return the measurement with the highest (or lowest) value; None when all are undefined."""
    held = [m for m in measurements if known(m.get("value"))]
    if not held:
        return None
    return min(held, key=lambda m: m["value"]) if lower else max(held, key=lambda m: m["value"])


def with_interval(m: Row) -> str:
    text = number_text(m.get("value"))
    if known(m.get("low")) and known(m.get("high")):
        text += f" (95 % interval {number_text(m['low'])} to {number_text(m['high'])})"
    return text


def peak_sentence(measurements: Sequence[Row], name: str) -> str:
    """Say where `name` is highest, how far from chance, and out of how many points."""
    rows = trained(measurements, name)
    lower = lower_is_better(name)
    top = best(rows, lower=lower)
    if top is None:
        why = next((m.get("why") for m in rows if m.get("why")), "no reason was recorded")
        return f"{name} is undefined at every point: {why}."
    where = f"at {point_name(top)}" if top.get("point") else "over all samples"
    text = f"{name} is {with_interval(top)} {where}"
    if len(rows) > 1:
        text += f", the {'lowest' if lower else 'highest'} of {len(rows)} points"
    if known(top.get("null")):
        text += f"; chance gives {number_text(top['null'])}"
        if known(top.get("low")) and known(top.get("high")) and top["low"] <= top["null"] <= top["high"]:
            text += ", which the interval does not exclude"
    text += (
        f" (n = {top.get('n', 'n/a')}" + (f", p = {p_text(top['p'])}" if known(top.get("p")) else "") + ")."
    )
    if len(rows) > 1 and known(top.get("p")) and top["p"] > 0.05 / len(rows) and top["p"] <= 0.05:
        text += f" That p is for this point alone: over {len(rows)} points it does not survive correction."
    return text


def untrained_sentence(measurements: Sequence[Row], name: str) -> str:
    """Say what training adds over a copy with random weights at the same point; '' when there is no copy."""
    lower = lower_is_better(name)
    top = best(trained(measurements, name), lower=lower)
    if top is None:
        return ""
    same = [
        m
        for m in measurements
        if is_control(m)
        and known(m.get("value"))
        and all(m.get(k) == top.get(k) for k in ("name", "point", "model"))
    ]
    if not same:
        return f"No copy with random weights was measured for {name}, so what training adds is not known."
    copy = same[0]
    gap = (copy["value"] - top["value"]) if lower else (top["value"] - copy["value"])
    bounds = (top.get("low"), top.get("high"), copy.get("low"), copy.get("high"))
    apart = all(map(known, bounds)) and (top["low"] > copy["high"] or top["high"] < copy["low"])
    text = f"A copy with random weights gives {with_interval(copy)} there: "
    if gap == 0:
        return text + "the same."
    if gap < 0:
        return text + f"training does not improve {name}; it is {number_text(-gap)} worse."
    share = f"training {'takes off' if lower else 'adds'} {number_text(gap)}"
    return (
        text
        + share
        + (", and the two intervals do not overlap." if apart else ", but the intervals overlap.")
    )


def halves_sentence(measurements: Sequence[Row], name: str) -> str:
    """Say what two halves of the decoder's own channels reach; '' when that was not measured."""
    halves = next((m for m in measurements if HALVES in str(m["name"]) and known(m.get("value"))), None)
    top = best(trained(measurements, name))
    if halves is None or top is None:
        return ""
    text = f"Two random halves of the decoder's own channels reach {with_interval(halves)} of each other"
    if halves["value"] > 0:
        text += (
            f", of which {number_text(top['value'])} is {number_text(100 * top['value'] / halves['value'])} %"
        )
    return text + "."


def position_sentences(measurements: Sequence[Row]) -> list[str]:
    """Say whether single tokens tell where they lie; [] where that was not measured."""
    mine = [m for m in measurements if m["name"] == POSITION]
    if not mine:
        return []
    top = best(trained(mine))
    gain = ((top or {}).get("detail") or {}).get(GAIN)
    if top is None or not gain or not known(gain.get("low")):
        return [peak_sentence(mine, POSITION), untrained_sentence(mine, POSITION)]
    told = f"There, on the same tokens, trained minus random weights is {with_interval(gain)}"
    if gain["high"] < 0:
        told += ": places are read better without training"
    elif gain["low"] <= 0:
        told += ", which does not exclude that places are read as well without training"
    return [peak_sentence(mine, POSITION), f"{told}."]


def noise_sentence(m: Row | None) -> str:
    """Say what Gaussian noise of the same covariance and size would read; '' when that was not measured."""
    if m is None:
        return ""
    noise = (m.get("controls") or {}).get("matched gaussian")
    if not known(noise) or not known(m.get("value")):
        return ""
    below = m["value"] < noise
    text = f"Gaussian noise of the same covariance and n reads {number_text(noise)} at {point_name(m)}"
    if below:
        return text + ": the samples lie on fewer dimensions than their covariance alone explains."
    return text + ": the covariance alone explains the dimension."


def emergence_sentence(measurements: Sequence[Row], name: str, points: Sequence[str]) -> str:
    """Say at which point, in order of depth, `name` first clears chance and stays clear."""
    rows = {m.get("point"): m for m in trained(measurements, name)}
    clear = [
        p
        for p in points
        if p in rows
        and all(known(rows[p].get(k)) for k in ("low", "null"))
        and rows[p]["low"] > rows[p]["null"]
    ]
    seen = [p for p in points if p in rows and known(rows[p].get("value"))]
    if not seen:
        return ""
    if not clear:
        where = f"At none of the {len(seen)} points" if len(seen) > 1 else f"Not even at {seen[0]}"
        return f"{where} does the interval of {name} clear chance: no categories emerge."
    if clear == seen:
        return f"Categories are readable at every one of the {len(seen)} points, from {seen[0]} on."
    return f"Categories are readable at {len(clear)} of {len(seen)} points, first at {clear[0]}."


def control_sentence(m: Row) -> str:
    """Say which control comes closest to the value, and by how much it is beaten."""
    held = baselines(m)
    if not held or not known(m.get("value")):
        return "" if held else f"No baseline was measured beside {m['name']}."
    name, value = max(held.items(), key=lambda item: item[1])
    if value >= m["value"]:
        return (
            f"The control “{name}” reaches {number_text(value)}, no less than the "
            f"{number_text(m['value'])} measured."
        )
    gap = number_text(m["value"] - value)
    return f"Its strongest control, “{name}”, reaches {number_text(value)}, {gap} below it."


def bias_sentence(m: Row) -> str:
    """Say how much of the biased CKA is bias."""
    biased, null = ((m.get("controls") or {}).get(k) for k in ("biased", "biased null"))
    if biased is None or not known(biased) or not known(m.get("value")):
        return ""
    if null is not None and known(null):
        return (
            f"The biased estimator would read {number_text(biased)}, where spaces with nothing in common already "
            f"read {number_text(null)} at this n and these widths."
        )
    return (
        f"The biased estimator would read {number_text(biased)}: {number_text(biased - m['value'])} "
        "of that is "
        f"what {m.get('n', 'this many')} samples of wide features give without any shared structure."
    )


def ratio_sentence(vlm: Row | None, decoder: Row | None) -> str:
    """Say how the two intrinsic dimensions compare and whether the samples can carry them."""
    if vlm is None or decoder is None:
        return "The two spaces cannot be compared: one of them has no defined dimension."
    ratio = decoder["value"] / vlm["value"] if vlm["value"] else math.nan
    text = (
        f"By {vlm['name']} the VLM has {number_text(vlm['value'])} dimensions at {point_name(vlm)} "
        "and the decoder "
        f"{number_text(decoder['value'])} at {point_name(decoder)}, a ratio of {number_text(ratio)}."
    )
    largest, n = max(vlm["value"], decoder["value"]), vlm.get("n") or 0
    if n and largest > n / 20:
        text += (
            f" At n = {n} estimates above about {n // 20} are held down by the sample size: read "
            "them as lower limits."
        )
    return text


def spread_sentence(rows: Sequence[Row]) -> str:
    """Say how far one estimator's values run over the points."""
    low, high = best(rows, lower=True), best(rows)
    if low is None or high is None or low is high:
        return ""
    return (
        f"Over {len(rows)} points {low['name']} runs from {number_text(low['value'])} at "
        f"{point_name(low)} to {number_text(high['value'])} at {point_name(high)}."
    )


def changes_for(verdict: Mapping[str, Any]) -> list[str]:
    """Say what would have to happen for a threshold verdict to become another one."""
    if not verdict:
        return []
    title, limit, word = verdict["title"], verdict["threshold"], verdict["verdict"]
    value, low, high = (number(verdict.get(k)) for k in ("value", "low", "high"))
    sign = 1 if verdict["comparison"] == ">" else -1
    if not (known(value) and known(low) and known(high)):
        return [
            f"{title} is not judged ({verdict['why']}); a defined number with an interval would decide it."
        ]
    near = low if sign > 0 else high
    far = high if sign > 0 else low
    asked = f"{verdict['comparison']} {limit:g}"
    if word == "PASS":
        gap = number_text(abs(near - limit))
        return [f"{title} would stop passing {asked} if the near end of its interval moved by {gap}."]
    if word == "FAIL":
        return [
            f"{title} would need the far end of its interval to move by more than "
            f"{number_text(abs(limit - far))} before {asked} was even open, and the near end by "
            f"{number_text(abs(limit - near))} to pass."
        ]
    margin = abs(value - limit)
    if not low <= limit <= high:
        return [f"{title} is on the good side of {asked}, but not told from chance: {verdict['why']}."]
    if margin == 0:
        return [f"{title} sits exactly on {limit:g}: no number of samples is known to settle it."]
    half = abs(value - near) if sign * (value - limit) > 0 else abs(far - value)
    factor = (half / margin) ** 2
    side = "PASS" if sign * (value - limit) > 0 else "FAIL"
    return [
        f"If {title} stayed at {number_text(value)}, about {factor:.1f} times as many independent "
        f"samples would narrow its interval enough to say {side} (widths shrink as 1/√n)."
    ]

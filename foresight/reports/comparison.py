"""Two runs side by side: which numbers moved, and whether by more than their intervals allow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from foresight.decisions.verdicts import number
from foresight.reports.tables import short

Z95 = 1.959964
Key = tuple[str, str, int, str, str, str]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a comparison needs of one run, as plain values."""

    name: str
    """How people call it; shown, never opened."""
    measurements: Sequence[Mapping[str, Any]]
    decision: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    models: Sequence[Mapping[str, Any]] = ()
    recipes: Sequence[Mapping[str, Any]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Change:
    """One number in both runs."""

    row: str
    name: str
    point: str
    variant: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    difference: float
    """After − before; nan when either is undefined."""
    low: float
    """95 % interval of the difference."""
    high: float
    p: float
    """Two-sided p of no difference, before correction; nan without both intervals."""
    p_holm: float
    """The same, corrected over all numbers compared (Holm 1979)."""
    word: str
    """'moved', 'within noise', 'identical' or "can't tell"."""
    why: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All numbers of two runs, joined by row, metric, model's place, point, target and variant."""

    before: Run
    after: Run
    changes: Sequence[Change]
    only_before: Sequence[Mapping[str, Any]]
    only_after: Sequence[Mapping[str, Any]]
    settings: Sequence[tuple[str, str, str]]
    """(what, before, after) of everything about the runs that differs."""

    def count(self, word: str) -> int:
        return sum(c.word == word for c in self.changes)


def compare(before: Run, after: Run, *, level: float = 0.05) -> Comparison:
    """Compare two runs number by number.

    The intervals are read as normal and independent: the standard error of a difference is
    √(w₁² + w₂²) / (2 · 1.96) from the two interval widths. Runs on the same samples are positively
    dependent, so this calls fewer changes than a paired test would. A number has 'moved' when its p,
    corrected over all numbers that differ (Holm 1979, Scandinavian Journal of Statistics 6), is below
    `level`.
    """
    first, second = _keyed(before), _keyed(after)
    joined = [k for k in first if k in second]
    raw = [_difference(first[k], second[k]) for k in joined]
    corrected = holm([p for *_, p in raw])
    changes = []
    for key, (difference, low, high, p), p_holm in zip(joined, raw, corrected, strict=True):
        a, b = first[key], second[key]
        word, why = _word(a, b, difference, p_holm, level)
        changes.append(
            Change(
                row=key[0],
                name=key[1],
                point=_where(a),
                variant=str(a.get("variant") or ""),
                before=a,
                after=b,
                difference=difference,
                low=low,
                high=high,
                p=p,
                p_holm=p_holm,
                word=word,
                why=why,
            )
        )
    return Comparison(
        before=before,
        after=after,
        changes=changes,
        only_before=[m for k, m in first.items() if k not in second],
        only_after=[m for k, m in second.items() if k not in first],
        settings=settings_changed(before, after),
    )


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p; nan stays nan and does not count as a test."""
    order = sorted((i for i, v in enumerate(p) if not math.isnan(v)), key=lambda i: p[i])
    adjusted, running = [math.nan] * len(p), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p[i]))
        adjusted[i] = running
    return adjusted


def settings_changed(before: Run, after: Run) -> list[tuple[str, str, str]]:
    """Return (what, before, after) of data, models, recipes and versions that differ."""
    a, b = _facts(before), _facts(after)
    return [
        (k, a.get(k, "absent"), b.get(k, "absent")) for k in dict.fromkeys([*a, *b]) if a.get(k) != b.get(k)
    ]


def _facts(run: Run) -> dict[str, str]:
    facts = {f"data.{k}": str(run.data[k]) for k in ("source", "n", "manifest") if k in run.data}
    if "skipped" in run.data:
        facts["data.files that could not be used"] = str(len(run.data["skipped"]))
    for role, models in _by_role(run).items():
        for i, model in enumerate(models):
            place = role if len(models) == 1 else f"{role} {i + 1}"
            for k, v in model.items():
                facts[f"{place}.{k}"] = ", ".join(map(str, v)) if isinstance(v, list | tuple) else short(v)
    versions: dict[str, set[str]] = {}
    for recipe in run.recipes:
        versions.setdefault(str(recipe.get("operation")), set()).add(str(recipe.get("version")))
    facts |= {f"operation.{k}.version": ", ".join(sorted(v)) for k, v in versions.items()}
    return facts | {f"version.{k}": str(v) for k, v in run.versions.items()}


def _by_role(run: Run) -> dict[str, list[Mapping[str, Any]]]:
    roles: dict[str, list[Mapping[str, Any]]] = {}
    for model in run.models:
        roles.setdefault(str(model.get("role") or "model"), []).append(model)
    return roles


def _keyed(run: Run) -> dict[Key, Mapping[str, Any]]:
    # a model change changes the card, so models are joined by their place in the run and not by name
    cards: dict[str, int] = {}
    keyed: dict[Key, Mapping[str, Any]] = {}
    for m in run.measurements:
        place = cards.setdefault(str(m.get("model") or ""), len(cards))
        named = ("point", "target", "variant")
        key = (str(m["row"]), str(m["name"]), place, *(str(m.get(k) or "") for k in named))
        if key in keyed:
            raise ValueError(
                f"a run has each number once, but {run.name} has {key} twice; give `model`, `point` "
                "or `target`"
            )
        keyed[key] = m  # type: ignore[index]
    return keyed  # type: ignore[return-value]


def _difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Return (difference, low, high, p); nan where an end is missing."""
    ends = [(number(m.get("value")), number(m.get("low")), number(m.get("high"))) for m in (a, b)]
    difference = ends[1][0] - ends[0][0]
    if _identical(a, b):
        # not a test: it must not cost the numbers that do differ their correction
        return difference, math.nan, math.nan, math.nan
    error = math.hypot(*(high - low for _, low, high in ends)) / (2 * Z95)
    if math.isnan(difference) or math.isnan(error):
        return difference, math.nan, math.nan, math.nan
    if error == 0:
        return difference, difference, difference, math.nan
    p = math.erfc(abs(difference) / error / math.sqrt(2))
    return difference, difference - Z95 * error, difference + Z95 * error, p


def _word(
    a: Mapping[str, Any], b: Mapping[str, Any], difference: float, p_holm: float, level: float
) -> tuple[str, str]:
    if _identical(a, b):
        return "identical", "the same in both runs"
    for side, m in (("before", a), ("after", b)):
        if math.isnan(number(m.get("value"))):
            return "can't tell", f"undefined {side}: {m.get('why') or 'no reason was recorded'}"
    if math.isnan(p_holm):
        return "can't tell", "one of the numbers has no interval to judge the difference by"
    return ("moved", "") if p_holm < level else ("within noise", "")


def _identical(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Return whether both runs say the same, be it that the number is undefined for the same reason."""
    numbers = [[number(m.get(k)) for k in ("value", "low", "high")] for m in (a, b)]
    equal = all(x == y or (x != x and y != y) for x, y in zip(*numbers, strict=True))
    return equal and all(a.get(k) == b.get(k) for k in ("n", "why"))


def _where(m: Mapping[str, Any]) -> str:
    return f"{m.get('point') or ''}" + (f" → {m['target']}" if m.get("target") else "")

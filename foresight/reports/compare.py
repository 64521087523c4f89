"""The comparison page: what changed between two runs, what moved, and what it did to the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foresight.reports import figures
from foresight.reports.comparison import Change, Comparison, Run, compare
from foresight.reports.page import Cell, Figure, Headline, Report, Section, Table, number_text
from foresight.reports.q1_rows import lead_name, real
from foresight.reports.q1_sections import TITLES
from foresight.reports.tables import (
    file_name,
    interval_cell,
    known,
    measurement_table,
    number_cell,
    p_text,
    value_cell,
)

WORDS = ("moved", "within noise", "identical", "can't tell")


def build_comparison_report(before: Run, after: Run) -> Report:
    """Return the page that compares two runs of one experiment; equal runs give an equal page."""
    c = compare(before, after)
    if not c.changes:
        raise ValueError(
            f"two runs are compared by the numbers they share, but {before.name} "
            f"({len(before.measurements)}) and "
            f"{after.name} ({len(after.measurements)}) share none; compare runs of one experiment"
        )
    counts = ", ".join(f"{c.count(w)} {w}" for w in WORDS if c.count(w))
    rows = list(dict.fromkeys(change.row for change in c.changes))
    return Report(
        title=f"{before.name} against {after.name}",
        verdict=_headline(c, counts),
        summary=[
            ("Before", before.name),
            ("After", after.name),
            ("Numbers in both", str(len(c.changes))),
            ("Only before", str(len(c.only_before))),
            ("Only after", str(len(c.only_after))),
            ("Verdict", f"{_overall(before)} → {_overall(after)}"),
        ],
        models=_settings(c),
        sections=[*_verdicts(c), *(_section(c, row) for row in rows), *_unmatched(c)],
        methods=[" ".join((compare.__doc__ or "").split("\n\n", 1)[1].split())],
        provenance=[(f"before: {k}", str(v)) for k, v in before.versions.items()]
        + [(f"after: {k}", str(v)) for k, v in after.versions.items()],
        measurements=[_raw(change) for change in c.changes],
    )


def _overall(run: Run) -> str:
    return str(run.decision.get("overall") or "no decision")


def _headline(c: Comparison, counts: str) -> Headline:
    moved = [x for x in c.changes if x.word == "moved"]
    if moved:
        top = max(moved, key=lambda x: abs(x.difference) / max(abs(x.high - x.low), 1e-12))
        sentence = f"{counts}. Furthest beyond noise: {_told(top)}."
    else:
        sentence = f"{counts}. No number moved by more than its interval allows."
    if _overall(c.before) != _overall(c.after):
        sentence += f" The verdict changed from {_overall(c.before)} to {_overall(c.after)}."
    word = (
        "MOVED"
        if moved
        else "IDENTICAL"
        if c.count("identical") == len(c.changes)
        else "NO CHANGE BEYOND NOISE"
    )
    score = c.after.decision.get("composite") or {}
    band = c.after.decision.get("band") or {}
    was = (c.before.decision.get("composite") or {}).get("value")
    return Headline(
        word=word,
        sentence=sentence,
        score=real(score.get("value")),
        low=real(score.get("low")),
        high=real(score.get("high")),
        band=f"After: {band['word']}." if band else "",
        band_why=f"Before, the composite was {number_text(was)}." if band else "",
        borders=(0.2, 0.4, 0.6) if band else (),
        reasons=[]
        if c.settings
        else ["Nothing about data, models, operations or versions differs between the two runs."],
    )


def _told(x: Change) -> str:
    where = f" at {x.point}" if x.point else ""
    variant = f" ({x.variant})" if x.variant and x.variant != "trained" else ""
    return (
        f"{x.name}{variant}{where}, {number_text(x.before.get('value'))} → "
        f"{number_text(x.after.get('value'))} "
        f"(difference {number_text(x.difference)}, 95 % interval {number_text(x.low)} to "
        f"{number_text(x.high)})"
    )


def _settings(c: Comparison) -> Table | None:
    if not c.settings:
        return None
    rows = [[Cell(text=w), Cell(text=a, kind="mono"), Cell(text=b, kind="mono")] for w, a, b in c.settings]
    return Table(caption="What differs between the runs", columns=["what", "before", "after"], rows=rows)


def _verdicts(c: Comparison) -> list[Section]:
    old = {v["name"]: v for v in c.before.decision.get("verdicts", ())}
    new = {v["name"]: v for v in c.after.decision.get("verdicts", ())}
    shared = [name for name in old if name in new]
    if not shared:
        return []
    rows = [
        [
            Cell(text=old[k]["title"]),
            Cell(text=f"{old[k]['comparison']} {old[k]['threshold']:g}", kind="number"),
            value_cell(old[k]),
            Cell(text=old[k]["verdict"], kind="word"),
            value_cell(new[k]),
            Cell(text=new[k]["verdict"], kind="word"),
        ]
        for k in shared
    ]
    columns = ["threshold", "asked", "before", "verdict before", "after", "verdict after"]
    turned = [old[k]["title"] for k in shared if old[k]["verdict"] != new[k]["verdict"]]
    text = f"Changed verdicts: {', '.join(turned)}." if turned else "No threshold's verdict changed."
    return [
        Section(
            id="verdicts",
            title="Thresholds before and after",
            text=[text],
            tables=[Table(caption="Verdicts", columns=columns, rows=rows)],
        )
    ]


def _section(c: Comparison, row: str) -> Section:
    changes = [x for x in c.changes if x.row == row]
    moved = [x for x in changes if x.word == "moved"]
    text = [f"{len(moved)} of {len(changes)} numbers moved by more than their intervals allow."]
    text += [f"Most: {_told(max(moved, key=lambda x: abs(x.difference)))}."] if moved else []
    differ = [x for x in changes if x.word != "identical"]
    same = [x for x in changes if x.word == "identical"]
    if not differ:
        text = [f"All {len(changes)} numbers are identical in both runs."]
    tables = (
        [_table(f"{len(differ)} of {len(changes)} numbers are not identical, moved ones first", differ)]
        if differ
        else []
    )
    if same:
        tables.append(_table(f"{len(same)} identical numbers", same, folded=True))
    pictures = _curve(c, row, changes) if any(x.difference for x in differ if known(x.difference)) else []
    return Section(id=row, title=TITLES.get(row, row), figures=pictures, tables=tables, text=text)


def _curve(c: Comparison, row: str, changes: Sequence[Change]) -> list[Figure]:
    places: dict[bool, set[str]] = {True: set(), False: set()}
    for model in (*c.before.models, *c.after.models):
        places[model.get("role") == "decoder"] |= set(map(str, model.get("points", ())))
    # a decoder's latent is no layer of the VLM: joining it to the curve would draw a step that is not there
    aside = places[True] - places[False]
    trained = [x for x in changes if "random" not in x.variant.lower() and x.point not in aside]
    if not trained:
        return []
    lead = lead_name([{"name": x.name} for x in trained], row)
    mine = [x for x in trained if x.name == lead]
    points = [x.point for x in mine]
    if len(points) < 2 or len(set(points)) != len(points):
        return []
    series = [
        figures.Series(
            name=side,
            value=[real(getattr(x, side).get("value")) for x in mine],
            low=[real(getattr(x, side).get("low")) for x in mine],
            high=[real(getattr(x, side).get("high")) for x in mine],
        )
        for side in ("before", "after")
    ]
    alt = f"{lead} before and after: " + "; ".join(
        f"{x.point} {number_text(x.before.get('value'))} to {number_text(x.after.get('value'))}" for x in mine
    )
    caption = f"{lead} by extraction point in both runs; bands are 95 % intervals."
    picture = figures.layer_curve(points, series, ylabel=lead)
    return [Figure.of(picture, name=f"compare-{file_name(lead)}", alt=alt, caption=caption)]


def _table(caption: str, changes: Sequence[Change], *, folded: bool = False) -> Table:
    columns = [
        "metric",
        "point",
        "variant",
        "before",
        "after",
        "difference",
        "95 % interval",
        "p (Holm)",
        "word",
    ]
    order = sorted(changes, key=lambda x: WORDS.index(x.word))
    lines = [
        [
            Cell(text=x.name),
            Cell(text=x.point),
            Cell(text=x.variant),
            value_cell(x.before),
            value_cell(x.after),
            number_cell(x.difference),
            interval_cell({"value": x.difference, "low": x.low, "high": x.high, "why": x.why}),
            Cell(text=p_text(x.p_holm), kind="number"),
            Cell(text=x.word, kind="word"),
        ]
        for x in order
    ]
    return Table(caption=caption, columns=columns, rows=lines, folded=folded)


def _unmatched(c: Comparison) -> list[Section]:
    parts = (("Only before", c.only_before), ("Only after", c.only_after))
    tables = [measurement_table(rows, caption=caption) for caption, rows in parts if rows]
    if not tables:
        return []
    text = "These numbers exist in one run only, so nothing is said about them."
    return [Section(id="unmatched", title="Numbers without a partner", text=[text], tables=tables)]


def _raw(x: Change) -> Mapping[str, Any]:
    return {
        "row": x.row,
        "name": x.name,
        "point": x.point,
        "variant": x.variant,
        "before": x.before.get("value"),
        "after": x.after.get("value"),
        "difference": x.difference,
        "low": x.low,
        "high": x.high,
        "p": x.p,
        "p_holm": x.p_holm,
        "word": x.word,
        "why": x.why,
    }

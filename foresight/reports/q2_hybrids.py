"""What a second model adds to the first, from numbers of both alone and side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foresight.decisions.spatial import LEADS, alone, best, hybrids
from foresight.probes import FLOORS, PATCHES, RANDOM
from foresight.reports.page import Cell, Section, Table, number_text
from foresight.reports.tables import interval_cell, known, value_cell

Row = Mapping[str, Any]


def said(rows: Sequence[Row]) -> str:
    """Say where the metric of `rows`, numbers of two models side by side, is best; '' when there is none."""
    top = best(rows, lower=False)
    if top is None:
        return ""
    controls = top["controls"]
    floor = max(controls[name] for name in FLOORS)
    return (
        f"With a second model beside it, it is {number_text(top['value'])} at {top['point']}; no control without "
        f"the grid gives more than {number_text(floor)} there, both models with random weights give "
        f"{number_text(controls[RANDOM])}, and the pixels themselves {number_text(controls[PATCHES])}."
    )


def section(measurements: Sequence[Row]) -> list[Section]:
    """Return the section that holds two models side by side against one alone; none without such numbers.

    The judged metrics, each at the point where it is best alone and where it is best side by side.
    """
    rows: list[list[Cell]] = []
    gains: list[str] = []
    drops: list[str] = []
    for row, metric in LEADS.values():
        lower = metric == "LPIPS"
        mine = [m for m in measurements if m["row"] == row and m["name"] == metric]
        one, two = best(alone(mine), lower=lower), best(hybrids(mine), lower=lower)
        if one is None or two is None:
            continue
        rows.append([Cell(text=metric), *_cells(one), *_cells(two)])
        if _clear(one, two):
            better = (two["value"] < one["value"]) == lower
            (gains if better else drops).append(metric)
    if not rows:
        return []
    table = Table(
        caption="Each judged metric where it is best: one model alone, and two side by side",
        columns=["metric", "alone at", "value", "95 % interval", "side by side at", "value", "95 % interval"],
        rows=rows,
    )
    return [
        Section(
            id="Q2.H",
            title="Does a second model bring places back?",
            tables=[table],
            text=[
                "The features of both models stand side by side in every cell of the coarser grid, brought there by "
                "the area their cells share; probe, split, budget and number of principal axes are those of one model. "
                "Thresholds are judged on one model alone.",
                _told(gains, "better"),
                _told(drops, "worse"),
            ],
        )
    ]


def _told(metrics: Sequence[str], which: str) -> str:
    """Say which metrics lie outside what the other's interval allows."""
    if not metrics:
        return f"No judged metric is {which} side by side than alone by more than the intervals allow."
    verb = "is" if len(metrics) == 1 else "are"
    return f"Side by side, {', '.join(metrics)} {verb} {which} than alone: the intervals do not touch."


def _clear(one: Row, two: Row) -> bool:
    """Whether the intervals do not touch."""
    if not (known(one.get("low")) and known(two.get("low"))):
        return False
    return bool(two["low"] > one["high"] or two["high"] < one["low"])


def _cells(m: Row) -> list[Cell]:
    return [Cell(text=str(m["point"])), value_cell(m), interval_cell(m)]

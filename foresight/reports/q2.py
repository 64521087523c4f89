"""The Q2 report, from plain measurements: where places are lost, and what every number is held against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from foresight.decisions.spatial import LEADS, alone, best, hybrids
from foresight.probes import CONTROLS, FLOORS, PATCHES, RANDOM
from foresight.reports import figures, q2_hybrids, q2_pictures
from foresight.reports.page import Cell, Figure, Report, Section, Table, number_text
from foresight.reports.q1 import headline
from foresight.reports.recipes import models_table, recipes_table
from foresight.reports.tables import (
    capitalised,
    file_name,
    interval_cell,
    known,
    measurement_table,
    measurements_csv,
    number_cell,
    numbers_of,
    of_one_model,
    point_name,
    value_cell,
)

Row = Mapping[str, Any]
TITLES = {
    "Q2.1": "Can the place of the largest object be read off the tokens?",
    "Q2.2": "Can all objects be found and named?",
    "Q2.3": "How much fine detail do tokens keep?",
    "Q2.4": "Can the direction of motion be read?",
}


@dataclass(frozen=True, kw_only=True)
class Q2Inputs:
    """Everything the report shows, as plain values. None means undefined; then `why` says why."""

    measurements: Sequence[Row]
    """Rows {row, name, model, point, variant, value, low, high, null, p, n, n_effective, controls, why, detail},
    along each model's path from the first point to the last."""
    decision: Mapping[str, Any]
    """What `q2_decision` returns."""
    about: Mapping[str, str]
    """What is trained and scored, by row."""
    data: Mapping[str, Any]
    """{source, n, skipped: [{key, why}]}."""
    models: Sequence[Mapping[str, Any]]
    """{card, role, params, points, fingerprint}."""
    boxes: Mapping[str, Sequence[tuple[str, Sequence[Mapping[str, Any]]]]] = field(default_factory=dict)
    """By row: lines of (point, [{picture, truth, found}])."""
    rebuilt: Sequence[tuple[str, Sequence[bytes]]] = ()
    """Lines of (point, PNGs), the true pictures first."""
    recipes: Sequence[Mapping[str, Any]] = ()
    """{id, operation, version, settings, inputs}."""
    versions: Mapping[str, str] = field(default_factory=dict)
    title: str = "Q2: where is spatial information lost?"


def build_q2_report(inputs: Q2Inputs) -> Report:
    """Return the report of one Q2 run. Equal inputs give an equal report, to the byte."""
    judged = inputs.decision.get("judged_at") or {}
    return Report(
        title=inputs.title,
        verdict=headline({**inputs.decision, "best_point": ""}),  # each threshold has a point of its own
        summary=[
            ("Data", str(inputs.data["source"])),
            ("Samples", str(inputs.data["n"])),
            ("Files that could not be used", str(len(inputs.data["skipped"]))),
            ("Numbers measured", str(sum(known(m.get("value")) for m in inputs.measurements))),
            ("Controls beside each", ", ".join(CONTROLS)),
            *((f"{LEADS[name][1]} judged at", str(point)) for name, point in judged.items()),
        ],
        models=models_table(inputs.models),
        sections=[
            *(_section(inputs, row) for row in _rows(inputs)),
            *q2_hybrids.section(inputs.measurements),
            _controls(inputs),
            _losses(inputs),
        ],
        methods=_methods(inputs),
        provenance=[(str(k), str(v)) for k, v in inputs.versions.items()],
        skipped=[(str(s["key"]), str(s["why"])) for s in inputs.data["skipped"]],
        measurements=inputs.measurements,
        downloads=[("measurements.csv", "text/csv", measurements_csv(inputs.measurements).encode())],
    )


def curve(rows: Sequence[Row], *, threshold: float | None = None) -> Figure:
    """Return one metric along the points of one model, the controls without the grid as a band."""
    # what stands beside every point is told once, by the name of the model
    points = [str(m["point"]).removesuffix(f"+{m['detail'].get('beside')}") for m in rows]
    floors = [[_real(m["controls"].get(name)) for name in FLOORS] for m in rows]
    series = [
        figures.Series(
            name="tokens in their places",
            value=[_real(m["value"]) for m in rows],
            low=[_real(m["low"]) for m in rows],
            high=[_real(m["high"]) for m in rows],
        ),
        figures.Series(name=RANDOM, value=[_real(m["controls"].get(RANDOM)) for m in rows], role="untrained"),
        figures.Series(
            name=f"{PATCHES} (ceiling)",
            value=[_real(m["controls"].get(PATCHES)) for m in rows],
            role="control",
        ),
        figures.Series(
            name="controls without the grid",
            value=[_real(m["detail"]["floor"]) for m in rows],
            low=[min(f) for f in floors],
            high=[max(f) for f in floors],
            role="control",
        ),
    ]
    name, model = str(rows[0]["name"]), str(rows[0]["model"])
    return Figure.of(
        figures.layer_curve(points, series, ylabel=name, threshold=threshold),
        name=f"curve-{file_name(name)}-{file_name(model)}",
        alt=f"{name} of {model} by extraction point: "
        + "; ".join(f"{p} {number_text(_real(m['value']))}" for p, m in zip(points, rows, strict=True)),
        caption=f"{name} of {model} by extraction point, {rows[0]['n']} test samples. The band around the line is "
        "the 95 % interval over groups; the grey band holds constant prediction, mean-pooled tokens and shuffled "
        "positions, its line the best of them.",
    )


def _rows(inputs: Q2Inputs) -> list[str]:
    present = {m["row"] for m in inputs.measurements}
    return [row for row in TITLES if row in present]


def _section(inputs: Q2Inputs, row: str) -> Section:
    mine = [m for m in inputs.measurements if m["row"] == row]
    measured = [m for m in mine if known(m.get("value"))]
    limits = {v["name"]: v for v in inputs.decision["verdicts"]}
    verdicts = [limits[n] for n, (r, _) in LEADS.items() if r == row and n in limits]
    if not measured:
        return Section(
            id=row,
            title=TITLES[row],
            text=[f"Not measured: {mine[0].get('why')}."],
            verdict=verdicts[0]["verdict"] if verdicts else "",
        )
    by_metric = {LEADS[v["name"]][1]: v["threshold"] for v in verdicts}
    pictures: list[Figure] = []
    for name in dict.fromkeys(m["name"] for m in measured):
        for model in dict.fromkeys(m["model"] for m in measured):
            path = [m for m in measured if m["name"] == name and m["model"] == model]
            if len(path) > 1:
                pictures.append(curve(path, threshold=by_metric.get(name)))
    pictures += _gallery(inputs, row)
    shown = [m for m in of_one_model(inputs.measurements) if m["row"] == row]
    tables = [measurement_table(shown, caption=numbers_of(len(mine), row), folded=len(mine) > 12)]
    if row == "Q2.1":
        tables = [*_capacity(shown), *tables]
    lead = [m for m in measured if m["name"] == measured[0]["name"]]
    return Section(
        id=row,
        title=TITLES[row],
        figures=pictures,
        tables=tables,
        text=[inputs.about[row], _said(alone(lead)), *filter(None, [q2_hybrids.said(hybrids(lead))])],
        verdict=verdicts[0]["verdict"] if len(verdicts) == 1 else "",
    )


def _said(lead: Sequence[Row]) -> str:
    """Say where the metric is best, how far above the controls, and what the other points do."""
    top = best(lead, lower=False)
    if top is None:
        return ""
    controls = top["controls"]
    floor = max(controls[name] for name in FLOORS)
    of_points = f", the highest of {len(lead)} points" if len(lead) > 1 else ""
    text = (
        f"{capitalised(str(top['name']))} is {number_text(top['value'])} at {top['point']}{of_points}; no control "
        f"without the grid gives more than {number_text(floor)} there, random weights give "
        f"{number_text(controls[RANDOM])}, and the pixels themselves {number_text(controls[PATCHES])}."
    )
    blind = [str(m["point"]) for m in lead if m["detail"]["knows places"] is False]
    if blind:
        text += (
            f" At {', '.join(blind)} the interval does not clear them: nothing about places is shown there."
        )
    untrained = [
        str(m["point"]) for m in lead if known(m["low"]) and m["low"] <= m["controls"][RANDOM] <= m["high"]
    ]
    if untrained:
        text += f" At {', '.join(untrained)} random weights do as well: that is the picture, not training."
    return text


def _gallery(inputs: Q2Inputs, row: str) -> list[Figure]:
    if lines := inputs.boxes.get(row):
        names = ", ".join(name for name, _ in lines)
        return [
            Figure.of(
                q2_pictures.boxes(lines),
                name=f"boxes-{file_name(row)}",
                wide=True,
                alt=f"Test samples with true boxes and those read at {names}",
                caption=f"The first {len(lines[0][1])} test samples at {names}.",
            )
        ]
    if row == "Q2.3" and inputs.rebuilt:
        names = ", ".join(name for name, _ in inputs.rebuilt)
        return [
            Figure.of(
                q2_pictures.rebuilt(inputs.rebuilt),
                name="rebuilt",
                wide=True,
                alt=f"Test samples and what a linear map rebuilds of them: {names}",
                caption="What one linear map per token rebuilds of the first test samples.",
            )
        ]
    return []


def _capacity(measured: Sequence[Row]) -> list[Table]:
    swept = [m for m in measured if (m.get("detail") or {}).get("box IoU by hidden features")]
    if not swept:
        return []
    sizes = list(swept[0]["detail"]["box IoU by hidden features"])
    rows = [
        [
            Cell(text=point_name(m)),
            *(number_cell(m["detail"]["box IoU by hidden features"][s]) for s in sizes),
            number_cell(m["value"]),
            number_cell(m["detail"]["floor"]),
        ]
        for m in swept
    ]
    return [
        Table(
            caption="Box IoU by the size of the probe: it should not decide the order of the points",
            columns=["point", *(f"{s} hidden features" for s in sizes), "as reported", "best control"],
            rows=rows,
        )
    ]


def _controls(inputs: Q2Inputs) -> Section:
    """Q2.5: the judged metrics where they are best, beside every control."""
    rows = []
    for row, metric in LEADS.values():
        mine = [m for m in inputs.measurements if m["row"] == row and m["name"] == metric]
        tops = (best(part, lower=metric == "LPIPS") for part in (alone(mine), hybrids(mine)))
        rows += [
            [
                Cell(text=f"{metric} at {top['point']}"),
                value_cell(top),
                interval_cell(top),
                *(number_cell(top["controls"].get(name)) for name in CONTROLS),
            ]
            for top in tops
            if top is not None
        ]
    table = Table(
        caption="Each judged metric where it is best, beside its controls",
        columns=["metric", "value", "95 % interval", *CONTROLS],
        rows=rows,
    )
    return Section(
        id="Q2.5",
        title="What makes these numbers mean something",
        tables=[table] if rows else [],
        text=[
            "Every number is measured with the same probe, split and training budget under five controls, and "
            "cannot be produced without them. A constant prediction, mean-pooled tokens and shuffled positions do "
            "not see where tokens stand: what does not clear them is not read off the grid. Random weights show what "
            "the architecture "
            "alone passes on. Raw patches on the same grid show what could be had.",
        ],
    )


def _losses(inputs: Q2Inputs) -> Section:
    steps = inputs.decision.get("losses") or ()
    several = any(m["model"] for m in of_one_model(inputs.measurements))
    rows = [
        [
            Cell(text=(f"{s['model']} · " if several else "") + f"{s['before']} → {s['after']}"),
            Cell(text=str(s["metric"])),
            *(Cell(text=f"{number_text(v)} [{number_text(low)}, {number_text(high)}]", kind="number")
              for v, low, high in (s["from"], s["to"])),
        ]
        for s in steps
    ]  # fmt: skip
    text = (
        "Between these neighbouring points a judged metric drops by more than both intervals allow."
        if rows
        else "Between no two neighbouring points does a judged metric drop by more than the intervals allow."
    )
    table = Table(caption="Where places are lost", columns=["step", "metric", "before", "after"], rows=rows)
    return Section(
        id="Q2.D",
        title="Where is it lost?",
        text=[text],
        tables=[table] if rows else [],
        verdict=str(inputs.decision["overall"]),
    )


def _methods(inputs: Q2Inputs) -> list[Table | str]:
    parts: list[Table | str] = [
        "Tokens of every point are standardised and brought to the same number of principal axes, fitted on training "
        "samples alone; then the same probe is trained with the same budget on the same split by group.",
        *(f"{k.capitalize()}: {v}" for k, v in inputs.decision["rules"].items()),
    ]
    return [*parts, *recipes_table(inputs.recipes)]


def _real(value: Any) -> float:
    return math.nan if value is None else float(value)

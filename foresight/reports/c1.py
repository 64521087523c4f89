"""The C1 report, from plain measurements: what can be rebuilt, from where, and what every number is held against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from foresight.probes import CONSTANT, PATCHES
from foresight.reports import c1_pictures, figures
from foresight.reports.c1_ablations import ablations
from foresight.reports.page import Figure, Headline, Report, Section, Table, Tile, number_text
from foresight.reports.q1_words import changes_for, with_interval
from foresight.reports.recipes import models_table, recipes_table
from foresight.reports.tables import (
    capitalised,
    file_name,
    known,
    measurement_table,
    measurements_csv,
    numbers_of,
    of_one_model,
    point_name,
)
from foresight.studies.reconstruction import CONSTANTS, FLOORS, POOLED, RANDOM, ROUND_TRIP, SHUFFLED, TOKENS

Row = Mapping[str, Any]
TITLES = {
    "C1.1": "Where samples lie in the latents",
    "C1.2": "Can the picture be rebuilt by a linear map?",
    "C1.3": "What does merging tokens cost?",
    "C1.4": "How exactly can the place of an object be read?",
    "C1.5": "What does a trained adapter make of it?",
    "C1.6": "Which layer, how large an adapter, how many samples?",
}
ABOUT = {
    "C1.1": "The mean token of every sample. Whether classes lie apart says nothing about places: pictures that "
    "look alike to this number can be far apart for a decoder.",
    "C1.2": "A ridge takes the tokens of a place to the decoder's latent of that place, and the decoder makes pixels "
    "of it. Its penalty is chosen on samples of their own; all numbers are of samples no map has seen.",
    "C1.3": "The same map just before and just after tokens are merged, each on the grid the model really has there. "
    "What comes after is a function of what came before, so a gain would be a gain in how linearly it is written "
    "down, never in information.",
    "C1.4": "Every token says how much of the largest object its cell holds; the box follows from where that is. "
    "Errors of centre and size are in shares of the frame's sides. The same probe reads the tokens of random weights "
    "and the pixels of each cell.",
    "C1.5": "An adapter trained on stored latents takes the tokens of the best point to the decoder's latent, and the "
    "decoder makes pixels. These are the numbers that are judged. The linear probe at the same point stands among the "
    "controls.",
    "C1.6": "The point, the adapter and the share of training samples: one changed at a time around the pipeline, or "
    "all crossed, as was asked. Every run has the same training budget and the same scored pictures.",
}
JUDGED = {"SSIM": "c1.ssim", "LPIPS": "c1.lpips"}


@dataclass(frozen=True, kw_only=True)
class C1Inputs:
    """Everything the report shows, as plain values. None means undefined; then `why` says why."""

    measurements: Sequence[Row]
    """Rows {row, name, model, point, variant, value, low, high, null, p, n, n_effective, controls, why, detail},
    points in order of depth."""
    decision: Mapping[str, Any]
    """`C1Decision.to_json()`."""
    data: Mapping[str, Any]
    """{source, n, skipped: [{key, why}]}."""
    models: Sequence[Mapping[str, Any]]
    """{card, role, params, points, fingerprint}."""
    labels: Sequence[str | None] = ()
    projections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By point: xy [sample 2] and the share of variance of each axis."""
    truth: Sequence[bytes] = ()
    """PNG of the first scored samples."""
    pictures: Mapping[str, Mapping[str, Sequence[bytes]]] = field(default_factory=dict)
    """By gallery, lines of PNGs by name, in the order of `truth`."""
    recipes: Sequence[Mapping[str, Any]] = ()
    """{id, operation, version, settings, inputs}."""
    versions: Mapping[str, str] = field(default_factory=dict)
    title: str = "C1: are the VLM's latents enough to rebuild the picture?"


def build_c1_report(inputs: C1Inputs) -> Report:
    """Return the report of one C1 run. Equal inputs give an equal report, to the byte."""
    return Report(
        title=inputs.title,
        verdict=headline(inputs.decision),
        summary=[
            ("Data", str(inputs.data["source"])),
            ("Samples", str(inputs.data["n"])),
            ("Samples scored", str(max((m["n"] for m in inputs.measurements if m["row"] == "C1.2"), default=0))),
            ("Files that could not be used", str(len(inputs.data["skipped"]))),
            ("Numbers measured", str(sum(known(m.get("value")) for m in inputs.measurements))),
            ("Judged at", f"{inputs.decision['best_point']}, {inputs.decision['pipeline']}"),
            ("Controls beside each", ", ".join((ROUND_TRIP, *FLOORS, RANDOM))),
        ],
        models=models_table(inputs.models),
        sections=[_section(inputs, row) for row in TITLES if any(m["row"] == row for m in inputs.measurements)],
        methods=_methods(inputs),
        provenance=[(str(k), str(v)) for k, v in inputs.versions.items()],
        skipped=[(str(s["key"]), str(s["why"])) for s in inputs.data["skipped"]],
        measurements=inputs.measurements,
        downloads=[("measurements.csv", "text/csv", measurements_csv(inputs.measurements).encode())],
    )  # fmt: skip


def headline(decision: Mapping[str, Any]) -> Headline:
    """Return the top of the page."""
    words = [v["verdict"] for v in decision["verdicts"]]
    counts = ", ".join(f"{words.count(w)} {w}" for w in ("PASS", "FAIL", "CAN'T TELL") if w in words)
    return Headline(
        word=str(decision["overall"]),
        sentence=f"Of {len(words)} thresholds at {decision['best_point']}, with the {decision['pipeline']}: {counts}.",
        tiles=[
            Tile(
                title=v["title"], verdict=v["verdict"], threshold=v["threshold"], comparison=v["comparison"],
                value=_real(v["value"]), low=_real(v["low"]), high=_real(v["high"]), why=v["why"],
            )
            for v in decision["verdicts"]
        ],
        reasons=[str(r) for r in decision["reasons"]],
        open_questions=[str(r) for r in decision["open_questions"]],
    )  # fmt: skip


def curve(rows: Sequence[Row], *, threshold: float | None = None) -> Figure:
    """Return one number along the points of one model: pooled and shuffled tokens, constants, the ceiling."""
    points = [str(m["point"]) for m in rows]
    constants = [
        [_real(m["controls"][c]) for c in (*CONSTANTS, CONSTANT) if c in m["controls"]] for m in rows
    ]
    series = [
        figures.Series(
            name=TOKENS,
            value=[_real(m["value"]) for m in rows],
            low=[_real(m["low"]) for m in rows],
            high=[_real(m["high"]) for m in rows],
        )
    ]
    controls = {RANDOM: "untrained", **dict.fromkeys((POOLED, SHUFFLED, ROUND_TRIP, PATCHES), "control")}
    for name, role in controls.items():
        values = [_real(m["controls"].get(name)) for m in rows]
        if any(map(math.isfinite, values)):
            series.append(figures.Series(name=name, value=values, role=role))  # type: ignore[arg-type]
    if all(constants):
        low, high = [min(p) for p in constants], [max(p) for p in constants]
        series.append(
            figures.Series(name="constant predictions", value=high, low=low, high=high, role="chance")
        )
    name, model = str(rows[0]["name"]), str(rows[0]["model"])
    return Figure.of(
        figures.layer_curve(points, series, ylabel=name, threshold=threshold),
        name=f"curve-{file_name(name)}-{file_name(model)}",
        alt=f"{name} of {model} by extraction point: "
        + "; ".join(f"{p} {number_text(_real(m['value']))}" for p, m in zip(points, rows, strict=True)),
        caption=f"{name} of {model} by extraction point, {rows[0]['n']} scored samples. The band is the 95 % interval "
        "over groups, and grey lines are controls. "
        + ("The decoder's round trip is the ceiling of any latent; constant predictions are the mean image and one "
           "colour." if ROUND_TRIP in rows[0]["controls"] else ""),
    )  # fmt: skip


def _section(inputs: C1Inputs, row: str) -> Section:
    mine = [m for m in inputs.measurements if m["row"] == row]
    shown = [m for m in of_one_model(inputs.measurements) if m["row"] == row]
    said = [m for m in shown if known(m.get("value"))]
    measured = [m for m in mine if known(m.get("value"))]
    verdicts = [v for v in inputs.decision["verdicts"] if row == "C1.5" and v["name"] in JUDGED.values()]
    text = [ABOUT[row]]
    pictures: list[Figure] = []
    if not measured:
        text.append(f"Not measured: {mine[0].get('why')}.")
    if row == "C1.1":
        pictures += _projections(inputs)
    if row == "C1.2" and measured:
        text += [_said(m) for m in said if _is_best(inputs, m) and m["name"] != "latent R²"]
        limits = {v["title"]: v["threshold"] for v in inputs.decision["verdicts"]}
        for path in _paths(measured):
            pictures.append(curve(path, threshold=limits.get(str(path[0]["name"]))))
        pictures += _galleries(inputs)
    if row == "C1.5":
        text += [_said(m) for m in said]
    if row == "C1.6" and measured:
        pictures += ablations(measured, best=str(inputs.decision["best_point"]))
    if row == "C1.4" and measured:
        text += [_place(m) for m in said if _is_best(inputs, m) and m["name"] == "spatial IoU"]
        limits = {v["title"].lower(): v["threshold"] for v in inputs.decision["verdicts"]}
        for path in _paths(measured):
            pictures.append(curve(path, threshold=limits.get(str(path[0]["name"]).lower())))
        verdicts = [v for v in inputs.decision["verdicts"] if v["name"] == "c1.spatial_iou"]
    if row == "C1.3":
        text += [_cost(m) for m in measured if m["variant"] != RANDOM]
    return Section(
        id=row,
        title=TITLES[row],
        figures=pictures,
        tables=[measurement_table(shown, caption=numbers_of(len(mine), row), folded=len(mine) > 12)],
        text=text,
        changes=[c for v in verdicts for c in changes_for(v)],
    )


def _paths(measured: Sequence[Row]) -> list[list[Row]]:
    """Return the numbers along the points of each model, for every name; the random copies are in the controls."""
    trained = [m for m in measured if m["variant"] != RANDOM] or list(measured)
    found = []
    for name in dict.fromkeys(str(m["name"]) for m in trained):
        for model in dict.fromkeys(str(m["model"]) for m in trained):
            path = [m for m in trained if m["name"] == name and m["model"] == model]
            if len(path) > 1:
                found.append(path)
    return found


def _projections(inputs: C1Inputs) -> list[Figure]:
    if not inputs.projections:
        return []
    n = len(inputs.labels)
    return [
        Figure.of(
            figures.projections(inputs.projections, inputs.labels),
            name="projections",
            wide=True,
            alt=f"Scatter of {n} samples on their first two principal components at {', '.join(inputs.projections)}",
            caption=f"First two principal components of the mean tokens, n = {n}; each axis names its share of the "
            "variance. No number is measured in a projection.",
        )
    ]


def _galleries(inputs: C1Inputs) -> list[Figure]:
    found = []
    for name, lines in inputs.pictures.items():
        own = [line for line in lines if line not in CONSTANTS and line != ROUND_TRIP]
        found.append(
            Figure.of(
                c1_pictures.rebuilt(inputs.truth, lines, differences=own[:1]),
                name=f"gallery-{file_name(name)}",
                wide=True,
                alt=f"{len(inputs.truth)} samples and below them {', '.join(lines)}",
                caption=f"{name}: the first {len(inputs.truth)} scored samples, none of them seen in training.",
            )
        )
    return found


def _is_best(inputs: C1Inputs, m: Row) -> bool:
    return m["point"] == inputs.decision["best_point"] and m["variant"] != RANDOM


def _said(m: Row) -> str:
    """Say how far a number is from its floor and from its ceiling."""
    floor = str((m.get("detail") or {}).get("strongest floor", ""))
    controls = m.get("controls") or {}
    text = f"{capitalised(m['name'])} at {point_name(m)} is {with_interval(m)}"
    if known(controls.get(ROUND_TRIP)):
        text += f"; the decoder's own round trip reaches {number_text(controls[ROUND_TRIP])}"
    if floor and known(controls.get(floor)):
        text += f", and what knows no places at best {number_text(controls[floor])} ({floor})"
        lower = not (m["name"] == "SSIM" or "PSNR" in m["name"])
        worse = controls[floor] <= m["value"] if lower else controls[floor] >= m["value"]
        if worse:
            text += ": by this number the rebuilt pictures are no better than that"
    return text + "."


def _place(m: Row) -> str:
    """Say how far the IoU is from what knows no places, and from the pixels."""
    controls = m["controls"]
    worst = max((CONSTANT, POOLED, SHUFFLED), key=lambda c: _real(controls.get(c)))
    return (
        f"{capitalised(m['name'])} at {point_name(m)} is {with_interval(m)}; what knows no places reaches "
        f"{number_text(controls.get(worst))} at best ({worst}), random weights {number_text(controls.get(RANDOM))} and "
        f"the pixels on the same grid {number_text(controls.get(PATCHES))}."
    )


def _cost(m: Row) -> str:
    detail = m.get("detail") or {}
    grids, around = detail.get("grids") or {}, (str(detail.get("before")), str(m["point"]))
    shown = " to ".join(f"{p} ({' x '.join(map(str, grids[p]))} tokens)" for p in around)
    clear = known(m.get("low")) and (m["low"] > 0 or m["high"] < 0)
    told = "" if clear else ", which does not exclude none"
    return f"From {shown}, {m['name'].split(',')[0]} changes by {with_interval(m)}{told}."


def _methods(inputs: C1Inputs) -> list[Table | str]:
    parts: list[Table | str] = [
        "The samples are parted into four folds by group. One is scored and never trained on; one chooses the penalty "
        "and the point that is judged. Intervals are over groups of the scored fold, for the map that was fitted.",
        "A block is one place of the picture: the tokens and the decoder's cells that lie there. The same map is used "
        "in every block, so where an object is can only be told from where its tokens stand.",
        *(f"{k}: {v}" for k, v in inputs.decision["rules"].items()),
    ]
    return [*parts, *recipes_table(inputs.recipes)]


def _real(value: Any) -> float:
    return math.nan if value is None else float(value)

"""A Q1 metric over the extraction points: its curves with controls, and its best point in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from foresight.reports import figures
from foresight.reports import q1_words as words
from foresight.reports.page import Cell, Figure, Table, number_text
from foresight.reports.q1_rows import (
    JUDGED,
    NAN,
    Row,
    is_decoder,
    lead_like,
    lead_name,
    lower_is_better,
    names,
    real,
    threshold_of,
    vlm_points,
)
from foresight.reports.tables import (
    file_name,
    interval_cell,
    interval_text,
    known,
    n_text,
    number_cell,
    p_text,
    point_name,
    value_cell,
)

if TYPE_CHECKING:
    from foresight.reports.q1 import Q1Inputs

MOST_CURVES = 4
NOT_DRAWN = (
    "chance",
    "debiased",
    "isotropic noise",
    "calibrated",
    "uniform",
    "not floored",
    "random weights",
)
"""Controls that are a line already, the number itself, or on another scale; the tables hold them all."""


def curves(inputs: Q1Inputs, rows: Sequence[Row]) -> list[Figure]:
    """Return a layer curve per metric with two points or more, the leading metric first."""
    made: list[Figure] = []
    if not rows:
        return made
    row = str(rows[0]["row"])
    lead = lead_name(rows, row)
    order = sorted(names(rows), key=lambda n: 0 if n == lead else 1 if lead_like(n, row) else 2)
    for name in order:
        mine = [m for m in rows if m["name"] == name]
        points = vlm_points(inputs, mine)
        if len(points) < 2 or not any(known(m.get("value")) for m in mine) or len(made) == MOST_CURVES:
            continue
        judged = name == lead and lead_like(name, row)
        limit = threshold_of(inputs, JUDGED.get(row)) if judged else None
        lines = _series(inputs, mine, points)
        made.append(
            Figure.of(
                figures.layer_curve(points, lines, ylabel=name, threshold=limit),
                name=f"curve-{file_name(name)}",
                alt=f"{name} by extraction point: "
                + "; ".join(f"{p} {number_text(v)}" for p, v in zip(points, lines[0].value, strict=True)),
                caption=f"{name} by extraction point, n = {n_text(mine[0])}. Bands are 95 % intervals "
                "over groups; grey lines are controls.",
            )
        )
    return made


def _series(inputs: Q1Inputs, mine: Sequence[Row], points: Sequence[str]) -> list[figures.Series]:
    lines = []
    grouped: dict[tuple[str, str], dict[str, Row]] = {}
    for m in mine:
        if not is_decoder(inputs, m):
            key = (str(m.get("model") or ""), str(m.get("variant") or ""))
            grouped.setdefault(key, {})[str(m.get("point"))] = m
    many = len({model for model, _ in grouped}) > 1
    # what is judged stands first, so that it gets the first colour and the front of the legend
    for (model, variant), by_point in sorted(grouped.items(), key=lambda g: "random" in g[0][1].lower()):

        def column(field: str, held: Mapping[str, Row] = by_point) -> list[float]:
            return [real(held[p].get(field)) if p in held else NAN for p in points]

        role: Literal["main", "untrained"] = "untrained" if "random" in variant.lower() else "main"
        name = " ".join(part for part in (model if many else "", variant or "measured") if part)
        lines.append(
            figures.Series(
                name=name, value=column("value"), low=column("low"), high=column("high"), role=role
            )
        )
        if role == "main":
            null = column("null")
            if any(known(v) for v in null):
                lines.append(
                    figures.Series(name=f"{model} chance" if many else "chance", value=null, role="chance")
                )
            held = dict.fromkeys(c for m in by_point.values() for c in (m.get("controls") or {}))
            told = [] if many else [c for c in held if c not in NOT_DRAWN]
            for control in told[:2]:
                shown = [
                    real((by_point[p].get("controls") or {}).get(control)) if p in by_point else NAN
                    for p in points
                ]
                lines.append(figures.Series(name=control, value=shown, role="control"))
    return lines


def by_k(rows: Sequence[Row], stem: str, point: str, model: str | None) -> list[Figure]:
    """Return `stem`@k against k at one point, with chance and the untrained copy; [] for fewer than two k."""
    held: dict[bool, dict[int, Row]] = {True: {}, False: {}}
    for m in rows:
        name, _, k = str(m["name"]).rpartition("@")
        if name == stem and k.isdigit() and m.get("point") == point and m.get("model") == model:
            held[words.is_control(m)][int(k)] = m
    ks = [k for k, m in sorted(held[False].items()) if known(m.get("value"))]
    if len(ks) < 2:
        return []

    def column(m: Mapping[int, Row], field: str) -> list[float]:
        return [real(m[k].get(field)) if k in m else NAN for k in ks]

    kinds: list[tuple[Literal["main", "untrained"], dict[int, Row], str]] = [
        ("main", held[False], "trained"),
        ("untrained", held[True], "random weights"),
    ]
    lines = [
        figures.Series(
            name=name, value=column(m, "value"), low=column(m, "low"), high=column(m, "high"), role=role
        )
        for role, m, name in kinds
        if m
    ]
    lines.append(figures.Series(name="chance", value=column(held[False], "null"), role="chance"))
    return [
        Figure.of(
            figures.layer_curve(
                [str(k) for k in ks], lines, ylabel=f"{stem}@k", xlabel=f"neighbours k, at {point}"
            ),
            name=f"{file_name(stem)}-by-k",
            alt=f"{stem}@k at {point}: "
            + "; ".join(f"k = {k} {number_text(held[False][k]['value'])}" for k in ks),
            caption=f"{stem}@k at {point} for k = {', '.join(map(str, ks))}, beside the level that chance "
            f"reaches at each k, n = {n_text(held[False][ks[0]])}.",
        )
    ]


def target_maps(rows: Sequence[Row]) -> list[Figure]:
    """Return a heat map of points by targets per metric and estimator: the value, and 'biased' where held."""
    made = []
    mine = words.trained(rows)
    targets = list(dict.fromkeys(str(m["target"]) for m in mine))
    for name in names(mine):
        held = {(point_name({**m, "target": None}), str(m["target"])): m for m in mine if m["name"] == name}
        points = list(dict.fromkeys(p for p, _ in held))
        for kind in ("", "biased"):
            values = {
                k: real((m.get("controls") or {}).get(kind) if kind else m.get("value"))
                for k, m in held.items()
            }
            if not any(known(v) for v in values.values()):
                continue
            grid = np.array([[values.get((p, t), NAN) for t in targets] for p in points])
            title = f"{name.replace(' (debiased)', '')}, {kind}" if kind else name
            made.append(
                Figure.of(
                    figures.heat_map(grid, points, targets, label=title),
                    name=f"targets-{file_name(title)}",
                    wide=len(targets) > 6,
                    alt=f"Heat map of {title} for {len(points)} points by {len(targets)} targets, from "
                    f"{number_text(np.nanmin(grid))} to {number_text(np.nanmax(grid))}",
                    caption=f"{title}: extraction points by {_target_words(targets)}, n = {n_text(mine[0])}.",
                )
            )
    return made


def _target_words(targets: Sequence[str]) -> str:
    if any("label" in t for t in targets):
        return "the kind of pairs that are compared"
    return "parts of the decoder's latent"


def copy_of(rows: Sequence[Row], m: Row) -> dict[str, float]:
    """Return {'random weights': value} of the untrained copy at the same place; {} when there is none."""
    for other in rows:
        same = all(other.get(k) == m.get(k) for k in ("name", "point", "model", "target"))
        if same and words.is_control(other) and known(other.get("value")):
            return {"random weights": other["value"]}
    return {}


def peaks(rows: Sequence[Row]) -> Table:
    """Return each metric at its best point, beside chance and the untrained copy."""
    columns = [
        "metric",
        "best point",
        "value",
        "95 % interval",
        "chance",
        "p",
        "n (groups)",
        "random weights there",
    ]
    lines = []
    for name in names(rows):
        mine = words.trained(rows, name)
        top = words.best(mine, lower=lower_is_better(name)) or (
            mine[0] if mine else next(m for m in rows if m["name"] == name)
        )
        copy = copy_of(rows, top)
        point = point_name(top) + (f" (of {len(mine)})" if len(mine) > 1 else "")
        lines.append(
            [
                Cell(text=name),
                Cell(text=point),
                value_cell(top),
                interval_cell(top),
                number_cell(top.get("null")),
                Cell(text=p_text(top.get("p")), kind="number"),
                Cell(text=n_text(top), kind="number"),
                number_cell(copy.get("random weights")),
            ]
        )
    return Table(caption="Each metric at its best point", columns=columns, rows=lines)


def overview(inputs: Q1Inputs) -> list[Figure]:
    """Return the judged metrics over the points as one heat map, where two points or more were measured."""
    columns: list[str] = []
    cells: dict[tuple[str, str], float] = {}
    for row in JUDGED:
        rows = [m for m in words.trained(inputs.shown) if m["row"] == row and not m.get("target")]
        if rows:
            lead = lead_name(rows, row)
            columns.append(lead)
            cells |= {(point_name(m), lead): real(m["value"]) for m in rows if m["name"] == lead}
    points = list(dict.fromkeys(p for p, _ in cells))
    if len(points) < 2:
        return []
    grid = [[cells.get((p, c), NAN) for c in columns] for p in points]
    picture = figures.heat_map(np.array(grid), points, columns, label="value", low=0.0, high=1.0)
    alt = "Judged metrics by extraction point: " + "; ".join(
        f"{p} " + ", ".join(f"{c} {number_text(v)}" for c, v in zip(columns, line, strict=True))
        for p, line in zip(points, grid, strict=True)
    )
    caption = "The four judged metrics at every extraction point; the verdict is made at one of them."
    return [Figure.of(picture, name="overview", alt=alt, caption=caption)]


def point_table(rows: Sequence[Row]) -> Table:
    """Return points x metrics, each cell a value with its interval."""
    columns = names(rows)
    lines = []
    for point in dict.fromkeys(point_name(m) for m in rows):
        held = {m["name"]: m for m in rows if point_name(m) == point}
        cells = [
            Cell(text=f"{number_text(held[c].get('value'))} {interval_text(held[c])}", kind="number")
            if c in held and known(held[c].get("value"))
            else Cell(
                text=f"n/a ({held[c].get('why')})" if c in held else "n/a (not measured)", kind="undefined"
            )
            for c in columns
        ]
        lines.append([Cell(text=point), *cells])
    caption = "Dimensions with 95 % intervals"
    return Table(caption=caption, columns=["point", *columns], rows=lines, folded=len(lines) > 16)

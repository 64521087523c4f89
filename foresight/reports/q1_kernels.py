"""Section Q1.7 of the report: which layer resembles the decoder most, and what is left of the best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from foresight.reports import figures
from foresight.reports import q1_words as words
from foresight.reports.page import Figure, Table, number_text
from foresight.reports.q1_curves import curves, peaks
from foresight.reports.q1_rows import NAN, Row, is_decoder, lead_name, real
from foresight.reports.tables import known, p_text, point_name

if TYPE_CHECKING:
    from foresight.reports.q1 import Q1Inputs

Parts = tuple[list[str], list[Figure], list[Table]]
BEST, UNFLATTERED = "CKA of the best point", "CKA of the point chosen on the other half"


def kernel_section(inputs: Q1Inputs, rows: Sequence[Row]) -> Parts:
    """Return sentences, figures and the table of Q1.7."""
    lead = lead_name(rows, "Q1.7")
    top = words.best(words.trained(rows, lead))
    text = [
        words.peak_sentence(rows, lead),
        words.bias_sentence(top) if top else "",
        words.untrained_sentence(rows, lead),
        _choice_sentence(rows),
        words.halves_sentence(rows, lead),
    ]
    pictures = curves(inputs, [m for m in rows if m["name"] == lead])
    columns: list[str] = []
    cells: dict[tuple[str, str], float] = {}
    for m in (m for m in rows if m["name"] == lead and not is_decoder(inputs, m)):
        copy = words.is_control(m)
        main = "debiased" if "debiased" in m["name"].lower() else m["name"]
        for name, v in {main: m.get("value"), **(m.get("controls") or {})}.items():
            if not copy or name in (main, "biased"):
                column = f"{name}, untrained" if copy else name
                cells[point_name(m), column] = real(v)
                columns.append(column)
    columns = list(dict.fromkeys(columns))
    points = list(dict.fromkeys(p for p, _ in cells))
    if len(points) * len(columns) > 1:
        grid = [[cells.get((p, c), NAN) for c in columns] for p in points]
        pictures.append(
            Figure.of(
                figures.heat_map(np.array(grid), points, columns, label="CKA", low=0.0, high=1.0),
                name="cka-heatmap",
                alt="Heat map of CKA by extraction point: "
                + "; ".join(f"{p} {columns[0]} {number_text(grid[i][0])}" for i, p in enumerate(points)),
                caption="CKA with the decoder by extraction point. The debiased estimate is judged; "
                "the biased one rises with feature width alone. Values below 0 "
                "are drawn as 0 and printed as they are.",
            )
        )
    return text, pictures, [peaks(rows)]


def _choice_sentence(rows: Sequence[Row]) -> str:
    """Say what is left of the best point when its being chosen is allowed for; '' when nothing was chosen."""
    best, other = (next((m for m in rows if m["name"] == name), None) for name in (BEST, UNFLATTERED))
    if best is None or not known(best.get("value")):
        return ""
    detail = best.get("detail") or {}
    text = (
        f"As the best of {detail.get('chosen from')} points {point_name(best)} has p = {p_text(best.get('p'))} "
        f"({detail.get('correction')})"
    )
    if other is None or not known(other.get("value")):
        return text + (f"; {other['why']}." if other is not None and other.get("why") else ".")
    chosen = (other.get("detail") or {}).get("chosen on")
    return text + (
        f". Chosen on {chosen} groups, {point_name(other)} reads {words.with_interval(other)} on the other "
        f"{other['n_effective']}."
    )

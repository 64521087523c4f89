"""Measurements as tables of the page and as one CSV file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from foresight.reports.page import Cell, Table, number_text

COLUMNS = (
    "row",
    "name",
    "model",
    "point",
    "target",
    "variant",
    "value",
    "low",
    "high",
    "null",
    "p",
    "n",
    "n_effective",
    "why",
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def measurements_csv(measurements: Sequence[Mapping[str, Any]]) -> str:
    """Return all measurements as CSV, one line each, every control in a column of its own.

    Numbers are written in full; undefined ones are empty and `why` says why. Text that a spreadsheet would
    run as a formula is prefixed with an apostrophe.
    """
    controls = sorted({str(c) for m in measurements for c in m.get("controls") or {}})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*COLUMNS, *(_text(f"control: {c}") for c in controls)])
    for m in measurements:
        held = {str(k): v for k, v in (m.get("controls") or {}).items()}
        writer.writerow([*(_field(m.get(c)) for c in COLUMNS), *(_field(held.get(c)) for c in controls)])
    return out.getvalue()


def measurement_table(
    measurements: Sequence[Mapping[str, Any]], *, caption: str, folded: bool = False
) -> Table:
    """Return one line per measurement: value, 95 % interval, chance, p, n and controls."""
    columns = [
        "metric",
        "point",
        "variant",
        "value",
        "95 % interval",
        "chance",
        "p",
        "n (groups)",
        "controls",
    ]
    rows = []
    for m in measurements:
        rows.append(
            [
                Cell(text=str(m["name"])),
                Cell(text=point_name(m)),
                Cell(text=str(m.get("variant") or "")),
                value_cell(m),
                interval_cell(m),
                number_cell(m.get("null")),
                Cell(text=p_text(m.get("p")), kind="number"),
                Cell(text=n_text(m), kind="number"),
                Cell(text=controls_text(m), kind="long"),
            ]
        )
    return Table(caption=caption, columns=columns, rows=rows, folded=folded)


def numbers_of(count: int, row: str) -> str:
    """Return the caption of the table of a row's `count` numbers."""
    return f"The one number of {row}" if count == 1 else f"All {count} numbers of {row}"


def known(value: Any) -> bool:
    """Return whether `value` is a finite number."""
    return value is not None and not isinstance(value, str) and math.isfinite(value)


def value_cell(m: Mapping[str, Any]) -> Cell:
    """Return the value, or 'n/a (reason)'."""
    if known(m.get("value")):
        return Cell(text=number_text(m["value"]), kind="number")
    return Cell(text=f"n/a ({m.get('why') or 'no reason was recorded'})", kind="undefined")


def interval_cell(m: Mapping[str, Any]) -> Cell:
    """Return '[low, high]', or 'n/a (reason)' when a known value has none."""
    if text := interval_text(m):
        return Cell(text=text, kind="number")
    reason = m.get("why") if known(m.get("value")) else ""
    return Cell(text=f"n/a ({reason})" if reason else "n/a", kind="undefined")


def interval_text(m: Mapping[str, Any]) -> str:
    """Return '[low, high]', '' when the interval is undefined."""
    if known(m.get("low")) and known(m.get("high")):
        return f"[{number_text(m['low'])}, {number_text(m['high'])}]"
    return ""


def number_cell(value: Any) -> Cell:
    return (
        Cell(text=number_text(value), kind="number") if known(value) else Cell(text="n/a", kind="undefined")
    )


def p_text(p: Any) -> str:
    if not known(p):
        return "n/a"
    return f"{p:.2g}" if p >= 0.001 else f"{p:.1e}"


def n_text(m: Mapping[str, Any]) -> str:
    n, groups = m.get("n"), m.get("n_effective")
    return "n/a" if n is None else f"{n}" if groups in (None, n) else f"{n} ({groups})"


def controls_text(m: Mapping[str, Any]) -> str:
    return " · ".join(f"{name} {number_text(v)}" for name, v in (m.get("controls") or {}).items())


def point_name(m: Mapping[str, Any]) -> str:
    """Return 'point', with its model before it and its target after it when the measurement names them."""
    name = f"{m['model']} · {m['point']}" if m.get("model") else str(m.get("point") or "")
    return f"{name} → {m['target']}" if m.get("target") else name


def of_one_model(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return measurements without the name of their model when it is the same for all: it need not be repeated."""
    several = len({m["model"] for m in rows if m.get("model")}) > 1
    return list(rows) if several else [{**m, "model": None} for m in rows]


def capitalised(text: str) -> str:
    """Return `text` as a sentence begins with it; a symbol such as mAP stays as it is.

    >>> capitalised("box IoU"), capitalised("mAP@0.5")
    ('Box IoU', 'mAP@0.5')
    """
    return text[:1].upper() + text[1:] if text[1:2].islower() else text


def file_name(text: str) -> str:
    """Return `text` as a file name: lower-case letters, digits and '-' only."""
    return (
        "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in text.lower()).split()) or "figure"
    )


def short(identifier: Any) -> str:
    """Return the first 12 digits of a 64-digit id; anything else as it is."""
    text = str(identifier or "")
    return text[:12] if len(text) == 64 and not set(text) - set("0123456789abcdef") else text


def _field(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return repr(float(value)) if isinstance(value, float) else _text(str(value))


def _text(value: str) -> str:
    return "'" + value if value.startswith(FORMULA) else value

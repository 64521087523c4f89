"""What every report's page says of the models it read and of the recipes it was made by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from foresight.reports.page import Cell, Table
from foresight.reports.tables import short


def models_table(models: Sequence[Mapping[str, Any]]) -> Table | None:
    """Return the models with their points and fingerprints; None when there are none."""
    if not models:
        return None
    extra = sorted({k for m in models for k in m} - {"role", "card", "fingerprint", "points", "params"})
    rows = []
    for m in models:
        params = m.get("params")
        rows.append(
            [
                Cell(text=str(m["card"])),
                Cell(text=str(m.get("role", ""))),
                Cell(text="n/a" if params is None else f"{params:,}", kind="number"),
                Cell(text=", ".join(map(str, m.get("points", ()))), kind="long"),
                Cell(text=short(m.get("fingerprint", "")), kind="mono"),
                *(_told(brief(m.get(k, ""))) for k in extra),
            ]
        )
    return Table(
        caption="Models", columns=["card", "role", "parameters", "points", "fingerprint", *extra], rows=rows
    )


def _told(text: str) -> Cell:
    """Return a cell that keeps room for several words."""
    return Cell(text=text, kind="several" if len(text) > 24 else "text")


def recipes_table(recipes: Sequence[Mapping[str, Any]]) -> list[Table | str]:
    """Return a table of the recipes a report rests on, folded when long; nothing when there are none."""
    if not recipes:
        return []
    rows = [
        [
            Cell(text=str(r.get("operation", "")) + f" v{r.get('version', '?')}"),
            Cell(text=short(r.get("id", "")), kind="mono"),
            Cell(text=brief(r.get("settings", {})), kind="long"),
            Cell(text=", ".join(f"{k} {short(v)}" for k, v in (r.get("inputs") or {}).items()), kind="mono"),
        ]
        for r in recipes
    ]
    return [
        Table(
            caption="Recipes: what was computed, exactly",
            columns=["operation", "recipe", "settings", "inputs"],
            rows=rows,
            folded=len(rows) > 12,
        )
    ]


def brief(value: Any) -> str:
    """Return plain settings as 'a.b = 1, c = x', ids short."""
    if isinstance(value, Mapping):
        flat: list[str] = []
        for k, v in value.items():
            inner = brief(v)
            flat += (
                [f"{k}.{part}" for part in inner.split(", ")]
                if isinstance(v, Mapping) and v
                else [f"{k} = {inner}"]
            )
        return ", ".join(flat)
    if isinstance(value, str):
        return short(value)
    return json.dumps(value, ensure_ascii=False, default=str)

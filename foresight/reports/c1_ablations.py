"""Figures of C1.6: a few runs as dots; points crossed with adapters and sample counts as lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from foresight.reports import figures
from foresight.reports.page import Figure, number_text
from foresight.reports.tables import file_name

Row = Mapping[str, Any]

LEFT_OUT = ("SSIM", "PSNR (dB)")
"""Numbers that stand in the table alone: the distance and the R² tell the same of the runs."""


def ablations(measured: Sequence[Row], *, best: str) -> list[Figure]:
    """Return the figures of defined numbers of C1.6; `best` is the point that was judged.

    Crossed runs are two figures a number: along the points with all samples, a line an adapter; and at the judged
    point along the sample counts. Other runs are dots, one a run.
    """
    found = []
    for name in dict.fromkeys(str(m["name"]) for m in measured if m["name"] not in LEFT_OUT):
        mine = [m for m in measured if m["name"] == name]
        found += _lines(name, mine, best) if _crossed(mine) else [_dots(name, mine)]
    return found


def _crossed(runs: Sequence[Row]) -> bool:
    """Return whether every place has every design with every sample count, several of each."""
    places, designs, counts = (len({of(m) for m in runs}) for of in (_place, _design, _count))
    return places * designs * counts == len(runs) and min(designs, counts) > 1


def _lines(name: str, runs: Sequence[Row], best: str) -> list[Figure]:
    most = max(map(_count, runs))
    several = len({m["model"] for m in runs}) > 1
    here = [m for m in runs if m["point"] == best and m["model"] == _model_of(runs, best)]
    along = [
        ("point", [m for m in runs if _count(m) == most], f"with {most} samples, along the points",
         lambda m: f"{m['model']} {m['point']}" if several else str(m["point"]), "extraction point, in order of depth"),
        ("samples", here, f"at {best}, along the training samples", lambda m: str(_count(m)), "training samples"),
    ]  # fmt: skip
    found = []
    for kind, mine, where, told, xlabel in along:
        if not mine:
            continue
        mine = sorted(mine, key=_count)
        designs = list(dict.fromkeys(map(_design, mine)))
        series = [_series(design, [m for m in mine if _design(m) == design]) for design in designs]
        places = list(dict.fromkeys(map(told, mine)))
        values = "; ".join(f"{s.name} {', '.join(map(number_text, s.value))}" for s in series)
        found.append(
            Figure.of(
                figures.layer_curve(places, series, ylabel=name, xlabel=xlabel),
                name=f"ablations-{file_name(name)}-{kind}",
                alt=f"{name} {where} ({', '.join(places)}): {values}",
                caption=f"{name} {where}, a line an adapter, on the same {mine[0]['n']} scored samples; bands are 95 % "
                "intervals over groups.",
            )
        )
    return found


def _dots(name: str, runs: Sequence[Row]) -> Figure:
    bars = [
        figures.Bar(
            label=f"{m['point']} {_design(m)} n={_count(m)}",
            value=_real(m["value"]),
            low=_real(m["low"]),
            high=_real(m["high"]),
        )
        for m in runs
    ]
    return Figure.of(
        figures.probe_dots(bars, xlabel=name),
        name=f"ablations-{file_name(name)}",
        alt=f"{name} by run: " + "; ".join(f"{b.label} {number_text(b.value)}" for b in bars),
        caption=f"{name} of every run on the same {runs[0]['n']} scored samples; lines are 95 % intervals over groups.",
    )


def _series(design: str, runs: Sequence[Row]) -> figures.Series:
    return figures.Series(
        name=design,
        value=[_real(m["value"]) for m in runs],
        low=[_real(m["low"]) for m in runs],
        high=[_real(m["high"]) for m in runs],
    )


def _model_of(runs: Sequence[Row], point: str) -> Any:
    return next((m["model"] for m in runs if m["point"] == point), None)


def _place(m: Row) -> tuple[str, str, str]:
    return m["model"], m["point"], m["variant"]


def _design(m: Row) -> str:
    return str(m["detail"]["design"])


def _count(m: Row) -> int:
    return int(m["detail"]["trained on"])


def _real(value: Any) -> float:
    return math.nan if value is None else float(value)

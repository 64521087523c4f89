"""Pictures of the spatial study: true and read boxes on the samples, and pictures rebuilt from tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from foresight.reports.galleries import pixels
from foresight.reports.style import Picture, Theme, blank, literal, rectangle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

SIDE, GAP, LEFT = 1.0, 0.08, 1.3
"""Inches: a picture, the space around it, and the names of the lines."""
NOTED = 4.3
"""Inches that the names of the colours need."""
TRUTH, FOUND = "#FFFFFF", "#E69F00"


def boxes(lines: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> Picture:
    """Return the samples with their boxes, one line of pictures for each (name, items).

    Each item holds `picture` (PNG), `truth` and `found`: boxes x0, y0, x1, y1 as shares of the frame.
    """

    def draw(theme: Theme) -> Canvas:
        canvas, axes = _sheet(theme, lines, note=0.3)
        for i, (name, items) in enumerate(lines):
            y = GAP + i * (SIDE + GAP)
            axes.text(0.04, y + SIDE / 2, _lines(name), va="center", fontsize=10, color=theme.ink)
            for j, item in enumerate(items):
                x = LEFT + j * (SIDE + GAP)
                _show(axes, item["picture"], x, y)
                for kind, colour, style in (("truth", TRUTH, "-"), ("found", FOUND, "-")):
                    for box in item[kind]:
                        _outline(axes, box, x, y, colour, style)
        bottom = GAP + len(lines) * (SIDE + GAP) + 0.1
        for x, colour, text in ((LEFT, TRUTH, "true box"), (LEFT + 1.2, FOUND, "read off the tokens")):
            rectangle(axes, x, bottom - 0.09, 0.24, 0.18, facecolor="#555555", lw=0)
            rectangle(axes, x + 0.05, bottom - 0.05, 0.14, 0.1, fill=False, ec=colour, lw=1.6)
            axes.text(x + 0.32, bottom, text, va="center", fontsize=9.5, color=theme.muted)
        return canvas

    return Picture(draw)


def rebuilt(lines: Sequence[tuple[str, Sequence[bytes]]]) -> Picture:
    """Return lines of pictures under each other, the first the true ones. Each line is (name, PNGs)."""

    def draw(theme: Theme) -> Canvas:
        canvas, axes = _sheet(theme, lines, note=0.0)
        for i, (name, items) in enumerate(lines):
            y = GAP + i * (SIDE + GAP)
            axes.text(0.04, y + SIDE / 2, _lines(name), va="center", fontsize=10, color=theme.ink)
            for j, png in enumerate(items):
                _show(axes, png, LEFT + j * (SIDE + GAP), y)
        return canvas

    return Picture(draw)


def _lines(name: str) -> str:
    """Return a point's name; what stands beside it, and at which point of its own, on lines below."""
    first, _, beside = name.partition("+")
    card, _, point = beside.rpartition(":")
    below = [f"+{literal(card, 12)}", f":{literal(point, 12)}"] if beside else []
    return "\n".join([literal(first, 18), *below])


def _sheet(theme: Theme, lines: Sequence[tuple[str, Sequence[Any]]], *, note: float) -> tuple[Canvas, Axes]:
    if not lines or not all(items for _, items in lines):
        raise ValueError("a gallery shows at least one picture a line, but got none; leave the figure out")
    width = LEFT + max(len(items) for _, items in lines) * (SIDE + GAP)
    width = max(width, NOTED) if note else width
    height = GAP + len(lines) * (SIDE + GAP) + note
    canvas = blank(theme, width, height)
    axes = canvas.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return canvas, axes


def _show(axes: Axes, png: bytes, x: float, y: float) -> None:
    limits = axes.viewLim.frozen()
    axes.imshow(pixels(png), extent=(x, x + SIDE, y + SIDE, y), interpolation="nearest", aspect="auto")
    axes.viewLim.set(limits)  # imshow turns the view to the picture


def _outline(axes: Axes, box: Sequence[float], x: float, y: float, colour: str, style: str) -> None:
    x0, y0, x1, y1 = (np.clip(v, 0, 1) * SIDE for v in box)
    for width, edge in ((3.2, "#000000"), (1.6, colour)):  # a dark rim, so that it shows on any ground
        rectangle(axes, x + x0, y + y0, x1 - x0, y1 - y0, fill=False, ec=edge, lw=width, ls=style)

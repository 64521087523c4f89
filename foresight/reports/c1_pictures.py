"""Galleries of rebuilt pictures: what went in, what the decoder makes of its own latent, what each map gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from foresight.reports.galleries import pixels
from foresight.reports.style import Picture, Theme, blank, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

SIDE, GAP, LEFT = 0.92, 0.06, 1.75
"""Inches: a picture, the space around it, and the names of the lines."""


def rebuilt(
    truth: Sequence[bytes], lines: Mapping[str, Sequence[bytes]], *, differences: Sequence[str]
) -> Picture:
    """Return the true pictures (PNG) and each line of rebuilt ones below, one column a sample.

    The lines named in `differences` are followed by their absolute difference from the truth, all on one stretch.
    """
    if not truth or not lines:
        raise ValueError(
            "a gallery shows at least one sample and one line, but got none; leave the figure out"
        )
    true = [pixels(p) for p in truth]
    shown = {name: [pixels(p) for p in line] for name, line in lines.items()}
    away = {
        name: [np.abs(a.astype(float) - b).mean(axis=2) for a, b in zip(shown[name], true, strict=True)]
        for name in differences
    }
    top = max((float(d.max()) for line in away.values() for d in line), default=1.0) or 1.0

    def draw(theme: Theme) -> Canvas:
        count = 1 + len(lines) + len(away)
        width, height = LEFT + len(true) * (SIDE + GAP), GAP + count * (SIDE + GAP)
        canvas = blank(theme, width, height)
        axes = canvas.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        _line(axes, theme, 0, "input", true)
        at = 1
        for name, line in shown.items():
            _line(axes, theme, at, name, line)
            at += 1
            if name in away:
                _line(axes, theme, at, f"difference,\n0 to {top:.0f} of 255", away[name], top=top)
                at += 1
        return canvas

    return Picture(draw)


def _line(
    axes: Axes, theme: Theme, at: int, name: str, images: Sequence[np.ndarray], *, top: float = 0.0
) -> None:
    y = GAP + at * (SIDE + GAP)
    text = name if "\n" in name else literal(name, 24)
    axes.text(0.04, y + SIDE / 2, text, va="center", fontsize=9.5, color=theme.ink)
    how = {"cmap": "magma", "vmin": 0.0, "vmax": top} if top else {}
    limits = axes.viewLim.frozen()
    for j, image in enumerate(images):
        x = LEFT + j * (SIDE + GAP)
        rows, columns = image.shape[:2]
        w, h = SIDE * columns / max(rows, columns), SIDE * rows / max(rows, columns)
        axes.imshow(image, extent=(x, x + w, y + h, y), interpolation="nearest", aspect="auto", **how)  # type: ignore[arg-type]
    axes.viewLim.set(limits)  # imshow turns the view to the picture

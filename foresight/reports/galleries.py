"""Figures of pictures: sample gallery, retrieval examples, reconstructions beside their errors.

Each is one sheet of pictures placed by inches: hundreds of small axes would take seconds to lay out.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from foresight.reports.style import Picture, Theme, blank, literal, rectangle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


def pixels(png: bytes) -> np.ndarray:
    """Return a thumbnail as uint8 [row col 3]."""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def gallery(items: Sequence[tuple[bytes, str]], *, columns: int = 8) -> Picture:
    """Return thumbnails in reading order with a label under each. `items` holds (png, label)."""
    if not items:
        raise ValueError("a gallery shows at least one picture, but got none; leave the figure out instead")

    def draw(theme: Theme) -> Canvas:
        wide = min(columns, len(items))
        rows = -(-len(items) // wide)
        canvas, axes = _table(theme, 0.84 * wide, 1.02 * rows)
        for i, (png, label) in enumerate(items):
            x, y = 0.84 * (i % wide) + 0.04, 1.02 * (i // wide) + 0.04
            _place(axes, theme, pixels(png), x, y, 0.76)
            _say(axes, theme, literal(label, 13), x + 0.38, y + 0.88, size=9, ha="center")
        return canvas

    return Picture(draw)


def retrieval(
    rows: Sequence[Mapping[str, Any]], thumbnails: Mapping[str, bytes], *, neighbours: int = 5
) -> Picture:
    """Return per query its nearest samples in both spaces; a sample near in both is framed.

    Each row holds `query`, `vlm` and `decoder`: keys, nearest first. A key without a
    thumbnail is drawn as its name.
    """
    if not rows:
        raise ValueError("retrieval examples need at least one query, but got none; leave the figure out")
    cell, gap, head = 0.84, 0.22, 0.3
    starts = (cell + gap, cell + 2 * gap + neighbours * cell)

    def draw(theme: Theme) -> Canvas:
        width = starts[1] + neighbours * cell
        canvas, axes = _table(theme, width, head + cell * len(rows) + 0.04)
        heads = ("query", "nearest in the VLM space →", "nearest in the decoder space →")
        for x, text in zip((0.0, *starts), heads, strict=True):
            _say(axes, theme, text, x + 0.04, head / 2, size=10, colour=theme.ink)
        for i, row in enumerate(rows):
            y = head + cell * i + 0.04
            sides = (list(row["vlm"])[:neighbours], list(row["decoder"])[:neighbours])
            shared = set(sides[0]) & set(sides[1])
            _sample(axes, theme, str(row["query"]), thumbnails, 0.04, y)
            for start, side in zip(starts, sides, strict=True):
                for j, key in enumerate(side):
                    _sample(axes, theme, str(key), thumbnails, start + cell * j + 0.04, y, hit=key in shared)
        return canvas

    return Picture(draw)


def outliers(rows: Sequence[Mapping[str, Any]], thumbnails: Mapping[str, bytes]) -> Picture:
    """Return pairs of samples with the rank of their distance in both spaces under each, in reading order.

    Each row holds `first` and `second` (keys), `vlm` and `decoder`: the share of all pairs that lie closer.
    """
    if not rows:
        raise ValueError("outliers are shown as pairs, but there are none; leave the figure out")
    cell, high, wide = 0.84, 1.3, 4

    def draw(theme: Theme) -> Canvas:
        columns = min(wide, len(rows))
        canvas, axes = _table(theme, columns * (2 * cell + 0.3), -(-len(rows) // wide) * high)
        for i, row in enumerate(rows):
            x, y = (i % wide) * (2 * cell + 0.3) + 0.04, (i // wide) * high + 0.04
            _sample(axes, theme, str(row["first"]), thumbnails, x, y)
            _sample(axes, theme, str(row["second"]), thumbnails, x + cell, y)
            middle = x + cell - 0.04
            for j, (name, key) in enumerate((("VLM", "vlm"), ("decoder", "decoder"))):
                text = f"{name}: farther than {100 * row[key]:.0f} %"
                _say(axes, theme, text, middle, y + 0.9 + 0.17 * j, size=8.5, ha="center")
        return canvas

    return Picture(draw)


def reconstructions(items: Sequence[Mapping[str, Any]]) -> Picture:
    """Return input, decoded output and absolute difference, one column per item.

    Each item holds `input` and `output` (PNG bytes) and `psnr` in dB. Differences share one stretch, printed.
    """
    if not items:
        raise ValueError("reconstructions need at least one pair, but got none; leave the figure out instead")
    pairs = []
    for item in items:
        a, b = pixels(item["input"]), pixels(item["output"])
        if a.shape != b.shape:
            raise ValueError(f"a reconstruction has its input's size, but got {b.shape} for {a.shape}")
        pairs.append((a, b, np.abs(a.astype(float) - b.astype(float)).mean(axis=2)))
    top = max(max(float(d.max()) for *_, d in pairs), 1.0)

    def draw(theme: Theme) -> Canvas:
        left, cell, side = 1.25, 1.1, 1.0
        tops = (0.04, 0.04 + cell, 0.26 + 2 * cell)
        canvas, axes = _table(theme, left + cell * len(pairs), tops[2] + side + 0.06)
        for y, text in zip(tops, ("input", "decoded", f"difference,\n0 to {top:.0f} of 255"), strict=True):
            _say(axes, theme, text, 0.04, y + side / 2, size=10, colour=theme.ink)
        for j, (a, b, difference) in enumerate(pairs):
            x = left + cell * j
            _place(axes, theme, a, x, tops[0], side)
            _place(axes, theme, b, x, tops[1], side)
            _place(axes, theme, difference, x, tops[2], side, cmap="magma", vmin=0, vmax=top)
            psnr = items[j].get("psnr")
            text = "PSNR n/a" if psnr is None or psnr != psnr else f"{psnr:.1f} dB"
            _say(axes, theme, text, x + side / 2, tops[1] + side + 0.12, size=9.5, ha="center")
        return canvas

    return Picture(draw)


def _table(theme: Theme, width: float, height: float) -> tuple[Canvas, Axes]:
    """Return a figure of `width` x `height` inches with one axes in inches, y downwards."""
    canvas = blank(theme, width, height)
    axes = canvas.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return canvas, axes


def _place(
    axes: Axes,
    theme: Theme,
    image: np.ndarray,
    x: float,
    y: float,
    side: float,
    *,
    hit: bool = False,
    **how: Any,
) -> None:
    """Put `image` into the square of `side` inches at (x, y), whole and centred."""
    rows, columns = image.shape[:2]
    w, h = side * columns / max(rows, columns), side * rows / max(rows, columns)
    x0, y0 = x + (side - w) / 2, y + (side - h) / 2
    limits = axes.viewLim.frozen()
    axes.imshow(image, extent=(x0, x0 + w, y0 + h, y0), interpolation="nearest", aspect="auto", **how)
    axes.viewLim.set(limits)  # imshow turns the view to the picture
    edge, line = (theme.hit, 3.0) if hit else (theme.rule, 0.8)
    rectangle(axes, x0, y0, w, h, fill=False, edgecolor=edge, linewidth=line)


def _say(
    axes: Axes,
    theme: Theme,
    text: str,
    x: float,
    y: float,
    *,
    size: float,
    ha: str = "left",
    colour: str = "",
) -> None:
    axes.text(x, y, text, fontsize=size, ha=ha, va="center", color=colour or theme.muted)


def _sample(
    axes: Axes,
    theme: Theme,
    key: str,
    thumbnails: Mapping[str, bytes],
    x: float,
    y: float,
    *,
    hit: bool = False,
) -> None:
    if key in thumbnails:
        _place(axes, theme, pixels(thumbnails[key]), x, y, 0.76, hit=hit)
        return
    _place(axes, theme, np.full((8, 8, 3), 128, np.uint8), x, y, 0.76, hit=hit)
    _say(axes, theme, literal(key, 12), x + 0.38, y + 0.38, size=6.5, ha="center", colour="#111111")

"""Figures of pictures: sample gallery, retrieval examples, reconstructions beside their errors."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from PIL import Image

from foresight.reports.style import Picture, Theme, literal, sheet


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
        canvas = sheet(theme, 0.86 * wide + 0.1, 1.06 * rows + 0.1)
        grid = canvas.subplots(rows, wide, squeeze=False)
        for axes in grid.flat[len(items) :]:
            axes.set_visible(False)
        for axes, (png, label) in zip(grid.flat, items, strict=False):
            _frame(axes, theme, pixels(png))
            axes.set_xlabel(literal(label, 14), fontsize=9, color=theme.muted, labelpad=2)
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

    def draw(theme: Theme) -> Canvas:
        columns = 2 + 2 * neighbours
        ratios = [1.15, *[1.0] * neighbours, 0.12, *[1.0] * neighbours]
        canvas = sheet(theme, 0.86 * columns, 0.98 * len(rows) + 0.45)
        grid = canvas.subplots(len(rows), columns, squeeze=False, gridspec_kw={"width_ratios": ratios})
        for i, row in enumerate(rows):
            sides = (list(row["vlm"])[:neighbours], list(row["decoder"])[:neighbours])
            shared = set(sides[0]) & set(sides[1])
            _cell(grid[i, 0], theme, str(row["query"]), thumbnails)
            grid[i, neighbours + 1].set_visible(False)
            for start, side in zip((1, neighbours + 2), sides, strict=True):
                for j in range(neighbours):
                    axes = grid[i, start + j]
                    if j >= len(side):
                        axes.set_visible(False)
                        continue
                    _cell(axes, theme, str(side[j]), thumbnails, hit=side[j] in shared)
        heads = {
            0: "query",
            1: "nearest in the VLM space →",
            neighbours + 2: "nearest in the decoder space →",
        }
        for column, text in heads.items():
            head = grid[0, column].set_title(text, fontsize=10, color=theme.ink, loc="left", pad=5)
            # a head spans several narrow columns; the layout must not widen its own for it
            head.set_in_layout(column == 0)
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
        canvas = sheet(theme, max(1.1 * len(pairs) + 0.9, 4.0), 3.8)
        grid = canvas.subplots(3, len(pairs), squeeze=False)
        for j, (a, b, difference) in enumerate(pairs):
            _frame(grid[0, j], theme, a)
            _frame(grid[1, j], theme, b)
            _frame(grid[2, j], theme, difference, cmap="magma", vmin=0, vmax=top)
            psnr = items[j].get("psnr")
            text = "PSNR n/a" if psnr is None or psnr != psnr else f"{psnr:.1f} dB"
            grid[1, j].set_xlabel(text, fontsize=9.5, color=theme.muted, labelpad=2)
        for i, text in enumerate(("input", "decoded", f"|difference|\n0 to {top:.0f} of 255")):
            grid[i, 0].set_ylabel(text, fontsize=10, color=theme.ink)
        return canvas

    return Picture(draw)


def _frame(axes: Axes, theme: Theme, image: np.ndarray, *, hit: bool = False, **how: Any) -> None:
    axes.imshow(image, interpolation="nearest", **how)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color(theme.hit if hit else theme.rule)
        side.set_linewidth(3.0 if hit else 0.8)


def _cell(axes: Axes, theme: Theme, key: str, thumbnails: Mapping[str, bytes], *, hit: bool = False) -> None:
    if key in thumbnails:
        _frame(axes, theme, pixels(thumbnails[key]), hit=hit)
        return
    _frame(axes, theme, np.full((8, 8, 3), 128, np.uint8), hit=hit)
    axes.text(0.5, 0.5, literal(key, 14), transform=axes.transAxes, ha="center", va="center", fontsize=6)

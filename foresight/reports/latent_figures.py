"""Figures of a decoder's latent: its channels, how cells resemble their neighbours, power by frequency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from foresight.reports.style import (
    Picture,
    Theme,
    legend,
    literal,
    plain_axes,
    plain_bar,
    ramp,
    sheet,
    whole_numbers,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

MOST_CHANNELS = 128
"""Channels drawn one by one; of more, evenly spaced ones."""


def channel_shares(shares: Mapping[str, Sequence[float]]) -> Picture:
    """Return the share of variance of the channels, largest first, one line per series, and an even share."""

    def draw(theme: Theme) -> Canvas:
        canvas = sheet(theme, 5.0, 3.3)
        axes = canvas.add_subplot()
        plain_axes(axes, theme, xlabel="channels, largest first", ylabel="share of variance")
        for i, (name, values) in enumerate(shares.items()):
            y = np.sort(np.asarray(values, float))[::-1]
            style = "-" if i == 0 else "--"
            axes.plot(
                np.arange(1, len(y) + 1), y, style, color=theme.series[i % 8], lw=1.8,
                marker="o" if len(y) <= 40 else "", ms=4, label=literal(name, 30),
            )  # fmt: skip
        count = max(len(v) for v in shares.values())
        axes.axhline(1 / count, color=theme.control, lw=1.2, ls=":", label="an even share")
        axes.set_ylim(bottom=0)
        whole_numbers(axes.xaxis)
        legend(axes, theme)
        return canvas

    return Picture(draw)


def activations(quantiles: Sequence[Sequence[float]], levels: Sequence[float]) -> Picture:
    """Return the spread of every channel's values: `quantiles` [channel level], `levels` rising and symmetric."""
    table = np.asarray(quantiles, float)
    order = np.linspace(0, len(table) - 1, min(len(table), MOST_CHANNELS)).astype(int)

    def draw(theme: Theme) -> Canvas:
        canvas = sheet(theme, 5.0, 3.3)
        axes = canvas.add_subplot()
        plain_axes(axes, theme, xlabel="channel", ylabel="value")
        middle, x = len(levels) // 2, np.arange(len(order))
        for i in range(middle):
            low, high = table[order, i], table[order, len(levels) - 1 - i]
            share = 100 * (levels[len(levels) - 1 - i] - levels[i])
            axes.bar(
                x, high - low, bottom=low, width=0.8, color=theme.series[0], alpha=0.16 + 0.2 * i, lw=0,
                label=f"middle {share:.0f} %",
            )  # fmt: skip
        axes.plot(x, table[order, middle], "_", color=theme.ink, ms=max(3, 200 / len(x)), label="median")
        step = -(-len(order) // 16)
        axes.set_xticks(x[::step], [str(c) for c in order[::step]])
        legend(axes, theme)
        return canvas

    return Picture(draw)


def autocorrelation_map(table: Sequence[Sequence[float | None]]) -> Picture:
    """Return the correlation of cells by how far apart they lie; `table` [dy dx], dy from 0, dx symmetric."""
    half = np.array(table, dtype=float)
    whole = np.concatenate([half[:0:-1, ::-1], half])

    def draw(theme: Theme) -> Canvas:
        canvas = sheet(theme, 4.4, 3.8)
        axes = canvas.add_subplot()
        plain_axes(axes, theme, xlabel="columns apart", ylabel="rows apart", grid="")
        down, across = whole.shape[0] // 2, whole.shape[1] // 2
        extent = (-across - 0.5, across + 0.5, down + 0.5, -down - 0.5)
        low = min(0.0, float(np.nanmin(whole))) if np.isfinite(whole).any() else 0.0
        image = axes.imshow(whole, cmap=ramp(theme), vmin=low, vmax=1.0, extent=extent, aspect="auto")
        for axis in (axes.xaxis, axes.yaxis):
            whole_numbers(axis)
        plain_bar(canvas.colorbar(image, ax=axes, fraction=0.05, pad=0.02), theme, "correlation")
        return canvas

    return Picture(draw)


def channel_spectra(shares: Sequence[Sequence[float]], centroids: Sequence[float | None]) -> Picture:
    """Return power by frequency as a heat map, one line per channel, the coarsest at the top.

    `shares` [channel ring] is each channel's power by ring; a constant channel is a blank line.
    """
    table = np.array(shares, dtype=float)
    order = np.argsort([np.inf if c is None else c for c in centroids], kind="stable")
    kept = order[np.linspace(0, len(order) - 1, min(len(order), MOST_CHANNELS)).astype(int)]

    def draw(theme: Theme) -> Canvas:
        canvas = sheet(theme, 5.0, min(1.4 + 0.16 * len(kept), 7.0))
        axes = canvas.add_subplot()
        plain_axes(axes, theme, xlabel="cycles per picture", ylabel="channel, coarsest first", grid="")
        rings = table.shape[1]
        image = axes.imshow(
            table[kept], cmap=ramp(theme), aspect="auto", vmin=0.0, extent=(0.5, rings + 0.5, len(kept) - 0.5, -0.5)
        )  # fmt: skip
        whole_numbers(axes.xaxis)
        step = -(-len(kept) // 20)
        axes.set_yticks(range(0, len(kept), step), [str(c) for c in kept[::step]])
        plain_bar(canvas.colorbar(image, ax=axes, fraction=0.05, pad=0.02), theme, "share of power")
        return canvas

    return Picture(draw)

"""Figures of numbers: curves over layers, heat maps, projections, distances, dimensions, probes, spectra.

Every function returns a `Picture`; nan leaves a gap or a marked cell, never a zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from foresight.reports.style import (
    MARKERS,
    Picture,
    Theme,
    distinct,
    ink_on,
    label_points,
    legend,
    legend_shape,
    literal,
    plain_axes,
    plain_bar,
    ramp,
    sheet,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line over extraction points, with its 95 % band where there is one."""

    name: str
    value: Sequence[float]
    """[point], nan where undefined."""
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    role: Literal["main", "untrained", "control", "chance"] = "main"
    """'main' is solid, the 'untrained' copy dashed in a colour of its own, controls and chance are grey."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One measured number for a bar or dot chart, its controls beside it."""

    label: str
    series: str = ""
    value: float
    low: float = float("nan")
    high: float = float("nan")
    controls: Mapping[str, float] = field(default_factory=dict)


def layer_curve(
    points: Sequence[str],
    series: Sequence[Series],
    *,
    ylabel: str,
    title: str = "",
    threshold: float | None = None,
    xlabel: str = "extraction point, in order of depth",
) -> Picture:
    """Return a metric along the extraction points, with interval bands, controls and the plan's threshold."""

    def draw(theme: Theme) -> Canvas:
        named = [literal(line.name, 30) for line in series]
        rows = legend_shape([*named, *([] if threshold is None else ["threshold 0.0"])])[1]
        canvas = sheet(theme, 5.0, 3.0 + 0.2 * rows)
        axes = canvas.add_subplot()
        plain_axes(axes, theme, ylabel=ylabel, title=title, xlabel=xlabel)
        x = np.arange(len(points))
        seen: Counter[str] = Counter()
        for line in series:
            y = np.asarray(line.value, dtype=float)
            i = seen[line.role]
            seen[line.role] += 1
            colour, style, marker, width = {
                "main": (theme.series[2 * i % 8], "-", MARKERS[2 * i % 8], 2.2),
                "untrained": (theme.series[(2 * i + 1) % 8], "--", MARKERS[(2 * i + 1) % 8], 1.6),
                "control": (theme.control, ("-.", ":", "--")[i % 3], MARKERS[(i + 3) % 8], 1.2),
                "chance": (theme.control, ":", "", 1.4),
            }[line.role]
            axes.plot(
                x,
                y,
                style,
                color=colour,
                marker=marker,
                ms=5,
                lw=width,
                label=literal(line.name, 30),
                zorder=3 if line.role == "main" else 2,
            )
            if len(line.low):
                low, high = np.asarray(line.low, dtype=float), np.asarray(line.high, dtype=float)
                axes.fill_between(x, low, high, color=colour, alpha=0.16, lw=0)
        if threshold is not None:
            axes.axhline(threshold, color=theme.ink, lw=1, ls=(0, (1, 2)), label=f"threshold {threshold:g}")
        label_points(axes, points)
        legend(axes, theme)
        return canvas

    return Picture(draw)


def heat_map(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    label: str,
    title: str = "",
    low: float | None = None,
    high: float | None = None,
) -> Picture:
    """Return `values` [row column] as an annotated heat map. nan is drawn as a blank cell marked 'n/a'."""
    values = np.asarray(values, dtype=float)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(
            f"a heat map has one row per name, but got {values.shape} values for {len(rows)} x {len(columns)}"
        )

    def draw(theme: Theme) -> Canvas:
        canvas = sheet(theme, max(5.0, 2.2 + 0.8 * len(columns)), 1.2 + 0.42 * len(rows))
        axes = canvas.add_subplot()
        plain_axes(axes, theme, title=title, grid="")
        finite = values[np.isfinite(values)]
        bottom = low if low is not None else float(finite.min()) if finite.size else 0.0
        top = high if high is not None else float(finite.max()) if finite.size else 1.0
        if not top > bottom:
            bottom, top = bottom - 0.5, bottom + 0.5
        shades = ramp(theme)
        image = axes.imshow(values, cmap=shades, vmin=bottom, vmax=top, aspect="auto")
        for (i, j), v in np.ndenumerate(values):
            ink = theme.muted if not np.isfinite(v) else ink_on(shades((v - bottom) / (top - bottom)))
            text = f"{v:.2f}".replace("-", "−") if np.isfinite(v) else "n/a"
            axes.text(j, i, text, ha="center", va="center", color=ink, fontsize=9.5)
        axes.set_xticks(range(len(columns)), [literal(c, 26) for c in columns])
        if sum(map(len, columns)) > 44 or max(map(len, columns)) > 12:
            for tick in axes.get_xticklabels():
                tick.set(rotation=25, ha="right")
        axes.set_yticks(range(len(rows)), [literal(r, 26) for r in distinct(rows)])
        for side in axes.spines.values():
            side.set_visible(False)
        bar = canvas.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
        plain_bar(bar, theme, label)
        return canvas

    return Picture(draw)


def projections(
    panels: Mapping[str, Mapping[str, Any]],
    labels: Sequence[str | None],
    *,
    most: int = 8,
    axes: tuple[str, str] = ("PC 1", "PC 2"),
) -> Picture:
    """Return one 2-D scatter per point, coloured by label; beyond `most` labels the rarest are one 'other'.

    `panels[point]` holds `xy` [sample 2] and `explained`, the variance shares of the two axes.
    """
    names, codes = label_codes(labels, most=most)
    across, up = axes

    def draw(theme: Theme) -> Canvas:
        columns = min(3, len(panels))
        rows = -(-len(panels) // columns)
        canvas = sheet(theme, 3.1 * columns + 0.2, 2.95 * rows + 0.55)
        grid = canvas.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes, (point, panel) in zip(grid.flat, panels.items(), strict=False):
            xy = np.asarray(panel["xy"], dtype=float).reshape(-1, 2)
            if len(xy) != len(codes):
                raise ValueError(
                    f"{point} has {len(xy)} places for {len(codes)} labels; give one label per sample"
                )
            share = [
                *(f" ({100 * s:.0f} %)" if s is not None else "" for s in panel.get("explained", ())),
                "",
                "",
            ]
            plain_axes(
                axes,
                theme,
                title=literal(point, 34),
                xlabel=f"{across}{share[0]}",
                ylabel=f"{up}{share[1]}",
                grid="both",
            )
            axes.tick_params(labelsize=8.5)
            for code, name in enumerate(names):
                colour = theme.control if name == OTHER else theme.series[code % 8]
                mine = xy[codes == code]
                axes.scatter(
                    mine[:, 0],
                    mine[:, 1],
                    s=13,
                    color=colour,
                    marker="." if name == OTHER else MARKERS[code % 8],
                    alpha=0.75,
                    lw=0,
                    label=literal(name, 24),
                )
        handles, texts = grid.flat[0].get_legend_handles_labels()
        # inches of an entry: its mark and the space around it, and its letters
        entry = 0.6 + 0.075 * max(map(len, texts), default=0)
        box = canvas.legend(
            handles,
            texts,
            loc="outside lower center",
            ncols=max(1, min(len(names), 2 + 2 * columns, int(3.1 * columns / entry))),
            frameon=False,
            fontsize=8.5,
            markerscale=1.5,
        )
        for text in box.get_texts():
            text.set_color(theme.muted)
        return canvas

    return Picture(draw)


def label_codes(labels: Sequence[str | None], *, most: int = 8) -> tuple[list[str], np.ndarray]:
    """Return (names, code per sample): the commonest labels in name order, the rest together as 'other'."""
    texts = ["no label" if v is None else str(v) for v in labels]
    counts = Counter(texts)
    if len(counts) <= most:
        names = sorted(counts)
    else:
        common = sorted(counts.items(), key=lambda c: (-c[1], c[0]))[: most - 1]
        names = [*sorted(n for n, _ in common), OTHER]
    index = {n: i for i, n in enumerate(names)}
    return names, np.array([index.get(t, len(names) - 1) for t in texts], dtype=int)


def distance_density(
    vlm: np.ndarray, decoder: np.ndarray, *, point: str, rho: float | None = None
) -> Picture:
    """Return pair distances in one space against the other, as hexagon counts on a log scale."""
    x, y = np.asarray(vlm, dtype=float).ravel(), np.asarray(decoder, dtype=float).ravel()
    if x.shape != y.shape or not len(x):
        raise ValueError(f"distances come in pairs, but got {len(x)} VLM and {len(y)} decoder distances")

    def draw(theme: Theme) -> Canvas:
        canvas = sheet(theme, 5.0, 3.6)
        axes = canvas.add_subplot()
        title = f"{point} against the decoder" + (
            f", ρ = {rho:.2f}" if rho is not None and rho == rho else ""
        )
        plain_axes(
            axes,
            theme,
            title=title,
            xlabel="distance in the VLM space",
            ylabel="distance in the decoder space",
        )
        cells = axes.hexbin(x, y, gridsize=38, cmap=ramp(theme), mincnt=1, norm="log", lw=0.1)
        bar = canvas.colorbar(cells, ax=axes, fraction=0.05, pad=0.02)
        plain_bar(bar, theme, "pairs")
        return canvas

    return Picture(draw)


def interval_bars(bars: Sequence[Bar], *, xlabel: str, title: str = "", log: bool = False) -> Picture:
    """Return horizontal bars grouped by `label`, one colour per `series`, each with its 95 % interval."""
    labels = list(dict.fromkeys(b.label for b in bars))
    names = list(dict.fromkeys(b.series for b in bars))

    def draw(theme: Theme) -> Canvas:
        thick = 0.8 / max(len(names), 1)
        canvas = sheet(theme, 5.0, 1.0 + len(labels) * max(0.3, 0.15 * len(names)))
        axes = canvas.add_subplot()
        plain_axes(axes, theme, xlabel=xlabel, title=title, grid="x")
        for bar in bars:
            s = names.index(bar.series)
            y = labels.index(bar.label) + (s - (len(names) - 1) / 2) * thick
            first = next(b for b in bars if b.series == bar.series) is bar
            label: Any = {"label": literal(bar.series)} if first and bar.series else {}
            if not np.isfinite(bar.value):
                axes.text(
                    0.01,
                    y,
                    "n/a",
                    transform=axes.get_yaxis_transform(),
                    va="center",
                    fontsize=8,
                    color=theme.muted,
                )
                continue
            axes.barh(y, bar.value, height=thick * 0.86, color=theme.series[s % 8], alpha=0.85, **label)
            if np.isfinite(bar.low) and np.isfinite(bar.high):
                axes.plot([bar.low, bar.high], [y, y], color=theme.ink, lw=1.4, solid_capstyle="butt")
        if log:
            axes.set_xscale("log")
        axes.set_yticks(range(len(labels)), [literal(t, 26) for t in distinct(labels)])
        axes.invert_yaxis()
        legend(axes, theme)
        return canvas

    return Picture(draw)


def probe_dots(
    bars: Sequence[Bar], *, xlabel: str, title: str = "", threshold: float | None = None
) -> Picture:
    """Return measured numbers as dots with intervals, their controls as hollow marks on the same line."""
    controls = list(dict.fromkeys(name for b in bars for name in b.controls))

    def draw(theme: Theme) -> Canvas:
        rows = legend_shape([*(literal(c, 30) for c in controls), "measured, 95 % interval", ""])[1]
        canvas = sheet(theme, 5.0, 0.9 + 0.32 * len(bars) + 0.2 * (rows + 1))
        axes = canvas.add_subplot()
        plain_axes(axes, theme, xlabel=xlabel, title=title, grid="x")
        for y, bar in enumerate(bars):
            axes.axhline(y, color=theme.rule, lw=0.8, zorder=0)
            for name, v in bar.controls.items():
                c = controls.index(name)
                axes.scatter(
                    v,
                    y,
                    marker=MARKERS[(c + 1) % 8],
                    s=30,
                    facecolors="none",
                    lw=1.2,
                    edgecolors=theme.series[(c + 1) % 8],
                    zorder=2,
                )
            if np.isfinite(bar.value):
                axes.plot([bar.low, bar.high], [y, y], color=theme.series[0], lw=3, alpha=0.45, zorder=2)
                axes.scatter(bar.value, y, color=theme.series[0], s=42, zorder=3)
            else:
                axes.text(
                    0.01,
                    y,
                    "n/a",
                    transform=axes.get_yaxis_transform(),
                    va="center",
                    fontsize=8,
                    color=theme.muted,
                )
        axes.scatter([], [], color=theme.series[0], s=42, label="measured, 95 % interval")
        for c, name in enumerate(controls):
            axes.scatter(
                [],
                [],
                marker=MARKERS[(c + 1) % 8],
                s=30,
                facecolors="none",
                edgecolors=theme.series[(c + 1) % 8],
                label=literal(name, 30),
            )
        if threshold is not None:
            axes.axvline(threshold, color=theme.ink, lw=1, ls=(0, (1, 2)), label=f"threshold {threshold:g}")
        axes.set_yticks(range(len(bars)), [literal(t, 26) for t in distinct([b.label for b in bars])])
        axes.set_ylim(len(bars) - 0.5, -0.5)
        legend(axes, theme)
        return canvas

    return Picture(draw)


def spectrum(shares: Mapping[str, Sequence[float]], *, level: float = 0.95, title: str = "") -> Picture:
    """Return the cumulative share of variance against the number of components, one line per point."""

    def draw(theme: Theme) -> Canvas:
        rows = legend_shape([literal(n, 20) for n in distinct(list(shares))] + ["95 %"])[1]
        canvas = sheet(theme, 5.0, 3.0 + 0.2 * rows)
        axes = canvas.add_subplot()
        plain_axes(
            axes, theme, xlabel="principal components (log scale)", ylabel="share of variance", title=title
        )
        for i, (name, share) in enumerate(zip(distinct(list(shares)), shares.values(), strict=True)):
            total = np.cumsum(np.asarray(share, dtype=float))
            axes.plot(
                np.arange(1, len(total) + 1),
                total,
                color=theme.series[i % 8],
                lw=1.8,
                label=literal(name, 20),
                ls=("-", "--", "-.")[i // 8 % 3],
            )
        axes.axhline(level, color=theme.ink, lw=1, ls=(0, (1, 2)), label=f"{100 * level:.0f} %")
        axes.set_xscale("log")
        axes.set_ylim(0, 1.02)
        legend(axes, theme)
        return canvas

    return Picture(draw)

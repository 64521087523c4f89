"""The one look of all figures: two themes, a colour-blind safe palette, and byte-identical rendering.

Only matplotlib's object interface is used: no pyplot state, so figures can be drawn in any thread. It is imported
where something is drawn: a plan draws nothing, and would wait for it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure as Canvas

DPI = 160
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F", "#7A5195")
OKABE_ITO_DARK = ("#56B4E9", "#F0884A", "#2BC59A", "#E59AC4", "#F2B632", "#9AD3F5", "#D8C27A", "#B79AD6")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True, kw_only=True)
class Theme:
    """Colours of one appearance. `series` is the palette after Okabe and Ito, lightened for the dark page."""

    name: str
    paper: str
    ink: str
    muted: str
    rule: str
    control: str
    hit: str
    series: tuple[str, ...]
    sequential: tuple[str, ...]
    """Colours of a heat map from low to high: one hue, even in lightness."""


LIGHT = Theme(
    name="light", paper="#ffffff", ink="#1c2430", muted="#5b6675", rule="#e3e7ec", control="#8a94a3",
    hit="#009E73", series=OKABE_ITO,
    sequential=("#f1f6fa", "#b9d7ea", "#6aaed6", "#2b7bba", "#0a3a70"),
)  # fmt: skip
DARK = Theme(
    name="dark", paper="#171c24", ink="#e8ebf0", muted="#a3adbb", rule="#2d3541", control="#8791a0",
    hit="#2BC59A", series=OKABE_ITO_DARK,
    sequential=("#1e2834", "#1d4b70", "#2d7fb5", "#73bbe6", "#dff2fd"),
)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A drawing that can be rendered for either theme. Equal inputs give equal bytes: nothing is dated."""

    draw: Callable[[Theme], Canvas]

    def png(self, theme: Theme = LIGHT) -> bytes:
        return self._save("png", theme, {"Software": None})

    def svg(self, theme: Theme = LIGHT) -> bytes:
        return self._save("svg", theme, {"Date": None, "Creator": None})

    def pdf(self, theme: Theme = LIGHT) -> bytes:
        return self._save("pdf", theme, {"CreationDate": None, "Creator": None, "Producer": None})

    @cached_property
    def _light(self) -> Canvas:
        """The light figure, its parts arranged: themes differ in colours alone, so once is enough for all files."""
        canvas = _sheet_of(self.draw(LIGHT))
        if engine := canvas.get_layout_engine():
            # how many ticks an axis has, and so how wide they are, is only known once the axis has its size
            for _ in range(2):
                engine.execute(canvas)
            canvas.set_layout_engine(None)
        return canvas

    def _arranged(self, theme: Theme) -> Canvas:
        if theme == LIGHT:
            return self._light
        canvas = _sheet_of(self.draw(theme))
        if canvas.get_layout_engine():
            canvas.set_layout_engine(None)
            for axes, like in zip(canvas.axes, self._light.axes, strict=True):
                axes.set_anchor(like.get_anchor())
                axes.set_box_aspect(like.get_box_aspect())
                axes.set_position(like.get_position(original=True))
        return canvas

    def _save(self, kind: str, theme: Theme, metadata: dict[str, Any]) -> bytes:
        buffer = io.BytesIO()
        self._arranged(theme).savefig(buffer, format=kind, dpi=DPI, facecolor=theme.paper, metadata=metadata)
        return buffer.getvalue()


def _sheet_of(canvas: Canvas) -> Canvas:
    """Return the figure ready to be arranged and saved."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    # ids inside an SVG are random without a salt
    mpl.rcParams["svg.hashsalt"] = "foresight"
    FigureCanvasAgg(canvas)
    canvas.dpi = DPI
    return canvas


def blank(theme: Theme, width: float, height: float) -> Canvas:
    """Return an empty figure of `width` x `height` inches whose parts stay where they are put."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor=theme.paper)


def sheet(theme: Theme, width: float, height: float) -> Canvas:
    """Return an empty figure of `width` x `height` inches whose parts arrange themselves."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    canvas = blank(theme, width, height)
    canvas.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, wspace=0.04, hspace=0.06))
    return canvas


def plain_axes(
    axes: Axes, theme: Theme, *, xlabel: str = "", ylabel: str = "", title: str = "", grid: str = "y"
) -> None:
    """Dress `axes`: two thin spines, a faint grid along `grid` ('x', 'y', 'both' or ''), readable labels."""
    axes.set_facecolor(theme.paper)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(theme.control)
        axes.spines[side].set_linewidth(0.8)
    axes.tick_params(colors=theme.muted, labelsize=9.5, length=3, width=0.8)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(True, axis=grid, color=theme.rule, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_xlabel(xlabel, color=theme.muted, fontsize=10)
    axes.set_ylabel(literal(ylabel, 34), color=theme.muted, fontsize=10)
    if title:
        axes.set_title(literal(title), color=theme.ink, fontsize=10.5, loc="left", fontweight="bold")


def rectangle(axes: Axes, x: float, y: float, width: float, height: float, **how: Any) -> None:
    """Draw a rectangle from (x, y)."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y), width, height, **how))


def whole_numbers(axis: Axis) -> None:
    """Keep ticks to whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def plain_bar(bar: Colorbar, theme: Theme, label: str) -> None:
    """Dress a colour bar: named, with small ticks and no outline."""
    bar.set_label(label, color=theme.muted, fontsize=9.5)
    bar.ax.tick_params(colors=theme.muted, labelsize=8.5, length=3)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)  # type: ignore[operator]


def ramp(theme: Theme) -> LinearSegmentedColormap:
    """Return the theme's colour map for heat maps and densities; nan is the paper itself."""
    from matplotlib.colors import LinearSegmentedColormap

    name = f"foresight-{theme.name}"
    return LinearSegmentedColormap.from_list(name, theme.sequential, bad=theme.paper)


def ink_on(colour: tuple[float, ...]) -> str:
    """Return black or white, whichever is easier to read on `colour` (red, green, blue in [0, 1])."""
    red, green, blue = colour[:3]
    return "#111111" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "#ffffff"


def legend(axes: Axes, theme: Theme, **more: Any) -> None:
    """Put a frameless legend, by default above the axes where it hides no data."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    columns, _ = legend_shape(labels)
    where: Any = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.02), "ncols": columns} | more
    box = axes.legend(
        handles, labels, frameon=False, fontsize=9.5, borderaxespad=0.0, columnspacing=1.4, **where
    )
    for text in box.get_texts():
        text.set_color(theme.muted)


def legend_shape(labels: Sequence[str], *, width: int = 58) -> tuple[int, int]:
    """Return (columns, rows) of a legend over axes that are `width` letters wide."""
    longest = max(map(len, labels), default=0) + 7
    columns = max(1, min(3, len(labels), width // longest))
    return columns, -(-len(labels) // columns)


def literal(text: str, limit: int = 60) -> str:
    """Return data text safe to draw: '$' is no mathematics, controls are no glyphs, cut at `limit`."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    if len(clean) > limit:
        # names that differ mostly differ at their end
        head = limit // 3
        clean = clean[:head] + "…" + clean[len(clean) - (limit - head - 1) :]
    return clean.replace("\\", "\\\\").replace("$", r"\$") if "$" in clean else clean


def label_points(axes: Axes, points: Sequence[str], *, most: int = 14) -> None:
    """Name the positions 0, 1, … of a categorical axis: what all names share is left out, slanted when crowded.

    Beyond `most` points every second, third … is named.
    """
    names = distinct(points)
    step = -(-len(names) // most)
    shown = [literal(name, 18) for name in names[::step]]
    crowded = sum(map(len, shown)) > 40
    axes.set_xticks(range(0, len(names), step))
    axes.set_xticklabels(shown, rotation=30 if crowded else 0, ha="right" if crowded else "center")
    axes.set_xlim(-0.4, max(len(names) - 0.6, 0.6))


def distinct(names: Sequence[str], *, fits: int = 40) -> list[str]:
    """Return `names` without the dotted parts they all begin or end with; as they are when they fit anyway.

    >>> distinct(["model.layers.0.output.hidden_states", "model.layers.1.output.hidden_states"])
    ['0', '1']
    >>> distinct(["qwen2.5-vl-tiny · merged", "qwen2.5-vl-tiny · projected"])
    ['qwen2.5-vl-tiny · merged', 'qwen2.5-vl-tiny · projected']
    """
    if len(set(names)) < 2 or sum(map(len, names)) <= fits:
        return list(names)
    # a dot between digits is a version's
    parts = [re.split(r"(?<!\d)\.|\.(?!\d)", name) for name in names]
    shortest = min(map(len, parts)) - 1
    head = next((i for i in range(shortest) if len({p[i] for p in parts}) > 1), shortest)
    left = shortest - head
    tail = next((i for i in range(left) if len({p[-1 - i] for p in parts}) > 1), left)
    return [".".join(p[head : len(p) - tail]) for p in parts]

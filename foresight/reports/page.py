"""One self-contained HTML page from a report: no network, no clock, every text from data escaped."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from foresight.reports.projector import Projector
from foresight.reports.style import DARK, DPI, Picture


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A rendered picture with what it shows in words."""

    png: bytes
    alt: str
    """For people who cannot see it: what is drawn and what it shows."""
    caption: str
    """Units, n and what bands and marks are."""
    name: str = ""
    """File name when exported, without suffix: letters, digits, '-' and '_'."""
    dark: bytes = b""
    """The same for the dark page; empty: the light one is used."""
    picture: Picture | None = field(default=None, compare=False, repr=False)
    """Draws it again as a vector; None when only the PNG exists."""
    wide: bool = False
    """Takes the whole width of the page."""
    twin: bool = False
    """Stands in for the section's interactive view in print and where scripts do not run."""

    @classmethod
    def of(
        cls, picture: Picture, *, name: str, alt: str, caption: str, wide: bool = False, twin: bool = False
    ) -> Figure:
        """Render `picture` for both themes."""
        return cls(
            png=picture.png(),
            dark=picture.png(DARK),
            alt=alt,
            caption=caption,
            name=name,
            picture=picture,
            wide=wide,
            twin=twin,
        )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One table cell. `kind` only sets the look: text, several (words), number, undefined, mono, long, word."""

    text: str
    kind: str = "text"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A captioned table. Rows are as long as `columns`; the first column names the row."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False
    """Shown closed, to be opened by the reader."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.caption!r} has {len(self.columns)} columns, but a row has {len(row)} cells"
                )


@dataclass(frozen=True, kw_only=True)
class Section:
    """One row of the experiment: pictures, numbers, what they mean, what would change the verdict."""

    id: str
    title: str
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    text: Sequence[str] = ()
    changes: Sequence[str] = ()
    verdict: str = ""
    projector: Projector | None = None


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One judged number of the headline."""

    title: str
    verdict: str
    threshold: float
    comparison: str
    value: float
    low: float
    high: float
    why: str


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The verdict at the top: PROCEED, PIVOT or CAN'T TELL, the composite and what it rests on."""

    word: str
    sentence: str
    score: float = math.nan
    low: float = math.nan
    high: float = math.nan
    band: str = ""
    band_why: str = ""
    borders: Sequence[float] = ()
    """Where the bands of the score begin, rising."""
    tiles: Sequence[Tile] = ()
    reasons: Sequence[str] = ()
    open_questions: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything the page shows. Equal reports render to equal bytes."""

    title: str
    verdict: Headline
    summary: Sequence[tuple[str, str]]
    """(what, value) pairs: what this run was."""
    sections: Sequence[Section]
    methods: Sequence[Table | str]
    provenance: Sequence[Table | tuple[str, str]]
    skipped: Sequence[tuple[str, str]] = ()
    """(key, why) of every file that could not be used."""
    models: Table | None = None
    measurements: Sequence[Mapping[str, Any]] = ()
    """The raw rows behind the tables."""
    downloads: Sequence[tuple[str, str, bytes]] = ()
    """(file name, media type, content) offered inside the page."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values. Pictures are named by their SHA-256; undefined numbers are None."""
        return {
            "title": self.title,
            "verdict": _plain(self.verdict),
            "summary": [list(pair) for pair in self.summary],
            "models": None if self.models is None else _plain(self.models),
            "sections": [_plain(section) for section in self.sections],
            "methods": [_plain(part) for part in self.methods],
            "provenance": [_plain(part) for part in self.provenance],
            "skipped": [{"key": key, "why": why} for key, why in self.skipped],
            "measurements": [_plain(m) for m in self.measurements],
        }


def render(report: Report) -> str:
    """Return the whole page. It loads nothing: styles, scripts and pictures are inside."""
    return (
        _environment()
        .get_template("page.html")
        .render(
            report=report,
            css=Markup(_asset("page.css")),
            js=Markup(_asset("page.js") + _asset("projector.js")),
        )
    )


def number_text(value: Any) -> str:
    """Return a number for people: about three digits, a real minus sign; 'n/a' when undefined."""
    if value is None or not math.isfinite(value):
        return "n/a"
    value = float(value)
    size = abs(value)
    text = (
        f"{value:,.0f}"
        if size >= 1000
        else f"{value:.1f}"
        if size >= 10
        else f"{value:.{2 if size >= 1 else 3}f}"
    )
    return text.replace("-", "−") if text.strip("-0.") else text.lstrip("-")


def place(value: float, low: float = 0.0, high: float = 1.0) -> float:
    """Return where `value` lies between `low` and `high`, in percent, cut at both ends."""
    return round(100 * min(max((value - low) / (high - low), 0.0), 1.0), 2)


def word_kind(word: str) -> str:
    """Return the style class of a verdict: good, bad, open or plain."""
    good = {"PROCEED", "PASS", "NOT TRIGGERED", "PASSED", "GREEN", "cached", "completed", "fits"}
    bad = {"PIVOT", "FAIL", "TRIGGERED", "BLOCKED", "RED", "failed"}
    return "good" if word in good else "bad" if word in bad else "open" if word == "CAN'T TELL" else "plain"


def _data_uri(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def _png_size(png: bytes) -> tuple[int, int]:
    """Return (width, height) on the page, where an inch of a figure is 100 px."""
    with Image.open(io.BytesIO(png)) as image:
        return round(100 * image.width / DPI), round(100 * image.height / DPI)


def _plain(value: Any) -> Any:
    if isinstance(value, Figure):
        return {
            "name": value.name,
            "alt": value.alt,
            "caption": value.caption,
            "png_sha256": hashlib.sha256(value.png).hexdigest(),
        }
    if isinstance(value, Projector):
        return value.to_json() | {"sheet_sha256": hashlib.sha256(value.sheet).hexdigest()}
    if hasattr(value, "__dataclass_fields__"):
        return {k: _plain(getattr(value, k)) for k in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"a report holds plain values, but got {type(value).__name__}; convert it first")


def _asset(name: str) -> str:
    return files("foresight.reports").joinpath(name).read_text(encoding="utf-8")


def script_json(value: Any) -> Markup:
    """Return `value` as JSON that is safe inside a script element."""
    text = json.dumps(_plain(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


@cache
def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(_asset),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "data_uri": _data_uri,
        "num": number_text,
        "place": place,
        "kind": word_kind,
        "png_size": _png_size,
        "script_json": script_json,
    }
    environment.tests |= {"table": lambda v: isinstance(v, Table), "known": lambda v: v == v}
    return environment

"""Cards written as TOML: any torch model of an installed library, described instead of programmed.

Read and checked here without loading anything; `foresight.models.declared` then loads and taps what is described.
`docs/your-own-model.md` is the guide.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from foresight.models.card import Card

LIBRARIES = ("transformers", "diffusers", "torchvision", "timm")
"""Libraries whose models may be named freely; any other code needs `local_code = true`."""

FETCHING = frozenset({"pretrained", "weights", "weights_backbone", "checkpoint_path", "pretrained_cfg"})
"""Arguments by which factories fetch weights of their own, as pickles or from the network."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Side = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Pixels = Annotated[int, Field(ge=1)]
Kernel = Literal["flash_attention_2", "sdpa", "eager"]
Kind = Literal["class", "register", "newline", "text"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cells(_Table):
    """One point: where it is read, and which part of the picture each of its tokens stands for."""

    name: Name
    path: str
    """Module path in the loaded model."""
    width: Pixels
    """Features per token."""
    about: str = ""
    layout: str = "NLC"
    """Axes of the module's output: N samples, C features, and L tokens, or H rows and W columns, with T time
    steps before them where clips go in whole; in any order."""
    cell: Side | tuple[Side, Side]
    """Side of a token's cell in pixels of the model's input, or its (height, width)."""
    first: float | tuple[float, float] | None = None
    """Centre of the first cell, px; half a cell unless told. A stack of convolutions with odd kernels and half
    a kernel of padding looks at 0.5, the middle of the first pixel."""
    rounding: Literal["floor", "ceil"] = "floor"
    """Whether a cell that is cut at the edge has no token (floor) or has one (ceil)."""
    order: Literal["rows", "columns"] = "rows"
    """How L runs through the picture: row after row, or column after column."""
    before: tuple[Kind, ...] = ()
    """Kinds of the tokens before the patches, one entry each."""
    after: tuple[Kind, ...] = ()
    frames_per_cell: Pixels = 1
    """Frames that one time step stands for, where clips go in whole."""

    @model_validator(mode="after")
    def _axes(self) -> Cells:
        if sorted(self.layout) not in (sorted(a) for a in ("NLC", "NHWC", "NTHWC")):
            raise ValueError(
                f"a layout names each axis once: N, C, and L or H and W (and T), but got {self.layout!r}"
            )
        if "L" not in self.layout and (self.before or self.after or self.order != "rows"):
            raise ValueError(
                f"`before`, `after` and `order` are of layouts with L, but the layout is {self.layout}"
            )
        return self


class Input(_Table):
    """What happens between frames and the model: resized, scaled to 0..1, then (value - mean) / std."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[Side, Side, Side] = (1.0, 1.0, 1.0)
    resize: tuple[Pixels, Pixels] | None = None
    """(height, width) px every frame is stretched to."""
    multiple_of: Pixels | None = None
    """Each side is stretched to the nearest multiple of this many px instead."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    argument: str | None = None
    """Name of the argument of the model's forward; the first one unless told."""
    clip: Literal["frames", "NTCHW", "NCTHW"] = "frames"
    """Whether each frame of a clip is an image of its own, or how the axes of whole clips lie."""
    frames: Pixels | None = None
    """The one number of frames that clips have, where the model takes no other."""

    @model_validator(mode="after")
    def _one_size(self) -> Input:
        if self.resize and self.multiple_of:
            raise ValueError("an input has `resize` or `multiple_of`, but got both")
        if self.frames and self.clip == "frames":
            raise ValueError("`frames` is for clips that go in whole, but `clip` is 'frames'")
        return self


class Model(_Table):
    """One model of a file."""

    name: Name
    code: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """MODULE:CLASS, or MODULE:FUNCTION that returns the model."""
    local_code: bool = False
    """True to run code of another package than the four libraries: whoever runs the card trusts it."""
    arguments: dict[str, Any] = {}
    """What the class's configuration, or the function, is called with."""
    role: Literal["encoder", "vlm"] = "encoder"
    licence: str = "not stated"
    repo: str | None = None
    revision: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")] | None = None
    subfolder: str = ""
    parameters: int = 0
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    attention: tuple[Kernel, ...] | None = None
    """Kernels a class of transformers may compute attention with. Unless told, a class of that library says it
    itself, and any other code has no choice."""
    size: tuple[Pixels, Pixels]
    """(height, width) px the frames are fitted to first."""
    default_points: tuple[str, ...] = ()
    input: Input = Input()
    points: tuple[Cells, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        names = [p.name for p in self.points]
        if len(set(names)) < len(names):
            raise ValueError(f"each point has a name of its own, but got {', '.join(names)}")
        if unknown := sorted(set(self.default_points) - set(names)):
            raise ValueError(
                f"default_points names {', '.join(unknown)}, but the points are {', '.join(names)}"
            )
        if library(self.code) not in LIBRARIES and not self.local_code:
            raise ValueError(
                f"code of {', '.join(LIBRARIES)} is named freely, but got {self.code!r}; if you trust that code, "
                "say local_code = true"
            )
        if fetched := sorted(FETCHING & set(self.arguments)):
            raise ValueError(
                f"weights are read from safetensors by @path: or @COMMIT, but the arguments hold {fetched[0]}; "
                "leave it out"
            )
        if self.attention and library(self.code) in ("diffusers", "torchvision", "timm"):
            raise ValueError(
                f"the kernel of attention is chosen for classes of transformers, but the code is {self.code}; leave "
                "`attention` out"
            )
        if any("T" in p.layout or p.frames_per_cell > 1 for p in self.points) and self.input.clip == "frames":
            raise ValueError("a point has a time axis, but frames go in one by one; say how a clip goes in")
        return self


def library(code: str) -> str:
    """Return the top-level package of MODULE:NAME."""
    return code.partition(":")[0].partition(".")[0]


def read(path: Path) -> tuple[Card, ...]:
    """Return the cards that a TOML file declares, one a `[[model]]` table.

    Raises `ValueError` that names the file, the model and the field.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(
            f"cards are declared in a TOML file, but {path.name} cannot be read: {error}"
        ) from error
    tables = found.get("model")
    if set(found) != {"model"} or not isinstance(tables, list) or not tables:
        raise ValueError(
            f"{path.name} is to hold [[model]] tables and nothing else, but got {', '.join(found) or 'nothing'}"
        )
    return tuple(_card(table, path) for table in tables)


def _card(table: Any, path: Path) -> Card:
    name = table.get("name", "?") if isinstance(table, dict) else "?"
    try:
        model = Model.model_validate(table)
    except ValidationError as error:
        # a name that is not known explains the one that is missing
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        where = ".".join(map(str, first["loc"]))
        what = f", but got {first['input']!r}" if first["type"] not in ("missing", "value_error") else ""
        raise ValueError(
            f"{path.name}, model {name}{', ' + where if where else ''}: "
            f"{first['msg'].removeprefix('Value error, ')}{what}"
        ) from None
    if not _plain(model.arguments):
        raise ValueError(
            f"{path.name}, model {name}: arguments are texts, finite numbers, yes or no, lists and tables of "
            "those, but got another kind of value (a date, inf or nan)"
        )
    return Card(
        name=model.name,
        family="declared",
        role=model.role,
        repo=model.repo,
        revision=model.revision,
        subfolder=model.subfolder,
        licence=model.licence,
        parameters=model.parameters,
        memory_gib=round(model.parameters * (4 if model.dtype == "float32" else 2) / 2**30, 2),
        dtype=model.dtype,
        size=model.size,
        default_points=model.default_points or tuple(p.name for p in model.points),
        config={
            "code": model.code,
            "arguments": model.arguments,
            "input": model.input.model_dump(mode="json"),
            "points": [p.model_dump(mode="json") for p in model.points],
            **({} if model.attention is None else {"attention": list(model.attention)}),
        },
    )


def code_digest(code: str) -> str | None:
    """Return the SHA-256 of the source file of local code; None for the libraries, which have versions.

    What that file imports is not covered.

    Raises `ValueError` when the module is not installed here.
    """
    if library(code) in LIBRARIES:
        return None
    module = code.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        raise ValueError(
            f"local code is a module that Python can import here, but {module} is not; install it, or put its "
            "folder on PYTHONPATH"
        )
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_plain(v) for v in value.values())
    if isinstance(value, list):
        return all(_plain(v) for v in value)
    return isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))

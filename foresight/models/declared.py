"""Models that a TOML file describes: loaded from an installed library, tapped, and put back into raster order.

A declaration says of each point how its tokens lie on the picture. What comes out is held against that: a count or
a width that differs is an error, never a guess.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foresight.data.fitting import Fit
from foresight.models.card import Card, ModelRef, Point, resolve_points
from foresight.models.declaration import LIBRARIES, Cells, Input, code_digest, library
from foresight.models.device import KERNELS, without_bars
from foresight.models.encoders import placed, stretched
from foresight.models.loading import WrongCheckpoint, check_config, check_folder, load_diffuser, load_model
from foresight.nouns import Frames, Tokens

if TYPE_CHECKING:
    from torch import Tensor

PREPROCESSING = {
    "resize": "torchvision on 8-bit pixels, antialiased",
    "order": "raster, others",
    "version": 1,
}
"""Identity that all declared models share; `preprocessing` adds the declaration's own."""


def points(card: Card) -> tuple[Point, ...]:
    """Return the points in the order they are declared, which should be that of a forward pass."""
    return tuple(
        Point(name=c.name, path=c.path, width=c.width, about=c.about or f"output of {c.path}")
        for c in _cells(card)
    )


def preprocessing(card: Card, point: Point) -> dict[str, Any]:
    """Return what of the declaration shapes the values at `point`: the code, the input, the point's cells.

    For local code also the digest of its source file.
    """
    own = _cell(card, point).model_dump(mode="json", exclude={"about", "name"})
    digest = code_digest(card.config["code"])
    return {
        **PREPROCESSING,
        "code": card.config["code"],
        "arguments": card.config["arguments"],
        "input": card.config["input"],
        "point": own,
        **({"source": digest} if digest else {}),
    }


def kernels(card: Card) -> tuple[str, ...]:
    """Return the attention kernels that can be chosen, the fastest first: the declared ones, or the class's own.

    A class of transformers is imported and none of its weights; one without kernels beside eager has no choice.
    """
    found = card.config.get("attention")
    if found is None and library(card.config["code"]) == "transformers":
        target = _target(card)
        flags = {"flash_attention_2": target._supports_flash_attn, "sdpa": target._supports_sdpa}
        found = [*(k for k, has in flags.items() if has), "eager"] if any(flags.values()) else ()
    return tuple(k for k in KERNELS if k in (found or ()))


def grid(card: Card, point: Point, size: tuple[int, int], frames: int) -> tuple[int, int, int]:
    """Return the (time, row, col) counts of cells at `point` for frames of `size` (height, width) px.

    Raises `ValueError` for a number of frames, or a size, that the declaration leaves no whole cell for.
    """
    cells, given = _cell(card, point), _input(card)
    seen = view(given, size).size_out
    round_ = math.floor if cells.rounding == "floor" else math.ceil
    rows, cols = (round_(side / cell) for side, cell in zip(seen, _pair(cells.cell), strict=True))
    if not rows * cols:
        raise ValueError(
            f"{point.name} of {card.name} has cells of {cells.cell} px, but the picture is {seen[0]} x {seen[1]}; "
            "give larger frames"
        )
    if given.clip == "frames":
        return frames, rows, cols
    if given.frames and frames != given.frames:
        raise ValueError(
            f"{card.name} takes clips of {given.frames} frames, but got {frames}; ask for --frames {given.frames}"
        )
    if frames % cells.frames_per_cell:
        raise ValueError(
            f"{point.name} of {card.name} takes {cells.frames_per_cell} frames a step, but got {frames} frames; "
            f"ask for --frames {-(-frames // cells.frames_per_cell) * cells.frames_per_cell}"
        )
    return frames // cells.frames_per_cell, rows, cols


def tokens(card: Card, point: Point, size: tuple[int, int], frames: int) -> int:
    """Return the count of cells and of the tokens declared around them, for each frame or for the whole clip."""
    cells = _cell(card, point)
    times = frames if _input(card).clip == "frames" else 1
    return math.prod(grid(card, point, size, frames)) + times * len(cells.before + cells.after)


def view(given: Input, size: tuple[int, int]) -> Fit:
    """Return how frames of `size` (height, width) px are stretched for the model."""
    if given.resize:
        return stretched(size, given.resize)
    return stretched(size, multiple_of=given.multiple_of) if given.multiple_of else stretched(size, size)


def load(ref: ModelRef, folder: Path | None, *, device: str, dtype: str, attention: str) -> DeclaredModel:
    """Load the model named by `ref` from `folder`; without a folder its weights are drawn from `ref`'s seed.

    Raises `ValueError` for code that is not installed here or is no model, `KeyError` for a point whose module
    the model does not have, and `WrongCheckpoint`.
    """
    target = _target(ref.card)
    if _is_transformer(target):
        model = load_model(
            target,
            ref,
            folder,
            tiny_config=lambda: target.config_class(**ref.card.config["arguments"]),
            device=device,
            dtype=dtype,
            attention=attention if kernels(ref.card) else None,
            check=lambda found: check_config(ref, ref.card.config["arguments"], found),
        )
    else:
        if kernels(ref.card):
            raise ValueError(
                f"the kernel of attention is chosen for classes of transformers, but {ref.card.config['code']} is "
                f"none; leave `attention` out of {ref.card.name}"
            )
        if _is_diffuser(target):
            model = load_diffuser(target, ref, folder, config=ref.card.config["arguments"], dtype=dtype)
        else:
            model = _built(target, ref, folder, dtype)
        model = model.to("cpu" if device == "auto" else device)
    modules = dict(model.named_modules())
    for point in points(ref.card):
        if point.path not in modules:
            stem = point.path.rpartition(".")[0]
            near = [name for name in modules if name.rpartition(".")[0] == stem][:12]
            raise KeyError(
                f"{ref.card.name} declares {point.name} at {point.path}, but {type(model).__name__} has no such "
                f"module; beside it are {', '.join(near) or 'none'}"
            )
    return DeclaredModel(ref.card, model)


class DeclaredModel:
    """A loaded model that reads latents as its declaration says.

    Tokens that are declared around the cells have no place; their time is that of their frame, and nan where
    they stand for a whole clip.
    """

    def __init__(self, card: Card, model: Any):
        self.card, self.model = card, model
        self.forwards = 0
        """Forward passes so far."""

    def extract(self, batch: Sequence[Frames], asked: Sequence[str]) -> list[dict[str, Tokens]]:
        """Return one `{point: Tokens}` per entry of `batch`; all points of a size from one forward pass.

        The pass ends after the deepest point asked for. Raises `ValueError` where a module returns something
        else than declared.
        """
        import torch

        from foresight.models.tap import record

        wanted = resolve_points(points(self.card), asked, model=self.card.name)
        given = _input(self.card)
        shapes = [
            (view(given, f.size).size_out, 1 if given.clip == "frames" else len(f.pixels)) for f in batch
        ]
        found: list[dict[str, Tokens]] = [{} for _ in batch]
        for shape in dict.fromkeys(shapes):
            here = [i for i, other in enumerate(shapes) if other == shape]
            pixels = self.prepare([batch[i] for i in here])
            call = (
                partial(self.model, **{given.argument: pixels})
                if given.argument
                else partial(self.model, pixels)
            )
            with torch.no_grad():
                seen = record(self.model, {p.name: p.path for p in wanted}, call)
            self.forwards += 1
            counts = [len(batch[i].pixels) if given.clip == "frames" else 1 for i in here]
            for point in wanted:
                cells = _cell(self.card, point)
                counted = grid(self.card, point, batch[here[0]].size, shape[1])
                patches, others = self._split(seen[point.name], cells, counted)
                parts = zip(here, patches.split(counts), others.split(counts), strict=True)
                for i, own, rest in parts:
                    found[i][point.name] = self._placed(own, rest, cells, batch[i])
        return found

    def prepare(self, batch: Sequence[Frames]) -> Tensor:
        """Return the model's pixels for frames that it sees at one size, on its device.

        [frame 3 row col], the frames of all samples end to end; whole clips by the axes declared.
        """
        import torch
        from torchvision.transforms.v2 import InterpolationMode, functional

        given = _input(self.card)
        parts = []
        for frames in batch:
            pixels = torch.from_numpy(frames.pixels.copy()).permute(0, 3, 1, 2)
            size = view(given, frames.size).size_out
            if size != frames.size:
                how = InterpolationMode(given.interpolation)
                pixels = functional.resize(pixels, list(size), interpolation=how, antialias=True)
            mean, std = (torch.tensor(v).view(3, 1, 1) for v in (given.mean, given.std))
            parts.append((pixels / 255 - mean) / std)
        parameter = next(self.model.parameters())
        if given.clip == "frames":
            return torch.cat(parts).to(parameter.device, parameter.dtype)
        clips = torch.stack(parts).to(parameter.device, parameter.dtype)
        return clips if given.clip == "NTCHW" else clips.transpose(1, 2)

    def save(self, folder: Path) -> None:
        """Write a checkpoint folder: safetensors and a configuration that names the code."""
        if _is_transformer(type(self.model)) or _is_diffuser(type(self.model)):
            with without_bars():
                self.model.save_pretrained(folder, safe_serialization=True)
            return
        from safetensors.torch import save_model

        folder.mkdir(parents=True, exist_ok=True)
        save_model(self.model, str(folder / "model.safetensors"))
        (folder / "config.json").write_text(
            json.dumps({"declared_code": self.card.config["code"]} | self.card.config["arguments"], indent=1)
        )

    def _split(self, values: Tensor, cells: Cells, counted: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Return patches [sample time row col feature] and other tokens [sample token feature]."""
        layout, (t, h, w) = cells.layout, counted
        n, k = len(cells.before), len(cells.before) + len(cells.after)
        expected = {"L": t * h * w + k, "T": t, "H": h, "W": w, "C": cells.width}
        if values.ndim != len(layout) or any(
            values.shape[i] != expected[a] for i, a in enumerate(layout) if a != "N"
        ):
            told = " ".join("N" if a == "N" else f"{a}={expected[a]}" for a in layout)
            raise ValueError(
                f"{cells.name} of {self.card.name} is declared to be [{told}], but {cells.path} returned "
                f"{list(values.shape)}; correct its layout, cell, rounding, width, or the tokens around the cells"
            )
        values = values.permute([layout.index(a) for a in "NTHLWC" if a in layout])
        if "L" in layout:
            inner = values[:, n : n + t * h * w]
            outer = values[:, [*range(n), *range(n + t * h * w, values.shape[1])]]
            if cells.order == "columns":
                return inner.reshape(-1, t, w, h, cells.width).transpose(2, 3), outer
            return inner.reshape(-1, t, h, w, cells.width), outer
        return values.reshape(-1, t, h, w, cells.width), values.new_zeros((len(values), 0, cells.width))

    def _placed(self, patches: Tensor, others: Tensor, cells: Cells, frames: Frames) -> Tokens:
        given = _input(self.card)
        sides = _pair(cells.cell)
        first = _pair(cells.first) if cells.first is not None else tuple(side / 2 for side in sides)
        fit = view(given, frames.size)
        _, _, rows, cols = (np.arange(n) for n in patches.shape[:4])
        row, col = fit.to_input(first[0] + rows * sides[0], first[1] + cols * sides[1])
        times = np.asarray(frames.times_s, np.float64)
        each = others.shape[1]
        if given.clip == "frames":
            other_times = np.repeat(times, each)
        else:
            times, other_times = times.reshape(-1, cells.frames_per_cell).mean(1), np.full(each, np.nan)
        return placed(
            patches.flatten(0, 1),
            times_s=times,
            rows=row,
            cols=col,
            others=others.flatten(0, 1),
            other_kinds=(cells.before + cells.after) * len(others),
            other_times_s=other_times,
        )


def _input(card: Card) -> Input:
    return Input.model_validate(card.config["input"])


def _cells(card: Card) -> tuple[Cells, ...]:
    return tuple(Cells.model_validate(entry) for entry in card.config["points"])


def _cell(card: Card, point: Point) -> Cells:
    return next(c for c in _cells(card) if c.name == point.name)


def _pair(value: float | tuple[float, float]) -> tuple[float, float]:
    return value if isinstance(value, tuple) else (value, value)


def _target(card: Card) -> Any:
    """Import what the card names; a library's entry must be a model, so that a card runs nothing else."""
    module, _, name = card.config["code"].partition(":")
    try:
        target = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{card.name} is declared as {card.config['code']}, which cannot be imported here ({error}); install "
            "the library, or correct the name"
        ) from error
    package = library(card.config["code"])
    allowed = {
        "transformers": _is_transformer(target) and getattr(target, "config_class", None) is not None,
        "diffusers": _is_diffuser(target),
        "torchvision": getattr(target, "__module__", "").startswith("torchvision.models"),
        "timm": getattr(target, "__module__", "").startswith("timm.models"),
    }
    if package in LIBRARIES and not allowed[package]:
        raise ValueError(
            f"{card.name} is declared as {card.config['code']}, which is no model of {package}; name a model class"
            f"{' or a function that makes one' if package in ('torchvision', 'timm') else ''}"
        )
    return target


def _is_transformer(target: Any) -> bool:
    from transformers import PreTrainedModel

    return isinstance(target, type) and issubclass(target, PreTrainedModel)


def _is_diffuser(target: Any) -> bool:
    from diffusers import ModelMixin

    return isinstance(target, type) and issubclass(target, ModelMixin)


def _built(target: Any, ref: ModelRef, folder: Path | None, dtype: str) -> Any:
    """Call the factory, then fill the model with the weights of one safetensors file, by name and whole."""
    import torch
    from safetensors.torch import load_model as fill

    with torch.random.fork_rng():
        torch.manual_seed(int(ref.value) if ref.kind == "random" else 0)
        model = target(**ref.card.config["arguments"])
    if not isinstance(model, torch.nn.Module):
        raise ValueError(
            f"{ref.card.config['code']} is to return a torch.nn.Module, but gave a {type(model).__name__}"
        )
    if ref.kind != "random":
        files = sorted(_folder(ref, folder).glob("*.safetensors"))
        if len(files) > 1:
            raise WrongCheckpoint(
                f"{ref.card.name} is read from one safetensors file, but there are {len(files)}; merge them"
            )
        try:
            fill(model, str(files[0]), strict=True)
        except RuntimeError as error:
            raise WrongCheckpoint(
                f"{files[0].name} does not hold the weights of {ref.card.name}: {' '.join(str(error).split())[:300]}"
            ) from error
    return model.eval().to(getattr(torch, dtype))


def _folder(ref: ModelRef, folder: Path | None) -> Path:
    if folder is None:
        raise ValueError(f"{ref} is loaded from a checkpoint folder, but got none")
    check_folder(ref, folder)
    declared = json.loads((folder / "config.json").read_text()).get("declared_code")
    if declared and declared != ref.card.config["code"]:
        raise WrongCheckpoint(
            f"{ref.card.name} is {ref.card.config['code']}, but the checkpoint in {folder.name} is of {declared}; "
            "give another folder"
        )
    return folder

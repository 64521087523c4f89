"""Cards of the models we can read, and how to load them. A family is one file; the folder is the registry.

Importing this package imports no torch: cards and points are plain data.

A family module gives `CARDS`, `points`, `grid`, `load` and `PREPROCESSING`, and where they apply:
- `tokens(card, point, size, frames)`: tokens of a sample, when there are more than its grid holds;
- `preprocessing(card, point)`: in place of `PREPROCESSING`, when it depends on the point;
- `KERNELS`: the attention kernels its classes have, when those are not all; or `kernels(card)`, by card;
- `load(..., points=None)`: to load just the layers that points need.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from foresight.models.card import Card, ModelRef, Point, resolve_points
from foresight.models.card import parse_ref as _parse_ref
from foresight.models.device import KERNELS

__all__ = [
    "Card",
    "ModelRef",
    "Point",
    "cards",
    "declare",
    "family",
    "get",
    "kernels",
    "loads_parts",
    "parse_ref",
    "points",
    "preprocessing",
    "resolve_points",
    "token_count",
]


@cache
def cards() -> dict[str, Card]:
    """Return every card by name: the `CARDS` of each module in this package."""
    found: dict[str, Card] = {}
    for module in pkgutil.iter_modules(__path__):
        for entry in getattr(importlib.import_module(f"{__name__}.{module.name}"), "CARDS", ()):
            if entry.name in found:
                raise ValueError(f"two model cards are called {entry.name!r}")
            found[entry.name] = entry
    return found


def declare(files: Iterable[Path]) -> None:
    """Add the cards that TOML files declare; one that was declared before under its name is replaced.

    Raises `ValueError` for a file that declares no cards, or a name that is taken.
    """
    from foresight.models.declaration import read

    known, now = cards(), [(file, card) for file in files for card in read(file)]
    for i, (file, card) in enumerate(now):
        taken = [other.name for other, c in now[:i] if c.name == card.name]
        if card.name in known and known[card.name].family != "declared":
            taken = ["this project"]
        if taken:
            raise ValueError(
                f"each card has a name of its own, but {card.name!r} of {file.name} is also one of {taken[0]}; "
                "rename it"
            )
    known.update((card.name, card) for _, card in now)


def get(name: str) -> Card:
    """Return one card, of a known commit or not; `KeyError` lists the cards there are."""
    return cards().get(name) or parse_ref(name).card


def family(card: Card) -> ModuleType:
    """Return the module that knows how to read `card`."""
    return importlib.import_module(f"foresight.models.{card.family}")


def parse_ref(text: str) -> ModelRef:
    """Return the model that `CARD` or `CARD@REVISION` names."""
    return _parse_ref(text, cards())


def points(card: Card) -> tuple[Point, ...]:
    """Return the extraction points of `card`, in the order one forward pass reaches them."""
    return tuple(family(card).points(card))


def preprocessing(card: Card, point: Point) -> dict[str, Any]:
    """Return the identity of what happens between frames and the tokens of `point`, beyond the checkpoint's files."""
    module = family(card)
    if hasattr(module, "preprocessing"):
        return dict(module.preprocessing(card, point))
    return dict(module.PREPROCESSING)


def kernels(card: Card) -> tuple[str, ...]:
    """Return the attention kernels the classes of `card` have, the fastest first; none for a model without attention.

    A family says so with `KERNELS` or `kernels(card)`; without it a decoder has none and any other model has them all.
    """
    module = family(card)
    if hasattr(module, "kernels"):
        return tuple(module.kernels(card))
    return tuple(getattr(module, "KERNELS", () if card.role == "decoder" else KERNELS))


def loads_parts(card: Card) -> bool:
    """Return whether `load` of the family of `card` takes `points`, to load just the layers that those need."""
    return "points" in inspect.signature(family(card).load).parameters


def token_count(card: Card, point: Point, size: tuple[int, int], frames: int) -> int:
    """Return how many tokens a sample of `frames` frames of `size` (height, width) px has at `point`.

    The cells of its grid, or what the family's own `tokens(card, point, size, frames)` counts where class,
    register or newline tokens, or a second view of the image, come on top.
    """
    module = family(card)
    if hasattr(module, "tokens"):
        return int(module.tokens(card, point, size, frames))
    return math.prod(module.grid(card, point, size, frames))

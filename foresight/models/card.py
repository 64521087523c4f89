"""What a model declares before anything of it is loaded: its card, its points, and how people name it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

Role = Literal["vlm", "encoder", "decoder"]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One place in a model where latents can be read."""

    name: str
    """As the research plans name it: `vit.12` is the output after 12 blocks, `llm.14` after 14 layers."""
    path: str
    """Module path on the loaded model; the point may be asked for by this name too."""
    width: int
    """Features per token."""
    about: str
    plans: tuple[str, ...] = ()
    """What the research plans call it besides `name` (`L1`, `I3`); the point may be asked for by these too."""
    prompted: bool = False
    """True when the text before the image changes the values: the prompt is then part of the identity."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One checkpoint, or one tiny configuration, of a family.

    A card is plain data: printing it or planning with it loads no weights.
    """

    name: str
    family: str
    """Module of `foresight.models` that knows how to load and tap it."""
    role: Role
    config: Mapping[str, Any]
    """The numbers of the architecture that decide its points; checked against the checkpoint when loaded."""
    size: tuple[int, int]
    """(height, width) in pixels the frames are fitted to by default."""
    default_points: tuple[str, ...]
    dtype: str = "float32"
    """Compute and storage type by default: float32, float16 or bfloat16."""
    repo: str | None = None
    """Hub repository; None for a tiny card, which is trained here."""
    revision: str | None = None
    """Pinned commit of `repo`, 40 hex digits."""
    subfolder: str = ""
    licence: str = "Apache-2.0 (weights are made here)"
    parameters: int = 0
    memory_gib: float = 0.0
    """Memory the weights take in `dtype`."""
    prompt_prefix: str = ""
    """Text before the image when a prompted point is read."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """How the zoo trains a tiny card; identity of its weights. Empty for a real checkpoint, and for a tiny card
    that is only ever drawn at random."""

    @property
    def tiny(self) -> bool:
        return self.repo is None


@dataclass(frozen=True, kw_only=True)
class ModelRef:
    """A model as people name it: `CARD`, `CARD@seed1`, `CARD@random0`, `CARD@path:DIR` or `CARD@COMMIT`."""

    card: Card
    kind: Literal["hub", "path", "seed", "random"]
    value: str
    """Commit, folder, or number, by kind."""
    base: ModelRef | None = None
    """Whose architecture random weights are drawn for; None for a tiny card, whose card says it all."""
    adapter: str = ""
    """Folder of a low-rank adapter that is merged into the weights; empty: none."""

    def __str__(self) -> str:
        suffix = {"hub": self.value, "path": f"path:{self.value}"}.get(self.kind, self.kind + self.value)
        return f"{self.card.name}@{suffix}" + (f"+adapter:{self.adapter}" if self.adapter else "")

    @property
    def short(self) -> str:
        """The name a run shows: without the default revision or seed, folders by their last part."""
        name, tail = self.card.name, f"+{Path(self.adapter).name}" if self.adapter else ""
        if self.kind == "path":
            return f"{name}@{Path(self.value).name}{tail}"
        default = self.value == ("0" if self.kind == "seed" else self.card.revision)
        if self.kind == "hub":
            return name + ("" if default else f"@{self.value[:7]}") + tail
        return name + ("" if self.kind == "seed" and default else f"@{self.kind}{self.value}") + tail

    def random_twin(self, seed: int = 0) -> ModelRef:
        """Return the same architecture with random weights: the control beside every alignment number.

        The twin of random weights is drawn from another seed.
        """
        if self.kind == "random":
            return ModelRef(
                card=self.card, kind="random", value=str(int(self.value) + 1 + seed), base=self.base
            )
        base = None if self.card.tiny and self.kind == "seed" else self.base or replace(self, adapter="")
        return ModelRef(card=self.card, kind="random", value=str(seed), base=base)


def parse_ref(text: str, cards: Mapping[str, Card]) -> ModelRef:
    """Return what `CARD` or `CARD@REVISION`, with `+adapter:DIR` behind it or not, names.

    Raises `KeyError` for an unknown card and `ValueError` for a revision or an adapter its card cannot have.
    """
    text, plus, adapter = text.partition("+adapter:")
    if plus:
        return _adapted(parse_ref(text, cards), adapter)
    name, _, revision = text.partition("@")
    if name not in cards:
        raise KeyError(f"no model card is called {name!r}; there are {', '.join(sorted(cards))}")
    card = cards[name]
    if revision.startswith("path:"):
        return ModelRef(card=card, kind="path", value=revision.removeprefix("path:"))
    if match := re.fullmatch(r"random(\d+)", revision):
        if not card.tiny and not card.revision:
            raise ValueError(
                f"random weights are drawn for the configuration of a pinned commit, but no commit of {name} is known; "
                f"read {name}@COMMIT or {name}@path:DIR: the random twin beside it is drawn for that"
            )
        base = None if card.tiny else ModelRef(card=card, kind="hub", value=card.revision or "")
        return ModelRef(card=card, kind="random", value=str(int(match[1])), base=base)
    if card.tiny:
        if not revision:
            return ModelRef(card=card, kind="seed" if card.training else "random", value="0")
        if not card.training:
            raise ValueError(
                f"{card.name} is drawn at random and never trained, so its revision is a seed (random0) or a folder "
                f"(path:DIR), but got {revision!r}"
            )
        if match := re.fullmatch(r"seed(\d+)", revision):
            return ModelRef(card=card, kind="seed", value=str(int(match[1])))
        raise ValueError(
            f"{card.name} is trained here, so its revision is a training seed (seed1), random weights (random0) "
            f"or a folder (path:DIR), but got {revision!r}"
        )
    revision = revision or card.revision or ""
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ValueError(
            f"a revision of {card.name} is a commit of 40 hex digits, path:DIR or randomN, but got "
            f"{revision or 'none'!r}; look the commit up on the model's page and pin it"
        )
    return ModelRef(card=card, kind="hub", value=revision)


def _adapted(ref: ModelRef, adapter: str) -> ModelRef:
    if ref.card.role != "vlm" or ref.kind == "random":
        what = "random weights" if ref.kind == "random" else f"a {ref.card.role}"
        raise ValueError(
            f"an adapter is merged into a trained vision-language model, but {ref.short} is {what}"
        )
    if not adapter:
        raise ValueError(
            f"an adapter is named by its folder, as in {ref.card.name}+adapter:DIR, but got none"
        )
    return replace(ref, adapter=adapter)


def resolve_points(available: Sequence[Point], asked: Sequence[str], *, model: str) -> tuple[Point, ...]:
    """Return the points `asked` for, once each, in the order the model computes them.

    A point answers to its name, to what the plans call it and to its module path; a path that several points
    share means the first of them. `all` asks for every point.

    Raises `KeyError` that lists what the model has.
    """
    if list(asked) == ["all"]:
        return tuple(available)
    by_name = {p.path: p for p in reversed(available)}
    by_name |= {plan: p for p in available for plan in p.plans} | {p.name: p for p in available}
    unknown = [a for a in asked if a not in by_name]
    if unknown:
        raise KeyError(
            f"{model} has no point {', '.join(map(repr, unknown))}; it has {', '.join(p.name for p in available)}"
        )
    wanted = {by_name[a].name for a in asked}
    return tuple(p for p in available if p.name in wanted)

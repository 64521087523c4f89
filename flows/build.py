"""From settings to a house and its extractions: what the experiments have in common."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import store
from flows.settings import ExtractSettings, Settings, size_of
from foresight import data, models
from foresight.models import ModelRef
from foresight.models.compiling import blocks
from foresight.models.device import KERNELS, check_dtype, resolve_attention, resolve_device
from tasks.extract import Extract, Framing, check_request
from tasks.house import House, WrongRequest
from tasks.model import Model

RUNS = Path("runs")
"""Everything this project writes goes under here by default; it may be deleted at any time."""


def open_house(settings: Settings, latents: store.Store) -> House:
    """Return the surroundings of a run. Raises `WrongRequest` for data or a device that is not there."""
    declare_cards(settings.cards)
    source = data.open(
        settings.data, samples=settings.samples, seed=settings.seed, cache_dir=RUNS / "cache" / "digests"
    )
    return House(
        store=latents,
        source=source,
        runs=RUNS,
        device=resolve_device(settings.device),
        spread=settings.spread,
        deterministic=settings.deterministic,
        workers=settings.workers,
        batch=settings.batch,
        part=_part(settings.part) if isinstance(settings, ExtractSettings) else None,
    )


def declare_cards(files: Sequence[str]) -> None:
    """Make the cards of `files`, and of the TOML files in runs/cards, cards like any other."""
    models.declare([*map(Path, files), *sorted((RUNS / "cards").glob("*.toml"))])


def extraction(text: str, settings: Settings, house: House, *, points: list[str]) -> Extract:
    """Return the extraction of the model `text` names; `points` empty means its card's own.

    Raises `KeyError` or `ValueError` for a card, revision, point or type that does not exist, and
    `WrongRequest` for frames the model cannot take.
    """
    return _extraction(models.parse_ref(text), settings, house, points)


def control_of(extract: Extract, settings: Settings, house: House) -> Extract | None:
    """Return the same extraction from random weights; None when its weights are random already."""
    if extract.ref.kind == "random":
        return None
    return _extraction(extract.ref.random_twin(), settings, house, [p.name for p in extract.points])


def copies_of(extractions: Iterable[Extract], settings: Settings, house: House) -> tuple[Extract, ...]:
    """Return the random-weights copies of trained models; two models of one card are held against one copy."""
    copies = (control_of(e, settings, house) for e in extractions)
    return tuple({c.name: c for c in copies if c}.values())


def model_stages(extractions: list[Extract]) -> list[Any]:
    """Return model and extraction stages in order, each model once."""
    stages: dict[str, Any] = {}
    for extract in extractions:
        about = Model(ref=extract.ref)
        stages.setdefault(about.name, about)
    for extract in extractions:
        stages.setdefault(extract.name, extract)
    return list(stages.values())


def one_point(extract: Extract) -> Extract:
    """Return `extract` when it has one point; raises `WrongRequest` that lists them otherwise."""
    if len(extract.points) != 1:
        asked = ", ".join(p.name for p in extract.points)
        raise WrongRequest(
            f"one point of the decoder is compared, but {extract.ref.card.name} was asked for {asked}; "
            f"choose one, as in --decoder-points {extract.points[0].name}"
        )
    return extract


def _part(text: str) -> tuple[int, int] | None:
    i, _, n = text.partition("/")
    return (int(i), int(n)) if text else None


def _extraction(ref: ModelRef, settings: Settings, house: House, points: list[str]) -> Extract:
    card = ref.card
    dtype = check_dtype(card.dtype if settings.dtype == "card" else settings.dtype)
    asked = points or list(card.default_points)
    wanted = settings.decoder_size if card.role == "decoder" else settings.size
    found = Extract(
        ref=ref,
        points=models.resolve_points(models.points(card), asked, model=card.name),
        framing=Framing(sampling=data.Sampling(frames=settings.frames), size=size_of(wanted) or card.size),
        dtype=dtype,
        attention=resolve_attention(
            house.device, dtype, kernels=models.kernels(card) or KERNELS, asked=settings.attention
        ),
        compiled=settings.compile and bool(blocks(models.points(card))),
    )
    check_request(found, house)
    return found


def role_of(text: str, role: str) -> str:
    """Return `text` when the model it names plays `role`; raises `WrongRequest` otherwise."""
    card = models.parse_ref(text).card
    if card.role != role:
        fitting = ", ".join(c.name for c in models.cards().values() if c.role == role)
        is_a, asked = (f"{'an' if r[0] in 'aeiou' else 'a'} {r}" for r in (card.role, role))
        raise WrongRequest(f"{card.name} is {is_a}, but {asked} was asked for; there are {fitting}")
    return text

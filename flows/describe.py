"""What there is, as plain values: cards and points, data sets, stores."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import Any

import store
from flows.build import RUNS
from foresight import data
from foresight import models as model_cards
from tasks.extract import ITEM_BYTES


def all_cards() -> dict[str, Any]:
    """Return every card in short."""
    return {
        "cards": [
            {
                "card": c.name,
                "role": c.role,
                "parameters": c.parameters,
                "dtype": c.dtype,
                "memory_gib": c.memory_gib,
                "licence": c.licence,
                "from": _origin(c),
                "default_points": list(c.default_points),
            }
            for c in model_cards.cards().values()
        ]
    }


def card_points(text: str, size: tuple[int, int] | None, frames: int) -> dict[str, Any]:
    """Return one card with its points: width, grid, tokens and bytes of one sample.

    A sample is `frames` frames of `size` (height, width) px, the card's own size when None. Raises `ValueError`
    for frames the model would cut or pad.
    """
    card = model_cards.get(text)
    size = size or card.size
    rows = []
    for point in model_cards.points(card):
        grid = model_cards.family(card).grid(card, point, size, frames)
        tokens = model_cards.token_count(card, point, size, frames)
        rows.append(
            {
                "point": point.name,
                "plans": list(point.plans),
                "module": point.path,
                "about": point.about,
                "width": point.width,
                "grid": list(grid),
                "tokens": tokens,
                "bytes": tokens * point.width * ITEM_BYTES[card.dtype],
                "prompted": point.prompted,
                "default": point.name in card.default_points,
            }
        )
    (about,) = (c for c in all_cards()["cards"] if c["card"] == card.name)
    return about | {"size": list(size), "frames": frames, "revision": card.revision, "points": rows}


def _origin(card: model_cards.Card) -> str:
    if card.repo is None:
        return "trained here by the zoo" if card.training else "drawn at random here"
    return f"{card.repo}@{card.revision[:12]}" if card.revision else f"{card.repo}, no commit pinned yet"


def data_set(spec: str, samples: int | None) -> dict[str, Any]:
    """Return what a data set holds, and every file that cannot be used."""
    found: dict[str, Any] = data.check(spec, samples=samples, cache_dir=RUNS / "cache" / "digests").to_json()
    return found


def store_ls(url: str) -> dict[str, Any]:
    found = store.open(url).ls()
    return {name: [_plain(entry) for entry in entries] for name, entries in found.items()}


def store_du(url: str) -> dict[str, Any]:
    used = store.open(url).du()
    return {"latents": [_plain(u) for u in used], "bytes": sum(u.bytes for u in used)}


def store_verify(url: str) -> dict[str, Any]:
    report = store.open(url).verify()
    return {
        "ok": not report.problems,
        "checked": _plain(report.checked),
        "problems": [_plain(p) for p in report.problems],
    }


def store_show(url: str, identity: str) -> dict[str, Any]:
    found: dict[str, Any] = _plain(store.open(url).show(identity))
    return found


def store_sweep(url: str, apply: bool, grace_days: float) -> dict[str, Any]:
    swept = store.open(url).sweep(apply=apply, grace_s=grace_days * 86400)
    return {
        "removed": swept.applied,
        "items": [{"name": name, "bytes": size, "why": why} for name, size, why in swept.items],
        "bytes": swept.bytes,
    }


def store_export(url: str, manifest: str, folder: str) -> dict[str, Any]:
    latents = store.open(url)
    fitting = [m.id for m in latents.manifests() if m.id.startswith(manifest)]
    if len(fitting) != 1:
        known = ", ".join(store.short(m.id) for m in latents.manifests()) or "none"
        raise ValueError(
            f"one manifest is exported, but {len(fitting)} begin with {manifest!r}; there are {known}"
        )
    latents.export(fitting[0], folder)
    return {"manifest": fitting[0], "folder": folder} | store_du(folder)


def store_import(url: str, other: str) -> dict[str, Any]:
    found: dict[str, Any] = _plain(store.open(url, create=True).import_from(other))
    return found


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {k: _plain(v) for k, v in asdict(value).items()}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value

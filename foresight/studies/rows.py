"""The nouns of a study: the spaces it reads, and the plain rows its measurements are told in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from foresight.metrics import Estimate, Space

Measurement = dict[str, Any]

TRAINED, RANDOM = "trained", "random weights"
RECALL_KS = (5, 10, 50, 100)
NULL_DRAWS = "null draws"


@dataclass(frozen=True, kw_only=True)
class Latent:
    """The latents of all samples at one point, one row per sample."""

    model: str
    """Card, as people named it."""
    point: str
    variant: str
    """'trained', or 'random weights' for the control copy."""
    space: Space
    """[sample feature]."""
    cells: tuple[int, int, int] | None = None
    """(time, row, col) when a row of `space` is that grid of channels in raster order, flattened."""

    def maps(self) -> Float[np.ndarray, "sample time row col channel"]:
        """Return the rows as grids of channels. `ValueError` when they fill none."""
        if self.cells is None:
            raise ValueError(f"{self.model} {self.point} fills no regular grid; pool its tokens instead")
        return self.space.values.reshape(len(self.space), *self.cells, -1)


@dataclass(frozen=True, kw_only=True)
class Spaces:
    """What the study reads: the VLM's points with their random-weights copies, and the decoder's latent."""

    vlm: tuple[Latent, ...]
    decoder: Latent
    labels: tuple[str | None, ...]
    seed: int = 0
    decoder_copy: Latent | None = None
    """The decoder with random weights; None when its weights are random already."""
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What else is known of every sample, by name: shape, scene …; [sample] each."""

    @property
    def own(self) -> tuple[Latent, ...]:
        """Every space that is measured by itself: the VLM's, then the decoder's."""
        return (*self.vlm, self.decoder, *([self.decoder_copy] if self.decoder_copy else []))


def row_of(row: str, name: str, latent: Latent, estimate: Estimate, **more: Any) -> Measurement:
    """Return the measurement of `estimate` at a point. The draws of its null are left out."""
    told = estimate.to_json()
    detail = {k: v for k, v in told["detail"].items() if k != NULL_DRAWS}
    return {**named(row, name, latent.model, latent.point, latent.variant), **told, "detail": detail, **more}


def named(row: str, name: str, model: str, point: str, variant: str) -> Measurement:
    """Return the part of a measurement that says what and where."""
    return {"row": row, "name": name, "model": model, "point": point, "variant": variant}


def undefined(why: str, space: Space) -> Estimate:
    """Return the estimate of a number that does not exist in `space`."""
    return Estimate.undefined(why, n=len(space), n_effective=space.n_groups)


def unlabelled(labels: Sequence[str | None]) -> str:
    """Return why label metrics are undefined, '' when they are not."""
    if any(label is None for label in labels):
        return f"{sum(label is None for label in labels)} of {len(labels)} samples have no label"
    if len(set(labels)) < 2:
        return f"classes separate only where there are two or more, but all samples are {labels[0]!r}"
    return ""


def find(measurements: Sequence[Measurement], row: str, name: str, *key: str) -> Measurement:
    """Return the one measurement `name` of `row` at (model, point, variant); `KeyError` when there is none."""
    for m in measurements:
        if (m["row"], m["name"]) == (row, name) and place_of(m) == key and not m.get("target"):
            return m
    raise KeyError(f"no {row} {name!r} was measured at {' '.join(key)}")


def place_of(m: Measurement) -> tuple[str, str, str]:
    """Return (model, point, variant)."""
    return m["model"], m["point"], m["variant"]


def place_names(places: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return what (model, point) goes by: the point, with the model before it where several models have that point."""
    places = list(dict.fromkeys(places))
    often = Counter(point for _, point in places)
    return {(model, point): point if often[point] == 1 else f"{model} {point}" for model, point in places}


def estimate_of(m: Measurement) -> Estimate:
    """Undo `row_of`."""
    return Estimate.from_json(m)

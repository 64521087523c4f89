"""The extraction stage: latents of one model at all asked points, only the rows the store does not have."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

import store
from foresight import models
from foresight.models import ModelRef, Point
from foresight.models.compiling import BACKEND
from foresight.models.device import deterministic
from foresight.nouns import Sample, Tokens
from tasks.house import House, Progress, WrongRequest
from tasks.model import load, provenance
from tasks.reading import Framing, batches, read
from tasks.refresh import Again
from tasks.stages import Look, nearest_recipe

VERSION = 1
"""Goes up when the same model and sample give other values or other coordinates."""

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
SHARD_BYTES = 64 << 20
"""A shard holds 64 rows, or fewer when they are large: so much is lost at most when a run is killed."""


class Undecodable(Exception):
    """Some samples could not be decoded whole; the rest of the rows are kept."""

    def __init__(self, samples: dict[Sample, str]) -> None:
        first, why = next(iter(samples.items()))
        super().__init__(f"{len(samples)} samples cannot be decoded, the first is {first.key}: {why}")
        self.samples = samples


@dataclass(frozen=True, kw_only=True)
class Extract:
    """Extract `points` of one model for every sample of the manifest. Outputs: content id by point."""

    ref: ModelRef
    points: tuple[Point, ...]
    framing: Framing
    dtype: str
    attention: str
    compiled: bool = False
    """Whether transformer blocks are compiled; their kernels round otherwise, so it is identity."""

    @property
    def name(self) -> str:
        return f"extract {self.ref.short}"

    def controls(self, other: Extract) -> bool:
        """Return whether this extraction is that of `other` with random weights."""
        return other.ref.kind != "random" and self.ref == other.ref.random_twin()

    @property
    def needs(self) -> tuple[str, ...]:
        return ("data", f"model {self.ref.short}")

    def recipes(self, house: House, fingerprint: Mapping[str, str]) -> dict[str, store.Recipe]:
        """Return the extraction recipe of every point: all that shapes a row, except the sample."""
        card = self.ref.card
        stills = all(s.media == "image" for s in house.manifest)
        shared = {
            "model": {"card": card.name, **fingerprint},
            "frames": self.framing.canonical(stills=stills),
            "dtype": self.dtype,
        }
        found = {}
        for point in self.points:
            own: dict[str, Any] = {
                "point": point.name,
                "preprocessing": models.preprocessing(card, point),
            }
            if models.kernels(card):
                own["attention"] = self.attention
            if self.compiled:
                own["compiled"] = BACKEND
            if point.prompted:
                own["prompt_prefix"] = card.prompt_prefix
            found[point.name] = store.Recipe(operation="extract", version=VERSION, settings=shared | own)
        return found

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        recipes = self.recipes(house, given[f"model {self.ref.short}"].values["fingerprint"])
        digests = house.manifest.digests
        missing = {p: len(house.store.missing(r.id, digests)) for p, r in recipes.items()}
        total = sum(missing.values())
        common: dict[str, Any] = {
            "name": self.name,
            "key": store.digest(
                "stage", {"manifest": house.manifest_id, "recipes": [r.id for r in recipes.values()]}
            ),
            "rows_needed": len(recipes) * len(digests),
            "recipes": recipes,
        }
        if total:
            why = _why(house, recipes, missing)
            size = sum(missing[p.name] * self.row_bytes(p, house) for p in self.points)
            return Look(state="missing", why=why, rows_missing=total, bytes=size, **common)
        return Look(
            state="ready",
            why=f"{common['rows_needed']} rows in the store",
            outputs={p: _content(house, r) for p, r in recipes.items()},
            values={"recipes": {p: r.id for p, r in recipes.items()}},
            **common,
        )

    def estimate(self, house: House) -> dict[str, Any]:
        """Return what is known of the rows before the model is."""
        return {"rows_needed": len(self.points) * len(house.manifest)}

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        about = given[f"model {self.ref.short}"]
        recipes = self.recipes(house, about.values["fingerprint"])
        digests = house.manifest.digests
        again = Again() if self.name in house.refresh else None
        missing = {
            p: set(digests if again else house.store.missing(r.id, digests)) for p, r in recipes.items()
        }
        wanted = {
            s: points
            for s in house.manifest
            if (points := tuple(p for p in recipes if s.digest in missing[p]))
        }
        told = provenance() | {
            "device": house.device,
            "model": str(self.ref),
            "deterministic": house.deterministic,
        }
        unreadable: dict[Sample, str] = {}
        done = 0
        with ExitStack() as stack:
            if house.deterministic:
                stack.enter_context(deterministic(house.device))
            asked = [p for p in recipes if missing[p]]
            model = load(
                self.ref,
                about,
                house,
                dtype=self.dtype,
                attention=self.attention,
                points=asked,
                compiled=self.compiled,
            )
            writers = {
                p.name: stack.enter_context(
                    house.store.writer(
                        recipes[p.name],
                        rows_per_shard=max(1, min(64, SHARD_BYTES // max(self.row_bytes(p, house), 1))),
                        provenance=told,
                    )
                )
                for p in self.points
                if missing[p.name]
            }
            for batch in batches(house, self.ref, self.framing, wanted, unreadable):
                points = wanted[batch[0][0]]
                for (sample, _), tokens in zip(batch, read(model, batch, points), strict=True):
                    for name, values in tokens.items():
                        if again:
                            again.compare(house.store, recipes[name], sample, as_numpy(values.values))
                        _put(writers[name], sample, values)
                done += len(batch)
                progress(done + len(unreadable), len(wanted), f"{len(self.points)} points")
        house.forwards += model.forwards
        house.rows_written += sum(w.rows_written for w in writers.values())
        if unreadable:
            raise Undecodable(unreadable)
        if again:
            house.said[self.name] = again.verdict()
        # what a recorded result names is kept by a sweep, however long nothing has read it
        house.store.record(
            store.Recipe(
                operation="latents",
                version=1,
                settings={"points": {p: r.id for p, r in recipes.items()}},
                inputs={"manifest": house.manifest_id},
            ),
            outputs={p: _content(house, r) for p, r in recipes.items()},
            provenance=told,
        )

    def tokens(self, point: Point, house: House) -> int:
        """Return the tokens of one row; an estimate where files keep their own sizes."""
        stills = all(s.media == "image" for s in house.manifest)
        card, frames = self.ref.card, 1 if stills else self.framing.sampling.frames or 1
        return models.token_count(card, point, self.framing.size or card.size, frames)

    def row_bytes(self, point: Point, house: House) -> int:
        """Return the bytes of one row's values; an estimate where files keep their own sizes."""
        return self.tokens(point, house) * point.width * ITEM_BYTES[self.dtype]


def check_request(stage: Extract, house: House) -> None:
    """Refuse, before any model is loaded, frames the model would cut or pad silently.

    Raises `WrongRequest`.
    """
    media = {s.media for s in house.manifest}
    frames = stage.framing.sampling.frames
    if len(media) > 1 and frames != 1:
        raise WrongRequest(
            f"stills and clips of {frames} frames give different token counts, and this data set holds both; "
            "ask for --frames 1, or keep stills and clips in two folders"
        )
    if stage.framing.size is None:
        return
    try:
        models.family(stage.ref.card).grid(
            stage.ref.card, stage.points[0], stage.framing.size, 1 if media == {"image"} else frames or 1
        )
    except ValueError as error:
        raise WrongRequest(str(error)) from error


def _put(writer: store.Writer, sample: Sample, tokens: Tokens) -> None:
    writer.put(
        sample=sample.digest,
        values=as_numpy(tokens.values),
        time_s=tokens.time_s,
        row=tokens.row,
        col=tokens.col,
        kind=tokens.kind,
        tile=tokens.tile,
        grid=tokens.grid,
    )


def as_numpy(values: Any) -> np.ndarray:
    """Return a CPU tensor as a numpy array of the same bits; bfloat16 through ml_dtypes."""
    if isinstance(values, np.ndarray):
        return values
    import ml_dtypes
    import torch

    values = values.contiguous()
    if values.dtype == torch.bfloat16:
        return values.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    array: np.ndarray = values.numpy()
    return array


def _content(house: House, recipe: store.Recipe) -> str:
    content = house.store.content_id(recipe.id, house.manifest.digests)
    if content is None:
        raise RuntimeError("the rows of a latent array went away while it was looked at; run again")
    if house.store.has(house.manifest_id):
        house.store.latents(recipe.id, house.manifest_id)  # so that the content can be found by its id
    return content


def _why(house: House, recipes: Mapping[str, store.Recipe], missing: Mapping[str, int]) -> str:
    """Say, point by point where they differ, why rows are missing."""
    known = house.store.recipes()
    with_rows = {u.recipe for u in house.store.du() if u.rows}
    n = len(house.manifest)
    reasons: dict[str, list[str]] = {}
    for point, recipe in recipes.items():
        if not missing[point]:
            reason = "in the store"
        elif missing[point] < n:
            reason = f"{missing[point]} of {n} samples are new"
        elif recipe.id in with_rows:
            reason = f"all {n} samples are new"
        elif nearest := nearest_recipe([r for r in known if r.id in with_rows], recipe):
            reason = "; ".join(store.explain_change(nearest, recipe))
        else:
            reason = "never extracted"
        reasons.setdefault(reason, []).append(point)
    if len(reasons) == 1:
        return next(iter(reasons))
    return "; ".join(f"{', '.join(points)}: {reason}" for reason, points in reasons.items())

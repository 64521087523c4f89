"""The measuring stages of the alignment study: one per row, from stored latents, and the decision over them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

import store
from foresight.decisions import q1_decision
from foresight.nouns import Manifest
from foresight.studies import alignment
from foresight.studies.alignment import RANDOM, TRAINED, Latent, Spaces
from foresight.studies.rows import place_names
from tasks.extract import Extract
from tasks.house import House, Progress, WrongRequest
from tasks.kept import keep_decision, keep_measurements, read_measurements
from tasks.stages import Look, Stage, look_up

VERSIONS = {
    "Q1.1": 1, "Q1.2": 1, "Q1.3": 2, "Q1.4": 2, "Q1.5": 2, "Q1.6": 2, "Q1.7": 2, "Q1.D": 3,
}  # fmt: skip
"""A row's version goes up when its numbers move for the same latents."""

TITLES = {
    "Q1.1": "categories",
    "Q1.2": "decoder latent",
    "Q1.3": "intrinsic dimension",
    "Q1.4": "linear probes",
    "Q1.5": "distances",
    "Q1.6": "neighbours",
    "Q1.7": "kernel alignment",
}

ALONE = ("Q1.1", "Q1.2", "Q1.3")
"""Rows that look at each space by itself, and so at the decoder's random copy too."""

POOL = {"vlm": "mean", "decoder": "flatten"}
"""How tokens become one vector a sample: the mean over visual tokens, and the whole latent grid."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Which extractions are compared: VLMs with their random-weights copies, against one decoder and its copy."""

    vlm: tuple[Extract, ...]
    copies: tuple[Extract, ...]
    """Random-weights copies, in the order of the VLMs they control; empty for one that is random itself."""
    decoder: Extract
    decoder_copy: Extract | None = None
    """The decoder with random weights; None when its weights are random already."""

    @property
    def extractions(self) -> tuple[Extract, ...]:
        return (*self.vlm, *self.copies, self.decoder, *((self.decoder_copy,) if self.decoder_copy else ()))

    def read_by(self, row: str) -> Compared:
        """Return what of it a row reads: a change of the rest leaves the row's result as it is."""
        if row == "Q1.2":
            return replace(self, vlm=(), copies=())
        return self if row in ALONE else replace(self, decoder_copy=None)

    def without_copies(self) -> Compared:
        """Return what somebody asked to compare."""
        return replace(self, copies=(), decoder_copy=None)

    def places(self) -> list[tuple[Extract, str, str, str]]:
        """Return (extraction, model, point, variant) of every space, the decoder's after the VLMs'."""
        named = [(e, e.ref.short, TRAINED if e.ref.kind != "random" else RANDOM) for e in self.vlm]
        # a copy goes by the name of each model it controls, so that their numbers stand side by side
        named += [(copy, e.ref.short, RANDOM) for copy in self.copies for e in self.vlm if copy.controls(e)]
        named += [(self.decoder, self.decoder.ref.short, TRAINED)]
        if self.decoder_copy:
            named += [(self.decoder_copy, self.decoder.ref.short, RANDOM)]
        return [(e, model, p.name, variant) for e, model, variant in named for p in e.points]


class MeasuredRow(Stage, Protocol):
    """A stage whose output `measurements` is numbers of the study, whatever it reads."""

    @property
    def row(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Measure one row of the study at every point. Output: `measurements`, a JSON blob."""

    row: str
    compared: Compared
    seed: int

    @property
    def name(self) -> str:
        return f"{self.row} {TITLES[self.row]}"

    @property
    def needs(self) -> tuple[str, ...]:
        return ("data", *dict.fromkeys(e.name for e in self._reads.extractions))

    @property
    def _reads(self) -> Compared:
        return self.compared.read_by(self.row)

    def recipe(self, house: House, given: Mapping[str, Look]) -> store.Recipe:
        inputs = {"labels": house.labels_id}
        if self.row == "Q1.5":
            inputs["attributes"] = store.digest("attributes", attributes(house.manifest))
        spaces = []
        for extract, model, point, variant in self._reads.places():
            inputs[f"{model} {point} {variant}"] = given[extract.name].outputs[point]
            spaces.append([model, point, variant])
        return store.Recipe(
            operation=self.row.lower(),
            version=VERSIONS[self.row],
            settings={"seed": self.seed, "pool": POOL, "spaces": spaces},
            inputs=inputs,
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(house, given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        spaces = read_spaces(house, given, self._reads, self.seed)
        measured = alignment.ROWS[self.row](spaces)
        keep_measurements(house, self.recipe(house, given), measured)


@dataclass(frozen=True, kw_only=True)
class Decide:
    """Q1.D: the composite and the decision, from the rows' measurements. Output: `decision`, a JSON blob."""

    rows: tuple[MeasuredRow, ...]
    compared: Compared
    name: str = "Q1.D decision"

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(r.name for r in self.rows)

    def recipe(self, given: Mapping[str, Look]) -> store.Recipe:
        inputs = {r.row: given[r.name].outputs["measurements"] for r in self.rows}
        return store.Recipe(
            operation="q1.d", version=VERSIONS["Q1.D"], settings={"adapter": self._widths()}, inputs=inputs
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        measured = read_measurements(house, (given[r.name] for r in self.rows))
        composites, parts = alignment.decide(measured, self.compared.decoder.points[0].name)
        chosen_from = parts.pop("chosen_from")
        widths = self._widths()
        decision = q1_decision(
            **parts,
            vlm_width=widths["points"].get(parts["best_point"]),
            decoder_channels=widths["decoder_channels"],
            decoder_cells=widths["decoder_cells"],
        ).to_json()
        decision["rules"] = decision["rules"] | {
            "best point": f"the highest debiased CKA of {chosen_from} points, chosen on the samples it is reported "
            "on; its p is corrected for that choice, and Q1.7 gives the CKA of the point chosen on the other half"
        }
        keep_decision(house, self.recipe(given), decision, measurements=composites)

    def _widths(self) -> dict[str, Any]:
        """Return what sizes an adapter: features per VLM token, decoder channels and cells of one sample."""
        from foresight import models

        decoder = self.compared.decoder
        point, card = decoder.points[0], decoder.ref.card
        counts = models.family(card).grid(card, point, decoder.framing.size or card.size, 1)
        widths = {(e.ref.short, p.name): p.width for e in self.compared.vlm for p in e.points}
        names = place_names(widths)
        return {
            "points": {names[place]: width for place, width in widths.items()},
            "decoder_channels": point.width,
            "decoder_cells": counts[0] * counts[1] * counts[2],
        }


def read_spaces(house: House, given: Mapping[str, Look], compared: Compared, seed: int) -> Spaces:
    """Return the study's spaces from the store, pooled to one vector a sample.

    Raises `WrongRequest` for latents that are not finite, naming the sample and the point.
    """
    vlm: list[Latent] = []
    decoders: list[Latent] = []
    for extract, model, point, variant in compared.places():
        look, role = given[extract.name], extract.ref.card.role
        where = {"recipe": look.values["recipes"][point], "content": look.outputs[point], "how": POOL[role]}
        try:
            space = house.space(**where)
        except ValueError as error:
            refuse_unless_finite(house, f"{model} {point} ({variant})", where["recipe"])
            raise WrongRequest(f"{model} {point} ({variant}): {error}") from error
        cells = _cells(house, where["recipe"]) if role == "decoder" else None
        latent = Latent(model=model, point=point, variant=variant, space=space, cells=cells)
        (decoders if role == "decoder" else vlm).append(latent)
    return Spaces(
        vlm=tuple(vlm),
        decoder=decoders[0],
        decoder_copy=decoders[1] if len(decoders) > 1 else None,
        labels=tuple(house.manifest.labels),
        attributes=attributes(house.manifest),
        seed=seed,
    )


def refuse_unless_finite(house: House, where: str, recipe: str) -> None:
    """Raise `WrongRequest`, naming the first sample at `where` whose latent holds nan or infinity."""
    for sample in house.manifest:
        values = house.store.row(recipe, sample.digest).values
        bad = ~np.isfinite(values.astype(np.float32))
        if bad.any():
            raise WrongRequest(
                f"latents are finite, but {where} of sample {sample.key} holds {int(bad.sum())} of {bad.size} "
                "values that are nan or infinite; leave the sample out, or extract in another dtype"
            )


def attributes(manifest: Manifest) -> dict[str, list[str]]:
    """Return what annotations say of every sample in a word or two, by name: [sample] each."""
    known = [s.annotations for s in manifest]
    names = [k for k, v in known[0].items() if isinstance(v, str)] if known else []
    return {k: [a[k] for a in known] for k in sorted(names) if all(isinstance(a.get(k), str) for a in known)}


def _cells(house: House, recipe: str) -> tuple[int, int, int] | None:
    """Return (time, row, col) of the grid that a row fills; None when it fills none."""
    row = house.store.row(recipe, house.manifest.digests[0])
    return row.grid if len(row.values) == math.prod(row.grid) else None

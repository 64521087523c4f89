"""The stage that lays samples out in two dimensions, to be looked at in Q1.1."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import store
from foresight.studies.alignment import TRAINED, Latent, Spaces
from foresight.studies.layouts import METHODS, layouts
from foresight.studies.rows import place_names
from tasks.house import House, Progress
from tasks.kept import put_json
from tasks.measure import POOL, Compared, read_spaces
from tasks.model import provenance
from tasks.stages import Look, look_up

VERSION = 1
"""Goes up when the same latents are laid out otherwise."""


@dataclass(frozen=True, kw_only=True)
class Layouts:
    """Lay out every space that nobody extracted as a control. Output: `layouts`, JSON {method: {space: layout}}."""

    compared: Compared
    seed: int
    name: str = "Q1.1 layouts"

    @property
    def needs(self) -> tuple[str, ...]:
        return ("data", *dict.fromkeys(e.name for e in self._reads.extractions))

    @property
    def _reads(self) -> Compared:
        return self.compared.without_copies()

    def recipe(self, house: House, given: Mapping[str, Look]) -> store.Recipe:
        places = self._reads.places()
        return store.Recipe(
            operation="q1.1.layouts",
            version=VERSION,
            settings={"seed": self.seed, "pool": POOL, "spaces": [[m, p, v] for _, m, p, v in places]},
            inputs={
                "samples": store.digest("samples", house.manifest.digests),
                **{f"{m} {p} {v}": given[e.name].outputs[p] for e, m, p, v in places},
            },
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(house, given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        spaces = shown(read_spaces(house, given, self._reads, self.seed))
        found: dict[str, dict[str, Any]] = {method: {} for method in METHODS}
        for done, (name, latent) in enumerate(spaces.items()):
            for method, layout in layouts(latent.space, seed=self.seed).items():
                found[method][name] = layout
            progress(done + 1, len(spaces), name)
        house.store.record(
            self.recipe(house, given), outputs={"layouts": put_json(house, found)}, provenance=provenance()
        )


def shown(spaces: Spaces) -> dict[str, Latent]:
    """Return by name what is looked at, the decoder last: the VLMs that are trained, or all where none is."""
    vlm = [s for s in spaces.vlm if s.variant == TRAINED] or list(spaces.vlm)
    names = place_names((s.model, s.point) for s in spaces.vlm)
    found = {names[s.model, s.point]: s for s in vlm}
    decoder = spaces.decoder
    return found | {
        decoder.point if decoder.point not in found else f"{decoder.model} {decoder.point}": decoder
    }


def read_layouts(house: House, look: Look, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return {method: {space: layout}}, spaces in the order of `names`; a method that laid nothing out is left away."""
    names = list(names)
    kept = json.loads(house.store.get_blob(look.outputs["layouts"]))
    found = {method: {n: kept[method][n] for n in names if n in kept[method]} for method in METHODS}
    return {method: held for method, held in found.items() if held}

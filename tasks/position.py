"""The stage of Q1.4 that looks at single tokens: does each tell where it lies?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

import store
from foresight.studies.position import POSITION, Placed, Probed, beside_copy, probed, sizes
from foresight.studies.rows import RANDOM, named
from tasks.extract import Extract
from tasks.house import House, Progress
from tasks.kept import keep_measurements
from tasks.measure import Compared
from tasks.stages import Look, look_up

VERSION = 2
"""Goes up when the numbers move for the same latents."""


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Predict from each token of every VLM point where it lies. Output: `measurements`, a JSON blob.

    A random-weights copy is asked about the same tokens, so the two can be held against each other.
    """

    compared: Compared
    seed: int
    row: str = "Q1.4 positions"
    """What other stages know its numbers by; they are of the row Q1.4."""
    name: str = "Q1.4 token positions"

    @property
    def needs(self) -> tuple[str, ...]:
        return ("data", *dict.fromkeys(e.name for e, *_ in self._places))

    @property
    def _places(self) -> list[tuple[Extract, str, str, str]]:
        return [place for place in self.compared.places() if place[0].ref.card.role != "decoder"]

    def recipe(self, house: House, given: Mapping[str, Look]) -> store.Recipe:
        places = self._places
        return store.Recipe(
            operation="q1.4.positions",
            version=VERSION,
            settings={"seed": self.seed, "spaces": [list(where) for _, *where in places]},
            inputs={
                "samples": store.digest("samples", house.manifest.digests),
                "labels": house.labels_id,
                **{f"{m} {p} {v}": given[e.name].outputs[p] for e, m, p, v in places},
            },
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(house, given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        found: dict[tuple[str, str, str], Probed] = {}
        places, seed = self._places, self.seed
        kept, each = sizes(len(house.manifest))
        chosen = np.sort(np.random.default_rng([seed, 33]).permutation(len(house.manifest))[:kept])
        groups = [house.manifest.groups[i] for i in chosen]
        for done, (extract, model, point, variant) in enumerate(places):
            recipe = given[extract.name].values["recipes"][point]
            size = extract.framing.size or extract.ref.card.size
            tokens = [
                read_placed(
                    house, recipe, house.manifest.digests[i], size=size, most=each, seed=[seed, 34, int(i)]
                )
                for i in chosen
            ]
            found[model, point, variant] = probed(tokens, groups, seed=seed)
            progress(done + 1, len(places), point)
        measured = []
        for (model, point, variant), mine in found.items():
            copy = found.get((model, point, RANDOM))
            estimate = (
                beside_copy(mine, copy, groups, seed=seed) if copy and copy is not mine else mine.estimate
            )
            measured.append({**named("Q1.4", POSITION, model, point, variant), **estimate.to_json()})
        keep_measurements(house, self.recipe(house, given), measured)


def read_placed(
    house: House, recipe: str, digest: str, *, size: tuple[int, int], most: int, seed: list[int]
) -> Placed:
    """Return at most `most` visual tokens of one sample, drawn by `seed`, and their places in shares of `size` px."""
    row = house.store.row(recipe, digest)
    visual = np.flatnonzero(np.asarray(row.kind) == 0)
    drawn = np.sort(np.random.default_rng(seed).permutation(visual)[:most])
    where = np.stack([np.asarray(row.row)[drawn], np.asarray(row.col)[drawn]], axis=1)
    return Placed(values=np.asarray(row.values)[drawn].astype(np.float32), places=where / np.asarray(size))

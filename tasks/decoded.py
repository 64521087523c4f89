"""The stage of Q1.4 that looks at pictures: what a linear map of the best point's tokens gives through the decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import store
from foresight.metrics.perceptual import FEWEST_PX
from foresight.studies import rows
from foresight.studies.choice import BEST
from foresight.studies.decoded import MOST, decoded_prediction, spread
from foresight.studies.rebuilt import Place, Rebuilt
from foresight.studies.reconstruction import POOLED, RANDOM, ROUND_TRIP, TOKENS
from tasks.extract import Extract
from tasks.house import House, Progress
from tasks.kept import put_json, read_measurements
from tasks.measure import Compared, Measure
from tasks.model import provenance
from tasks.pairs import Pairs, Source
from tasks.reconstruct import (
    Bench,
    file_stem,
    fit_and_rebuild,
    place_of,
    pngs,
    read_pngs,
    score_references,
    scoring,
    split_inputs,
    too_few,
)
from tasks.stages import Look, look_up

VERSION = 1
"""Goes up when the same latents give other pictures or other scores."""
TRUTH = "input"
SHOWN = (TRUTH, ROUND_TRIP, TOKENS, RANDOM)
"""What pictures are kept of."""


@dataclass(frozen=True, kw_only=True)
class DecodePrediction:
    """Predict the decoder's latents at the best point by ridge, decode and score them. Outputs: `measurements` and
    `pictures`.

    The point is the one that the decision names, read from the finished row of Q1.7. Maps, split and scores are
    C1's; of the samples C1 scores, at most `MOST` are decoded here.
    """

    compared: Compared
    kernels: Measure
    """The row in which the best point is chosen."""
    seed: int
    row: str = "Q1.4 decoded"
    """What other stages know its numbers by; they are of the row Q1.4."""
    name: str = "Q1.4 decoded prediction"

    @property
    def needs(self) -> tuple[str, ...]:
        read = (e.name for e in (*self.compared.vlm, *self.compared.copies, self.decoder))
        return ("data", *dict.fromkeys((*read, f"model {self.decoder.ref.short}", self.kernels.name)))

    @property
    def decoder(self) -> Extract:
        return self.compared.decoder

    def sources(self, house: House, given: Mapping[str, Look]) -> tuple[Source, ...]:
        """Return the best point, and the same point of its copy with random weights where there is one."""
        measured = read_measurements(house, [given[self.kernels.name]])
        model, point, variant = rows.place_of(next(m for m in measured if m["name"] == BEST))
        wanted = [(model, point, v) for v in dict.fromkeys((variant, RANDOM))]
        held = {(m, p, v): e for e, m, p, v in self.compared.places() if e.ref.card.role != "decoder"}
        return tuple(
            Source(extract=held[m, p, v], point=p, model=m, variant=v)
            for m, p, v in wanted
            if (m, p, v) in held
        )

    def recipe(self, house: House, given: Mapping[str, Look]) -> store.Recipe:
        best, *copy = self.sources(house, given)
        point = self.decoder.points[0].name
        read = {s.variant: given[s.extract.name].outputs[s.point] for s in (best, *copy)}
        return store.Recipe(
            operation="q1.4.decoded",
            version=VERSION,
            settings=scoring(self.decoder, house, given, seed=self.seed)
            | {"card": best.extract.ref.short, "point": best.point, "most": MOST},
            inputs={**read, point: given[self.decoder.name].outputs[point], **split_inputs(house)},
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(house, given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        sources = self.sources(house, given)
        found, files = self._rebuilt(house, given, sources, progress)
        measured = decoded_prediction(found, place_of(sources[0]))
        house.store.record(
            self.recipe(house, given),
            outputs={"measurements": put_json(house, measured), "pictures": house.store.put_tree(files)},
            provenance=provenance(),
        )

    def _rebuilt(
        self, house: House, given: Mapping[str, Look], sources: Sequence[Source], progress: Progress
    ) -> tuple[Rebuilt, dict[str, bytes]]:
        """Return what was scored at the best point and at its copy, or why nothing was, and the kept pictures."""
        bench = Bench(house=house, given=given, decoder=self.decoder, seed=self.seed)
        best, *copy = sources
        asked = [(best, TOKENS), (best, POOLED), *((c, TOKENS) for c in copy)]
        pairs = [
            Pairs(house=house, given=given, source=s, decoder=self.decoder, reading=reading, seed=self.seed)
            for s, reading in asked
        ]
        if why := too_few(house) or _unscorable(bench, pairs):
            undone = {"why": why}
            groups = house.manifest.groups
            return Rebuilt(
                places={place_of(best): undone}, references=undone, groups=groups, seed=self.seed
            ), {}
        bench.scored = spread(bench.scored)
        references, files = score_references(bench, progress)
        places: dict[Place, dict[str, Any]] = {place_of(s): {} for s in sources}
        for (source, reading), pair in zip(asked, pairs, strict=True):
            name = RANDOM if source in copy else reading
            scores, told, shown = fit_and_rebuild(bench, pair, progress, name)
            places[place_of(source)][reading] = scores.to_json() | told
            files |= pngs(name, shown)
        found = Rebuilt(
            places=places,
            references={k: s.to_json() for k, s in references.items()} | {"distance": bench.distance.name},
            groups=[house.manifest.groups[int(i)] for i in bench.scored],
            seed=self.seed,
        )
        return found, {k: v for k, v in files.items() if k.startswith(tuple(map(file_stem, SHOWN)))}


def _unscorable(bench: Bench, pairs: Sequence[Pairs]) -> str:
    """Return why no picture can be made or scored, by the first sample; '' when it can."""
    cells = pairs[0].cells(bench.house.manifest.samples[0])
    if len(cells.values) != math.prod(cells.grid):
        return f"the decoder's latent fills no grid: {len(cells.values)} tokens for {list(cells.grid)} cells"
    try:
        for pair in pairs:
            pair.where  # noqa: B018 (tells whether the tokens fill a grid)
    except ValueError as error:
        return str(error)
    (_, picture), *_ = bench.pictures(bench.scored[:1])
    if min(picture.shape[1:3]) < FEWEST_PX:
        given = " x ".join(map(str, picture.shape[1:3]))
        return f"pictures are scored from {FEWEST_PX} px a side on, but the decoder is given {given}"
    return ""


def read_pictures(house: House, look: Look) -> dict[str, list[bytes]]:
    """Return the kept pictures as PNG files by name, `TRUTH` first; {} where nothing was decoded."""
    found = {name: read_pngs(house, look, name) for name in SHOWN}
    return {name: pictures for name, pictures in found.items() if pictures}

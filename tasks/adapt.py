"""C1's adapters: trained on stored latents, resumable, then adapter → decoder → pixels on the scored samples."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import store
from foresight.adapters import Design
from foresight.studies import adapted as study
from foresight.studies.rebuilt import best_point
from foresight.studies.reconstruction import TOKENS
from tasks.extract import Extract
from tasks.house import House, Progress
from tasks.model import provenance
from tasks.pairs import Pairs, Source
from tasks.reconstruct import (
    Bench,
    Rebuild,
    finite,
    place_of,
    pngs,
    rebuild,
    record_scores,
    record_why,
    scoring,
    split_inputs,
    too_few,
)
from tasks.stages import Look, look_up

TRAIN_VERSION = 1
"""Goes up when the same latents give other weights."""
ADAPTED_VERSION = 1
"""Goes up when the same weights give other scores."""
KEPT_BYTES = 256 << 20
"""Training pairs up to this size are held in memory; more lie in a file of the working folder."""


@dataclass(frozen=True, kw_only=True)
class Adapt:
    """Train one adapter and rebuild the scored samples with it. Outputs: `checkpoint`, `scores`, `pictures`.

    With several candidates it reads the one the choosing fold prefers, which is known when they were rebuilt.
    """

    label: str
    candidates: tuple[Rebuild, ...]
    twins: tuple[Rebuild, ...] = ()
    """Random-weights copies; where given, the chosen place is read from them."""
    decoder: Extract
    design: Design
    share: float
    """Share of the training groups it learns from."""
    seed: int

    @property
    def name(self) -> str:
        return f"adapter {self.label} {self.design}" + (f" {self.share:g}" if self.share < 1 else "")

    @property
    def needs(self) -> tuple[str, ...]:
        extracts = (r.source.extract.name for r in (*self.candidates, *self.twins))
        chosen = (r.name for r in self.candidates) if len(self.candidates) > 1 else ()
        decoder = (self.decoder.name, f"model {self.decoder.ref.short}")
        return tuple(dict.fromkeys(("data", *extracts, *decoder, *chosen)))

    def source(self, given: Mapping[str, Look]) -> Source:
        """Return the point it reads."""
        if len(self.candidates) == 1:
            mine = self.candidates[0].source
        else:
            mine = best_of(self.candidates, given).source
        if not self.twins:
            return mine
        return next(t.source for t in self.twins if place_of(t.source)[:2] == place_of(mine)[:2])

    def training(self, house: House, given: Mapping[str, Look]) -> store.Recipe:
        """Return the recipe of the weights."""
        source, point = self.source(given), self.decoder.points[0].name
        return store.Recipe(
            operation="c1.adapter",
            version=TRAIN_VERSION,
            settings={
                "card": source.extract.ref.short,
                "point": source.point,
                "design": str(self.design),
                "share": self.share,
                "seed": self.seed,
                "steps": study.STEPS,
            },
            inputs={
                "tokens": given[source.extract.name].outputs[source.point],
                point: given[self.decoder.name].outputs[point],
                **split_inputs(house),
            },
        )

    def recipe(self, house: House, given: Mapping[str, Look]) -> store.Recipe:
        trained = self.training(house, given)
        return store.Recipe(
            operation="c1.adapted",
            version=ADAPTED_VERSION,
            settings=scoring(self.decoder, house, given, seed=self.seed)
            | {"card": trained.settings["card"], "point": trained.settings["point"], "adapter": trained.id},
            inputs=split_inputs(house),
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(house, given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        recipe = self.recipe(house, given)
        if why := too_few(house):
            return record_why(house, recipe, why)
        bench = Bench(house=house, given=given, decoder=self.decoder, seed=self.seed)
        source = self.source(given)
        pairs = Pairs(
            house=house, given=given, source=source, decoder=self.decoder, reading=TOKENS, seed=self.seed
        )
        try:
            pairs.where  # noqa: B018 (tells whether the tokens fill a grid)
        except ValueError as error:
            return record_why(house, recipe, str(error))
        chosen = study.training_part(bench.folds, house.manifest.groups, share=self.share, seed=self.seed)
        checkpoint, told = self._weights(house, given, pairs, chosen, progress)
        content = house.store.get_blob(house.store.get_tree(checkpoint)["adapter.safetensors"])
        model = study.loaded(self.design, content)
        scores, latents, shown = rebuild(
            bench, pairs, study.predictor(model), model.target_mean.numpy(), progress, str(self.design)
        )
        record_scores(
            house,
            recipe,
            scores={TOKENS: scores},
            told={
                TOKENS: {
                    "latents": np.round(latents, 6).tolist(),
                    "grid": list(pairs.grid),
                    "placed": list(pairs.where.tokens),
                    "blocks": list(pairs.where.blocks),
                    "trained on": len(chosen),
                    "design": str(self.design),
                    "place": list(place_of(source)),
                    **told,
                }
            },
            files=pngs(TOKENS, shown),
            outputs={"checkpoint": checkpoint},
        )
        return None

    def _weights(
        self, house: House, given: Mapping[str, Look], pairs: Pairs, chosen: np.ndarray, progress: Progress
    ) -> tuple[str, dict[str, Any]]:
        """Return the tree that holds the trained weights, training them where the store has none."""
        recipe = self.training(house, given)
        found = house.store.result(recipe.id)
        if found is not None:
            return found.outputs["checkpoint"], dict(found.values)
        scratch = house.cache / "training" / recipe.id
        scratch.mkdir(parents=True, exist_ok=True)
        x, y = _gathered(pairs, chosen, scratch)
        model, losses = study.train(self.design, x, y, seed=self.seed, scratch=scratch, progress=progress)
        values = {
            "parameters": sum(p.numel() for p in model.parameters()),
            "loss": finite(float(np.mean(losses[-20:]))),
        }
        tree = house.store.put_tree({"adapter.safetensors": study.saved(model)})
        house.store.record(recipe, outputs={"checkpoint": tree}, values=values, provenance=provenance())
        del x, y
        shutil.rmtree(scratch, ignore_errors=True)
        return tree, values


def best_of(rebuilds: tuple[Rebuild, ...], given: Mapping[str, Look]) -> Rebuild:
    """Return what the choosing fold prefers; the first where nothing could be rebuilt."""
    told = {place_of(r.source): given[r.name].values.get("validation_r2") for r in rebuilds}
    best = best_point(told)
    return next((r for r in rebuilds if place_of(r.source) == best), rebuilds[0])


def _gathered(pairs: Pairs, chosen: np.ndarray, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return (x, y) of all training samples, in memory or in a file there."""
    first = pairs.read(chosen[:1])
    shapes = [(len(chosen), *side.shape[1:]) for side in first]
    sides = [
        np.empty(shape, np.float32)
        if 4 * int(np.prod(shape)) <= KEPT_BYTES
        else np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=shape)
        for name, shape in zip("xy", shapes, strict=True)
    ]
    at = 0
    for some, *both in pairs.parts(chosen):
        for side, part in zip(sides, both, strict=True):
            side[at : at + len(some)] = part
        at += len(some)
    return sides[0], sides[1]

"""C1's measuring stages: each reads the scores of rebuilt pictures and gives a row; the decision over them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import store
from foresight.decisions.c1 import c1_decision
from foresight.metrics.perceptual import published_trunk
from foresight.studies import rebuilt as study
from foresight.studies import reconstruction
from foresight.studies.rebuilt import Place, Rebuilt
from tasks.house import House, Progress
from tasks.model import provenance
from tasks.pairs import Source
from tasks.reconstruct import Rebuild, References, read_scores
from tasks.stages import Look, look_up

VERSIONS = {"C1.1": 1, "C1.2": 1, "C1.3": 1, "C1.D": 1}
"""A row's version goes up when its numbers move for the same scores."""


@dataclass(frozen=True, kw_only=True)
class Project:
    """C1.1: do classes separate in the pooled latents of every point? Output: `measurements`."""

    sources: tuple[Source, ...]
    seed: int
    name: str = "C1.1 projection"

    @property
    def needs(self) -> tuple[str, ...]:
        return ("data", *dict.fromkeys(s.extract.name for s in self.sources))

    def recipe(self, house: House, given: Mapping[str, Look]) -> store.Recipe:
        inputs = {"labels": house.labels_id}
        inputs |= {" ".join(place_of(s)): given[s.extract.name].outputs[s.point] for s in self.sources}
        return store.Recipe(
            operation="c1.1", version=VERSIONS["C1.1"], settings={"seed": self.seed}, inputs=inputs
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(house, given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        spaces = {place_of(s): pooled(house, given, s) for s in self.sources}
        measured = study.projection(spaces, house.manifest.labels, seed=self.seed)
        _keep(house, self.recipe(house, given), measured)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of C1 from what the working stages left. Output: `measurements`."""

    row: str
    title: str
    rebuilds: tuple[Rebuild, ...]
    references: References
    seed: int

    @property
    def name(self) -> str:
        return f"{self.row} {self.title}"

    @property
    def needs(self) -> tuple[str, ...]:
        return ("data", self.references.name, *(r.name for r in self.rebuilds))

    def recipe(self, house: House, given: Mapping[str, Look]) -> store.Recipe:
        inputs = {"groups": house.labels_id, "references": given[self.references.name].outputs["scores"]}
        inputs |= {" ".join(place_of(r.source)): given[r.name].outputs["scores"] for r in self.rebuilds}
        places = [list(place_of(r.source)) for r in self.rebuilds]
        return store.Recipe(
            operation=self.row.lower(),
            version=VERSIONS[self.row],
            settings={"seed": self.seed, "places": places},
            inputs=inputs,
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(house, given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        found = read_rebuilt(house, given, self.rebuilds, self.references, seed=self.seed)
        order = list(dict.fromkeys(r.source.point for r in self.rebuilds))
        measured = study.linear_probe(found) if self.row == "C1.2" else study.merger(found, order)
        _keep(house, self.recipe(house, given), measured)


@dataclass(frozen=True, kw_only=True)
class Decide:
    """C1.D: the verdict at the best point. Output: `decision`."""

    probe: Row
    name: str = "C1.D decision"

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.probe.name, *(r.name for r in self.probe.rebuilds))

    def recipe(self, given: Mapping[str, Look]) -> store.Recipe:
        return store.Recipe(
            operation="c1.d",
            version=VERSIONS["C1.D"],
            settings={"best": list(self.best(given) or ())},
            inputs={"probe": given[self.probe.name].outputs["measurements"]},
        )

    def best(self, given: Mapping[str, Look]) -> Place | None:
        """Return the place that the choosing fold prefers."""
        return study.best_point(
            {place_of(r.source): given[r.name].values.get("validation_r2") for r in self.probe.rebuilds}
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        measured = read_rows(house, given[self.probe.name])
        best = self.best(given) or place_of(self.probe.rebuilds[0].source)
        decision = decide(measured, best)
        blob = house.store.put_blob(to_json(decision), "application/json")
        house.store.record(
            self.recipe(given),
            outputs={"decision": blob},
            values={"verdict": decision["overall"]},
            provenance=provenance(),
        )


def decide(measured: list[dict[str, Any]], best: Place) -> dict[str, Any]:
    """Return the decision in plain values, from the rows measured at the best place."""
    model, point, _ = best

    def at(variant: str) -> dict[str, dict[str, Any]]:
        return {
            m["name"]: m
            for m in measured
            if m["row"] == "C1.2" and (m["model"], m["point"], m["variant"]) == (model, point, variant)
        }

    here, copy = at(best[2]), at(reconstruction.RANDOM)
    distance = next(n for n in here if n not in (*study.NUMBERS, "latent R²"))
    ceiling = {n: here[n]["controls"].get(reconstruction.ROUND_TRIP) for n in (distance, "SSIM")}
    return c1_decision(
        distance=here[distance],
        distance_name=distance,
        published=published_trunk() is not None,
        ssim=here["SSIM"],
        random_weights={"c1.lpips": copy[distance], "c1.ssim": copy["SSIM"]}
        if copy and best[2] == study.TRAINED
        else {},
        ceiling={"c1.lpips": ceiling[distance], "c1.ssim": ceiling["SSIM"]},
        best_point=point,
        pipeline="linear probe",
    ).to_json()


def place_of(source: Source) -> Place:
    """Return (model, point, variant)."""
    return source.model, source.point, source.variant


def pooled(house: House, given: Mapping[str, Look], source: Source) -> Any:
    """Return the mean token of every sample at a point, as a space."""
    look = given[source.extract.name]
    return house.space(
        recipe=look.values["recipes"][source.point], content=look.outputs[source.point], how="mean"
    )


def read_rebuilt(
    house: House,
    given: Mapping[str, Look],
    rebuilds: tuple[Rebuild, ...],
    references: References,
    *,
    seed: int,
) -> Rebuilt:
    """Return the scores of all working stages."""
    found = read_scores(house, given[references.name])
    groups = house.manifest.groups
    scored = [] if "why" in found else reconstruction.parted(groups, seed=seed) == reconstruction.TEST
    return Rebuilt(
        places={place_of(r.source): read_scores(house, given[r.name]) for r in rebuilds},
        references=found,
        groups=[g for g, mine in zip(groups, scored, strict=True) if mine] if len(scored) else groups,
        seed=seed,
    )  # fmt: skip


def read_rows(house: House, look: Look) -> list[dict[str, Any]]:
    """Return the measurements of one finished row."""
    found: list[dict[str, Any]] = json.loads(house.store.get_blob(look.outputs["measurements"]))
    return found


def to_json(value: Any) -> bytes:
    """Return JSON bytes that are equal for equal values."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False, indent=1).encode()


def _keep(house: House, recipe: store.Recipe, measured: list[dict[str, Any]]) -> None:
    blob = house.store.put_blob(to_json(measured), "application/json")
    house.store.record(recipe, outputs={"measurements": blob}, provenance=provenance())

"""C1's measuring stages: each reads the scores of rebuilt pictures and gives a row; the decision over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import store
from foresight.decisions.c1 import ABSENT, c1_decision
from foresight.studies import rebuilt as study
from foresight.studies import reconstruction
from foresight.studies.rebuilt import Place, Rebuilt
from foresight.studies.reconstruction import POOLED, RANDOM, ROUND_TRIP
from tasks.adapt import Adapt, best_of
from tasks.house import House, Progress
from tasks.kept import keep_decision, keep_measurements, read_measurements
from tasks.locate import Locate
from tasks.pairs import Source
from tasks.reconstruct import Rebuild, References, place_of, read_scores
from tasks.stages import Look, look_up

VERSIONS = {"C1.1": 1, "C1.2": 1, "C1.3": 1, "C1.5": 1, "C1.6": 1, "C1.D": 3}
"""A row's version goes up when its numbers move for the same scores."""
PUBLISHED = "LPIPS"
"""What the perceptual distance is called when its networks are the published ones, and only then."""


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
        keep_measurements(house, self.recipe(house, given), measured)


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
        keep_measurements(house, self.recipe(house, given), measured)


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """C1.5, the pipeline of the base adapter at the best point, or C1.6, all runs. Output: `measurements`."""

    row: str
    title: str
    runs: tuple[Adapt, ...]
    """C1.5: the pipeline, then the same on random weights where there is such a copy."""
    probe: Row

    @property
    def name(self) -> str:
        return f"{self.row} {self.title}"

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.probe.needs, *(r.name for r in self.runs))))

    def recipe(self, house: House, given: Mapping[str, Look]) -> store.Recipe:
        inputs = dict(self.probe.recipe(house, given).inputs)
        inputs |= {r.name: given[r.name].outputs["scores"] for r in self.runs}
        return store.Recipe(
            operation=self.row.lower(),
            version=VERSIONS[self.row],
            settings={"seed": self.probe.seed, "runs": [r.name for r in self.runs]},
            inputs=inputs,
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(house, given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        probe = self.probe
        found = read_rebuilt(house, given, probe.rebuilds, probe.references, seed=probe.seed)
        runs = [read_scores(house, given[r.name]) for r in self.runs]
        measured = study.pipeline(found, *runs) if self.row == "C1.5" else study.ablations(found, runs)
        keep_measurements(house, self.recipe(house, given), measured)


@dataclass(frozen=True, kw_only=True)
class Decide:
    """C1.D: the verdict at the best point. Output: `decision`."""

    probe: Row
    pipeline: Adapted
    locates: tuple[Locate, ...]
    name: str = "C1.D decision"

    @property
    def rows(self) -> tuple[Row | Adapted | Locate, ...]:
        return (self.probe, self.pipeline, *self.locates)

    @property
    def needs(self) -> tuple[str, ...]:
        return (*(r.name for r in self.rows), *(r.name for r in self.probe.rebuilds))

    def recipe(self, given: Mapping[str, Look]) -> store.Recipe:
        return store.Recipe(
            operation="c1.d",
            version=VERSIONS["C1.D"],
            settings={"best": list(self.best(given))},
            inputs={r.name: given[r.name].outputs["measurements"] for r in self.rows},
        )

    def best(self, given: Mapping[str, Look]) -> Place:
        """Return the place that the choosing fold prefers."""
        return place_of(best_of(trained(self.probe.rebuilds), given).source)

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        measured = read_measurements(house, (given[r.name] for r in self.rows))
        keep_decision(house, self.recipe(given), decide(measured, self.best(given)))


def decide(measured: list[dict[str, Any]], best: Place) -> dict[str, Any]:
    """Return the decision in plain values: the pipeline's pictures and the boxes read at the best place."""

    def at(row: str) -> dict[str, dict[str, Any]]:
        return {m["name"]: m for m in measured if m["row"] == row and place_in(m) == best}

    here = at("C1.5")
    distance = next(n for n in here if n not in (*study.NUMBERS, "latent R²"))
    place = _against_pooled(at("C1.4").get("spatial IoU"))
    judged = {"c1.lpips": here[distance], "c1.ssim": here["SSIM"], "c1.spatial_iou": place}
    design = (here["SSIM"]["detail"] or {}).get("design", "")
    return c1_decision(
        distance=here[distance],
        distance_name=distance,
        published=distance == PUBLISHED,
        ssim=here["SSIM"],
        spatial_iou=place,
        random_weights={k: m.get("controls", {}).get(RANDOM) for k, m in judged.items()},
        ceiling={k: m.get("controls", {}).get(ROUND_TRIP) for k, m in judged.items()},
        best_point=best[1],
        pipeline=f"{design} adapter" if design else "adapter",
    ).to_json()


def place_in(m: Mapping[str, Any]) -> Place:
    """Return (model, point, variant) of a measurement."""
    return m["model"], m["point"], m["variant"]


def trained(rebuilds: tuple[Rebuild, ...]) -> tuple[Rebuild, ...]:
    """Return those of trained models; all where every model is random."""
    return tuple(r for r in rebuilds if r.source.variant == study.TRAINED) or rebuilds


def _against_pooled(iou: dict[str, Any] | None) -> dict[str, Any]:
    """Return the IoU with its mean-pooled control as chance level."""
    if iou is None:
        return dict(ABSENT)
    return iou | {"null": iou["controls"].get(POOLED)}


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

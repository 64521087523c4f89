"""C1's localisation stages: the place of the largest object, read off raw patches and off one point's tokens.

Truth, tokens and pixels are read as the box row of the spatial study reads them, of clips at their middle step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import store
from foresight.metrics.estimate import Estimate
from foresight.studies import located as study
from foresight.studies import spatial, spatial_truth
from foresight.studies.rebuilt import row_of
from foresight.studies.spatial import Split
from foresight.studies.spatial_truth import Truth
from tasks.extract import Extract
from tasks.house import House, Progress
from tasks.kept import keep_measurements
from tasks.model import provenance
from tasks.pairs import Source
from tasks.reconstruct import place_of, too_few
from tasks.spatial import Ceiling, Pictures, read_patches, truth_of
from tasks.stages import Look, look_up
from tasks.token_grids import read_grids

VERSION = 2
"""Goes up when the same tokens give other numbers."""
LIKE = "Q2.1"
"""The row whose truth and tokens are read."""


@dataclass(frozen=True, kw_only=True)
class Patches(Ceiling):
    """Read boxes off raw patches of one grid, on C1's split. Values: `ceiling`, or `why` this data gives no box."""

    row: str = "C1.4"

    @property
    def version(self) -> int:
        return VERSION

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        values: dict[str, object] = {"why": too_few(house) or spatial_truth.without_boxes(house.manifest)}
        if not values["why"]:
            truth, where = self.wanted(house)
            values["why"] = study.too_few(where)
        if not values["why"]:
            pictures = Pictures(house, self.extract, self.grid)
            grids = read_patches(pictures, truth, where, study.ROW, seed=self.seed)
            values = {"ceiling": spatial.ceiling(study.ROW, grids, truth, where, seed=self.seed)}
        house.store.record(self.recipe(house), values=values, provenance=provenance())

    def wanted(self, house: House) -> tuple[Truth, Split]:
        """Return the boxes to find, and which samples a probe learns from and is scored on."""
        truth = truth_of(LIKE, house, self.extract, Pictures(house, self.extract, self.grid))
        return truth, study.split(house.manifest.groups, truth, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class Locate:
    """C1.4: read boxes off the tokens of one point, with every control. Output: `measurements`."""

    source: Source
    copy: Extract
    """The same architecture with random weights."""
    patches: Patches | None
    """On the grid of the point; None where its tokens fill none."""
    seed: int

    @property
    def name(self) -> str:
        return f"C1.4 place {self.source.extract.ref.short} {self.source.point}"

    @property
    def needs(self) -> tuple[str, ...]:
        patches = (self.patches.name,) if self.patches else ()
        return tuple(dict.fromkeys(("data", self.source.extract.name, self.copy.name, *patches)))

    def recipe(self, house: House, given: Mapping[str, Look]) -> store.Recipe:
        point = self.source.point
        inputs = {
            "manifest": house.manifest_id,
            "tokens": given[self.source.extract.name].outputs[point],
            "random weights": given[self.copy.name].outputs[point],
        }
        if self.patches:
            inputs["raw patches"] = str(given[self.patches.name].key)
        return store.Recipe(
            operation="c1.4",
            version=VERSION,
            settings={
                "seed": self.seed,
                "card": self.source.model,
                "point": point,
                "variant": self.source.variant,
            },
            inputs=inputs,
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(house, given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        if self.patches is None:
            found = self._undefined(house, "places are read off tokens that fill a grid, but these fill none")
        elif why := given[self.patches.name].values.get("why"):
            found = self._undefined(house, why)
        else:
            found = self._measured(house, given, self.patches)
        place = place_of(self.source)
        rows = [row_of("C1.4", name, place, estimate) for name, estimate in found.items()]
        keep_measurements(house, self.recipe(house, given), rows)

    def _measured(self, house: House, given: Mapping[str, Look], patches: Patches) -> dict[str, Estimate]:
        truth, where = patches.wanted(house)
        main, copy = (
            read_grids(house, [(e, self.source.point)], given, truth, where, row=LIKE, seed=self.seed)
            for e in (self.source.extract, self.copy)
        )
        numbers, _ = spatial.measure(
            study.ROW, main, copy, truth, where,
            ceiling=given[patches.name].values["ceiling"], seed=self.seed,
        )  # fmt: skip
        return {name: number.estimate() for name, number in numbers.items()}

    def _undefined(self, house: House, why: str) -> dict[str, Estimate]:
        n, groups = len(house.manifest), len(set(house.manifest.groups))
        return {name: Estimate.undefined(why, n=n, n_effective=groups) for name in study.METRICS}

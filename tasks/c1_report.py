"""C1's last stage: its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from foresight.reports import Report
from foresight.reports.c1 import C1Inputs, build_c1_report
from foresight.studies.rebuilt import TRAINED
from foresight.studies.reconstruction import MEAN_IMAGE, RANDOM, ROUND_TRIP, TOKENS
from tasks.adapt import Adapt
from tasks.c1 import Adapted, Decide, Project, Row, pooled
from tasks.extract import Extract
from tasks.house import House
from tasks.kept import read_decision, read_measurements
from tasks.locate import Locate
from tasks.reconstruct import Rebuild, References, place_of, read_pngs
from tasks.report import ReportStage, data_told, model_told, versions_told
from tasks.stages import Look


@dataclass(frozen=True, kw_only=True)
class C1Report(ReportStage):
    """Write the C1 report."""

    projection: Project
    rows: tuple[Row, ...]
    locates: tuple[Locate, ...]
    pipeline: Adapted
    ablations: Adapted
    rebuilds: tuple[Rebuild, ...]
    references: References
    decide: Decide
    experiment: ClassVar[str] = "c1"
    version: ClassVar[int] = 2

    @property
    def extractions(self) -> tuple[Extract, ...]:
        every = [self.references.decoder, *(s.extract for s in self.projection.sources)]
        return tuple({e.name: e for e in every}.values())

    @property
    def shown(self) -> tuple[Project | Row | Locate | Adapted | References | Rebuild | Adapt, ...]:
        return (*self.measuring, *self.pictured)

    @property
    def measuring(self) -> tuple[Project | Row | Locate | Adapted, ...]:
        return (self.projection, *self.rows, *self.locates, self.pipeline, self.ablations)

    @property
    def pictured(self) -> tuple[References | Rebuild | Adapt, ...]:
        return (self.references, *self.rebuilds, *self.pipeline.runs)

    def reads(self, given: Mapping[str, Look]) -> dict[str, str]:
        found = {r.name: given[r.name].outputs["measurements"] for r in self.measuring}
        return found | {f"{r.name} pictures": given[r.name].outputs["pictures"] for r in self.pictured}

    def build(self, inputs: C1Inputs) -> Report:
        return build_c1_report(inputs)

    def inputs(self, house: House, given: Mapping[str, Look]) -> C1Inputs:
        decision, made = read_decision(house, given[self.decide.name])
        shown = [s for s in self.projection.sources if s.variant == TRAINED] or list(self.projection.sources)
        several = len({s.model for s in shown}) > 1
        # a copy goes by the name of what it controls
        asked = {s.extract.name for s in self.projection.sources if s.model == s.extract.ref.short}
        asked.add(self.references.decoder.name)
        return C1Inputs(
            measurements=read_measurements(house, (given[r.name] for r in self.measuring)) + made,
            decision=decision,
            data=data_told(house),
            models=[model_told(e, given, control=e.name not in asked) for e in self.extractions],
            labels=list(house.manifest.labels),
            projections={
                f"{s.model} {s.point}" if several else s.point: _plane(pooled(house, given, s).values)
                for s in shown[:12]
            },
            truth=read_pngs(house, given[self.references.name], "input"),
            pictures=self._galleries(house, given, decision["best_point"]),
            recipes=self.recipes(house, given),
            versions=versions_told(),
        )

    def _galleries(
        self, house: House, given: Mapping[str, Look], best: str
    ) -> dict[str, dict[str, list[bytes]]]:
        """Return the best point with its controls, and every point beside each other."""
        references = {
            name: read_pngs(house, given[self.references.name], name) for name in (ROUND_TRIP, MEAN_IMAGE)
        }
        mine = {place_of(r.source): r for r in self.rebuilds}
        at = [r for r in self.rebuilds if r.source.point == best and r.source.variant == TRAINED] or [
            self.rebuilds[0]
        ]
        own = {reading: read_pngs(house, given[at[0].name], reading) for reading in at[0].readings}
        model, point, variant = place_of(at[0].source)
        own["adapter"] = read_pngs(house, given[self.pipeline.runs[0].name], TOKENS)
        if variant == TRAINED and (twin := mine.get((model, point, RANDOM))) is not None:
            own[RANDOM] = read_pngs(house, given[twin.name], twin.readings[0])
        along = {
            r.source.point: read_pngs(house, given[r.name], r.readings[0])
            for (m, _, v), r in mine.items()
            if (m, v) == (model, variant)
        }
        lines = {f"{model} {point} and its controls": {**references, **own}, f"Every point of {model}": along}
        found = {title: {k: v for k, v in held.items() if v} for title, held in lines.items()}
        return {title: held for title, held in found.items() if held}


def _plane(values: np.ndarray) -> dict[str, Any]:
    """Return the first two principal components: `xy` [sample 2] and the share of variance of each."""
    from sklearn.decomposition import PCA

    found = PCA(2, svd_solver="full")
    return {"xy": found.fit_transform(values.astype(np.float64)).tolist(),
            "explained": found.explained_variance_ratio_.tolist()}  # fmt: skip

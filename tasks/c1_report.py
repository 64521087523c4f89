"""C1's last stage: its report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import store
from foresight.reports.c1 import C1Inputs, build_c1_report
from foresight.studies.rebuilt import TRAINED
from foresight.studies.reconstruction import MEAN_IMAGE, RANDOM, ROUND_TRIP, TOKENS
from tasks.adapt import Adapt
from tasks.c1 import Adapted, Decide, Project, Row, pooled, read_rows
from tasks.extract import Extract
from tasks.house import House, Progress
from tasks.locate import Locate
from tasks.model import provenance
from tasks.reconstruct import Rebuild, References, place_of
from tasks.report import keep_report
from tasks.stages import Look, look_up


@dataclass(frozen=True, kw_only=True)
class C1Report:
    """Write the C1 report. Outputs: `page` (HTML), `measurements` (JSON), `table` (CSV), `figures`."""

    projection: Project
    rows: tuple[Row, ...]
    locates: tuple[Locate, ...]
    pipeline: Adapted
    ablations: Adapted
    rebuilds: tuple[Rebuild, ...]
    references: References
    decide: Decide
    name: str = "report"

    @property
    def extractions(self) -> tuple[Extract, ...]:
        every = [self.references.decoder, *(s.extract for s in self.projection.sources)]
        return tuple({e.name: e for e in every}.values())

    @property
    def needs(self) -> tuple[str, ...]:
        models = (f"model {e.ref.short}" for e in self.extractions)
        own = (self.projection.name, self.references.name, self.decide.name)
        measured = [r.name for r in self.measuring] + [r.name for r in self.pictured]
        return tuple(dict.fromkeys(("data", *models, *(e.name for e in self.extractions), *own, *measured)))

    @property
    def measuring(self) -> tuple[Project | Row | Locate | Adapted, ...]:
        return (self.projection, *self.rows, *self.locates, self.pipeline, self.ablations)

    @property
    def pictured(self) -> tuple[References | Rebuild | Adapt, ...]:
        return (self.references, *self.rebuilds, *self.pipeline.runs)

    def recipe(self, house: House, given: Mapping[str, Look]) -> store.Recipe:
        skipped = [[s.key, s.why] for s in house.manifest.skipped]
        inputs = {"manifest": house.manifest_id, "decision": given[self.decide.name].outputs["decision"]}
        inputs |= {r.name: given[r.name].outputs["measurements"] for r in self.measuring}
        inputs |= {f"{r.name} pictures": given[r.name].outputs["pictures"] for r in self.pictured}
        return store.Recipe(
            operation="c1.report",
            version=1,
            settings={
                "skipped": store.digest("skipped", skipped),
                "models": [[str(e.ref), given[f"model {e.ref.short}"].key] for e in self.extractions],
            },
            inputs=inputs,
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(house, given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        inputs = self._inputs(house, given)
        keep_report(
            house,
            self.recipe(house, given),
            build_c1_report(inputs),
            measurements=inputs.measurements,
            verdict=str(inputs.decision["overall"]),
        )

    def _inputs(self, house: House, given: Mapping[str, Look]) -> C1Inputs:
        manifest = house.manifest
        decision = json.loads(house.store.get_blob(given[self.decide.name].outputs["decision"]))
        measured = [m for r in self.measuring for m in read_rows(house, given[r.name])]
        shown = [s for s in self.projection.sources if s.variant == TRAINED] or list(self.projection.sources)
        ids = [i for e in self.extractions for i in given[e.name].values["recipes"].values()]
        done = [r.name for r in self.measuring] + [r.name for r in self.pictured] + [self.decide.name]
        ids += [key for name in done if (key := given[name].key)]
        several = len({s.model for s in shown}) > 1
        return C1Inputs(
            measurements=measured,
            decision=decision,
            data={
                "source": manifest.source,
                "n": len(manifest),
                "skipped": [{"key": s.key, "why": s.why} for s in manifest.skipped],
            },
            models=[
                {
                    "card": e.ref.short,
                    "role": "control" if e.ref.kind == "random" else e.ref.card.role,
                    "params": e.ref.card.parameters,
                    "points": [p.name for p in e.points],
                    "fingerprint": given[f"model {e.ref.short}"].values["fingerprint"]["weights"],
                }
                for e in self.extractions
            ],
            labels=list(manifest.labels),
            projections={
                f"{s.model} {s.point}" if several else s.point: _plane(pooled(house, given, s).values)
                for s in shown[:12]
            },
            truth=_line(house, given[self.references.name], "input"),
            pictures=self._galleries(house, given, decision["best_point"]),
            recipes=[{"id": i, **house.store.recipe(i).canonical()} for i in dict.fromkeys(ids)],
            versions=_flat(provenance()),
        )  # fmt: skip

    def _galleries(
        self, house: House, given: Mapping[str, Look], best: str
    ) -> dict[str, dict[str, list[bytes]]]:
        """Return the best point with its controls, and every point beside each other."""
        references = {
            name: _line(house, given[self.references.name], name) for name in (ROUND_TRIP, MEAN_IMAGE)
        }
        mine = {place_of(r.source): r for r in self.rebuilds}
        at = [r for r in self.rebuilds if r.source.point == best and r.source.variant == TRAINED] or [
            self.rebuilds[0]
        ]
        own = {reading: _line(house, given[at[0].name], reading) for reading in at[0].readings}
        model, point, variant = place_of(at[0].source)
        own["adapter"] = _line(house, given[self.pipeline.runs[0].name], TOKENS)
        if variant == TRAINED and (twin := mine.get((model, point, RANDOM))) is not None:
            own[RANDOM] = _line(house, given[twin.name], twin.readings[0])
        along = {
            r.source.point: _line(house, given[r.name], r.readings[0])
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


def _line(house: House, look: Look, name: str) -> list[bytes]:
    """Return the kept pictures of a stage under a name, in order; none where nothing could be rebuilt."""
    tree = house.store.get_tree(look.outputs["pictures"])
    names: Sequence[str] = sorted(n for n in tree if n.startswith(f"{name.replace(' ', '-')}-"))
    return [house.store.get_blob(tree[n]) for n in names]


def _flat(value: Mapping[str, Any]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, item in value.items():
        flat |= {str(k): str(v) for k, v in item.items()} if isinstance(item, Mapping) else {key: str(item)}
    return flat

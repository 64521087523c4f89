"""The last stage of the spatial study: its report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import store
from foresight.decisions.spatial import alone, best, hybrids
from foresight.reports.q2 import Q2Inputs, build_q2_report
from foresight.studies.spatial import ROWS
from tasks.extract import Extract
from tasks.house import House, Progress
from tasks.model import provenance
from tasks.report import keep_report
from tasks.spatial import Ceiling, Decide, Pictures, Probe, as_png, measurements
from tasks.stages import Look, look_up


@dataclass(frozen=True, kw_only=True)
class Q2Report:
    """Write the Q2 report. Outputs: `page` (HTML), `report` and `measurements` (JSON), `table` (CSV), `figures`."""

    probes: tuple[Probe, ...]
    decide: Decide
    ceilings: tuple[Ceiling, ...]
    name: str = "report"

    @property
    def extractions(self) -> tuple[Extract, ...]:
        every = [e for p in self.probes for e in p.extractions]
        return tuple({e.name: e for e in every}.values())

    @property
    def needs(self) -> tuple[str, ...]:
        models = (f"model {e.ref.short}" for e in self.extractions)
        extracts = (e.name for e in self.extractions)
        probes = (p.name for p in self.probes)
        return tuple(dict.fromkeys(("data", *models, *extracts, *probes, self.decide.name)))

    def recipe(self, house: House, given: Mapping[str, Look]) -> store.Recipe:
        skipped = [[s.key, s.why] for s in house.manifest.skipped]
        inputs = {"manifest": house.manifest_id, "decision": given[self.decide.name].outputs["decision"]}
        for p in self.probes:
            inputs |= {f"{p.name} {k}": v for k, v in given[p.name].outputs.items()}
        return store.Recipe(
            operation="q2.report",
            version=2,
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
            build_q2_report(inputs),
            measurements=inputs.measurements,
            verdict=str(inputs.decision["overall"]),
        )

    def _inputs(self, house: House, given: Mapping[str, Look]) -> Q2Inputs:
        decided = json.loads(house.store.get_blob(given[self.decide.name].outputs["decision"]))
        measured = measurements(house, given, self.probes)
        manifest = house.manifest
        lines = {row: self._lines(row, house, given, measured) for row in ("Q2.1", "Q2.2", "Q2.3")}
        ids = [i for e in self.extractions for i in given[e.name].values["recipes"].values()]
        ids += [given[p.name].key for p in self.probes] + [given[self.decide.name].key]
        beside = {p.beside.extract.name for p in self.probes if p.beside}
        told: dict[str, str] = {}
        for key, item in provenance().items():
            told |= (
                {str(k): str(v) for k, v in item.items()} if isinstance(item, Mapping) else {key: str(item)}
            )
        return Q2Inputs(
            measurements=[*measured, *decided["measurements"]],
            decision=decided["decision"],
            about={name: row.about for name, row in ROWS.items()},
            data={
                "source": manifest.source,
                "n": len(manifest),
                "skipped": [{"key": s.key, "why": s.why} for s in manifest.skipped],
            },
            models=[
                {
                    "card": e.ref.short,
                    "role": e.ref.card.role if e.ref.kind != "random" or e.name in beside else "control",
                    "params": e.ref.card.parameters,
                    "points": [p.name for p in e.points],
                    "fingerprint": given[f"model {e.ref.short}"].values["fingerprint"]["weights"],
                }
                for e in self.extractions
            ],
            boxes={row: lines[row] for row in ("Q2.1", "Q2.2") if lines[row]},
            rebuilt=lines["Q2.3"],
            recipes=[{"id": i, **house.store.recipe(i).canonical()} for i in dict.fromkeys(ids)],
            versions=told,
        )

    def _lines(
        self, row: str, house: House, given: Mapping[str, Look], measured: list[dict[str, Any]]
    ) -> list[tuple[str, Any]]:
        """Return the examples of a row at the first point, at its best, at the last and at the best hybrid's."""
        lead = [m for m in measured if m["row"] == row and m["name"] == ROWS[row].lead]
        mine = {(p.path, p.label): p for p in self.probes if p.row == row}
        single = [p for p in mine.values() if not p.beside]
        tops = [
            mine[top["model"], top["point"]]
            for rows in (alone(lead), hybrids(lead))
            if (top := best(rows, lower=False))
        ]
        if not tops:
            return []
        found: list[tuple[str, Any]] = []
        for probe in {p.name: p for p in (single[0], tops[0], single[-1], *tops[1:])}.values():
            tree = house.store.get_tree(given[probe.name].outputs["examples"])
            told = json.loads(house.store.get_blob(tree["examples.json"]))
            pictures = Pictures(house, probe.extract, probe.ceiling.grid)
            true = [as_png(pictures.still(e["sample"])) for e in told]
            if row == "Q2.3":
                found = found or [("true", true)]
                found.append(
                    (probe.label, [house.store.get_blob(tree[f"{k:02d}.png"]) for k in range(len(told))])
                )
            else:
                found.append(
                    (probe.label, [{**e, "picture": png} for e, png in zip(told, true, strict=True)])
                )
        return found

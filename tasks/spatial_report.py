"""The last stage of the spatial study: its report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from foresight.decisions.spatial import alone, best, hybrids
from foresight.reports import Report
from foresight.reports.q2 import Q2Inputs, build_q2_report
from foresight.studies.spatial import ROWS
from tasks.extract import Extract
from tasks.house import House
from tasks.kept import read_decision, read_measurements
from tasks.report import ReportStage, data_told, model_told, versions_told
from tasks.spatial import Decide, Pictures, Probe, as_png
from tasks.stages import Look


@dataclass(frozen=True, kw_only=True)
class Q2Report(ReportStage):
    """Write the Q2 report."""

    probes: tuple[Probe, ...]
    decide: Decide
    experiment: ClassVar[str] = "q2"
    version: ClassVar[int] = 3

    @property
    def extractions(self) -> tuple[Extract, ...]:
        every = [e for p in self.probes for e in p.extractions]
        return tuple({e.name: e for e in every}.values())

    @property
    def shown(self) -> tuple[Probe, ...]:
        return self.probes

    def reads(self, given: Mapping[str, Look]) -> dict[str, str]:
        return {f"{p.name} {k}": v for p in self.probes for k, v in given[p.name].outputs.items()}

    def build(self, inputs: Q2Inputs) -> Report:
        return build_q2_report(inputs)

    def inputs(self, house: House, given: Mapping[str, Look]) -> Q2Inputs:
        decision, made = read_decision(house, given[self.decide.name])
        measured = read_measurements(house, (given[p.name] for p in self.probes))
        lines = {row: self._lines(row, house, given, measured) for row in ("Q2.1", "Q2.2", "Q2.3")}
        asked = {p.extract.name for p in self.probes}
        asked |= {p.beside.extract.name for p in self.probes if p.beside}
        return Q2Inputs(
            measurements=measured + made,
            decision=decision,
            about={name: row.about for name, row in ROWS.items()},
            data=data_told(house),
            models=[model_told(e, given, control=e.name not in asked) for e in self.extractions],
            boxes={row: lines[row] for row in ("Q2.1", "Q2.2") if lines[row]},
            rebuilt=lines["Q2.3"],
            recipes=self.recipes(house, given),
            versions=versions_told(),
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

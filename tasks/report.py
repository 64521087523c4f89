"""The last stage of every experiment: its report, and what every report leaves in the store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import store
from foresight.reports import Report, figure_files, measurements_csv, render
from tasks.extract import Extract
from tasks.house import House, Progress
from tasks.kept import put_json
from tasks.model import provenance
from tasks.stages import Look, Stage, look_up


class Inputs(Protocol):
    """What every report is built from, whatever else it shows."""

    @property
    def measurements(self) -> Sequence[Mapping[str, Any]]: ...

    @property
    def decision(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class ReportStage(ABC):
    """Write a report. Outputs: `page` (HTML), `report` and `measurements` (JSON), `table` (CSV), `figures`."""

    decide: Stage
    """Its output `decision` is what the report begins with."""
    name: str = "report"
    experiment: ClassVar[str]
    version: ClassVar[int]
    """Goes up when the same numbers give another page."""

    @property
    @abstractmethod
    def extractions(self) -> tuple[Extract, ...]:
        """Return what was extracted for the numbers."""

    @property
    @abstractmethod
    def shown(self) -> tuple[Stage, ...]:
        """Return the stages whose numbers and pictures it shows, but the decision."""

    @abstractmethod
    def reads(self, given: Mapping[str, Look]) -> dict[str, str]:
        """Return the content ids of those, by name."""

    @abstractmethod
    def inputs(self, house: House, given: Mapping[str, Look]) -> Any:
        """Return what the report is built from, as `Inputs`."""

    @abstractmethod
    def build(self, inputs: Any) -> Report:
        """Return the report."""

    @property
    def needs(self) -> tuple[str, ...]:
        models = (f"model {e.ref.short}" for e in self.extractions)
        own = (s.name for s in (*self.extractions, *self.shown, self.decide))
        return tuple(dict.fromkeys(("data", *models, *own)))

    def recipe(self, house: House, given: Mapping[str, Look]) -> store.Recipe:
        skipped = [[s.key, s.why] for s in house.manifest.skipped]
        return store.Recipe(
            operation=f"{self.experiment}.report",
            version=self.version,
            settings={
                "skipped": store.digest("skipped", skipped),
                "models": [[str(e.ref), given[f"model {e.ref.short}"].key] for e in self.extractions],
            },
            inputs={
                "manifest": house.manifest_id,
                "decision": given[self.decide.name].outputs["decision"],
                **self.reads(given),
            },
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(house, given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        inputs: Inputs = self.inputs(house, given)
        keep_report(
            house,
            self.recipe(house, given),
            self.build(inputs),
            measurements=inputs.measurements,
            verdict=str(inputs.decision["overall"]),
        )

    def recipes(self, house: House, given: Mapping[str, Look]) -> list[dict[str, Any]]:
        """Return the recipes of everything shown, extractions first and the decision last."""
        ids = [i for e in self.extractions for i in given[e.name].values["recipes"].values()]
        ids += [key for s in (*self.shown, self.decide) if (key := given[s.name].key)]
        return [{"id": i, **house.store.recipe(i).canonical()} for i in dict.fromkeys(ids)]


def keep_report(
    house: House,
    recipe: store.Recipe,
    report: Report,
    *,
    measurements: Sequence[Mapping[str, Any]],
    verdict: str,
) -> None:
    """Record a report: `page` (HTML), `report` and `measurements` (JSON), `table` (CSV) and `figures`."""
    figures = {Path(name).name: content for name, content in figure_files(report).items()}
    outputs = {
        "figures": house.store.put_tree(figures),
        "report": put_json(house, report.to_json()),
        "page": house.store.put_blob(render(report).encode(), "text/html"),
        "measurements": put_json(house, list(measurements)),
        "table": house.store.put_blob(measurements_csv(measurements).encode(), "text/csv"),
    }
    house.store.record(
        recipe,
        outputs=outputs,
        values={"verdict": verdict, "skipped": len(house.manifest.skipped)},
        provenance=provenance(),
    )


def data_told(house: House) -> dict[str, Any]:
    """Return what a report says of its data."""
    manifest = house.manifest
    return {
        "source": manifest.source,
        "n": len(manifest),
        "skipped": [{"key": s.key, "why": s.why} for s in manifest.skipped],
    }


def model_told(extract: Extract, given: Mapping[str, Look], *, control: bool) -> dict[str, Any]:
    """Return what a report says of a model, its role being `control` for a copy that others are held against."""
    card, random = extract.ref.card, extract.ref.kind == "random"
    weights = given[f"model {extract.ref.short}"].values["fingerprint"]["weights"]
    return {
        "role": "control" if control else card.role,
        "card": extract.ref.short,
        # what random weights are drawn from is the same for every card, and so says nothing
        "fingerprint": f"seed {extract.ref.value}" if random else weights,
        "points": [p.name for p in extract.points],
        "params": card.parameters,
    }


def versions_told() -> dict[str, str]:
    """Return the libraries and the machine that numbers were made with, one line each."""
    flat: dict[str, str] = {}
    for key, item in provenance().items():
        flat |= {str(k): str(v) for k, v in item.items()} if isinstance(item, Mapping) else {key: str(item)}
    return flat

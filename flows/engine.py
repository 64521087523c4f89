"""Plan or perform an experiment: the same stages either way, looked at once."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import store
from flows.build import RUNS, open_house
from flows.cluster import analyses_on
from flows.settings import Settings
from tasks.extract import Undecodable
from tasks.house import House
from tasks.publish import begin_report, write_report
from tasks.stages import Look, Ran, Stage, StageFailed, Worker, directly, named, plan, run

ATTEMPTS = 5
"""How often a run begins again without the samples that turned out not to decode."""

RUN = "run"
"""Operation of the record a finished run leaves: what it was made of, stage by stage."""

PLACEMENT = {"store", "out", "device", "spread", "batch", "workers", "dask", "refresh", "cards"}
"""Settings that say where and how, not what."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run did and found."""

    experiment: str
    house: House
    looks: dict[str, Look]
    ran: list[Ran]
    report: Path | None
    run: str
    """Id of the run's record, for `foresight plan --against`."""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the document `foresight run --json` prints."""
        latents, verdict, metrics = self.house.store, None, []
        if report := self.looks.get("report"):
            verdict = report.values["verdict"]
            metrics = json.loads(latents.get_blob(report.outputs["measurements"]))
        return {
            "experiment": self.experiment,
            "run": self.run,
            "verdict": verdict,
            "metrics": metrics,
            "stages": [r.to_json() for r in self.ran],
            "forwards": self.house.forwards,
            "rows_written": self.house.rows_written,
            "rows_reused": self.house.rows_reused,
            "skipped": [{"sample": s.key, "why": s.why} for s in self.house.manifest.skipped],
            "report": str(self.report) if self.report else None,
            "store": latents.url,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request that was looked at: where it runs, its stages, and what the store holds of each."""

    house: House
    stages: list[Stage]
    looks: list[Look]


def perform(
    experiment: ModuleType,
    settings: Settings,
    *,
    worker: Worker = directly,
    before: Callable[[House, list[Look]], None] | None = None,
    prepared: Prepared | None = None,
) -> Outcome:
    """Do what of the experiment is not in the store yet, and write its report where people look.

    `prepared` is what `prepare` made of the same settings, when that was done already. `before` is called
    with the plan, before any work. Samples that turn out not to decode are left out, and the run begins
    again without them; what was computed stays. Raises `StageFailed` when a stage fails.
    """
    begun = time.perf_counter()
    prepared = prepared or prepare(experiment, settings)
    house, stages = prepared.house, prepared.stages
    known = {look.name: look for look in prepared.looks}
    if not all_ready(prepared.looks):
        house.store = store.open(settings.store, create=True)
    if before:
        before(house, prepared.looks)
    if "report" in known and not all_ready(prepared.looks):
        begin_report(house, prepared.looks, out_folder(experiment, settings), f"{experiment.NAME}: running")
    earlier: list[Ran] = []
    for attempt in range(ATTEMPTS):
        try:
            with analyses_on("" if all_ready(prepared.looks) else settings.dask):
                ran, looks = run(stages, house, worker, known=known)
            break
        except StageFailed as failed:
            if not isinstance(failed.__cause__, Undecodable) or attempt == ATTEMPTS - 1:
                raise StageFailed(str(failed), _joined(earlier, failed.ran)) from failed.__cause__
            house.forget(failed.__cause__.samples)
            known = {}
            earlier = _joined(earlier, [r for r in failed.ran if r.state != "failed"])
    total = sum(look.rows_needed for look in looks.values())
    house.rows_reused = total - house.rows_written
    report = (
        write_report(house, looks["report"], out_folder(experiment, settings)) if "report" in looks else None
    )
    return Outcome(
        experiment=experiment.NAME,
        house=house,
        looks=looks,
        ran=_joined(earlier, ran),
        report=report,
        run=_record_run(house.store, str(experiment.NAME), settings, looks),
        seconds=time.perf_counter() - begun,
    )


def prepare(experiment: ModuleType, settings: Settings) -> Prepared:
    """Return what a run would find and do. Holds no model in memory and makes no store.

    Where there is no store yet the looks are those of an empty one; `perform` makes it.
    """
    with _store_to_plan_with(settings.store) as latents:
        house = open_house(settings, latents)
        stages: list[Stage] = experiment.stages(settings, house)
        house.refresh = named(stages, settings.refresh)
        return Prepared(house=house, stages=stages, looks=plan(stages, house))


def planned(experiment: ModuleType, settings: Settings) -> list[Look]:
    """Return the looks of `prepare`."""
    return prepare(experiment, settings).looks


def all_ready(looks: list[Look]) -> bool:
    """Return whether a run has nothing to do."""
    return all(look.state == "ready" for look in looks)


def out_folder(experiment: ModuleType, settings: Settings) -> Path:
    """Return the folder the report goes to."""
    return Path(settings.out) if settings.out else RUNS / str(experiment.NAME)


def _record_run(latents: store.Store, experiment: str, settings: Settings, looks: Mapping[str, Look]) -> str:
    """Keep what a finished run was made of; return its id. The same run again is the same id.

    In a store that others write, nothing is kept.
    """
    recipe = store.Recipe(
        operation=RUN,
        version=1,
        settings={
            "experiment": experiment,
            "asked": settings.model_dump(mode="json", exclude=PLACEMENT),
            "stages": {
                name: {"key": look.key, "recipes": {n: r.canonical() for n, r in look.recipes.items()}}
                for name, look in looks.items()
            },
        },
    )
    with suppress(store.NotWritable):
        latents.record(recipe)
    return recipe.id


@contextmanager
def _store_to_plan_with(url: str) -> Iterator[store.Store]:
    """Give the store at `url`; where there is none yet, an empty one that is thrown away."""
    try:
        yield store.open(url)
        return
    except store.Missing:
        pass
    except store.NotAStore:
        if Path(url).exists() and any(Path(url).iterdir()):
            raise
    folder = Path(tempfile.mkdtemp(prefix="foresight-plan-"))
    try:
        yield store.open(str(folder / "store"), create=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _joined(earlier: list[Ran], later: list[Ran]) -> list[Ran]:
    """Return how stages went over several attempts: what was computed in any of them counts as computed."""
    done = {r.name: r for r in earlier if r.state == "completed"}
    return [done[r.name] if r.state == "cached" and r.name in done else r for r in later]

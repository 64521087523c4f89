"""Plan or perform an experiment: the same stages either way."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import store
from flows.build import RUNS, open_house
from flows.settings import Settings
from tasks.extract import Undecodable
from tasks.house import House
from tasks.publish import begin_report, write_report
from tasks.stages import Look, Ran, Stage, StageFailed, Worker, directly, plan, run

ATTEMPTS = 5
"""How often a run begins again without the samples that turned out not to decode."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run did and found."""

    experiment: str
    house: House
    looks: dict[str, Look]
    ran: list[Ran]
    report: Path | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the document `foresight run --json` prints."""
        latents, verdict, metrics = self.house.store, None, []
        if report := self.looks.get("report"):
            verdict = report.values["verdict"]
            metrics = json.loads(latents.get_blob(report.outputs["measurements"]))
        return {
            "experiment": self.experiment,
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


def perform(
    experiment: ModuleType,
    settings: Settings,
    *,
    worker: Worker = directly,
    before: Callable[[House, list[Look]], None] | None = None,
) -> Outcome:
    """Do what of the experiment is not in the store yet, and write its report where people look.

    `before` is called with the plan, before any work. Samples that turn out not to decode are left out, and
    the run begins again without them; what was computed stays. Raises `StageFailed` when a stage fails.
    """
    begun = time.perf_counter()
    house = open_house(settings, store.open(settings.store, create=True))
    stages: list[Stage] = experiment.stages(settings, house)
    looks_before = plan(stages, house)
    if before:
        before(house, looks_before)
    if "report" in {stage.name for stage in stages} and not all_ready(looks_before):
        begin_report(house, looks_before, out_folder(experiment, settings), f"{experiment.NAME}: running")
    earlier: list[Ran] = []
    for attempt in range(ATTEMPTS):
        try:
            ran, looks = run(stages, house, worker)
            break
        except StageFailed as failed:
            if not isinstance(failed.__cause__, Undecodable) or attempt == ATTEMPTS - 1:
                raise StageFailed(str(failed), _joined(earlier, failed.ran)) from failed.__cause__
            house.forget(failed.__cause__.samples)
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
        seconds=time.perf_counter() - begun,
    )


def planned(experiment: ModuleType, settings: Settings) -> list[Look]:
    """Return what a run would find and do. Holds no model in memory and writes nothing."""
    with _store_to_plan_with(settings.store) as latents:
        house = open_house(settings, latents)
        return plan(experiment.stages(settings, house), house)


def all_ready(looks: list[Look]) -> bool:
    """Return whether a run has nothing to do."""
    return all(look.state == "ready" for look in looks)


def out_folder(experiment: ModuleType, settings: Settings) -> Path:
    """Return the folder the report goes to."""
    return Path(settings.out) if settings.out else RUNS / str(experiment.NAME)


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

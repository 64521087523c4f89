"""Run an experiment here: through Prefect when there is work, without any server when there is none."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Protocol

from flows.build import RUNS
from flows.engine import Outcome, Prepared, all_ready, perform, prepare
from flows.settings import Settings
from tasks.house import House, Progress
from tasks.stages import Look, Stage


class Screen(Protocol):
    """Where a person watches a run."""

    def plan(self, house: House, looks: list[Look]) -> None: ...

    def stage(self, stage: Stage) -> Progress: ...

    def close(self) -> None: ...


def run_here(experiment: ModuleType, settings: Settings, screen: Screen) -> Outcome:
    """Run in this process. Raises `StageFailed` with the stage's own error as its cause.

    With something to compute, the stages are tasks of a Prefect flow run: at the server the user configured,
    else at a temporary one whose data base stays under the runs folder.
    """
    try:
        prepared = prepare(experiment, settings)
        if all_ready(prepared.looks):
            return perform(experiment, settings, before=screen.plan, prepared=prepared)
        return _through_prefect(experiment, settings, screen, prepared)
    finally:
        screen.close()


def _through_prefect(
    experiment: ModuleType, settings: Settings, screen: Screen, prepared: Prepared
) -> Outcome:
    from tasks.prefect_home import keep_prefect_in

    keep_prefect_in(RUNS)
    from flows._as_flow import as_flow

    kept: list[Outcome] = []
    flow: Any = as_flow(
        experiment, console=screen.stage, before=screen.plan, keep=kept.append, prepared=prepared
    )
    flow(settings)
    return kept[0]

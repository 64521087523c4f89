"""The project's one task decorator: a stage as a Prefect task, Cached when the store has its content.

The store is the only cache. Prefect's own would say 'cached' for a result whose content is gone.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from httpx import HTTPError
from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.states import Completed, State

from tasks.house import Progress
from tasks.stages import Look, Stage, shortened

EVERY_S = 3.0
"""A progress artifact is one request per update, so it is not updated more often than this."""


def prefect_worker(console: Callable[[Stage], Progress] | None = None) -> Callable[..., Look]:
    """Return a worker for `tasks.stages.run` that carries out each stage as a Prefect task.

    A stage that is ready becomes a task run in state Cached, with what was found as its message. `console`
    gives a second place to show progress in.
    """
    states: dict[str, State[Any]] = {}

    def worker(stage: Stage, look: Look, work: Callable[[Progress], Look]) -> Look:
        after: list[Look] = []

        @task(
            name=type(stage).__name__, task_run_name=stage.name, cache_policy=NO_CACHE, persist_result=False
        )
        def carry_out(stage: str, key: str | None, why: str) -> Any:
            logger = get_run_logger()
            if look.state == "ready":
                logger.info("%s is not computed: %s", stage, why)
                after.append(work(lambda *_: None))
                return Completed(name="Cached", message=why)
            logger.info("%s is computed because: %s", stage, why)
            after.append(work(_both(_artifact(stage), shown)))
            if look.refreshes:
                return Completed(message=after[0].why)
            return Completed(message=f"computed because: {shortened(why)}")

        shown = console(stage) if console else None
        state = carry_out(
            stage.name,
            look.key,
            look.why,
            wait_for=[states[n] for n in stage.needs if n in states],
            return_state=True,
        )
        states[stage.name] = state
        state.result(raise_on_failure=True)
        return after[0]

    return worker


def _artifact(stage: str) -> Progress:
    """Return a progress that shows on the run's page, at most every few seconds.

    While no server answers nothing is shown and the work goes on: the next update says all that is done.
    """
    shown: dict[str, Any] = {"id": None, "next": 0.0}

    def progress(done: int, whole: int, text: str) -> None:
        begun = time.monotonic()
        if begun < shown["next"] and done < whole:
            return
        percent = 100.0 * done / max(whole, 1)
        description = f"{stage} · {done} of {whole} {text}"
        with suppress(HTTPError):
            if shown["id"] is None:
                shown["id"] = create_progress_artifact(progress=percent, description=description)
            else:
                update_progress_artifact(shown["id"], progress=percent, description=description)
        now = time.monotonic()
        # Prefect asks a server that is gone for a minute; the work waits for that a tenth of its time at most
        shown["next"] = now + max(EVERY_S, 10 * (now - begun))

    return progress


def _both(first: Progress, second: Progress | None) -> Progress:
    def progress(done: int, whole: int, text: str) -> None:
        first(done, whole, text)
        if second:
            second(done, whole, text)

    return progress

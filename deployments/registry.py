"""What is registered with a Prefect API: pools, one deployment per flow, and what looks after dead runs."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from deployments.pools import HEARTBEAT_S, Kind, Pool, job_template
from flows.experiments import experiments

DEAD = "foresight: a run that fell silent has crashed"


def register_pool(pool: Pool) -> None:
    """Make the pool, or bring the one of this name up to date. A pool of another kind is refused."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound

    from tasks.house import WrongRequest

    template = job_template(pool)
    with get_client(sync_client=True) as client:
        try:
            there = client.read_work_pool(pool.name)
        except ObjectNotFound:
            client.create_work_pool(
                WorkPoolCreate(
                    name=pool.name,
                    type=pool.kind,
                    base_job_template=template,
                    concurrency_limit=pool.at_once,
                    description=_about(pool),
                )
            )
            return
        if there.type != pool.kind:
            raise WrongRequest(
                f"the work pool {pool.name!r} is a {there.type} pool and cannot become a {pool.kind} pool; "
                "give another name, or delete it first with `prefect work-pool delete`"
            )
        client.update_work_pool(
            pool.name,
            WorkPoolUpdate(
                base_job_template=template, concurrency_limit=pool.at_once, description=_about(pool)
            ),
        )


def register_flows(
    *, pool: str, kind: Kind, planning_pool: str | None = None, store: str | None = None
) -> list[str]:
    """Register every experiment on `pool`, and its plan on `planning_pool`; return the deployments' names.

    A deployment is called after its flow and its pool (`q1/q1-gpu`): pages list it without its flow, and several
    pools can offer the same flows.

    A process worker runs in the folder this is called in; an image brings its own. `store` is the URL that the
    forms begin with.
    """
    from prefect.deployments.runner import EntrypointType

    here: dict[str, Any] = {}
    if kind == "process":
        here = {"working_dir": str(Path.cwd())}
        if "PREFECT_HOME" in os.environ:
            here["env"] = {"PREFECT_HOME": os.environ["PREFECT_HOME"]}
    names = []
    for experiment in experiments().values():
        settings = experiment.Settings(**({"store": store} if store else {})).model_dump()
        for flow, on in flows_of(experiment, pool, planning_pool or pool):
            deployment = flow.to_deployment(
                name=f"{flow.name}-{on}",
                description=(flow.description or "").strip(),
                parameters={"settings": settings},
                work_pool_name=on,
                entrypoint_type=EntrypointType.MODULE_PATH,
                job_variables=here,
                tags=["foresight"],
            )
            deployment.apply()
            names.append(f"{flow.name}/{deployment.name}")
    return names


def flows_of(experiment: Any, pool: str, planning_pool: str) -> list[tuple[Any, str]]:
    """Return the Prefect flows of an experiment, each with the pool it belongs on: the run, then the plan."""
    found = [(getattr(experiment, experiment.NAME), pool)]
    if (plan := getattr(experiment, "plan", None)) is not None:
        found.append((plan, planning_pool))
    return found


def register_automations() -> None:
    """Have a run that fell silent marked Crashed: its worker was killed and can no longer say so itself."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    ends = {f"prefect.flow-run.{end}" for end in ("Completed", "Failed", "Cancelled", "Crashed")}
    automation = AutomationCore(
        name=DEAD,
        description=f"No sign of life for {3 * HEARTBEAT_S} s. What the run stored stays; run it again to go on.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *ends},
            match={"prefect.resource.id": "prefect.flow-run.*"},  # type: ignore[arg-type]
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=3 * HEARTBEAT_S),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                force=False,
                message=f"no sign of life for {3 * HEARTBEAT_S} s; what it stored stays, run it again to go on",
            )
        ],
    )
    with get_client(sync_client=True) as client:
        if not client.read_automations_by_name(DEAD):
            client.create_automation(automation)


def _about(pool: Pool) -> str:
    if pool.kind == "process" and pool.gpu:
        return (
            "One worker per GPU: CUDA_VISIBLE_DEVICES=0 prefect worker start --pool "
            + pool.name
            + " --limit 1"
        )
    return f"Runs of Foresight in {pool.kind} jobs{', one GPU each' if pool.gpu else ''}"

"""An experiment as a Prefect flow: the plan first, then one task per stage, then what people look at."""

# no `from __future__ import annotations` here: Prefect evaluates the flow's annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from prefect import Flow, flow
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger

from flows.engine import Outcome, Prepared, perform
from tasks.house import House, Progress
from tasks.publish import read_figures
from tasks.stage import prefect_worker
from tasks.stages import Look, Stage

SHOWN_FIGURES = 6
"""Figures that are also artifacts of the run; the report has them all."""


def as_flow(
    experiment: ModuleType,
    *,
    console: Callable[[Stage], Progress] | None = None,
    before: Callable[[House, list[Look]], None] | None = None,
    keep: Callable[[Outcome], None] | None = None,
    prepared: Prepared | None = None,
) -> Flow[Any, Any]:
    """Return the flow of an experiment. The command line adds a console and its own look, and keeps the outcome."""

    def run(settings):  # type: ignore[no-untyped-def]
        logger = get_run_logger()

        def plan_first(house: House, looks: list[Look]) -> None:
            create_table_artifact(
                key=f"{experiment.NAME}-plan",
                table=[
                    {
                        "stage": look.name,
                        "state": look.state,
                        "why": look.why,
                        "rows to compute": "?" if look.rows_missing is None else look.rows_missing,
                        "rows needed": look.rows_needed,
                    }
                    for look in looks
                ],
                description="What is in the store already, what is missing, and why",
            )
            if before:
                before(house, looks)

        outcome = perform(
            experiment, settings, worker=prefect_worker(console), before=plan_first, prepared=prepared
        )
        if keep:
            keep(outcome)
        document = outcome.to_json()
        _publish(experiment, outcome, document)
        cached = sum(r.state == "cached" for r in outcome.ran)
        logger.info(
            "%s of %s stages were in the store; %s forward passes; %s rows written",
            cached,
            len(outcome.ran),
            document["forwards"],
            document["rows_written"],
        )
        return {k: v for k, v in document.items() if k != "metrics"}

    run.__annotations__ = {"settings": experiment.Settings, "return": dict[str, Any]}
    about = (experiment.__doc__ or "").strip()
    run.__doc__ = f"{about}\n\nArgs:\n    settings: What to look at, with which models, where.\n"
    run.__name__ = experiment.NAME
    run.__module__ = experiment.__name__
    return flow(
        name=experiment.NAME, persist_result=False, flow_run_name=f"{experiment.NAME} {{settings.data}}"
    )(run)


def _publish(experiment: ModuleType, outcome: Outcome, document: dict[str, Any]) -> None:
    """Show verdict, main numbers and figures on the run's page."""
    import base64

    report = outcome.looks.get("report")
    if report is None:
        return
    if outcome.report:
        create_link_artifact(
            key=f"{experiment.NAME}-report", link=outcome.report.resolve().as_uri(), link_text="the report"
        )
    create_table_artifact(
        key=f"{experiment.NAME}-metrics",
        table=[
            {
                k: m[k]
                for k in (
                    "row",
                    "name",
                    "model",
                    "point",
                    "variant",
                    "value",
                    "low",
                    "high",
                    "null",
                    "p",
                    "n",
                    "why",
                )
            }
            for m in document["metrics"]
        ],
        description=f"Verdict: {document['verdict']}. Every number with its 95 % interval and chance level",
    )
    for name, png in list(read_figures(outcome.house, report).items())[:SHOWN_FIGURES]:
        picture = base64.b64encode(png).decode("ascii")
        key = "".join(
            c if c.isalnum() else "-" for c in f"{experiment.NAME} {name.removesuffix('.png')}".lower()
        )
        create_markdown_artifact(key=key, markdown=f"![{name}](data:image/png;base64,{picture})")

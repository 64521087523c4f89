"""An experiment as Prefect flows: its run, one task per stage and what people look at, and its plan alone."""

# no `from __future__ import annotations` here: Prefect evaluates the flow's annotations

import base64
import json
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from types import ModuleType
from typing import Any

from prefect import Flow, flow
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger

import store
from flows.engine import Outcome, Prepared, perform
from flows.failures import message_of
from flows.plan import plan_rows, planned_against
from foresight.studies.rows import TRAINED
from tasks.house import House, Progress
from tasks.publish import read_figures
from tasks.stage import prefect_worker
from tasks.stages import Look, Stage, StageFailed

SHOWN_SKIPS = 20
NAME_LETTERS = 52
"""A page cuts what is wider than itself, so a long name in the table of numbers is cut before the numbers are."""


def as_flow(
    experiment: ModuleType,
    *,
    console: Callable[[Stage], Progress] | None = None,
    before: Callable[[House, list[Look]], None] | None = None,
    keep: Callable[[Outcome], None] | None = None,
    prepared: Prepared | None = None,
) -> Flow[Any, Any]:
    """Return the flow of an experiment. The command line adds a console and its own look, and keeps the outcome."""
    name = str(experiment.NAME)

    def run(settings):  # type: ignore[no-untyped-def]
        logger = get_run_logger()

        def plan_first(house: House, looks: list[Look]) -> None:
            _show_plan(name, plan_rows(looks))
            if before:
                before(house, looks)

        try:
            outcome = perform(
                experiment, settings, worker=prefect_worker(console), before=plan_first, prepared=prepared
            )
        except StageFailed as failed:
            _show_failure(name, failed)
            raise
        if keep:
            keep(outcome)
        document = outcome.to_json()
        _show_outcome(name, outcome, document)
        logger.info(_in_short(document))
        return {k: v for k, v in document.items() if k != "metrics"}

    run.__annotations__ = {"settings": experiment.Settings, "return": dict[str, Any]}
    about = (experiment.__doc__ or "").strip()
    run.__doc__ = f"{about}\n\nArgs:\n    settings: What to look at, with which models, where.\n"
    run.__name__ = name
    run.__module__ = experiment.__name__
    return flow(name=name, persist_result=False, flow_run_name=f"{name} {{settings.data}}")(run)


def as_plan_flow(experiment: ModuleType) -> Flow[Any, Any]:
    """Return the flow that only plans an experiment: its one artifact is the table `foresight plan` prints."""
    name = str(experiment.NAME)

    def plan(settings, against=""):  # type: ignore[no-untyped-def]
        found = planned_against(experiment, settings, against or None)
        _show_plan(name, found.rows())
        logger = get_run_logger()
        for look in found.looks:
            if look.state != "ready":
                logger.info("%s is %s: %s", look.name, look.state, look.why)
        counts = Counter(look.state for look in found.looks)
        logger.info("%s", ", ".join(f"{n} {state}" for state, n in sorted(counts.items())))
        return found.to_json()

    plan.__annotations__ = {"settings": experiment.Settings, "against": str, "return": dict[str, Any]}
    plan.__doc__ = (
        f"What a run of {name} would do and why; computes nothing.\n\nArgs:\n"
        "    settings: As for the run.\n"
        "    against: An earlier run to hold the plan against: the beginning of its id, or 'last'; may be empty.\n"
    )
    plan.__module__ = experiment.__name__
    return flow(name=f"{name}-plan", persist_result=False, flow_run_name=f"plan {name} {{settings.data}}")(
        plan
    )


def _show_plan(name: str, rows: list[dict[str, Any]]) -> None:
    create_table_artifact(
        key=f"{name}-plan",
        table=rows,
        description="What is in the store already, what is missing, and why: the first reason of each; "
        "the log has them all",
    )


def _show_failure(name: str, failed: StageFailed) -> None:
    """Say on the run's page which stage failed, why, and what stays."""
    done = sum(r.state == "completed" for r in failed.ran)
    create_markdown_artifact(
        key=f"{name}-result",
        markdown=f"## Failed\n\n{failed}\n\n{done} stages were computed before it and are kept; once this is put "
        "right, the same run goes on from there.\n",
        description=message_of(failed),
    )


def _show_outcome(name: str, outcome: Outcome, document: Mapping[str, Any]) -> None:
    """Show verdict, main numbers, report and figures on the run's page."""
    create_markdown_artifact(
        key=f"{name}-result", markdown=_summary(outcome, document), description=_in_short(document)
    )
    report = outcome.looks.get("report")
    if report is None or outcome.report is None:
        return
    create_link_artifact(
        key=f"{name}-report",
        link=outcome.report.resolve().as_uri(),
        link_text="the report",
        description=f"{document['report']}: open this file; a page in a browser may not follow a link to it",
    )
    create_table_artifact(
        key=f"{name}-metrics",
        table=[_row(m) for m in document["metrics"]],
        description=f"Verdict: {document['verdict']}. Every number with its 95 % interval and chance level",
    )
    files = {
        sha256(png).hexdigest(): (file, png) for file, png in read_figures(outcome.house, report).items()
    }
    for figure in _chosen(_told(outcome, report)["sections"]):
        file, png = files[figure["png_sha256"]]
        title = file.removesuffix(".png")
        picture = base64.b64encode(png).decode("ascii")
        create_markdown_artifact(
            key=title if title.startswith(name) else f"{name}-{title}",
            markdown=f"![{title}](data:image/png;base64,{picture})",
            description=figure["caption"] or figure["alt"],
        )


def _chosen(sections: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the figures that are also artifacts: the first and the last of every section.

    A section begins with what is read first and ends with its pictures; the report has them all.
    """
    for section in sections:
        figures = list(section["figures"])
        yield from figures[:1] + figures[1:][-1:]


def _told(outcome: Outcome, report: Look) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(outcome.house.store.get_blob(report.outputs["report"]))
    return told


def _verdict(outcome: Outcome) -> str:
    """Return what the report says first: the verdict, the numbers it rests on, and why."""
    report = outcome.looks.get("report")
    if report is None:
        return ""
    told = _told(outcome, report)["verdict"]
    lines = [f"## {told['word']}\n", f"{told['sentence']} {told['band']}\n"]
    if told["tiles"]:
        lines += ["| number | value | 95 % interval | asked | verdict |", "|---|---|---|---|---|"]
        lines += [
            f"| {tile['title']} | {_number(tile['value'])} | {_interval(tile['low'], tile['high'])} "
            f"| {tile['comparison']} {tile['threshold']:g} | {tile['verdict']} |"
            for tile in told["tiles"]
        ]
        lines.append("")
    for what, sentences in (("Reasons", told["reasons"]), ("Open questions", told["open_questions"])):
        if sentences:
            lines += [f"{what}:\n", *(f"* {sentence}" for sentence in sentences), ""]
    return _unlinked("\n".join(lines) + "\n")


def _row(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the table of numbers: what it is, then the number; the report has all digits."""
    name = ": ".join(filter(None, (measured["name"], measured.get("target"))))
    told = {
        "row": measured["row"],
        "name": _unlinked(textwrap.shorten(name, NAME_LETTERS, placeholder=" …")),
        "point": measured["point"] if measured["variant"] == TRAINED else f"{measured['point']}, random",
        "value": _digits(measured["value"]),
        "95 % interval": _interval(measured["low"], measured["high"], ".3g"),
        "chance": _digits(measured.get("null")),
        "p": _digits(measured.get("p")),
        "controls": ", ".join(
            f"{control} {level:.3g}" for control, level in measured["controls"].items() if level is not None
        ),
    }
    return told | {what: measured.get(what) for what in ("n", "model", "why")}


def _digits(value: Any) -> Any:
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _interval(low: float | None, high: float | None, digits: str = ".3f") -> str:
    return "none" if low is None or high is None else f"{low:{digits}} to {high:{digits}}"


def _unlinked(text: str) -> str:
    """Return text in which a page does not take mAP@0.5 for an address of electronic mail."""
    return re.sub(r"@(?=\d+\.\d)", "@\N{WORD JOINER}", text)


def _summary(outcome: Outcome, document: Mapping[str, Any]) -> str:
    told = {
        "report": document["report"] or "this experiment writes none",
        "store": document["store"],
        "run": f"{store.short(document['run'])} (to hold a plan against)",
    }
    lines = [f"{_verdict(outcome)}{_in_short(document)}\n", *(f"* {k}: {v}" for k, v in told.items())]
    skipped = document["skipped"]
    if skipped:
        lines += [f"\n{len(skipped)} files were skipped:\n"]
        lines += [f"* {s['sample']}: {s['why']}" for s in skipped[:SHOWN_SKIPS]]
        lines += [f"* and {len(skipped) - SHOWN_SKIPS} more"] if len(skipped) > SHOWN_SKIPS else []
    return "\n".join(lines) + "\n"


def _in_short(document: Mapping[str, Any]) -> str:
    stages = document["stages"]
    cached = sum(s["state"] == "cached" for s in stages)
    return (
        f"{cached} of {len(stages)} stages were in the store; {document['forwards']} forward passes, "
        f"{document['rows_written']} rows written, {document['rows_reused']} reused; {document['seconds']:.1f} s"
    )

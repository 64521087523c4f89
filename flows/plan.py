"""A plan as people see it: what would run and why, and how it stands to an earlier run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import store
from flows.earlier import Difference, against, find_run
from flows.engine import prepare
from flows.settings import Settings
from tasks.stages import Look, shortened


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The looks of an experiment's stages, in order."""

    experiment: str
    looks: list[Look]
    against: store.Recipe | None
    """The record of the earlier run it is held against."""
    differences: list[Difference]
    """One a stage; empty without an earlier run."""
    left_out: list[str]
    """Stages only the earlier run had."""

    def to_json(self) -> dict[str, Any]:
        """Return the document `foresight plan --json` prints."""
        stages = [look.to_json() for look in self.looks]
        if self.against is None:
            return {"experiment": self.experiment, "stages": stages}
        for stage, difference in zip(stages, self.differences, strict=True):
            stage["against"] = difference.to_json()
        return {
            "experiment": self.experiment,
            "against": self.against.id,
            "stages": stages,
            "left_out": self.left_out,
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return the plan as a table for a run's page."""
        rows = plan_rows(self.looks)
        for row, difference in zip(rows, self.differences, strict=False):
            row["against that run"] = f"{difference.word}: {shortened(difference.why, most=1)}"
        return rows


def plan_rows(looks: Sequence[Look]) -> list[dict[str, Any]]:
    """Return looks as a table's rows, each reason in one short line: a page cuts what is wider than itself."""
    return [
        {
            "stage": look.name,
            "state": look.state,
            "why": _in_one_line(look),
            "rows to compute": _rows_to_compute(look),
            "rows needed": look.rows_needed or "",
            "bytes to write": "?" if look.bytes is None else look.bytes or "",
        }
        for look in looks
    ]


def _rows_to_compute(look: Look) -> int | str:
    if not look.rows_needed:
        return ""
    return "?" if look.rows_missing is None else look.rows_missing


def _in_one_line(look: Look) -> str:
    if len(look.roots) > 1:
        return f"waits for {look.roots[0]} and {len(look.roots) - 1} more"
    return shortened(look.why, most=1)


def planned_against(experiment: ModuleType, settings: Settings, run: str | None) -> Plan:
    """Return the plan of an experiment, held against the earlier run `run` names, if any.

    Raises `WrongRequest` when no run of the store goes by that name.
    """
    prepared = prepare(experiment, settings)
    name = str(experiment.NAME)
    earlier = find_run(prepared.house.store, name, run) if run else None
    differences, left_out = against(prepared, earlier) if earlier else ([], [])
    return Plan(
        experiment=name, looks=prepared.looks, against=earlier, differences=differences, left_out=left_out
    )

"""How every experiment keeps its numbers and its decision in the store, and reads them again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import store
from tasks.house import House
from tasks.model import provenance
from tasks.stages import Look

Measurements = list[dict[str, Any]]


def keep_measurements(house: House, recipe: store.Recipe, measured: Sequence[Mapping[str, Any]]) -> None:
    """Record a row's numbers as the output `measurements`."""
    house.store.record(
        recipe, outputs={"measurements": put_json(house, list(measured))}, provenance=provenance()
    )


def read_measurements(house: House, looks: Iterable[Look]) -> Measurements:
    """Return the numbers of several finished stages, in order."""
    found: Measurements = []
    for look in looks:
        found += json.loads(house.store.get_blob(look.outputs["measurements"]))
    return found


def keep_decision(
    house: House,
    recipe: store.Recipe,
    decision: Mapping[str, Any],
    *,
    measurements: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Record a decision as the output `decision`, with numbers that were only made for it."""
    blob = put_json(house, {"measurements": list(measurements), "decision": dict(decision)})
    house.store.record(
        recipe,
        outputs={"decision": blob},
        values={"verdict": decision["overall"]},
        provenance=provenance(),
    )


def read_decision(house: House, look: Look) -> tuple[dict[str, Any], Measurements]:
    """Return a decision, and the numbers that were made for it."""
    found = json.loads(house.store.get_blob(look.outputs["decision"]))
    return found["decision"], found["measurements"]


def put_json(house: House, value: Any) -> str:
    """Keep plain values as a blob; return its id."""
    return house.store.put_blob(to_json(value), "application/json")


def to_json(value: Any) -> bytes:
    """Return JSON bytes that are equal for equal values."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False, indent=1).encode()

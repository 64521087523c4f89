"""What the spatial and the reconstruction study give on a few pictures and models with random weights: toys to pin.

Probes and adapters train for `FEW_STEPS`, so that rounding has no time to grow; their budgets are pinned beside.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import store
from flows import c1, q2
from flows.engine import prepare
from foresight import probes
from foresight.probes import boxes, motion, sets
from foresight.studies import adapted, located, spatial
from tasks.kept import read_decision, read_measurements
from tasks.stages import run

Numbers = dict[str, float | None]

FEW_STEPS = 4
STUDIES: dict[str, tuple[ModuleType, dict[str, Any]]] = {
    "c1": (
        c1,
        {
            "samples": 24,
            "adapters": ["linear", "mlp:8"],
            "ablations": "cross",
            "decoder": "ltx-video-tiny@random0",
        },
    ),
    "q2": (q2, {"samples": 24, "data": "synthetic:scenes"}),
    "q2.4": (q2, {"samples": 16, "data": "synthetic:moving", "frames": 4}),
}
"""The runs: the experiment and its settings. Of the third only the motion row is kept."""
BUDGETS = {
    "q2.1": (boxes.STEPS, boxes.LEARNING_RATE, boxes.BATCH, boxes.HIDDEN),
    "q2.2": (sets.STEPS, sets.LEARNING_RATE, sets.BATCH, sets.FEATURES),
    "q2.4": (motion.STEPS, motion.LEARNING_RATE, motion.BATCH, motion.MAPS),
    "c1.4": (boxes.STEPS, boxes.LEARNING_RATE, boxes.BATCH, boxes.HIDDEN),
    "c1.adapter": (adapted.STEPS, adapted.LEARNING_RATE, adapted.BATCH),
}


def studied(operation: str) -> Callable[[], Numbers]:
    """Return the numbers an operation of either study records."""

    def numbers() -> Numbers:
        study = "q2.4" if operation.startswith("q2.4") else operation.split(".")[0]
        found = dict(ran(study)[operation])
        return found | {f"budget {i}": float(v) for i, v in enumerate(BUDGETS.get(operation, ()))}

    return numbers


@cache
def ran(study: str) -> dict[str, Numbers]:
    """Return the numbers of every stage of a run, by operation; stages are told apart by their names."""
    experiment, own = STUDIES[study]
    found: dict[str, Numbers] = {}
    with few_steps(), in_a_folder():
        settings = experiment.Settings(vlm=["qwen2.5-vl-tiny@random0"], points=["vit.4", "merged"], **own)
        prepared = prepare(experiment, settings)
        house = prepared.house
        house.store = store.open(settings.store, create=True)
        stages = [s for s in prepared.stages if study != "q2.4" or getattr(s, "row", "Q2.4") == "Q2.4"]
        stages = [s for s in stages if s.name != "report" and (study != "q2.4" or "Q2.D" not in s.name)]
        _, looks = run(stages, house)
        for recipe in house.store.recipes():
            result = house.store.result(recipe.id)
            if result is not None and recipe.operation.startswith(("q2", "c1")):
                stage = next((n for n, look in looks.items() if look.key == recipe.id), None)
                name = stage or " ".join(
                    str(recipe.settings[k]) for k in ("card", "point", "design", "share")
                )
                told = _numbers(house, looks.get(stage or ""), result)
                found.setdefault(recipe.operation, {}).update({f"{name}: {k}": v for k, v in told.items()})
    return found


def _numbers(house: Any, look: Any, result: Any) -> Numbers:
    """Return what a recorded result holds, as plain numbers."""
    outputs, found = result.outputs, _plain(result.values)
    if "measurements" in outputs:
        for m in read_measurements(house, [look]):
            fields = {k: m[k] for k in ("value", "low", "high", "null", "controls") if k in m}
            target = m.get("target") or ""
            found |= {f"{m['name']} {target} {m['point']} {k}": v for k, v in _plain(fields).items()}
    if "decision" in outputs:
        decision, _ = read_decision(house, look)
        found |= {f"{v['name']} {v['verdict']}": v["value"] for v in decision["verdicts"]}
        found |= {f"overall {decision['overall']}": 1.0}
    if "scores" in outputs:
        for reading, told in json.loads(house.store.get_blob(outputs["scores"])).items():
            if isinstance(told, Mapping):
                found |= {f"{reading} {k}": v for k, v in _plain(told).items()}
    if "examples" in outputs:
        tree = house.store.get_tree(outputs["examples"])
        told = json.loads(house.store.get_blob(tree["examples.json"]))
        read = [np.mean(e["found"]) for e in told if e.get("found") and not isinstance(e["found"], str)]
        found |= {"read off": float(np.mean(read))} if read else {}
    return found


def _plain(values: Any, name: str = "") -> Numbers:
    """Return numbers by name; of a list of numbers the mean, and texts as part of the name."""
    if isinstance(values, Mapping):
        return {k: v for n, value in values.items() for k, v in _plain(value, f"{name} {n}".strip()).items()}
    if isinstance(values, str):
        return {f"{name} {values}": 1.0}
    if isinstance(values, list):
        flat = [v for v in values if isinstance(v, int | float)]
        if flat or not values:
            return {f"{name} mean": float(np.mean(flat))} if flat else {}
        return {k: v for i, value in enumerate(values) for k, v in _plain(value, f"{name} {i}").items()}
    return {name: None if values is None else float(values)}


@contextmanager
def few_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("box_probe", "set_probe", "motion_probe"):
            quick = partial(getattr(probes, name), steps=FEW_STEPS)
            patch.setattr(spatial, name, quick)
        patch.setattr(located, "box_probe", partial(probes.box_probe, steps=FEW_STEPS))
        patch.setattr(adapted, "train", partial(adapted.train, steps=FEW_STEPS))
        yield


@contextmanager
def in_a_folder() -> Iterator[None]:
    """Stay in a folder of its own, in which no published network lies."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch, chdir(folder):
        patch.setenv("TORCH_HOME", folder)
        yield

"""The experiments by name: every module of `flows` with a NAME, its Settings and its stages."""

import importlib
import pkgutil
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import flows


def experiments() -> dict[str, ModuleType]:
    """Return each experiment's module by the name people type.

    Modules whose names begin with an underscore are not looked at: they may import Prefect, which must not
    happen before it is told where to keep things.
    """
    found: dict[str, ModuleType] = {}
    for module in pkgutil.iter_modules(flows.__path__):
        if module.name.startswith("_"):
            continue
        loaded = importlib.import_module(f"flows.{module.name}")
        if hasattr(loaded, "NAME"):
            found[loaded.NAME] = loaded
    return found


def flows_of(module: str) -> Callable[[str], Any]:
    """Return an experiment module's `__getattr__`, which makes its flows when Prefect asks for them by name.

    They are `flows.q1:q1`, the run, and `flows.q1:plan`, its plan; so importing an experiment does not wait
    for Prefect.
    """

    def make(name: str) -> Any:
        experiment = sys.modules[module]
        if name == "plan":
            from flows._as_flow import as_plan_flow

            return as_plan_flow(experiment)
        if name == experiment.__dict__["NAME"]:
            from flows._as_flow import as_flow

            return as_flow(experiment)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return make

"""The experiments by name: every module of `flows` with a NAME, its Settings and its stages."""

import importlib
import pkgutil
from types import ModuleType

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

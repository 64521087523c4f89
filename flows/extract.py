"""Extract: fill the store with the latents of models at points, and nothing more."""

import sys
from typing import Any

from flows.build import extraction, model_stages, role_of
from flows.settings import ExtractSettings
from tasks.house import House
from tasks.ingest import Ingest

NAME = "extract"
Settings = ExtractSettings


def stages(settings: ExtractSettings, house: House) -> list[Any]:
    """Return the stages in order; pure, so that it can be planned without running."""
    wanted = [extraction(v, settings, house, points=settings.points) for v in settings.vlm]
    if settings.decoder:
        wanted.append(extraction(role_of(settings.decoder, "decoder"), settings, house, points=[]))
    return [Ingest(), *model_stages(wanted)]


def __getattr__(name: str) -> Any:
    # the flow is made when Prefect asks for `flows.extract:extract`, so that planning does not wait for Prefect
    if name == NAME:
        from flows._as_flow import as_flow

        return as_flow(sys.modules[__name__])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

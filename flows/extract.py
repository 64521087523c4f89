"""Extract: fill the store with the latents of models at points, and nothing more."""

from typing import Any

from flows.build import extraction, model_stages, role_of
from flows.experiments import flows_of
from flows.settings import ExtractSettings
from tasks.house import House
from tasks.ingest import Ingest

NAME = "extract"
Settings = ExtractSettings


def stages(settings: ExtractSettings, house: House) -> list[Any]:
    """Return the stages in order; pure, so that it can be planned without running."""
    wanted = [extraction(v, settings, house, points=settings.points) for v in settings.vlm]
    if settings.decoder:
        decoder = role_of(settings.decoder, "decoder")
        wanted.append(extraction(decoder, settings, house, points=settings.decoder_points))
    return [Ingest(), *model_stages(wanted)]


__getattr__ = flows_of(__name__)

"""C1: are a vision-language model's latents enough to rebuild the picture through a video decoder?"""

from typing import Any

from flows.build import control_of, extraction, model_stages, one_point, role_of
from flows.experiments import flows_of
from flows.settings import AlignmentSettings
from foresight.studies.rebuilt import TRAINED
from foresight.studies.reconstruction import RANDOM, READINGS, TOKENS
from tasks.c1 import Decide, Project, Row
from tasks.c1_report import C1Report
from tasks.extract import Extract
from tasks.house import House, WrongRequest
from tasks.ingest import Ingest
from tasks.pairs import Source
from tasks.publish import decodes
from tasks.reconstruct import Rebuild, References

NAME = "c1"
Settings = AlignmentSettings


def stages(settings: AlignmentSettings, house: House) -> list[Any]:
    """Return the stages of the study in order; pure, so that it can be planned without running."""
    vlm = tuple(extraction(role_of(v, "vlm"), settings, house, points=settings.points) for v in settings.vlm)
    decoder = one_point(
        extraction(role_of(settings.decoder, "decoder"), settings, house, points=settings.decoder_points)
    )
    if not decodes(decoder):
        raise WrongRequest(
            f"pictures are rebuilt by a model that decodes its latent, but {decoder.ref.short} does not"
        )
    copies = tuple(c for v in vlm if (c := control_of(v, settings, house)))
    sources = tuple(_sources(vlm, copies))
    references = References(decoder=decoder, seed=settings.seed)
    rebuilds = tuple(
        Rebuild(source=s, decoder=decoder, seed=settings.seed, readings=(TOKENS,) if s.variant == RANDOM else READINGS)
        for s in sources
    )  # fmt: skip
    shared: dict[str, Any] = {"rebuilds": rebuilds, "references": references, "seed": settings.seed}
    projection = Project(sources=sources, seed=settings.seed)
    probe = Row(row="C1.2", title="linear probe", **shared)
    merger = Row(row="C1.3", title="before and after the merger", **shared)
    decide = Decide(probe=probe)
    report = C1Report(
        projection=projection, rows=(probe, merger), rebuilds=rebuilds, references=references, decide=decide
    )
    return [
        Ingest(), *model_stages([decoder, *vlm, *copies]), references, projection, *rebuilds, probe, merger, decide,
        report,
    ]  # fmt: skip


def _sources(vlm: tuple[Extract, ...], copies: tuple[Extract, ...]) -> list[Source]:
    # a copy goes by the name of the model it controls, so that their numbers stand side by side
    names = {e.ref.card.name: e.ref.short for e in vlm}
    return [
        Source(extract=e, point=p.name, model=names[e.ref.card.name],
               variant=RANDOM if e.ref.kind == "random" else TRAINED)
        for e in (*vlm, *copies)
        for p in e.points
    ]  # fmt: skip


__getattr__ = flows_of(__name__)

"""C1: are a vision-language model's latents enough to rebuild the picture through a video decoder?"""

from typing import Any, Literal

from pydantic import Field, field_validator

from flows.build import copies_of, extraction, model_stages, one_point, role_of
from flows.experiments import flows_of
from flows.settings import AlignmentSettings
from foresight.adapters import parse
from foresight.studies.rebuilt import TRAINED
from foresight.studies.reconstruction import RANDOM, READINGS, TOKENS
from tasks.adapt import Adapt
from tasks.c1 import Adapted, Decide, Project, Row, trained
from tasks.c1_report import C1Report
from tasks.extract import Extract
from tasks.house import House, WrongRequest
from tasks.ingest import Ingest
from tasks.locate import Locate, Patches
from tasks.pairs import Source
from tasks.publish import decodes
from tasks.reconstruct import Rebuild, References, place_of
from tasks.token_grids import grid_of

NAME = "c1"
SHARES = (0.25, 0.5, 1.0)
"""Shares of the training samples an adapter is trained on."""


class Settings(AlignmentSettings):
    """Settings of the reconstruction study."""

    adapters: list[str] = Field(
        ["linear", "mlp:64", "mlp:256"],
        min_length=1,
        title="Adapters",
        description="What is trained: linear, mlp:WIDTH or residual:WIDTH; the last is the pipeline's.",
    )

    ablations: Literal["one-at-a-time", "cross"] = Field(
        "one-at-a-time",
        title="Ablations",
        description="one-at-a-time: the point, the adapter or the share of samples is changed around the pipeline; "
        "cross: every point with every adapter and every share, about five times as many trainings.",
    )

    @field_validator("adapters")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for text in value:
            parse(text)
        if len(set(value)) != len(value):
            raise ValueError(f"each is named once, but got {value}")
        return value


def stages(settings: Settings, house: House) -> list[Any]:
    """Return the stages of the study in order; pure, so that it can be planned without running."""
    vlm = tuple(extraction(role_of(v, "vlm"), settings, house, points=settings.points) for v in settings.vlm)
    decoder = one_point(
        extraction(role_of(settings.decoder, "decoder"), settings, house, points=settings.decoder_points)
    )
    if not decodes(decoder):
        raise WrongRequest(
            f"pictures are rebuilt by a model that decodes its latent, but {decoder.ref.short} does not"
        )
    copies = copies_of(vlm, settings, house)
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
    twins = {place_of(s)[:2]: s.extract for s in sources if s.variant == RANDOM}
    patches, locates = _locates(
        settings, house, [s for s in sources if s.variant == TRAINED or s.extract in vlm], twins
    )
    best, twin, others = _adapters(settings, decoder, rebuilds)
    pipeline = Adapted(row="C1.5", title="pipeline", runs=(best, *twin), probe=probe)
    ablations = Adapted(row="C1.6", title="ablations", runs=(*others, best), probe=probe)
    decide = Decide(probe=probe, pipeline=pipeline, locates=locates)
    report = C1Report(
        projection=projection,
        rows=(probe, merger),
        locates=locates,
        pipeline=pipeline,
        ablations=ablations,
        rebuilds=rebuilds,
        references=references,
        decide=decide,
    )
    return [
        Ingest(), *model_stages([decoder, *vlm, *copies]), references, projection,
        *{r.name: r for r in rebuilds}.values(), probe, merger,
        *patches, *locates, best, *twin, *others, pipeline, ablations, decide, report,
    ]  # fmt: skip


def _locates(
    settings: Settings, house: House, sources: list[Source], twins: dict[tuple[str, str], Extract]
) -> tuple[tuple[Patches, ...], tuple[Locate, ...]]:
    """Return the reading of raw patches, once a grid, and that of every source beside it.

    `twins` are the random copies by (model, point); a source without one is its own.
    """
    patches: dict[Any, Patches] = {}
    found = []
    for s in sources:
        counts = grid_of(s.extract, s.point, house)
        own = None
        if any(counts):
            own = Patches(grid=counts, extract=s.extract, seed=settings.seed)
            own = patches.setdefault((counts, s.extract.framing), own)
        copy = twins.get((s.model, s.point), s.extract)
        found.append(Locate(source=s, copy=copy, patches=own, seed=settings.seed))
    return tuple(patches.values()), tuple(found)


def _adapters(
    settings: Settings, decoder: Extract, rebuilds: tuple[Rebuild, ...]
) -> tuple[Adapt, tuple[Adapt, ...], tuple[Adapt, ...]]:
    """Return the pipeline's adapter at the best point, the same on random weights where there are, and the ablations.

    One factor at a time: by point, by design, by training samples, around the first. Crossed: every point with every
    design and share. Either way a training that two of them share is done once.
    """
    held = trained(rebuilds)
    twins = tuple(r for r in rebuilds if r not in held)
    designs = [parse(text) for text in settings.adapters]
    base = designs[-1]
    shared: dict[str, Any] = {"decoder": decoder, "seed": settings.seed}

    def adapt(label: str, design: Any, share: float, candidates: tuple[Rebuild, ...], **more: Any) -> Adapt:
        return Adapt(label=label, design=design, share=share, candidates=candidates, **shared, **more)

    def at(one: Rebuild, design: Any, share: float) -> Adapt:
        return adapt(f"{one.source.extract.ref.short} {one.source.point}", design, share, (one,))

    if settings.ablations == "cross":
        others = [at(r, design, share) for r in held for design in designs for share in SHARES]
    else:
        others = [at(r, base, 1.0) for r in held]
        others += [adapt("best", design, 1.0, held) for design in designs[:-1]]
        others += [adapt("best", base, share, held) for share in SHARES if share < 1]
    # weights are drawn anew for a copy, so it has a twin at every point or at none
    twin = (adapt("random weights", base, 1.0, held, twins=twins),) if len(twins) == len(held) else ()
    return adapt("best", base, 1.0, held), twin, tuple(others)


def _sources(vlm: tuple[Extract, ...], copies: tuple[Extract, ...]) -> list[Source]:
    # a copy goes by the name of each model it controls, so that their numbers stand side by side
    named = [(e, e.ref.short) for e in vlm]
    named += [(copy, e.ref.short) for copy in copies for e in vlm if copy.controls(e)]
    return [
        Source(extract=e, point=p.name, model=model, variant=RANDOM if e.ref.kind == "random" else TRAINED)
        for e, model in named
        for p in e.points
    ]


__getattr__ = flows_of(__name__)

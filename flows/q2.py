"""Q2: where in a vision-language model is spatial information lost, and is it lost at all?"""

from typing import Any

from pydantic import Field

from flows.build import control_of, extraction, model_stages, role_of
from flows.experiments import flows_of
from flows.settings import Settings as Common
from foresight import models
from foresight.studies.spatial import ROWS
from tasks.extract import Extract
from tasks.house import House, WrongRequest
from tasks.ingest import Ingest
from tasks.spatial import Ceiling, Decide, Probe, why_not
from tasks.spatial_report import Q2Report
from tasks.token_grids import Beside, check_same_frames, grid_of, shared_grid

NAME = "q2"


class Settings(Common):
    """Settings of the spatial study."""

    hybrid: str = Field(
        "",
        title="Image encoder beside them",
        description="An image encoder whose features are set beside those of every point on one grid: CARD, or "
        "CARD:POINT, as in dinov2-tiny:vit.2; without a point its card's deepest. Empty: none.",
    )


def stages(settings: Settings, house: House) -> list[Any]:
    """Return the stages of the study in order; pure, so that it can be planned without running."""
    vlm = [extraction(role_of(v, "vlm"), settings, house, points=settings.points) for v in settings.vlm]
    # a model that is random already is its own control
    copies = [control_of(v, settings, house) or v for v in vlm]
    grids = {(v.name, p.name): grid_of(v, p.name, house) for v in vlm for p in v.points}
    if flat := [point for (_, point), counts in grids.items() if not any(counts)]:
        raise WrongRequest(
            f"places are read off points whose tokens fill a grid, but {', '.join(flat)} do not"
        )
    beside = _beside(settings, house, vlm)
    steps = max(counts[0] for counts in grids.values())
    absent = {row: why for row in ROWS if (why := why_not(row, house, steps))}
    ceilings: dict[Any, Ceiling] = {}
    probes = []
    for row in ROWS:
        if row in absent:
            continue
        for v, copy, second in ((v, c, s) for v, c in zip(vlm, copies, strict=True) for s in (None, *beside)):
            for p in v.points:
                counts = grids[v.name, p.name]
                if second:
                    counts = shared_grid(counts, grid_of(second.extract, second.point, house))
                ceiling = Ceiling(row=row, grid=counts, extract=v, seed=settings.seed)
                ceiling = ceilings.setdefault((row, counts, v.framing), ceiling)
                several = v.ref.short if len(vlm) > 1 else ""
                probes.append(
                    Probe(
                        row=row, extract=v, copy=copy, point=p.name, ceiling=ceiling, seed=settings.seed,
                        model=several, beside=second,
                    )
                )  # fmt: skip
    decide = Decide(probes=tuple(probes), absent=absent)
    report = Q2Report(probes=tuple(probes), decide=decide)
    extracted = model_stages([*vlm, *copies, *(e for b in beside for e in (b.extract, b.copy))])
    return [Ingest(), *extracted, *ceilings.values(), *probes, decide, report]


def _beside(settings: Settings, house: House, vlm: list[Extract]) -> tuple[Beside, ...]:
    """Return the encoder to set beside every point; nothing when none is asked for."""
    if not settings.hybrid:
        return ()
    text, point = _card_and_point(settings.hybrid)
    card = models.parse_ref(role_of(text, "encoder")).card
    extract = extraction(text, settings, house, points=[point or card.default_points[-1]])
    if len(extract.points) != 1:
        named = ", ".join(p.name for p in extract.points)
        raise WrongRequest(
            f"one point stands beside the others, but {point} names {named}; choose one of them"
        )
    (found,) = extract.points
    for v in vlm:
        check_same_frames(v, extract)
    if not any(grid_of(extract, found.name, house)):
        raise WrongRequest(
            f"models stand side by side where their tokens fill a grid, but {found.name} of {card.name} has none; "
            "choose another point, as in --hybrid CARD:POINT"
        )
    copy = control_of(extract, settings, house) or extract
    return (Beside(extract=extract, copy=copy, point=found.name),)


def _card_and_point(text: str) -> tuple[str, str]:
    """Return what names the model and what names the point ('' when nothing does) of CARD:POINT."""
    head, colon, tail = text.rpartition(":")
    # the colon of CARD@path:DIR and CARD+adapter:DIR is the model's own
    if not colon or head.endswith(("@path", "+adapter")):
        return text, ""
    return head, tail


__getattr__ = flows_of(__name__)

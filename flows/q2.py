"""Q2: where in a vision-language model is spatial information lost, and is it lost at all?"""

from typing import Any

from flows.build import control_of, extraction, model_stages, role_of
from flows.experiments import flows_of
from flows.settings import Settings as Common
from foresight.studies.spatial import ROWS
from tasks.house import House, WrongRequest
from tasks.ingest import Ingest
from tasks.spatial import Ceiling, Decide, Probe, grid_of, why_not
from tasks.spatial_report import Q2Report

NAME = "q2"
Settings = Common


def stages(settings: Common, house: House) -> list[Any]:
    """Return the stages of the study in order; pure, so that it can be planned without running."""
    vlm = [extraction(role_of(v, "vlm"), settings, house, points=settings.points) for v in settings.vlm]
    # a model that is random already is its own control
    copies = [control_of(v, settings, house) or v for v in vlm]
    grids = {(v.name, p.name): grid_of(v, p.name, house) for v in vlm for p in v.points}
    if flat := [point for (_, point), counts in grids.items() if not any(counts)]:
        raise WrongRequest(
            f"places are read off points whose tokens fill a grid, but {', '.join(flat)} do not"
        )
    steps = max(counts[0] for counts in grids.values())
    absent = {row: why for row in ROWS if (why := why_not(row, house, steps))}
    ceilings: dict[Any, Ceiling] = {}
    probes = []
    for row in ROWS:
        if row in absent:
            continue
        for v, copy in zip(vlm, copies, strict=True):
            for p in v.points:
                counts = grids[v.name, p.name]
                ceiling = Ceiling(row=row, grid=counts, extract=v, seed=settings.seed)
                ceiling = ceilings.setdefault((row, counts, v.framing), ceiling)
                several = v.ref.short if len(vlm) > 1 else ""
                probes.append(
                    Probe(
                        row=row, extract=v, copy=copy, point=p.name, ceiling=ceiling, seed=settings.seed,
                        model=several,
                    )
                )  # fmt: skip
    decide = Decide(probes=tuple(probes), absent=absent)
    report = Q2Report(probes=tuple(probes), decide=decide, ceilings=tuple(ceilings.values()))
    return [Ingest(), *model_stages([*vlm, *copies]), *ceilings.values(), *probes, decide, report]


__getattr__ = flows_of(__name__)

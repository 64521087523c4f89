"""Q1: do a vision-language model's latents and a video decoder's have compatible structure?"""

from typing import Any

from flows.build import control_of, copies_of, extraction, model_stages, one_point, role_of
from flows.experiments import flows_of
from flows.settings import AlignmentSettings
from tasks.decoded import DecodePrediction
from tasks.house import House
from tasks.ingest import Ingest
from tasks.layouts import Layouts
from tasks.measure import TITLES, Compared, Decide, Measure, MeasuredRow
from tasks.position import Positions
from tasks.publish import DecodeExamples, Q1Report, decodes

NAME = "q1"
Settings = AlignmentSettings


def stages(settings: AlignmentSettings, house: House) -> list[Any]:
    """Return the stages of the study in order; pure, so that it can be planned without running."""
    vlm = tuple(extraction(role_of(v, "vlm"), settings, house, points=settings.points) for v in settings.vlm)
    decoder = one_point(
        extraction(role_of(settings.decoder, "decoder"), settings, house, points=settings.decoder_points)
    )
    copies = copies_of(vlm, settings, house)
    decoder_copy = control_of(decoder, settings, house)
    compared = Compared(vlm=vlm, copies=copies, decoder=decoder, decoder_copy=decoder_copy)
    measures = {row: Measure(row=row, compared=compared, seed=settings.seed) for row in TITLES}
    rows: tuple[MeasuredRow, ...] = (
        *measures.values(),
        Positions(compared=compared, seed=settings.seed),
    )
    decide = Decide(rows=rows, compared=compared)
    layouts = Layouts(compared=compared, seed=settings.seed)
    examples = DecodeExamples(decoder=decoder) if decodes(decoder) else None
    decoded = (
        DecodePrediction(compared=compared, kernels=measures["Q1.7"], seed=settings.seed)
        if examples
        else None
    )
    report = Q1Report(
        rows=rows,
        decide=decide,
        layouts=layouts,
        examples=examples,
        decoded=decoded,
        compared=compared,
        seed=settings.seed,
    )
    # the decoder first: its pictures are the first thing there is to see
    return [
        Ingest(),
        *model_stages([decoder, *compared.extractions]),
        *([examples] if examples else []),
        *rows,
        *([decoded] if decoded else []),
        decide,
        layouts,
        report,
    ]


__getattr__ = flows_of(__name__)

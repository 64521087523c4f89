"""The sections of the Q1 report, one function per row of the experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from foresight.reports import figures, galleries
from foresight.reports import q1_words as words
from foresight.reports.page import Cell, Figure, Section, Table, number_text
from foresight.reports.q1_curves import by_k, copy_of, curves, overview, peaks, point_table, target_maps
from foresight.reports.q1_decoded import decoded_part
from foresight.reports.q1_decoder import decoder_section
from foresight.reports.q1_kernels import kernel_section
from foresight.reports.q1_projections import linked_panels, scatters
from foresight.reports.q1_rows import (
    JUDGED,
    NAN,
    Row,
    baselines,
    is_decoded,
    is_decoder,
    lead_like,
    lead_name,
    lower_is_better,
    names,
    real,
    threshold_of,
    verdict_of,
    vlm_points,
)
from foresight.reports.tables import known, measurement_table, n_text, numbers_of, point_name

if TYPE_CHECKING:
    from foresight.reports.q1 import Q1Inputs

CRITERIA = {
    "Q1.2": ("q1.fail.semantics",),
    "Q1.3": ("q1.fail.dimension", "q1.fail.topology"),
    "Q1.4": ("q1.fail.linear", "q1.fail.spatial"),
    "Q1.5": ("q1.fail.structure",),
    "Q1.6": ("q1.fail.neighbours",),
}
"""Which failure criteria read which row."""

MOST_BARS = 16
TITLES = {
    "Q1.1": "What the VLM's latents group together",
    "Q1.2": "What the decoder's latents hold",
    "Q1.3": "How many dimensions each space really uses",
    "Q1.4": "Can one space be predicted from the other by a linear map?",
    "Q1.5": "Do the same samples lie far apart in both spaces?",
    "Q1.6": "Are nearest neighbours the same in both spaces?",
    "Q1.7": "Which layer resembles the decoder most?",
    "Q1.D": "The composite score and the decision",
}


def sections(inputs: Q1Inputs) -> list[Section]:
    """Return one section per row that was measured, in the order of the experiment."""
    present = {m["row"] for m in inputs.measurements} | {"Q1.D"}
    known_rows = [row for row in TITLES if row in present]
    return [_section(inputs, row) for row in [*known_rows, *sorted(present - set(TITLES))]]


def _section(inputs: Q1Inputs, row: str) -> Section:
    rows = [m for m in inputs.shown if m["row"] == row]
    verdict = verdict_of(inputs, JUDGED.get(row)) or {}
    overall = row == "Q1.D"
    build = {
        "Q1.1": _q11,
        "Q1.2": lambda _, mine: decoder_section(mine),
        "Q1.3": _q13,
        "Q1.4": _q14,
        "Q1.5": _q15,
        "Q1.6": _q16,
        "Q1.7": kernel_section,
        "Q1.D": _q1d,
    }.get(row, _any)
    whole = [m for m in rows if not m.get("target")]
    text, pictures, tables = build(inputs, whole) if whole or overall else ([], [], [])
    pictures = [*pictures, *target_maps([m for m in rows if m.get("target")])]
    if rows:
        caption = numbers_of(len(rows), row)
        tables = [*tables, measurement_table(rows, caption=caption, folded=True)]
    return Section(
        id=row,
        title=TITLES.get(row, row),
        figures=pictures,
        tables=tables,
        text=[words.begun(t) for t in text if t],
        projector=linked_panels(inputs) if row == "Q1.1" else None,
        changes=_composite_changes(inputs) if overall else _changes(inputs, row, verdict),
        verdict=str((inputs.decision if overall else verdict).get("overall" if overall else "verdict", "")),
    )


def _changes(inputs: Q1Inputs, row: str, verdict: Mapping[str, Any]) -> list[str]:
    """Say what would change what the row decides: its threshold, and the failure criteria that read it."""
    lines = words.changes_for(verdict)
    for c in inputs.decision.get("criteria", ()):
        if c["name"] in CRITERIA.get(row, ()):
            state = {"TRIGGERED": "is triggered", "NOT TRIGGERED": "is not triggered"}.get(
                c["state"], "is open"
            )
            lines.append(f"“{c['title']}” {state}: {c['why']}. {c['rule']}")
    return lines


Parts = tuple[list[str], list[Figure], list[Table]]


def _any(inputs: Q1Inputs, rows: Sequence[Row]) -> Parts:
    lead = lead_name(rows, rows[0]["row"])
    text = [words.peak_sentence(rows, lead), words.untrained_sentence(rows, lead)]
    return text, curves(inputs, rows), [peaks(rows)]


def _q11(inputs: Q1Inputs, rows: Sequence[Row]) -> Parts:
    lead = lead_name(rows, "Q1.1")
    every, rows = rows, [m for m in rows if not is_decoder(inputs, m)] or rows
    text = [
        words.peak_sentence(rows, lead),
        words.emergence_sentence(rows, lead, vlm_points(inputs, rows)),
        words.untrained_sentence(rows, lead),
    ]
    pictures = []
    shown = _examples(inputs)
    if shown:
        caption = (
            f"{len(shown)} of {len(inputs.keys)} samples with their labels, taken in turn from every label."
        )
        alt = f"{len(shown)} of the samples as thumbnails with their labels"
        picture = galleries.gallery(shown, columns=12)
        pictures.append(Figure.of(picture, name="samples", wide=True, alt=alt, caption=caption))
    pictures += scatters(inputs)
    return text, pictures + curves(inputs, every), [peaks(rows)]


def _q13(inputs: Q1Inputs, rows: Sequence[Row]) -> Parts:
    lead = lead_name(rows, "Q1.3")
    mine = words.trained(rows, lead)
    # the depth with the fewest dimensions is the hardest to map from
    vlm = words.best([m for m in mine if not is_decoder(inputs, m)], lower=True)
    decoder = words.best([m for m in mine if is_decoder(inputs, m)])
    text = [words.ratio_sentence(vlm, decoder), words.spread_sentence(mine), words.noise_sentence(vlm)]
    bars = [
        figures.Bar(
            label=point_name(m),
            series=m["name"],
            value=real(m.get("value")),
            low=real(m.get("low")),
            high=real(m.get("high")),
        )
        for m in words.trained(rows)
        if not lower_is_better(m["name"])
    ]
    pictures: list[Figure] = []
    many = len({b.label for b in bars}) > MOST_BARS
    if many:
        pictures += curves(inputs, [m for m in rows if not lower_is_better(m["name"])])
    elif any(known(b.value) for b in bars):
        pictures.append(
            Figure.of(
                figures.interval_bars(bars, xlabel="dimensions"),
                name="dimensions",
                alt="Bars: " + "; ".join(f"{b.label} {b.series} {number_text(b.value)}" for b in bars[:12]),
                caption=f"Intrinsic dimension by several estimators, n = {n_text(rows[0])}. Lines are "
                "95 % intervals. The estimators answer different questions and need not agree.",
            )
        )
    shares = {point_name(m): s for m in words.trained(rows) if (s := (m.get("detail") or {}).get("spectrum"))}
    if shares:
        pictures.append(
            Figure.of(
                figures.spectrum(shares),
                name="spectrum",
                alt=f"Cumulative share of variance against principal components for {', '.join(shares)}",
                caption="Share of variance kept by the first k principal components, and where 95 % "
                "is reached.",
            )
        )
    return text, pictures, [point_table(words.trained(rows))]


def _q14(inputs: Q1Inputs, rows: Sequence[Row]) -> Parts:
    said, gallery, table = decoded_part(inputs, rows)
    rows = [m for m in rows if not is_decoded(m)]
    lead = lead_name(rows, "Q1.4")
    top = words.best(words.trained(rows, lead))
    text = [
        words.peak_sentence(rows, lead),
        words.control_sentence(top) if top else "",
        words.untrained_sentence(rows, lead),
        words.halves_sentence(rows, lead),
        *words.position_sentences(rows),
        *said,
    ]
    pictures: list[Figure] = []
    for name in [n for n in names(rows) if lead_like(n, "Q1.4")][:2]:
        mine = words.trained(rows, name)
        if len(mine) > MOST_BARS:
            pictures += curves(inputs, [m for m in rows if m["name"] == name])
            continue
        if not any(known(m.get("value")) for m in mine):
            continue
        bars = [
            figures.Bar(
                label=point_name(m),
                value=real(m.get("value")),
                low=real(m.get("low")),
                high=real(m.get("high")),
                controls=baselines(m) | copy_of(rows, m),
            )
            for m in mine
        ]
        limit = threshold_of(inputs, "q1.r2") if name == lead else None
        pictures.append(
            Figure.of(
                figures.probe_dots(bars, xlabel=name, threshold=limit),
                name=f"probe-{len(pictures) + 1}",
                alt=f"{name} per extraction point: "
                + "; ".join(f"{b.label} {number_text(b.value)}" for b in bars),
                caption=f"{name} on held-out groups, n = {n_text(mine[0])}. Dots with 95 % intervals; "
                "hollow marks are baselines; a number that means anything lies clearly to their right.",
            )
        )
    others = [m for m in rows if not lead_like(m["name"], "Q1.4")]
    return text, pictures + curves(inputs, others) + gallery, [peaks(rows), *table]


def _q15(inputs: Q1Inputs, rows: Sequence[Row]) -> Parts:
    lead = lead_name(rows, "Q1.5")
    text = [
        words.peak_sentence(rows, lead),
        words.untrained_sentence(rows, lead),
        words.halves_sentence(rows, lead),
    ]
    pictures = curves(inputs, rows)
    if inputs.distances is not None:
        d = inputs.distances
        match = next((m for m in words.trained(rows, lead) if m.get("point") == d.get("point")), None)
        rho = real(match.get("value")) if match else NAN
        pictures.append(
            Figure.of(
                figures.distance_density(d["vlm"], d["decoder"], point=str(d.get("point", "VLM")), rho=rho),
                name="distances",
                alt=f"Density of {len(d['vlm'])} sample pairs: distance in the VLM space against the "
                "decoder space",
                caption=f"{len(d['vlm']):,} pairs of samples; the colour counts pairs. A rising ridge "
                "means the spaces order distances alike.",
            )
        )
    if inputs.outliers:
        pictures.append(
            Figure.of(
                galleries.outliers(inputs.outliers, inputs.thumbnails),
                name="outliers",
                wide=True,
                alt=f"{len(inputs.outliers)} pairs of samples that one space holds close and the other far apart",
                caption="Pairs whose distance the two spaces order most differently; under each, the share of all "
                "pairs that lie closer in either space. Examples, not a measurement.",
            )
        )
    return text, pictures, [peaks(rows)]


def _q16(inputs: Q1Inputs, rows: Sequence[Row]) -> Parts:
    lead = lead_name(rows, "Q1.6")
    text = [
        words.peak_sentence(rows, lead),
        words.untrained_sentence(rows, lead),
        words.halves_sentence(rows, lead),
    ]
    # one curve per measure at the k that is judged; the other k have a figure of their own
    judged = [m for m in rows if "@" not in m["name"] or m["name"].endswith("@10")]
    pictures = curves(inputs, judged)
    top = words.best(words.trained(rows, lead))
    if top is not None:
        pictures += by_k(rows, lead.rpartition("@")[0], str(top.get("point")), top.get("model"))
    if inputs.neighbours:
        k = min(5, max(len(r["vlm"]) for r in inputs.neighbours))
        shared = [len(set(r["vlm"][:k]) & set(r["decoder"][:k])) for r in inputs.neighbours]
        pictures.append(
            Figure.of(
                galleries.retrieval(inputs.neighbours, inputs.thumbnails, neighbours=k),
                name="retrieval",
                wide=True,
                alt=f"{len(shared)} queries with their {k} nearest samples in each space; "
                f"shared: {', '.join(map(str, shared))} of {k}",
                caption=f"{len(shared)} queries, the {k} nearest samples in each space, nearest "
                f"first. Framed: near in both ({sum(shared)} of {k * len(shared)} here). "
                "Examples, not a measurement.",
            )
        )
    return text, pictures, [peaks(rows)]


def _q1d(inputs: Q1Inputs, rows: Sequence[Row]) -> Parts:
    d = inputs.decision
    band, adapter = d.get("band") or {}, d.get("adapter") or {}
    text = []
    if band:
        text.append(f"{band['word']}: {band['meaning']}; {band['why']}.")
    if adapter:
        budget = adapter.get("budget")
        size = f", {budget[0] / 1e6:g} to {budget[1] / 1e6:g} million parameters" if budget else ""
        text.append(f"Adapter: {adapter['title']}{size}, because {adapter['why']}.")
        if adapter.get("alternative"):
            text.append(f"The plan's two tables disagree here; the other one says: {adapter['alternative']}.")
    tables = []
    if d.get("criteria"):
        tables.append(
            Table(
                caption="Failure criteria of the plan's section 6",
                columns=["criterion", "state", "numbers", "rule taken"],
                rows=[
                    [
                        Cell(text=c["title"]),
                        Cell(text=c["state"], kind="word"),
                        Cell(text=c["why"], kind="long"),
                        Cell(text=c["rule"], kind="long"),
                    ]
                    for c in d["criteria"]
                ],
            )
        )
    if adapter.get("designs"):
        tables.append(
            Table(
                caption="Adapters with the parameters they really have",
                columns=["design", "parameters", "budget"],
                rows=[
                    [
                        Cell(text=x["design"]),
                        Cell(text=f"{x['parameters']:,}", kind="number"),
                        Cell(text="fits" if x["in_budget"] else "outside", kind="word"),
                    ]
                    for x in adapter["designs"]
                ],
            )
        )
    pictures = overview(inputs) + (curves(inputs, rows) if rows else [])
    if inputs.reconstructions:
        shown = list(inputs.reconstructions)[:8]
        pictures.append(
            Figure.of(
                galleries.reconstructions(shown),
                name="reconstructions",
                wide=True,
                alt="Input, decoded output and difference; PSNR "
                + ", ".join(number_text(x.get("psnr")) + " dB" for x in shown),
                caption=f"{len(shown)} samples through the decoder's own encoder and decoder: the ceiling of "
                "anything an adapter could reach. PSNR in dB under each.",
            )
        )
    return text, pictures, [*([peaks(rows)] if rows else []), *tables]


def _examples(inputs: Q1Inputs, most: int = 24) -> list[tuple[bytes, str]]:
    """Return thumbnails with labels, taken in turn from every label: no order of the data hides one."""
    by_label: dict[str, list[tuple[bytes, str]]] = {}
    for key, label in zip(inputs.keys, inputs.labels, strict=True):
        if key in inputs.thumbnails:
            name = "no label" if label is None else label
            by_label.setdefault(name, []).append((inputs.thumbnails[key], name))
    turns = [[group[i] for group in by_label.values() if i < len(group)] for i in range(most)]
    return [item for turn in turns for item in turn][:most]


def _composite_changes(inputs: Q1Inputs) -> list[str]:
    lines: list[str] = []
    for verdict in inputs.decision.get("verdicts", ()):
        if verdict["verdict"] != "PASS":
            lines += words.changes_for(verdict)
    return lines or [line for v in inputs.decision.get("verdicts", ()) for line in words.changes_for(v)]

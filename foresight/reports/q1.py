"""The Q1 report, from plain measurements: what was found first, then how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from foresight.reports import q1_words as words
from foresight.reports.page import Cell, Headline, Report, Table, Tile, number_text
from foresight.reports.q1_sections import real, sections
from foresight.reports.recipes import models_table, recipes_table
from foresight.reports.tables import measurements_csv, short

REQUIRED = ("row", "name", "value")


ASKED = "as asked"
"""What the weights of a model are called that were asked for by name and are not trained."""


@dataclass(frozen=True, kw_only=True)
class Q1Inputs:
    """Everything the report shows, as plain values. nan and None both mean undefined; then `why` says why."""

    measurements: Sequence[Mapping[str, Any]]
    """Rows {row, name, point, variant, value, low, high, null, p, n, n_effective, controls, why, detail};
    `model` (a card) when several models share point names. `variant` is 'trained' or 'random weights'.
    `detail.spectrum` holds variance shares, largest first. `target` names a part of the other space (a group
    of decoder channels); numbers with one are drawn as a heat map, points by targets."""
    decision: Mapping[str, Any]
    """`Q1Decision.to_json()`."""
    data: Mapping[str, Any]
    """{source, n, classes, skipped: [{key, why}], ignored}; `classes` is a count or a list of names."""
    models: Sequence[Mapping[str, Any]]
    """{role, card, fingerprint, points, params, dtype, attention …}; the role is 'vlm', 'decoder', or of a copy with
    random weights 'control' or 'decoder control'."""
    keys: Sequence[str] = ()
    labels: Sequence[str | None] = ()
    """[sample], in the order of `keys`."""
    projections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """point → {xy: [sample 2], explained: [share of PC 1, share of PC 2]}."""
    layouts: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """'t-SNE' or 'UMAP' → point → {xy: [sample 2], trustworthiness}."""
    thumbnails: Mapping[str, bytes] = field(default_factory=dict)
    """key → PNG."""
    distances: Mapping[str, Any] | None = None
    """{vlm: [pair], decoder: [pair], point}: a subsample of the condensed distances, pair by pair."""
    neighbours: Sequence[Mapping[str, Any]] = ()
    """{query: key, vlm: [key …], decoder: [key …]}, nearest first."""
    outliers: Sequence[Mapping[str, Any]] = ()
    """{first: key, second: key, vlm, decoder}: the share of pairs that lie closer, in either space."""
    decoded: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    """Name → PNGs of samples whose latent was predicted: 'input' first, then the round trip and the predictions."""
    undecoded: str = ""
    """Why no prediction was decoded; '' where one was."""
    reconstructions: Sequence[Mapping[str, Any]] = ()
    """{input: PNG, output: PNG, psnr: dB}."""
    stages: Sequence[Mapping[str, Any]] = ()
    """{name, state, key, why}, and `seconds` when the report may differ from run to run."""
    recipes: Sequence[Mapping[str, Any]] = ()
    """{id, operation, version, settings, inputs}."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package → version, and whatever else tells how the run went."""
    title: str = "Q1: do the VLM's and the video decoder's latents align?"

    def __post_init__(self) -> None:
        for i, m in enumerate(self.measurements):
            missing = [k for k in REQUIRED if k not in m]
            if missing:
                raise ValueError(
                    f"a measurement has {list(REQUIRED)}, but number {i} lacks {missing}: {dict(m)}"
                )
        if len(self.labels) != len(self.keys):
            raise ValueError(
                f"one label per key (None where there is none), but got {len(self.labels)} labels for "
                f"{len(self.keys)} keys"
            )

    @cached_property
    def shown(self) -> list[Mapping[str, Any]]:
        """The measurements as the sections name them: without the card where one VLM was measured alone.

        Random weights that were asked for by name are what is looked at, and no copy beside something else.
        """
        rows = [{**m, "variant": ASKED} if "@random" in str(m.get("model")) else m for m in self.measurements]
        vlms = {m.get("model") for m in rows if not self.is_decoder(m)}
        if len(vlms) > 1 or any((None, point) not in self.decoder_places for _, point in self.decoder_places):
            return rows
        return [{**m, "model": None} for m in rows]

    def is_decoder(self, m: Mapping[str, Any]) -> bool:
        """Return whether `m` was measured in the decoder's own space."""
        model, point = m.get("model"), m.get("point")
        return (model, point) in self.decoder_places or (None, point) in self.decoder_places

    @cached_property
    def decoder_places(self) -> set[tuple[str | None, str]]:
        """(card or None, point) of every decoder point; None where no VLM has a point of that name."""
        mine = {
            (str(m["card"]), str(p)) for m in self.models if m.get("role") == "decoder" for p in m["points"]
        }
        return mine | {(None, p) for _, p in mine if p not in self.vlm_order}

    @cached_property
    def vlm_order(self) -> list[str]:
        """Points of the models that are no decoders, in order of depth."""
        mine = [m for m in self.models if not str(m.get("role")).startswith("decoder")]
        return [str(p) for m in mine for p in m.get("points", ())]


def build_q1_report(inputs: Q1Inputs) -> Report:
    """Return the report of one Q1 run. Equal inputs give an equal report, to the byte."""
    data = inputs.data
    skipped = [(str(s["key"]), str(s["why"])) for s in data.get("skipped", ())]
    classes = data.get("classes")
    count = classes if isinstance(classes, int) else len(classes or ())
    whole = [m for m in inputs.measurements if m.get("n") == data.get("n", len(inputs.keys))]
    groups = {int(m["n_effective"]) for m in whole if m.get("n_effective") is not None}
    summary = [
        ("Data", str(data.get("source", "not named"))),
        ("Samples", f"{data.get('n', len(inputs.keys))}"),
        (
            "Independent groups",
            " to ".join(str(g) for g in sorted({min(groups), max(groups)})) if groups else "n/a",
        ),
        ("Classes", str(count) if count else "none: label metrics are undefined"),
        ("Files that could not be used", str(len(skipped))),
        ("Files ignored", _ignored(data.get("ignored"))),
        ("Numbers measured", str(len(inputs.measurements))),
        ("Best extraction point", str(inputs.decision.get("best_point") or "not chosen")),
    ]
    return Report(
        title=inputs.title,
        verdict=headline(inputs.decision),
        summary=summary,
        models=models_table(inputs.models),
        sections=sections(inputs),
        methods=_methods(inputs),
        provenance=_provenance(inputs),
        skipped=skipped,
        measurements=inputs.measurements,
        downloads=[("measurements.csv", "text/csv", measurements_csv(inputs.measurements).encode())],
    )


def headline(decision: Mapping[str, Any]) -> Headline:
    """Return the top of the page from a decision in plain values."""
    composite, band = decision.get("composite") or {}, decision.get("band") or {}
    verdicts = decision.get("verdicts", ())
    words = [v["verdict"] for v in verdicts]
    counts = ", ".join(f"{words.count(w)} {w}" for w in ("PASS", "FAIL", "CAN'T TELL") if w in words)
    point = f" at {decision['best_point']}" if decision.get("best_point") else ""
    states = [c["state"] for c in decision.get("criteria", ())]
    triggered, untold = states.count("TRIGGERED"), states.count("CAN'T TELL")
    return Headline(
        word=str(decision.get("overall", "CAN'T TELL")),
        sentence=f"Of {len(words)} thresholds{point}: {counts or 'none judged'}. "
        f"{triggered or 'No'} failure {'criterion is' if triggered == 1 else 'criteria are'} triggered"
        + (f", {untold} of {len(states)} cannot be told." if untold else "."),
        score=real(composite.get("value")),
        low=real(composite.get("low")),
        high=real(composite.get("high")),
        band=f"{band['word']}{'' if band.get('settled') else ', not settled'}: {band['meaning']}."
        if band
        else "",
        band_why=band.get("why", ""),
        borders=(0.2, 0.4, 0.6) if band else (),
        tiles=[
            Tile(
                title=v["title"],
                verdict=v["verdict"],
                threshold=v["threshold"],
                comparison=v["comparison"],
                value=real(v.get("value")),
                low=real(v.get("low")),
                high=real(v.get("high")),
                why=v["why"],
            )
            for v in verdicts
        ],
        reasons=[str(r) for r in decision.get("reasons", ())],
        open_questions=[str(r) for r in decision.get("open_questions", ())],
    )


def _ignored(ignored: Any) -> str:
    if isinstance(ignored, Sequence) and not isinstance(ignored, str):
        return str(len(ignored))
    return "0" if ignored is None else str(ignored)


def _methods(inputs: Q1Inputs) -> list[Table | str]:
    rules = inputs.decision.get("rules") or {}
    parts: list[Table | str] = [
        "Every number stands with a 95 % interval over groups (frames of one video are one group), "
        "its chance "
        "level, a permutation p where a test applies, and its sample size. A verdict uses the end of the "
        "interval, not the value.",
        *([words.NO_CEILING] if any(words.HALVES in str(m["name"]) for m in inputs.measurements) else []),
        *(f"{name.capitalize()}: {text}" for name, text in rules.items() if name != "source"),
    ]
    return [*parts, *recipes_table(inputs.recipes)]


def _provenance(inputs: Q1Inputs) -> list[Table | tuple[str, str]]:
    parts: list[Table | tuple[str, str]] = [(str(k), str(v)) for k, v in inputs.versions.items()]
    if inputs.stages:
        timed = any("seconds" in s for s in inputs.stages)
        rows = [
            [
                Cell(text=str(s["name"])),
                Cell(text=str(s.get("state", "")), kind="word"),
                Cell(text=short(s.get("key", "")), kind="mono"),
                *([Cell(text=number_text(s.get("seconds")), kind="number")] if timed else []),
                Cell(text=str(s.get("why") or ""), kind="long"),
            ]
            for s in inputs.stages
        ]
        columns = ["stage", "state", "key", *(["seconds"] if timed else []), "why"]
        parts.append(Table(caption="Stages of this run", columns=columns, rows=rows))
    return parts

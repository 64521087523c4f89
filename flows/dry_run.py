"""A dry run: what an experiment's extractions would read, keep and take, by a probe of ten samples."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from flows.engine import prepare
from flows.settings import Settings
from foresight.models import ModelRef
from tasks.extract import Extract
from tasks.house import House
from tasks.model import load
from tasks.reading import Probe, probe
from tasks.stages import Look

SAMPLES = 10


def dry_run(experiment: ModuleType, settings: Settings) -> dict[str, Any]:
    """Return tokens, bytes, missing rows and estimated seconds of every extraction, as plain values.

    Times come from real forward passes over ten samples, of which nothing is stored. A model that is not here
    (or not trained) yet is timed with random weights where its architecture is known, else its time is None
    with a reason. Rows of such a model count as missing. Analyses are not part of it.
    """
    prepared = prepare(experiment, settings)
    looks = {look.name: look for look in prepared.looks}
    found = [
        _extraction(stage, prepared.house, looks) for stage in prepared.stages if isinstance(stage, Extract)
    ]
    known = [f["seconds"] for f in found]
    return {
        "experiment": experiment.NAME,
        "dry_run": True,
        "samples": len(prepared.house.manifest),
        "device": prepared.house.device,
        "extractions": found,
        "rows_missing": sum(f["rows_missing"] for f in found),
        "tokens": sum(f["tokens"] for f in found),
        "bytes": sum(f["bytes"] for f in found),
        "seconds": None if None in known else round(sum(known), 3),
    }


def _extraction(stage: Extract, house: House, looks: Mapping[str, Look]) -> dict[str, Any]:
    look, about = looks[stage.name], looks[f"model {stage.ref.short}"]
    missing = _missing(stage, house, look)
    points = [
        {
            "point": point.name,
            "tokens_a_sample": stage.tokens(point, house),
            "bytes_a_sample": stage.row_bytes(point, house),
            "rows_missing": missing[point.name],
            "tokens": missing[point.name] * stage.tokens(point, house),
            "bytes": missing[point.name] * stage.row_bytes(point, house),
        }
        for point in stage.points
    ]
    samples = max(missing.values())
    timed, why = _probe(stage, house, about) if samples else (None, "every row is in the store")
    return {
        "stage": stage.name,
        "state": look.state,
        "samples": samples,
        "rows_needed": look.rows_needed,
        **{total: sum(p[total] for p in points) for total in ("rows_missing", "tokens", "bytes")},
        "points": points,
        "probe": timed
        and {
            "samples": timed.samples,
            "load_s": round(timed.load_s, 3),
            "sample_s": round(timed.sample_s, 5),
        },
        "seconds": 0.0 if not samples else timed and round(timed.seconds(samples), 3),
        "why": why,
    }


def _missing(stage: Extract, house: House, look: Look) -> dict[str, int]:
    """Return the missing rows by point; all of them while the model's fingerprint is not known."""
    whole = len(house.manifest)
    if look.state == "ready":
        return {p.name: 0 for p in stage.points}
    if look.rows_missing is None or look.rows_missing == look.rows_needed:
        return {p.name: whole for p in stage.points}
    return {p: len(house.store.missing(r.id, house.manifest.digests)) for p, r in look.recipes.items()}


def _probe(stage: Extract, house: House, about: Look) -> tuple[Probe | None, str]:
    """Return what ten samples took, and with which weights."""
    ref, why = stage.ref, "timed with the model's own weights"
    if about.state != "ready":
        if not ref.card.tiny:
            return None, f"no time without the model: {about.why}"
        ref, why = (
            ModelRef(card=ref.card, kind="random", value="0"),
            "timed with random weights: not trained yet",
        )
    points = [p.name for p in stage.points]
    timed = probe(
        house,
        ref,
        stage.framing,
        points,
        lambda: load(
            ref,
            about,
            house,
            dtype=stage.dtype,
            attention=stage.attention,
            points=points,
            compiled=stage.compiled,
        ),
        samples=SAMPLES,
    )
    return timed, why

"""Q1.D: the best extraction point, and what the decision at it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from foresight import metrics
from foresight.metrics import Estimate, Space
from foresight.studies.position import GAIN, POSITION
from foresight.studies.rows import (
    RANDOM,
    RECALL_KS,
    TRAINED,
    Latent,
    Measurement,
    Spaces,
    estimate_of,
    find,
    named,
    place_names,
    place_of,
    row_of,
    undefined,
)

PRIMARY = {
    "r2": ("Q1.4", "ridge R² VLM→decoder"),
    "spearman": ("Q1.5", "Spearman ρ of distances"),
    "recall": ("Q1.6", "Recall@10"),
    "cka": ("Q1.7", "linear CKA (debiased)"),
}
"""The four numbers the composite is made of."""

THRESHOLDS = {"r2": "q1.r2", "spearman": "q1.spearman", "recall": "q1.recall@10", "cka": "q1.cka"}
BEST, UNFLATTERED = "CKA of the best point", "CKA of the point chosen on the other half"
FEWEST_GROUPS = 16
"""Of both halves together."""


def best_point(spaces: Spaces, found: Mapping[int, Estimate]) -> list[Measurement]:
    """Return the trained point with the highest CKA, its p corrected for the choice, and the unflattered CKA.

    `found` holds the CKA of `spaces.vlm` by position. The second number is of the other half of the groups: the
    point is chosen on one half, by the same rule, and measured on the other.
    """
    trained = {i: e for i, e in found.items() if spaces.vlm[i].variant == TRAINED}
    trained = trained or dict(found)
    if not any(e.defined for e in trained.values()):
        why = next(iter(trained.values())).why
        return [
            row_of("Q1.7", n, spaces.vlm[0], undefined(why, spaces.decoder.space))
            for n in (BEST, UNFLATTERED)
        ]
    name, estimate = metrics.best_of({str(i): e for i, e in trained.items()})
    names = place_names((spaces.vlm[i].model, spaces.vlm[i].point) for i in trained)
    p_of_each = {
        names[spaces.vlm[int(i)].model, spaces.vlm[int(i)].point]: p
        for i, p in estimate.detail["p of each"].items()
    }
    detail = {
        "correction": estimate.detail["correction"],
        "chosen from": len(trained),
        "p of each": p_of_each,
    }
    chosen = replace(estimate, detail=detail)
    return [
        row_of("Q1.7", BEST, spaces.vlm[int(name)], chosen),
        _unflattered(spaces, [spaces.vlm[i] for i in trained]),
    ]


def _unflattered(spaces: Spaces, points: Sequence[Latent]) -> Measurement:
    decoder = spaces.decoder.space.observed
    g = len(decoder)
    if g < FEWEST_GROUPS:
        why = f"halves to choose on and to measure on need {FEWEST_GROUPS} groups, but there are {g}"
        return row_of("Q1.7", UNFLATTERED, points[0], undefined(why, spaces.decoder.space))
    order = np.random.default_rng([spaces.seed, 24]).permutation(g)
    choose, measure = np.sort(order[: g // 2]), np.sort(order[g // 2 :])

    def cka(latent: Latent, part: np.ndarray, **how: Any) -> Estimate:
        space: Space = latent.space.observed.rows(part)
        return metrics.linear_cka(space, decoder.rows(part), seed=spaces.seed, **how)

    first = [cka(latent, choose, permutations=0, resamples=0) for latent in points]
    best = max(range(len(points)), key=lambda i: first[i].value if first[i].defined else -np.inf)
    estimate = cka(points[best], measure)
    told = replace(estimate, detail={"chosen on": len(choose), "chosen from": len(points)})
    return row_of("Q1.7", UNFLATTERED, points[best], told)


def decide(
    measurements: Sequence[Measurement], decoder_point: str
) -> tuple[list[Measurement], dict[str, Any]]:
    """Q1.D: the composite at every point, and what the decision at the best point rests on.

    The best point is the trained one with the highest debiased CKA. It is chosen on the samples it is reported
    on, so with many points its numbers lean upwards; `chosen_from` says from how many.

    Returns the composite's measurements, and the keyword arguments of `decisions.q1_decision` as plain values
    together with `chosen_from`.
    """
    composites = []
    at_points = [m for m in measurements if (m["row"], m["name"]) == PRIMARY["cka"] and not m.get("target")]
    for key in map(place_of, at_points):
        parts = {name: find(measurements, *what, *key) for name, what in PRIMARY.items()}
        whole = metrics.composite_score(**{name: estimate_of(part) for name, part in parts.items()})
        composites.append({**named("Q1.D", "composite score", *key), **whole.to_json()})
    chosen = next(m for m in measurements if m["name"] == BEST)
    model, point = chosen["model"], chosen["point"]
    here, twin = place_of(chosen), (model, point, RANDOM)
    decoder = next(
        m
        for m in measurements
        if m["row"] == "Q1.3" and (m["point"], m["variant"]) == (decoder_point, TRAINED)
    )
    at_decoder = place_of(decoder)
    copies = {
        threshold: find(measurements, *PRIMARY[name], *twin)
        for name, threshold in THRESHOLDS.items()
        if twin in map(place_of, at_points)
    }

    def both(key: str, row: str, name: str) -> dict[str, Measurement]:
        sides = {f"{key}_vlm": here, f"{key}_decoder": at_decoder}
        return {k: find(measurements, row, name, *place) for k, place in sides.items()}

    placed = [m for m in measurements if m["name"] == POSITION and place_of(m) == here]
    for m in placed:
        if RANDOM in m["controls"]:
            copies["q1.fail.spatial"] = {"value": m["controls"][RANDOM], "difference": m["detail"].get(GAIN)}
    return composites, {
        **{name: find(measurements, *what, *here) for name, what in PRIMARY.items()},
        "composite": find(composites, "Q1.D", "composite score", *here),
        "recall_by_k": {k: find(measurements, "Q1.6", f"Recall@{k}", *here) for k in RECALL_KS},
        **both("dimension", "Q1.3", "TwoNN dimension"),
        **both("isomap", "Q1.3", "Isomap residual"),
        "decoder_semantics": find(measurements, "Q1.1", "k-NN accuracy", *at_decoder),
        **({"vlm_spatial": placed[0]} if placed else {}),
        "random_weights": copies,
        "best_point": place_names((m["model"], m["point"]) for m in at_points)[model, point],
        "chosen_from": len([m for m in at_points if m["variant"] == chosen["variant"]]),
    }

"""The alignment study, Q1: what is measured in each space, and between every VLM point and the decoder.

A measurement is a plain dict: which row of the study, which number, at which point of which model, then the
estimate with its interval, chance level, p and controls. Each function is one row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foresight import metrics
from foresight.metrics import Estimate, Space

Measurement = dict[str, Any]

TRAINED, RANDOM = "trained", "random weights"
RECALL_KS = (5, 10, 50, 100)


@dataclass(frozen=True, kw_only=True)
class Latent:
    """The latents of all samples at one point, one row per sample."""

    model: str
    """Card, as people named it."""
    point: str
    variant: str
    """'trained', or 'random weights' for the control copy."""
    space: Space
    """[sample feature]."""


@dataclass(frozen=True, kw_only=True)
class Spaces:
    """What the study reads: the VLM's points with their random-weights copies, and the decoder's latent."""

    vlm: tuple[Latent, ...]
    decoder: Latent
    labels: tuple[str | None, ...]
    seed: int = 0


def categories(spaces: Spaces) -> list[Measurement]:
    """Q1.1: do classes separate? Silhouette, purity, k-NN accuracy, share of variance within classes."""
    measures: dict[str, Callable[..., Estimate]] = {
        "k-NN accuracy": metrics.knn_accuracy,
        "silhouette": metrics.silhouette,
        "cluster purity": metrics.cluster_purity,
        "intra-class variance share": metrics.intra_class_variance,
    }
    why = _unlabelled(spaces.labels)
    rows = []
    for latent in (*spaces.vlm, spaces.decoder):
        for name, measure in measures.items():
            if why:
                estimate = _undefined(why, latent.space)
            else:
                estimate = measure(latent.space, spaces.labels, seed=spaces.seed)
            rows.append(_row("Q1.1", name, latent, estimate))
    return rows


def dimensions(spaces: Spaces) -> list[Measurement]:
    """Q1.3: how many dimensions does each space use? TwoNN, MLE, and components for 95 % of the variance."""
    measures: dict[str, Callable[..., Estimate]] = {
        "TwoNN dimension": metrics.two_nn,
        "MLE dimension": metrics.mle_dimension,
        "PCA 95 % dimension": metrics.pca_dimension,
    }
    return [
        _row("Q1.3", name, latent, measure(latent.space, seed=spaces.seed))
        for latent in (*spaces.vlm, spaces.decoder)
        for name, measure in measures.items()
    ]


def probes(spaces: Spaces) -> list[Measurement]:
    """Q1.4: does one space follow linearly from the other? Ridge regression both ways, out of fold."""
    rows = []
    for latent in spaces.vlm:
        ways = {
            "VLM→decoder": (latent.space, spaces.decoder.space),
            "decoder→VLM": (spaces.decoder.space, latent.space),
        }
        for way, (source, target) in ways.items():
            found = metrics.ridge_probe(source, target, seed=spaces.seed)
            rows.append(_row("Q1.4", f"ridge R² {way}", latent, found["r2"]))
            rows.append(_row("Q1.4", f"ridge cosine {way}", latent, found["cosine"]))
    return rows


def similarity(spaces: Spaces) -> list[Measurement]:
    """Q1.5: are samples that are close in one space close in the other? Spearman over all distances."""
    return [
        _row(
            "Q1.5",
            "Spearman ρ of distances",
            latent,
            metrics.rsa_spearman(latent.space, spaces.decoder.space, seed=spaces.seed),
        )
        for latent in spaces.vlm
    ]


def neighbours(spaces: Spaces) -> list[Measurement]:
    """Q1.6: do the nearest neighbours agree? Recall@k, reciprocal rank and Jaccard index by k."""
    names = {"recall": "Recall", "mrr": "reciprocal rank", "jaccard": "Jaccard"}
    rows = []
    for latent in spaces.vlm:
        n = len(latent.space)
        usable = [k for k in RECALL_KS if k < n - 1]
        found = (
            metrics.knn_overlap(latent.space, spaces.decoder.space, ks=usable, seed=spaces.seed)
            if usable
            else {}
        )
        for what, shown in names.items():
            for k in RECALL_KS:
                why = f"{k} neighbours need more than {k + 1} samples, but there are {n}"
                estimate = found.get(f"{what}@{k}") or _undefined(why, latent.space)
                rows.append(_row("Q1.6", f"{shown}@{k}", latent, estimate))
    return rows


def kernels(spaces: Spaces) -> list[Measurement]:
    """Q1.7: linear CKA of every VLM point with the decoder, debiased, the biased value beside it."""
    return [
        _row(
            "Q1.7",
            "linear CKA (debiased)",
            latent,
            metrics.linear_cka(latent.space, spaces.decoder.space, debiased=True, seed=spaces.seed),
        )
        for latent in spaces.vlm
    ]


ROWS: Mapping[str, Callable[[Spaces], list[Measurement]]] = {
    "Q1.1": categories,
    "Q1.3": dimensions,
    "Q1.4": probes,
    "Q1.5": similarity,
    "Q1.6": neighbours,
    "Q1.7": kernels,
}
"""Every row of the study that is measured from latents; the decision, Q1.D, reads these."""

PRIMARY = {
    "r2": ("Q1.4", "ridge R² VLM→decoder"),
    "spearman": ("Q1.5", "Spearman ρ of distances"),
    "recall": ("Q1.6", "Recall@10"),
    "cka": ("Q1.7", "linear CKA (debiased)"),
}
"""The four numbers the composite is made of."""


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
    for key in dict.fromkeys(
        (m["model"], m["point"], m["variant"]) for m in measurements if m["row"] == "Q1.7"
    ):
        parts = {name: _find(measurements, *what, *key) for name, what in PRIMARY.items()}
        whole = metrics.composite_score(**{name: _estimate(part) for name, part in parts.items()})
        composites.append({**_named("Q1.D", "composite score", *key), **whole.to_json()})
    trained = [
        m for m in measurements if m["row"] == "Q1.7" and m["variant"] == TRAINED and m["value"] is not None
    ]
    chosen = max(trained, key=lambda m: m["value"], default=None)
    model, point = (chosen["model"], chosen["point"]) if chosen else _first(measurements)
    here = (model, point, TRAINED)
    twin = (model, point, RANDOM)
    dimension = ("Q1.3", "TwoNN dimension")
    decoder = next(m for m in measurements if m["row"] == "Q1.3" and m["point"] == decoder_point)
    at_decoder = (decoder["model"], decoder_point, TRAINED)
    copies = {
        f"q1.{threshold}": _find(measurements, *PRIMARY[name], *twin)
        for name, threshold in (
            ("r2", "r2"),
            ("spearman", "spearman"),
            ("recall", "recall@10"),
            ("cka", "cka"),
        )
        if any((m["model"], m["point"], m["variant"]) == twin for m in measurements)
    }
    return composites, {
        **{name: _find(measurements, *what, *here) for name, what in PRIMARY.items()},
        "composite": _find(composites, "Q1.D", "composite score", *here),
        "recall_by_k": {k: _find(measurements, "Q1.6", f"Recall@{k}", *here) for k in RECALL_KS},
        "dimension_vlm": _find(measurements, *dimension, *here),
        "dimension_decoder": _find(measurements, *dimension, *at_decoder),
        "decoder_semantics": _find(measurements, "Q1.1", "k-NN accuracy", *at_decoder),
        "random_weights": copies,
        "best_point": point,
        "chosen_from": len(trained),
    }


def projection(space: Space) -> dict[str, Any]:
    """Return the first two principal components: `xy` [sample 2] and the share of variance of each.

    The sign of a component is set so that its largest entry is positive.
    """
    centred = space.values.astype(np.float64) - space.values.mean(axis=0, dtype=np.float64)
    if len(centred) < 3 or not np.any(centred):
        return {"xy": np.zeros((len(centred), 2)).tolist(), "explained": [None, None]}
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    xy = np.zeros((len(centred), 2))
    width = min(2, len(singular))
    xy[:, :width] = left[:, :width] * singular[:width]
    xy *= np.where(np.take_along_axis(xy, np.abs(xy).argmax(axis=0)[None], 0)[0] < 0, -1, 1)
    share = singular**2 / (singular**2).sum()
    return {"xy": xy.tolist(), "explained": [float(s) for s in share[:2]]}


def distance_pairs(a: Space, b: Space, *, most: int, seed: int) -> dict[str, list[float]]:
    """Return the distances of the same random pairs of samples in both spaces, at most `most` of them."""
    n = len(a)
    first, second = np.triu_indices(n, 1)
    if len(first) > most:
        keep = np.random.default_rng(seed).choice(len(first), most, replace=False)
        first, second = first[keep], second[keep]
    return {
        name: np.linalg.norm(
            space.values[first].astype(np.float64) - space.values[second].astype(np.float64), axis=1
        ).tolist()
        for name, space in (("vlm", a), ("decoder", b))
    }


def nearest(space: Space, query: int, k: int) -> list[int]:
    """Return the `k` samples nearest to `query` by cosine of centred rows, nearest first, itself left out."""
    centred = space.values.astype(np.float64) - space.values.mean(axis=0, dtype=np.float64)
    lengths = np.linalg.norm(centred, axis=1)
    unit = centred / np.where(lengths > 0, lengths, 1)[:, None]
    order = np.argsort(-(unit @ unit[query]), kind="stable")
    return [int(i) for i in order if i != query][:k]


def _row(row: str, name: str, latent: Latent, estimate: Estimate) -> Measurement:
    return {**_named(row, name, latent.model, latent.point, latent.variant), **estimate.to_json()}


def _named(row: str, name: str, model: str, point: str, variant: str) -> Measurement:
    return {"row": row, "name": name, "model": model, "point": point, "variant": variant}


def _undefined(why: str, space: Space) -> Estimate:
    return Estimate.undefined(why, n=len(space), n_effective=space.n_groups)


def _unlabelled(labels: Sequence[str | None]) -> str:
    """Return why label metrics are undefined, '' when they are not."""
    if any(label is None for label in labels):
        return f"{sum(label is None for label in labels)} of {len(labels)} samples have no label"
    if len(set(labels)) < 2:
        return f"classes separate only where there are two or more, but all samples are {labels[0]!r}"
    return ""


def _find(measurements: Sequence[Measurement], row: str, name: str, *key: str) -> Measurement:
    for m in measurements:
        if (m["row"], m["name"]) == (row, name) and (m["model"], m["point"], m["variant"]) == key:
            return m
    raise KeyError(f"no {row} {name!r} was measured at {' '.join(key)}")


def _first(measurements: Sequence[Measurement]) -> tuple[str, str]:
    first = next(m for m in measurements if m["row"] == "Q1.7")
    return first["model"], first["point"]


def _estimate(m: Measurement) -> Estimate:
    def number(value: Any) -> float:
        return float("nan") if value is None else float(value)

    return Estimate(
        value=number(m["value"]),
        low=number(m["low"]),
        high=number(m["high"]),
        null=number(m["null"]),
        p=number(m["p"]),
        n=m["n"],
        n_effective=m["n_effective"],
        controls={k: number(v) for k, v in m["controls"].items()},
        why=m["why"],
        detail=m["detail"],
    )

"""Q1.4 to Q1.7: every VLM point against the decoder's latent, each function one row of the study."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from foresight import metrics
from foresight.metrics import Estimate, Space
from foresight.metrics.probes import ridge_probes
from foresight.studies.bands import channel_bands
from foresight.studies.choice import best_point
from foresight.studies.pairs import kinds_of_pairs, within_pairs
from foresight.studies.rows import RECALL_KS, Latent, Measurement, Spaces, row_of, undefined

HALVES = "between halves of the decoder's channels"
"""The same number for two random halves of the decoder's own channels: what a space reads that shares a source."""

BAND_PERMUTATIONS, BAND_RESAMPLES = 99, 20
"""A heat map has bands times points numbers; its p cannot fall below 0.01."""


def probes(spaces: Spaces) -> list[Measurement]:
    """Q1.4: does one space follow linearly from the other? Ridge regression both ways, out of fold."""
    rows = []
    decoder = spaces.decoder.space
    back = ridge_probes(decoder, (latent.space for latent in spaces.vlm), seed=spaces.seed)
    for latent in spaces.vlm:
        there = metrics.ridge_probe(latent.space, decoder, seed=spaces.seed)
        for way, found in (("VLM→decoder", there), ("decoder→VLM", next(back))):
            rows.append(row_of("Q1.4", f"ridge R² {way}", latent, found["r2"]))
            rows.append(row_of("Q1.4", f"ridge cosine {way}", latent, found["cosine"]))
    halves = channel_halves(spaces.decoder, seed=spaces.seed)
    if halves:
        estimate = metrics.ridge_probe(*halves, seed=spaces.seed)["r2"]
    else:
        estimate = undefined("the decoder's latent has a single channel", spaces.decoder.space)
    return [*rows, row_of("Q1.4", f"ridge R² {HALVES}", spaces.decoder, estimate)]


def similarity(spaces: Spaces) -> list[Measurement]:
    """Q1.5: are samples that are close in one space close in the other?

    Spearman over all distances, and over pairs of one kind alone; Mantel's r; Procrustes distance.
    """
    kinds = kinds_of_pairs(spaces)
    rows = []
    for latent in spaces.vlm:
        both, seed = (latent.space, spaces.decoder.space), spaces.seed
        rows += [
            row_of("Q1.5", "Spearman ρ of distances", latent, metrics.rsa_spearman(*both, seed=seed)),
            row_of("Q1.5", "Mantel r of distances", latent, metrics.mantel_test(*both, seed=seed)),
            row_of(
                "Q1.5",
                f"Procrustes distance ({COMPONENTS} components)",
                latent,
                metrics.procrustes_distance(*both, components=COMPONENTS, seed=seed),
            ),
        ]
        rows += [
            row_of(
                "Q1.5", "Spearman ρ of distances", latent, within_pairs(*both, kind, seed=seed), target=name
            )
            for name, kind in kinds.items()
        ]
    return [*rows, _halves("Q1.5", "Spearman ρ of distances", metrics.rsa_spearman, spaces)]


COMPONENTS = 50
"""Principal components a rotation is sought in; with all of them it fits noise."""


def neighbours(spaces: Spaces) -> list[Measurement]:
    """Q1.6: do the nearest neighbours agree? Recall@k, reciprocal rank and Jaccard index by k."""
    names = {"recall": "Recall", "mrr": "reciprocal rank", "jaccard": "Jaccard"}

    def measured(first: Space, second: Space) -> dict[str, Estimate]:
        usable = [k for k in RECALL_KS if k < len(first) - 1]
        return dict(metrics.knn_overlap(first, second, ks=usable, seed=spaces.seed)) if usable else {}

    rows = []
    for latent in spaces.vlm:
        n, found = len(latent.space), measured(latent.space, spaces.decoder.space)
        for what, shown in names.items():
            for k in RECALL_KS:
                why = f"{k} neighbours need more than {k + 1} samples, but there are {n}"
                estimate = found.get(f"{what}@{k}") or undefined(why, latent.space)
                rows.append(row_of("Q1.6", f"{shown}@{k}", latent, estimate))
    halves = channel_halves(spaces.decoder, seed=spaces.seed)
    found = measured(*halves) if halves else {}
    estimate = found.get("recall@10") or undefined("too few samples or channels", spaces.decoder.space)
    return [*rows, row_of("Q1.6", f"Recall@10 {HALVES}", spaces.decoder, estimate)]


CKA = "linear CKA (debiased)"


def kernels(spaces: Spaces) -> list[Measurement]:
    """Q1.7: linear CKA of every VLM point with the decoder and with its bands of channels, debiased, the
    biased value beside it; the best point with a p that knows it was chosen."""
    rows = []
    found: dict[int, Estimate] = {}
    for i, latent in enumerate(spaces.vlm):
        found[i] = metrics.linear_cka(latent.space, spaces.decoder.space, keep_null=True, seed=spaces.seed)
        rows.append(row_of("Q1.7", CKA, latent, found[i]))
        rbf = metrics.rbf_cka(latent.space, spaces.decoder.space, seed=spaces.seed)
        rows.append(row_of("Q1.7", "RBF CKA (debiased)", latent, rbf))
    for band, space in channel_bands(spaces.decoder, seed=spaces.seed).items():
        for latent in spaces.vlm:
            estimate = metrics.linear_cka(
                latent.space,
                space,
                permutations=BAND_PERMUTATIONS,
                resamples=BAND_RESAMPLES,
                seed=spaces.seed,
            )
            rows.append(row_of("Q1.7", CKA, latent, estimate, target=band))
    rows += best_point(spaces, found)
    return [*rows, _halves("Q1.7", CKA, metrics.linear_cka, spaces)]


def channel_halves(decoder: Latent, *, seed: int) -> tuple[Space, Space] | None:
    """Return two random halves of the decoder's channels, all cells of each; None for a single channel."""
    width = decoder.space.width
    channels = width if decoder.cells is None else width // int(np.prod(decoder.cells))
    if channels < 2:
        return None
    order = np.random.default_rng([seed, 22]).permutation(channels)
    values = decoder.space.values.reshape(len(decoder.space), -1, channels)
    first, second = (np.sort(part) for part in (order[: channels // 2], order[channels // 2 :]))
    groups = decoder.space.groups
    return tuple(  # type: ignore[return-value]
        Space(values[:, :, half].reshape(len(values), -1), groups=groups) for half in (first, second)
    )


def _halves(row: str, name: str, measure: Callable[..., Estimate], spaces: Spaces) -> Measurement:
    halves = channel_halves(spaces.decoder, seed=spaces.seed)
    if halves:
        estimate = measure(*halves, seed=spaces.seed)
    else:
        estimate = undefined("the decoder's latent has a single channel", spaces.decoder.space)
    return row_of(row, f"{name} {HALVES}", spaces.decoder, estimate)

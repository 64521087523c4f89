"""C1: pictures rebuilt from a model's latents through a decoder, how good they are, and what nothing at all scores.

The samples are parted once, whole groups at a time: one fold is never trained on and all numbers are of its samples,
one fold chooses penalties and points. So every point, control and adapter is compared on the same pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from foresight.metrics.estimate import Estimate
from foresight.metrics.perceptual import Perceptual, Pictures, mean_over_groups, psnr_db, squared_error, ssim
from foresight.metrics.space import group_codes
from foresight.metrics.statistics import grouped_folds, permutation_p
from foresight.studies.ridge_blocks import BlockRidge, Sums, fit_on

Measurement = dict[str, Any]

FOLDS = 4
TEST, VALIDATION = 0, 1
"""Numbers of the folds that are scored, and that choose."""

TOKENS, POOLED, SHUFFLED = "tokens in place", "mean-pooled tokens", "shuffled positions"
READINGS = (TOKENS, POOLED, SHUFFLED)
"""How a sample's tokens are handed to a probe: as they lie, as their mean, and in an order drawn anew each time."""
MEAN_IMAGE, ONE_COLOUR, ROUND_TRIP = "mean image", "one colour", "decoder round trip"
RANDOM = "random weights"
CONSTANTS = (MEAN_IMAGE, ONE_COLOUR)
"""Pictures that are the same for every sample: what a number is worth when nothing was read."""
FLOORS = (*CONSTANTS, POOLED, SHUFFLED)
PERMUTATIONS = 999

HIGHER_IS_BETTER = {"distance": False, "ssim": True, "error": False}


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """How far rebuilt pictures are from the true ones, sample by sample."""

    distance: Float[np.ndarray, " sample"]
    """Perceptual distance, lower is better."""
    ssim: Float[np.ndarray, " sample"]
    error: Float[np.ndarray, " sample"]
    """Mean squared error of values in [0, 1]."""

    @classmethod
    def joined(cls, parts: Sequence[Scores]) -> Scores:
        """Return the scores of several batches, one after the other."""
        return cls(**{k: np.concatenate([getattr(p, k) for p in parts]) for k in HIGHER_IS_BETTER})

    def to_json(self) -> dict[str, list[float]]:
        return {k: getattr(self, k).tolist() for k in HIGHER_IS_BETTER}

    @classmethod
    def from_json(cls, value: Mapping[str, Sequence[float]]) -> Scores:
        """Undo `to_json`."""
        return cls(**{k: np.asarray(value[k], np.float64) for k in HIGHER_IS_BETTER})


def score(pictures: Pictures, truth: Pictures, distance: Perceptual) -> Scores:
    """Return the scores of pictures [sample time row col 3] in [0, 1] against the true ones."""
    return Scores(
        distance=distance(pictures, truth), ssim=ssim(pictures, truth), error=squared_error(pictures, truth)
    )


def parted(groups: Sequence[Any], *, seed: int) -> Int[np.ndarray, " sample"]:
    """Return the fold 0 to 3 of each sample; fold `TEST` is never trained on. A group lies in one fold.

    `ValueError` with fewer than four groups.
    """
    return grouped_folds(groups, folds=FOLDS, seed=seed)


def fit_probe(parts: Iterable[tuple[Int[np.ndarray, " sample"], Any, Any]]) -> BlockRidge:
    """Return the ridge from tokens to decoder cells, from (fold, x [sample block source], y [sample block target]).

    Samples of the fold `TEST` are passed over. Memory does not grow with the number of parts.
    """
    sums: dict[int, Sums] = {}
    for folds, x, y in parts:
        for fold in np.unique(folds[folds != TEST]).tolist():
            mine = folds == fold
            found = Sums.of(x[mine], y[mine])
            sums[fold] = sums[fold] + found if fold in sums else found
    return fit_on([sums[f] for f in sorted(sums) if f != VALIDATION], sums[VALIDATION])


def judged(
    scores: Scores, controls: Mapping[str, Scores], *, groups: Sequence[Any], distance: str, seed: int
) -> dict[str, Estimate]:
    """Return the perceptual distance, SSIM and PSNR of the scored samples, each beside its controls.

    `null` is the better of the constant pictures. p flips, group by group, the sign of the differences to the
    strongest of `FLOORS`. Intervals are over groups, for the given map and split.
    """
    names = {"distance": distance, "ssim": "SSIM", "error": "PSNR (dB)"}
    codes = group_codes(groups, len(scores.ssim))
    found = {}
    for field, name in names.items():
        values = getattr(scores, field)
        shown = {c: _shown(field, getattr(s, field)) for c, s in controls.items()}
        up = field != "distance"  # what is shown of an error is its PSNR
        constants = [shown[c] for c in CONSTANTS if c in shown]
        null = (max if up else min)(constants, default=math.nan)
        floors = [c for c in FLOORS if c in shown]
        floor = (max if up else min)(floors, key=lambda c: shown[c], default="")
        estimate = mean_over_groups(
            values, groups, seed=seed, as_psnr=field == "error", null=null, controls=shown,
            detail={"strongest floor": floor, "per sample": np.round(values, 6).tolist()},
        )  # fmt: skip
        if floor:
            gain = values - getattr(controls[floor], field)
            estimate = replace(
                estimate, p=_flipped(gain if HIGHER_IS_BETTER[field] else -gain, codes, seed=seed)
            )
        found[name] = estimate
    return found


def gained(
    before: Scores, after: Scores, *, groups: Sequence[Any], distance: str, seed: int
) -> dict[str, Estimate]:
    """Return what changes from `before` to `after`, sample by sample, each with its interval; `null` is 0."""
    differences = {
        distance: after.distance - before.distance,
        "SSIM": after.ssim - before.ssim,
        "PSNR (dB)": psnr_db(np.maximum(after.error, 1e-12)) - psnr_db(np.maximum(before.error, 1e-12)),
    }
    return {k: mean_over_groups(v, groups, seed=seed, null=0.0) for k, v in differences.items()}


def explained(
    predicted: Float[np.ndarray, "sample token channel"],
    truth: Float[np.ndarray, "sample token channel"],
    mean: Float[np.ndarray, "token channel"],
) -> Float[np.ndarray, "sample 2"]:
    """Return per sample the squared error of predicted latents and the squared distance from the training mean."""
    wide = truth.astype(np.float64)
    return np.stack(
        [np.square(wide - predicted).sum(axis=(1, 2)), np.square(wide - mean).sum(axis=(1, 2))], axis=1
    )


def latent_r2(
    sums: Float[np.ndarray, "sample 2"],
    groups: Sequence[Any],
    *,
    seed: int,
    controls: Mapping[str, float] | None = None,
) -> Estimate:
    """Return 1 - Σ error / Σ distance from the training mean, over the scored samples; `null` is 0, the mean."""
    from foresight.metrics.statistics import cluster_bootstrap

    codes = group_codes(groups, len(sums))
    totals = np.stack([np.bincount(codes, weights=c) for c in sums.T], axis=1)
    if totals[:, 1].sum() <= 0:
        why = "the decoder's latent is the same in all samples"
        return Estimate.undefined(why, n=len(sums), n_effective=len(totals))
    low, high = cluster_bootstrap(totals, lambda t: 1.0 - t[:, 0] / t[:, 1], seed=seed)
    return Estimate(
        value=1.0 - float(totals[:, 0].sum() / totals[:, 1].sum()), low=low, high=high, null=0.0,
        n=len(sums), n_effective=len(totals), controls=dict(controls or {}),
        why="" if math.isfinite(low) else f"no interval from {len(totals)} groups",
    )  # fmt: skip


def _shown(field: str, values: np.ndarray) -> float:
    mean = float(values.mean())
    return float(psnr_db(mean)) if field == "error" else mean


def _flipped(gain: np.ndarray, codes: np.ndarray, *, seed: int) -> float:
    sums = np.bincount(codes, weights=gain)
    if len(sums) < 2:
        return math.nan
    signs = np.random.default_rng([seed, 8]).choice([-1.0, 1.0], size=(PERMUTATIONS, len(sums)))
    return permutation_p(float(sums.sum()), signs @ sums)

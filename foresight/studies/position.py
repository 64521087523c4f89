"""Q1.4, positions: does a token tell where it lies? Ridge from tokens to their (row, col), out of fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from foresight.metrics import Estimate
from foresight.metrics.space import group_codes
from foresight.metrics.statistics import cluster_bootstrap, grouped_folds, permutation_p
from foresight.studies.reconstruction import RANDOM, SHUFFLED, latent_r2
from foresight.studies.ridge_blocks import Sums, fit_out_of_fold

POSITION = "token position R²"
GAIN = f"above {RANDOM}"
"""What the difference to the copy is called in a measurement's detail."""

FOLDS = 5
MOST_TOKENS = 16_384
"""Tokens of all samples together that are looked at."""
FEWEST_EACH = 8
"""Tokens of a sample that are looked at, where it has them; of very many samples, some are left out instead."""
WIDEST = 512
"""Features of a token; wider ones are projected on as many random directions, which favours none."""
PERMUTATIONS = 199


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """Some tokens of one sample, and where each lies."""

    values: Float[np.ndarray, "token feature"]
    places: Float[np.ndarray, "token 2"]
    """(row, col), 0 to 1 from the top left."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Probed:
    """R² of the places and what it was worked out from, so that two of them can be held against each other."""

    estimate: Estimate
    squares: Float[np.ndarray, "sample 2"] | None
    """Squared error of the places and their squared distance from the mean place; None where undefined."""


def sizes(samples: int) -> tuple[int, int]:
    """Return how many samples are looked at, and how many tokens of each."""
    kept = min(samples, MOST_TOKENS // FEWEST_EACH)
    return kept, max(FEWEST_EACH, MOST_TOKENS // max(kept, 1))


def position_probe(tokens: Sequence[Placed], groups: Sequence[Any], *, seed: int = 0) -> Estimate:
    """Return R² of a token's (row, col) predicted by ridge from the token alone, both axes in one sum.

    1 when every token tells its place, 0 when none does: mean-pooled tokens, equal wherever they stand, cannot do
    better, so `null` is 0. Folds and the interval hold whole groups; the penalty is chosen without the fold that is
    scored. p permutes the places within each sample against the predictions; the control does so before the fit.
    Undefined for fewer than three groups and where no sample has two tokens in different places.
    """
    return probed(tokens, groups, seed=seed).estimate


def probed(tokens: Sequence[Placed], groups: Sequence[Any], *, seed: int = 0) -> Probed:
    """Return `position_probe` with what it was worked out from."""
    n, codes = len(tokens), group_codes(groups, len(tokens))
    g = int(codes.max()) + 1
    if g < 3:
        return _undefined(f"a fit, a choice and a test need 3 groups, but there are {g}", n, g)
    if not any(np.ptp(t.places, axis=0).any() for t in tokens):
        return _undefined(
            "every sample has its tokens in a single place, so there is no position to tell", n, g
        )
    folds = grouped_folds(groups, folds=min(FOLDS, g), seed=seed)
    values = _narrowed([t.values for t in tokens], seed=seed)
    places = [t.places.astype(np.float64) for t in tokens]
    rng = np.random.default_rng([seed, 31])
    predicted, means = _out_of_fold(values, places, folds)
    squares = _squares(predicted, means, at=places)
    estimate = latent_r2(squares, groups, seed=seed)
    if not estimate.defined:
        return Probed(estimate=estimate, squares=None)
    moved = [rng.permutation(p) for p in places]
    without = latent_r2(_squares(*_out_of_fold(values, moved, folds), at=moved), groups, seed=seed)
    told = replace(
        estimate,
        p=_p(predicted, places, rng),
        controls={SHUFFLED: without.value},
        detail={
            "tokens": sum(map(len, values)),
            "features": values[0].shape[1],
            "width": tokens[0].values.shape[1],
        },
    )
    return Probed(estimate=told, squares=squares)


def beside_copy(mine: Probed, copy: Probed, groups: Sequence[Any], *, seed: int = 0) -> Estimate:
    """Return the estimate with what a copy with random weights reads of the same tokens' places as a control.

    The detail `GAIN` holds how much higher its own R² is, {value, low, high}: the interval draws whole groups once
    for both, so what makes a sample easy for either falls out. Unchanged where either is undefined.
    """
    if mine.squares is None or copy.squares is None:
        return mine.estimate
    codes = group_codes(groups, len(mine.squares))
    columns = np.concatenate([mine.squares, copy.squares], axis=1)
    totals = np.stack([np.bincount(codes, weights=c) for c in columns.T], axis=1)

    def gain(t: np.ndarray) -> np.ndarray:
        higher: np.ndarray = t[:, 2] / t[:, 3] - t[:, 0] / t[:, 1]
        return higher

    low, high = cluster_bootstrap(totals, gain, seed=seed)
    whole = float(gain(totals.sum(axis=0, keepdims=True))[0])
    return replace(
        mine.estimate,
        controls={**mine.estimate.controls, RANDOM: copy.estimate.value},
        detail={**mine.estimate.detail, GAIN: {"value": whole, "low": low, "high": high}},
    )


def _undefined(why: str, n: int, groups: int) -> Probed:
    return Probed(estimate=Estimate.undefined(why, n=n, n_effective=groups), squares=None)


def _narrowed(values: Sequence[np.ndarray], *, seed: int) -> list[np.ndarray]:
    width = values[0].shape[1]
    if width <= WIDEST:
        return [v.astype(np.float32) for v in values]
    axes = np.random.default_rng([seed, 32]).normal(size=(width, WIDEST)).astype(np.float32)
    return [v.astype(np.float32) @ axes for v in values]


def _out_of_fold(
    values: Sequence[np.ndarray], places: Sequence[np.ndarray], folds: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return per sample the predicted places and the mean place of the tokens that were fitted on."""
    numbers = range(int(folds.max()) + 1)
    members = [np.flatnonzero(folds == f).tolist() for f in numbers]
    # a token is a sample of one block here: what lies where must not be known beforehand
    sums = [
        Sums.of(
            np.concatenate([values[i] for i in mine])[:, None],
            np.concatenate([places[i] for i in mine])[:, None],
        )
        for mine in members
    ]
    predicted, means = [np.empty(0)] * len(values), [np.empty(0)] * len(values)
    for mine, ridge in zip(members, fit_out_of_fold(sums), strict=True):
        for i in mine:
            predicted[i] = ridge.predict(values[i][:, None])[:, 0].astype(np.float64)
            means[i] = ridge.mean_y[0]
    return predicted, means


def _squares(
    predicted: Sequence[np.ndarray], means: Sequence[np.ndarray], *, at: Sequence[np.ndarray]
) -> Float[np.ndarray, "sample 2"]:
    """Return per sample the squared error of the places and their squared distance from the mean place."""
    each = [
        (float(np.square(y - x).sum()), float(np.square(y - m).sum()))
        for x, y, m in zip(predicted, at, means, strict=True)
    ]
    return np.array(each)


def _p(predicted: Sequence[np.ndarray], places: Sequence[np.ndarray], rng: np.random.Generator) -> float:
    """Return how often places permuted within their samples fit the predictions as well as the true ones."""
    fit = sum(float(np.vdot(x, y)) for x, y in zip(predicted, places, strict=True))
    null = np.zeros(PERMUTATIONS)
    for x, y in zip(predicted, places, strict=True):
        # squares stay as they are when places move, so products alone decide
        orders = rng.permuted(np.tile(np.arange(len(x)), (PERMUTATIONS, 1)), axis=1)
        null += (x @ y.T)[np.arange(len(x)), orders].sum(axis=1)
    return permutation_p(fit, null)

"""Intervals, nulls and splits in which a group (one video) is one observation and is never taken apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from foresight.metrics.space import group_codes
from foresight.metrics.threads import one_thread

FEWEST_FOR_INTERVAL = 8
"""A half of fewer than eight observations has fewer than four, too few for any estimator here."""


def half_samples(n: int, *, resamples: int, rng: np.random.Generator) -> Iterator[Int[np.ndarray, " half"]]:
    """Yield sorted random halves of `range(n)`, drawn without replacement.

    A bootstrap with replacement repeats observations, and a repeated row is its own nearest neighbour: it
    lifts neighbour overlap and CKA far above the full sample's value. A half holds no row twice.
    """
    for _ in range(resamples):
        yield np.sort(rng.permutation(n)[: n // 2])


@one_thread()
def half_sample_error(
    statistic: Callable[[Int[np.ndarray, " half"]], Any], n: int, *, resamples: int = 100, seed: int = 0
) -> Float[np.ndarray, ...]:
    """Return the standard error of `statistic` at n observations, from random halves; nan below 8.

    Given the sample, a half of m of n varies by s²(1/m - 1/n), and the statistic itself by s²/n; the ratio
    m/(n - m) turns one into the other. Only the spread of the halves is used, so a statistic that depends on
    n (neighbour overlap, most dimension estimators) does not shift the interval. For degenerate statistics
    (debiased CKA of independent spaces) the error is too large rather than too small.

    Politis & Romano (1994).
    """
    if n < FEWEST_FOR_INTERVAL or resamples < 2:
        return np.array(math.nan)
    rng = np.random.default_rng([seed, 1])
    draws = np.array([statistic(half) for half in half_samples(n, resamples=resamples, rng=rng)], dtype=float)
    m = n // 2
    return np.asarray(np.std(draws, axis=0, ddof=1) * math.sqrt(m / (n - m)))


def interval(
    value: float, error: float, n: int, *, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float]:
    """Return the 95 % interval of a value with its standard error, cut at the legal range; nan if undefined.

    Student's t with n - 1 degrees of freedom for `n` independent observations.
    """
    if not (math.isfinite(value) and math.isfinite(error)) or n < 2:
        return math.nan, math.nan
    from scipy.special import stdtrit

    reach = float(stdtrit(n - 1, 0.975)) * error
    return max(value - reach, bounds[0]), min(value + reach, bounds[1])


def cluster_bootstrap(
    totals: Float[np.ndarray, "group part"],
    ratio: Callable[[Float[np.ndarray, "resample part"]], Float[np.ndarray, " resample"]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % interval of a ratio of group totals, drawing whole groups with replacement.

    Only for sums over groups (mean losses, R² of given predictions), where a repeated group does no harm.
    nan below 8 groups. Percentiles moved outwards for few groups: Hesterberg (2015), section 3.1.
    """
    g = len(totals)
    if g < FEWEST_FOR_INTERVAL:
        return math.nan, math.nan
    weights = np.random.default_rng([seed, 2]).multinomial(g, np.full(g, 1 / g), size=resamples)
    values = ratio(weights.astype(np.float64) @ totals)
    if not np.isfinite(values).all():
        return math.nan, math.nan
    from scipy.special import ndtr, stdtrit

    tail = float(ndtr(-math.sqrt(g / (g - 1)) * stdtrit(g - 1, 0.975)))
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(low), float(high)


def permutation_p(value: float, null: Float[np.ndarray, " permutation"], *, greater: bool = True) -> float:
    """Return the one-sided permutation p, (1 + b) / (1 + N), with b draws at least as extreme as `value`.

    Never 0: below 1 / (N + 1) no p exists. nan without draws or without a value. Phipson & Smyth (2010).
    """
    if len(null) == 0 or not math.isfinite(value):
        return math.nan
    # a permutation that leaves the pairing as it is must count as a tie despite rounding
    slack = 1e-9 + 1e-6 * float(np.abs(null).max(initial=abs(value)))
    beyond = null >= value - slack if greater else null <= value + slack
    return float((1 + int(beyond.sum())) / (1 + len(null)))


def calibrated(value: float, null: float, *, best: float = 1.0) -> float:
    """Return (value - null) / (best - null): 0 at chance, 1 at the best value, negative below chance.

    Permutation-calibrated similarity: Gröger, Wen & Brbić (2026), arXiv:2602.14486.
    """
    room = best - null
    return (value - null) / room if math.isfinite(room) and abs(room) > 1e-12 else math.nan


@one_thread()
def gathered(
    a: Float[np.ndarray, "sample sample"],
    *others: Float[np.ndarray, "sample sample"],
    permutations: int,
    seed: int,
) -> Float[np.ndarray, "permutation other"]:
    """Return the sums of a[π(i), π(j)] · b[i, j] for each b of `others`, over random orders π of the samples.

    All matrices are symmetric. Every statistic that is an inner product of two pair matrices has its
    permutation null in these sums. The same seed and number of samples give the same orders, so nulls of
    several tests can go to `max_t`.
    """
    rng, n = np.random.default_rng([seed, 3]), len(a)
    # float32 halves the traffic; its error (1e-5 of the null's spread) cannot move a p
    scale = float(np.abs(a).max()) or 1.0
    scales = np.array([float(np.abs(b).max()) or 1.0 for b in others])
    a32 = (a / scale).astype(np.float32)
    # block rows from the diagonal on, what lies past the block counted twice: half the work of the square
    edges = np.linspace(0, n, min(8, n) + 1).astype(int)
    blocks = []
    for start, stop in itertools.pairwise(edges):
        parts = np.stack(
            [(b[start:stop, start:] / s).astype(np.float32) for b, s in zip(others, scales, strict=True)]
        )
        parts[:, :, stop - start :] *= 2.0
        blocks.append((start, stop, parts.reshape(len(others), -1)))
    out = np.zeros((permutations, len(others)))
    for i in range(permutations):
        order = rng.permutation(n)
        for start, stop, parts in blocks:
            rows = a32.take(order[start:stop], axis=0, mode="clip")
            out[i] += parts @ rows.take(order[start:], axis=1, mode="clip").ravel()
    return out * scale * scales


def max_t(
    values: Float[np.ndarray, " test"], nulls: Float[np.ndarray, "permutation test"]
) -> Float[np.ndarray, " test"]:
    """Return p corrected for choosing the best of several tests, from nulls under the *same* permutations.

    Each test is standardised by its own null, then compared with the largest of every permutation; this keeps
    the dependence between layers, which Holm throws away. nan where the value is nan.

    Westfall & Young (1993).
    """
    values, nulls = np.asarray(values, dtype=float), np.asarray(nulls, dtype=float)
    if nulls.ndim != 2 or nulls.shape[1] != len(values) or len(nulls) < 2:
        raise ValueError(
            f"max-T needs nulls [permutation test] for {len(values)} tests and at least 2 permutations, "
            f"but got shape {list(nulls.shape)}; draw every test's null with the same seed"
        )
    centre, spread = nulls.mean(axis=0), nulls.std(axis=0, ddof=1)
    good = np.isfinite(values) & (spread > 0)
    p = np.full(len(values), math.nan)
    if good.any():
        largest = ((nulls[:, good] - centre[good]) / spread[good]).max(axis=1)
        observed = (values[good] - centre[good]) / spread[good]
        p[good] = (1 + (largest[:, None] >= observed[None, :] - 1e-9).sum(axis=0)) / (1 + len(nulls))
    return p


def holm(p: Sequence[float] | np.ndarray) -> Float[np.ndarray, " test"]:
    """Return Holm's (1979) adjusted p: family-wise, any dependence; nan stays nan and is not counted."""
    raw = np.asarray(p, dtype=float)
    adjusted = np.full(len(raw), math.nan)
    known = np.flatnonzero(np.isfinite(raw))
    order = known[np.argsort(raw[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(raw[order] * factors), 1.0)
    return adjusted


def grouped_folds(
    groups: Sequence[Any] | np.ndarray, *, folds: int = 5, seed: int = 0
) -> Int[np.ndarray, " sample"]:
    """Return the fold 0 … folds-1 of each sample; a group lies in one fold, folds have even group counts."""
    codes = group_codes(groups, len(groups))
    n_groups = int(codes.max()) + 1
    if not 2 <= folds <= n_groups:
        raise ValueError(
            f"folds lie between 2 and the number of groups, but got {folds} folds for {n_groups} groups"
        )
    place = np.empty(n_groups, dtype=np.int64)
    place[np.random.default_rng([seed, 4]).permutation(n_groups)] = np.arange(n_groups) % folds
    return place[codes]


def grouped_split(
    groups: Sequence[Any] | np.ndarray, *, test: float = 0.2, seed: int = 0
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]:
    """Return (train, test) sample indices; about `test` of the groups, at least one, is held out whole."""
    codes = group_codes(groups, len(groups))
    n_groups = int(codes.max()) + 1
    held = max(1, round(n_groups * test))
    if not 0 < test < 1 or held >= n_groups:
        raise ValueError(f"a split leaves groups on both sides, but got test={test} of {n_groups} groups")
    out = np.zeros(n_groups, dtype=bool)
    out[np.random.default_rng([seed, 5]).permutation(n_groups)[:held]] = True
    return np.flatnonzero(~out[codes]), np.flatnonzero(out[codes])


def shuffled_partner(
    groups: Sequence[Any] | np.ndarray, *, rng: np.random.Generator
) -> Int[np.ndarray, " sample"]:
    """Return the index of a partner for each sample, whole groups shuffled among each other.

    The j-th sample of a group is paired with the j-th of the other group, from the start again when that one
    is smaller, so with equal sizes this is a permutation.
    """
    codes = group_codes(groups, len(groups))
    members = [np.flatnonzero(codes == g) for g in range(int(codes.max()) + 1)]
    partner = np.empty(len(codes), dtype=np.int64)
    for mine, other in zip(members, rng.permutation(len(members)), strict=True):
        theirs = members[other]
        partner[mine] = theirs[np.arange(len(mine)) % len(theirs)]
    return partner

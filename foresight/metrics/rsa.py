"""Representational similarity: rank correlation of the two spaces' distances, tested over whole groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from foresight.metrics.estimate import Estimate
from foresight.metrics.pairs import aligned, compared
from foresight.metrics.space import FEWEST, Metric, Space, as_pair


def rsa_spearman(
    x: Any,
    y: Any,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    metric: Metric = "euclidean",
    permutations: int = 999,
    resamples: int = 60,
    keep_null: bool = False,
    seed: int = 0,
) -> Estimate:
    """Return Spearman's ρ between the n(n-1)/2 distances of `x` and of `y` [sample feature], in [-1, 1].

    Each pair counts once and the zero diagonal not at all. Groups are averaged first. p is the one-sided
    Mantel test: groups change places in one space; the usual p of ρ takes the pairs for independent and is
    wrong by far. Ties share their mean rank.

    Kriegeskorte, Mur & Bandettini (2008); Mantel (1967). nan below 4 groups and when all distances of a side
    are equal.
    """
    return _compare(x, y, groups, metric, "spearman", permutations, resamples, keep_null, seed)


def mantel_test(
    x: Any,
    y: Any,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    metric: Metric = "euclidean",
    permutations: int = 999,
    resamples: int = 60,
    keep_null: bool = False,
    seed: int = 0,
) -> Estimate:
    """Return Mantel's r, Pearson's correlation of the distances, with its one-sided permutation p.

    As `rsa_spearman` but on the distances themselves, so a monotone bend of one space lowers it.
    """
    return _compare(x, y, groups, metric, "pearson", permutations, resamples, keep_null, seed)


def rank_matrix(distances: Float[np.ndarray, "sample sample"]) -> Float[np.ndarray, "sample sample"]:
    """Return the mean ranks (from 1) of the condensed distances, put back in place; the diagonal is 0."""
    from scipy.spatial.distance import squareform

    pairs = squareform(distances, checks=False)
    order = np.argsort(pairs)
    rising = pairs[order]
    firsts = np.flatnonzero(np.concatenate([[True], rising[1:] != rising[:-1]]))
    equal = np.diff(firsts, append=len(pairs))
    ranks = np.empty(len(pairs))
    ranks[order] = np.repeat(firsts + (equal + 1) / 2, equal)
    return np.asarray(squareform(ranks, checks=False))


def off_diagonal_centred(pairs: Float[np.ndarray, "sample sample"]) -> Float[np.ndarray, "sample sample"]:
    """Return pair values with the mean over different samples removed; the diagonal is 0."""
    n = len(pairs)
    centred = pairs - (pairs.sum() - np.trace(pairs)) / (n * (n - 1))
    np.fill_diagonal(centred, 0.0)
    return centred


def _compare(
    x: Any,
    y: Any,
    groups: Sequence[Any] | np.ndarray | None,
    metric: Metric,
    kind: str,
    permutations: int,
    resamples: int,
    keep_null: bool,
    seed: int,
) -> Estimate:
    a, b = as_pair(x, y, groups)
    n, g = len(a), len(a.observed)
    if g < FEWEST:
        return Estimate.undefined(f"RSA needs at least {FEWEST} groups, but got {g}", n=n, n_effective=g)
    pa, pb = _pairs(a.observed, metric, kind), _pairs(b.observed, metric, kind)
    ca, cb = off_diagonal_centred(pa), off_diagonal_centred(pb)
    for side, pairs, centred in (("first", pa, ca), ("second", pb, cb)):
        if not np.abs(centred).max() > 1e-9 * np.abs(pairs).max():
            why = f"all {metric} distances of the {side} space are equal, so there is no order to compare"
            return Estimate.undefined(why, n=n, n_effective=g)

    def half(s: np.ndarray) -> float:
        # ranks of the whole sample serve the halves too: only their spread is used
        pick = np.ix_(s, s)
        return aligned(off_diagonal_centred(pa[pick]), off_diagonal_centred(pb[pick]))

    controls = {}
    if g < n:
        controls["ignoring groups"] = aligned(
            off_diagonal_centred(_pairs(a, metric, kind)), off_diagonal_centred(_pairs(b, metric, kind))
        )
    return compared(
        ca,
        cb,
        half,
        n=n,
        permutations=permutations,
        resamples=resamples,
        keep_null=keep_null,
        seed=seed,
        controls=controls,
        detail={"metric": metric, "correlation": kind, "pairs": g * (g - 1) // 2},
    )


def _pairs(space: Space, metric: Metric, kind: str) -> np.ndarray:
    distances = space.distances(metric)
    return rank_matrix(distances) if kind == "spearman" else distances

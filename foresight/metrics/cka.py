"""Centred kernel alignment, debiased first: do two spaces see the same similarities between samples?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from foresight.metrics.estimate import Estimate
from foresight.metrics.pairs import NO_ORDER, aligned, compared
from foresight.metrics.space import FEWEST, Space, as_pair
from foresight.metrics.statistics import calibrated, cluster_bootstrap, gathered, permutation_p


def linear_cka(
    x: Any,
    y: Any,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    debiased: bool = True,
    permutations: int = 999,
    resamples: int = 60,
    keep_null: bool = False,
    seed: int = 0,
) -> Estimate:
    """Return linear CKA of `x` and `y` [sample feature], rows paired; at most 1, and 1 for a rotated copy.

    Unchanged by rotating, shifting or scaling either side. Groups are averaged first. The debiased value is
    the ratio of unbiased HSICs and about 0 for independent spaces of any width, so it can be slightly
    negative; the biased one grows with feature / sample even for noise and stands in `controls['biased']`
    with its exact permutation mean `'biased null'`. `debiased=False` puts the biased value first.
    `keep_null` puts the null under `detail['null draws']`, which `best_of` reads.

    Kornblith et al. (2019), arXiv:1905.00414; unbiased HSIC: Song et al. (2012), eq. 5, as used by Nguyen et
    al. (2020), arXiv:2010.15327. nan below 4 groups and when a side is constant.
    """
    a, b = as_pair(x, y, groups)
    return _cka(
        a,
        b,
        lambda s: s.gram,
        debiased=debiased,
        permutations=permutations,
        resamples=resamples,
        keep_null=keep_null,
        seed=seed,
        detail={"kernel": "linear"},
    )


def rbf_cka(
    x: Any,
    y: Any,
    *,
    groups: Sequence[Any] | np.ndarray | None = None,
    bandwidth: float = 1.0,
    debiased: bool = True,
    permutations: int = 999,
    resamples: int = 60,
    keep_null: bool = False,
    seed: int = 0,
) -> Estimate:
    """Return CKA with the kernel exp(-d² / 2σ²), σ = `bandwidth` x the median distance between two samples.

    The median is taken over pairs of different samples, in each space by itself. All else as `linear_cka`.
    """
    if not bandwidth > 0:
        raise ValueError(f"a bandwidth is positive, but got {bandwidth}")
    a, b = as_pair(x, y, groups)
    return _cka(
        a,
        b,
        lambda s: rbf_gram(s, bandwidth=bandwidth),
        debiased=debiased,
        permutations=permutations,
        resamples=resamples,
        keep_null=keep_null,
        seed=seed,
        detail={"kernel": "rbf", "bandwidth": bandwidth},
    )


def cka_minibatch(
    x: Any,
    y: Any,
    *,
    batch: int = 256,
    groups: Sequence[Any] | np.ndarray | None = None,
    debiased: bool = True,
    permutations: int = 999,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Return linear CKA as the ratio of HSICs *summed over batches*, of `x` and `y` [sample feature].

    Groups are averaged first and dealt at random, by `seed`, into batches of about `batch`, so no batch holds
    two samples of a group. Debiased, the sums are unbiased whatever the batch size, unlike the mean of the
    batches' ratios. p shuffles pairs inside batches; the interval draws batches and needs 8 of them.

    Nguyen, Raghu & Kornblith (2020), arXiv:2010.15327, eq. 2.
    """
    if batch < FEWEST:
        raise ValueError(f"a batch holds at least {FEWEST} groups, but got {batch}")
    a, b = as_pair(x, y, groups)
    n, (ma, mb) = len(a), (a.observed, b.observed)
    g = len(ma)
    why = f"CKA needs at least {FEWEST} groups, but got {g}" if g < FEWEST else ""
    if why or ma.constant or mb.constant:
        return Estimate.undefined(
            why or "a space is constant: all its rows are one point", n=n, n_effective=g
        )
    dealt = np.array_split(np.random.default_rng([seed, 14]).permutation(g), max(1, round(g / batch)))
    centre = u_centred if debiased else doubly_centred
    sums, null = [], np.zeros(permutations)
    for at, members in enumerate(dealt):
        ca, cb = (centre(s.rows(members).gram) for s in (ma, mb))
        sums.append([float(np.vdot(u, v)) for u, v in ((ca, cb), (ca, ca), (cb, cb))])
        null += gathered(ca, cb, permutations=permutations, seed=seed + at)[:, 0]

    def ratio(totals: np.ndarray) -> np.ndarray:
        return totals[:, 0] / np.sqrt(totals[:, 1] * totals[:, 2])

    totals = np.array(sums)
    if (totals.sum(axis=0)[1:] <= 0).any():
        return Estimate.undefined(NO_ORDER, n=n, n_effective=g)
    value = float(ratio(totals.sum(axis=0, keepdims=True))[0])
    null /= math.sqrt(float(np.prod(totals.sum(axis=0)[1:])))
    null_mean = float(null.mean()) if len(null) else math.nan
    low, high = cluster_bootstrap(totals, ratio, resamples=resamples, seed=seed)
    return Estimate(
        value=value,
        low=low,
        high=high,
        null=null_mean,
        p=permutation_p(value, null),
        n=n,
        n_effective=g,
        controls={"calibrated": calibrated(value, null_mean)},
        detail={"kernel": "linear", "estimator": "debiased" if debiased else "biased", "batches": len(dealt)},
        why="" if math.isfinite(low) else f"no interval: {len(dealt)} batches are too few, 8 are needed",
    )


def rbf_gram(space: Space, *, bandwidth: float = 1.0) -> Float[np.ndarray, "sample sample"]:
    """Return the RBF kernel matrix; raises when the median distance is 0 (more than half the rows equal)."""
    distances = space.distances("euclidean")
    sigma = bandwidth * float(np.median(distances[np.triu_indices(len(distances), 1)]))
    if sigma == 0:
        raise ValueError(
            "the RBF kernel needs a positive median distance, but most rows are equal; remove them"
        )
    return np.exp(-0.5 * np.square(distances / sigma))


def u_centred(kernel: Float[np.ndarray, "sample sample"]) -> Float[np.ndarray, "sample sample"]:
    """Return the kernel centred so that the sum of products of two such matrices is n(n-3) unbiased HSICs.

    The diagonal is 0 and takes no part. Székely & Rizzo (2014), def. 2; equal to Song et al. (2012), eq. 5.
    """
    n = len(kernel)
    bare = kernel.copy()
    np.fill_diagonal(bare, 0.0)
    rows = bare.sum(axis=1)
    bare -= rows[:, None] / (n - 2)
    bare -= rows[None, :] / (n - 2)
    bare += rows.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(bare, 0.0)
    return bare


def doubly_centred(kernel: Float[np.ndarray, "sample sample"]) -> Float[np.ndarray, "sample sample"]:
    """Return the kernel with every row and column mean removed: the biased (V-statistic) centring."""
    means = kernel.mean(axis=0)
    return kernel - means[:, None] - means[None, :] + means.mean()


def _cka(
    a: Space,
    b: Space,
    kernel: Any,
    *,
    debiased: bool,
    permutations: int,
    resamples: int,
    keep_null: bool,
    seed: int,
    detail: Mapping[str, Any],
) -> Estimate:
    n, (ma, mb) = len(a), (a.observed, b.observed)
    g = len(ma)
    if g < FEWEST:
        why = f"CKA needs at least {FEWEST} groups, but got {g}"
        return Estimate.undefined(why, n=n, n_effective=g)
    for side, space in (("first", ma), ("second", mb)):
        if space.constant:
            why = f"the {side} space is constant: all {g} observations are one point"
            return Estimate.undefined(why, n=n, n_effective=g)
    ka, kb = kernel(ma), kernel(mb)
    centre = u_centred if debiased else doubly_centred
    ca, cb = centre(ka), centre(kb)

    def half(s: np.ndarray) -> float:
        pick = np.ix_(s, s)
        return aligned(centre(ka[pick]), centre(kb[pick]))

    ba, bb = (doubly_centred(ka), doubly_centred(kb)) if debiased else (ca, cb)
    controls = {
        "biased": aligned(ba, bb),
        "biased null": _biased_null(ba, bb),
        "debiased": aligned(ca, cb) if debiased else aligned(u_centred(ka), u_centred(kb)),
    }
    if g < n:
        controls["ignoring groups"] = aligned(centre(kernel(a)), centre(kernel(b)))
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
        detail={**detail, "estimator": "debiased" if debiased else "biased"},
    )


def _biased_null(a: np.ndarray, b: np.ndarray) -> float:
    # the mean over all orders of the pairing; exact because both matrices have zero row sums
    norm = math.sqrt(float(np.vdot(a, a))) * math.sqrt(float(np.vdot(b, b)))
    return float(np.trace(a) * np.trace(b)) / (len(a) - 1) / norm if norm > 0 else math.nan

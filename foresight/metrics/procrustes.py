"""Procrustes distance: what remains between two spaces after the best rotation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from foresight.metrics.estimate import Estimate
from foresight.metrics.judged import judged
from foresight.metrics.space import FEWEST, Space, as_pair
from foresight.metrics.statistics import half_sample_error
from foresight.metrics.threads import one_thread


@one_thread()
def procrustes_distance(
    x: Any,
    y: Any,
    *,
    components: int | None = None,
    groups: Sequence[Any] | np.ndarray | None = None,
    permutations: int = 99,
    resamples: int = 20,
    seed: int = 0,
) -> Estimate:
    """Return 2 - 2‖AᵀB‖* of the centred, unit-norm `x` and `y` [sample feature], in [0, 2].

    0 for a rotated copy; low is good. `detail['disparity']` is scipy's 1 - ‖AᵀB‖*² of the same. Spaces of
    different width are zero-padded, which changes nothing in this form. With fewer samples than features a
    rotation fits noise (disparity 0.14 for independent spaces of 400 and 300 features at n = 100), so read
    `null`, `p` (counting shuffles at most as far) and `controls['calibrated']` (1 perfect, 0 chance).
    `components` keeps that many principal components of each side. Groups are averaged first.

    Ding, Denain & Steinhardt (2021), arXiv:2108.01661.
    """
    if components is not None and components < 1:
        raise ValueError(f"at least one component is kept, but got {components}")
    first, second = as_pair(x, y, groups)
    n, a, b = len(first), first.observed, second.observed
    g = len(a)
    if g < FEWEST:
        return Estimate.undefined(
            f"Procrustes needs at least {FEWEST} groups, but got {g}", n=n, n_effective=g
        )
    for side, space in (("first", a), ("second", b)):
        if space.constant:
            why = f"the {side} space is constant: all {g} observations are one point"
            return Estimate.undefined(why, n=n, n_effective=g)
    pa, pb = _points(a, components), _points(b, components)
    similarity = _similarity(pa, pb)
    value = 2.0 - 2.0 * similarity
    rng = np.random.default_rng([seed, 3])
    null = np.array([2.0 - 2.0 * _similarity(pa[rng.permutation(g)], pb) for _ in range(permutations)])

    def half(s: np.ndarray) -> float:
        return 2.0 - 2.0 * _similarity(pa[s], pb[s])

    error = float(half_sample_error(half, g, resamples=resamples, seed=seed))
    controls = {}
    if g < n:
        whole = _similarity(_points(first, components), _points(second, components))
        controls["ignoring groups"] = 2.0 - 2.0 * whole
    return judged(
        value,
        error,
        null,
        n=n,
        g=g,
        bounds=(0.0, 2.0),
        greater=False,
        best=0.0,
        controls=controls,
        detail={"disparity": 1.0 - similarity**2, "components": components},
    )


def _points(space: Space, components: int | None) -> Float[np.ndarray, "sample component"]:
    return space.points if components is None else space.coordinates[:, :components]


def _similarity(a: Float[np.ndarray, "sample component"], b: Float[np.ndarray, "sample component"]) -> float:
    """Return ‖AᵀB‖* after centring and scaling both to Frobenius norm 1, in [0, 1]."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norm = math.sqrt(float(np.vdot(a, a))) * math.sqrt(float(np.vdot(b, b)))
    if norm == 0:
        return math.nan
    singular = np.linalg.svd(a.T @ b, compute_uv=False)
    return min(float(singular.sum()) / norm, 1.0)

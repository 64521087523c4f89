"""Two matrices of sample pairs compared: their cosine, with its permutation null, its p and its interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from foresight.metrics.estimate import Estimate
from foresight.metrics.judged import judged
from foresight.metrics.statistics import gathered, half_sample_error

NO_ORDER = "a centred kernel is zero: every sample is equally similar to every other"


def aligned(a: Float[np.ndarray, "sample sample"], b: Float[np.ndarray, "sample sample"]) -> float:
    """Return the cosine between two pair matrices; nan when one is zero."""
    norm = math.sqrt(float(np.vdot(a, a))) * math.sqrt(float(np.vdot(b, b)))
    return float(np.vdot(a, b)) / norm if norm > 0 else math.nan


def compared(
    a: Float[np.ndarray, "sample sample"],
    b: Float[np.ndarray, "sample sample"],
    half: Callable[[Int[np.ndarray, " half"]], float],
    *,
    n: int,
    permutations: int,
    resamples: int,
    keep_null: bool,
    seed: int,
    controls: Mapping[str, float],
    detail: Mapping[str, Any],
) -> Estimate:
    """Return the cosine between `a` and `b`, centred and with one row per group; `n` samples stand behind them.

    The null reorders the samples of one side. `half` gives the same number for some of the samples, centred
    anew, and makes the interval. 'calibrated' joins `controls`, and with `keep_null` 'null draws' joins `detail`.
    """
    value, g = aligned(a, b), len(a)
    if math.isnan(value):
        return Estimate.undefined(NO_ORDER, n=n, n_effective=g)
    norm = math.sqrt(float(np.vdot(a, a))) * math.sqrt(float(np.vdot(b, b)))
    null = gathered(a, b, permutations=permutations, seed=seed)[:, 0] / norm
    error = float(half_sample_error(half, g, resamples=resamples, seed=seed))
    return judged(
        value,
        error,
        null,
        n=n,
        g=g,
        bounds=(-1, 1),
        controls=controls,
        detail={**detail, **({"null draws": null.tolist()} if keep_null else {})},
    )

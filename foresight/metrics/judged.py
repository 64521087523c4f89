"""A value with its interval from halves of the groups, and with its chance level and p from a null."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from numpy import ndarray

from foresight.metrics.estimate import Estimate
from foresight.metrics.statistics import calibrated, interval, permutation_p


def judged(
    value: float,
    error: float,
    null: Float[ndarray, " permutation"],
    *,
    n: int,
    g: int,
    bounds: tuple[float, float],
    greater: bool = True,
    best: float = 1.0,
    controls: Mapping[str, float] | None = None,
    detail: Mapping[str, Any],
) -> Estimate:
    """Return the estimate of `value`, with its standard error over `g` groups of `n` samples, cut at `bounds`.

    `null` holds what it is for random pairings. Chance is their mean, also for `controls['calibrated']` unless
    that is given; `greater=False` where low is good.
    """
    low, high = interval(value, error, g, bounds=bounds)
    centre = float(null.mean()) if len(null) else math.nan
    return Estimate(
        value=value,
        low=low,
        high=high,
        null=centre,
        p=permutation_p(value, null, greater=greater),
        n=n,
        n_effective=g,
        controls={"calibrated": calibrated(value, centre, best=best), **(controls or {})},
        detail=detail,
    )

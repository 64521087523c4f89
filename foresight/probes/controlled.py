"""A spatial number together with its controls; without all of them it cannot be made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from foresight.metrics.estimate import Estimate
from foresight.metrics.space import group_codes
from foresight.metrics.statistics import FEWEST_FOR_INTERVAL, cluster_bootstrap, permutation_p

CONSTANT, POOLED, SHUFFLED = "constant prediction", "mean-pooled tokens", "shuffled positions"
RANDOM, PATCHES = "random weights", "raw patches"
FLOORS = (CONSTANT, POOLED, SHUFFLED)
"""Controls that do not see where tokens stand: a number that does not clear them is not read off the grid."""
REFERENCES = (RANDOM, PATCHES)
"""The same probe on the untrained model and on the pixels themselves: what training adds, what could be had."""
CONTROLS = (*FLOORS, *REFERENCES)
PERMUTATIONS = 999


@dataclass(frozen=True, kw_only=True)
class Controlled:
    """A number with its 95 % interval and every one of `CONTROLS`; the only way a spatial number leaves a study."""

    value: float
    low: float
    high: float
    controls: Mapping[str, float]
    p: float
    """One-sided, against the strongest of `FLOORS`; nan where no test applies."""
    n: int
    """Test samples."""
    n_effective: int
    """Groups among them."""
    higher_is_better: bool = True
    detail: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = [name for name in CONTROLS if name not in self.controls]
        undefined = [k for k, v in self.controls.items() if k in CONTROLS and not math.isfinite(v)]
        if missing or undefined:
            raise ValueError(
                f"a spatial number stands beside all of {list(CONTROLS)}, but {missing + undefined} "
                "are missing or undefined; measure them with the same probe and split"
            )

    @property
    def floor(self) -> float:
        """The strongest control that does not see the grid."""
        best = max if self.higher_is_better else min
        return best(self.controls[name] for name in FLOORS)

    @property
    def knows_places(self) -> bool | None:
        """Return whether the whole interval is on the better side of every floor; None without an interval."""
        worst = self.low if self.higher_is_better else self.high
        if not math.isfinite(worst):
            return None
        return worst > self.floor if self.higher_is_better else worst < self.floor

    def estimate(self) -> Estimate:
        """Return the number as every report shows it; `null` is the constant prediction."""
        why = ""
        if not math.isfinite(self.low):
            why = f"no interval from {self.n_effective} test groups; it needs {FEWEST_FOR_INTERVAL}"
        return Estimate(
            value=self.value,
            low=self.low,
            high=self.high,
            null=self.controls[CONSTANT],
            p=self.p,
            n=self.n,
            n_effective=self.n_effective,
            controls=dict(self.controls),
            why=why,
            detail={**self.detail, "floor": self.floor, "knows places": self.knows_places},
        )


def controlled(
    scores: Float[np.ndarray, " sample"],
    controls: Mapping[str, Float[np.ndarray, " sample"] | float],
    groups: Any,
    *,
    seed: int,
    higher_is_better: bool = True,
    detail: Mapping[str, Any] | None = None,
) -> Controlled:
    """Return the mean of per-sample `scores` of the test part, with its controls' means.

    A floor is given sample by sample, a reference may be a mean. Samples without a score (nan) are left out of
    all. The interval draws groups with replacement, given the trained probe. p flips, group by group, the sign of the
    differences to the strongest floor.
    """
    known = np.isfinite(scores)
    if not known.any():
        raise ValueError("a spatial number is the mean of one score or more, but no test sample has one")
    kept = {k: np.asarray(v)[known] if np.ndim(v) else v for k, v in controls.items()}
    scores, codes = scores[known], group_codes(np.asarray(groups)[known], int(known.sum()))
    counts = np.bincount(codes).astype(np.float64)
    totals = np.stack([np.bincount(codes, weights=scores), counts], axis=1)
    low, high = cluster_bootstrap(totals, lambda t: t[:, 0] / t[:, 1], seed=seed)
    means = {name: float(np.mean(given)) for name, given in kept.items()}
    sign = 1.0 if higher_is_better else -1.0
    floors = [name for name in FLOORS if name in kept]
    strongest = max(floors, key=lambda name: sign * means[name], default=None)
    p = math.nan
    if strongest is not None and len(counts) > 1:
        gained = np.bincount(codes, weights=sign * (scores - np.asarray(kept[strongest])))
        signs = np.random.default_rng([seed, 6]).choice([-1.0, 1.0], size=(PERMUTATIONS, len(gained)))
        p = permutation_p(float(gained.sum()), signs @ gained)
    return Controlled(
        value=float(np.mean(scores)),
        low=low,
        high=high,
        controls=means,
        p=p,
        n=len(scores),
        n_effective=len(counts),
        higher_is_better=higher_is_better,
        detail=detail or {},
    )

"""The composite score of the alignment study: 0.3 R² + 0.3 Spearman + 0.2 Recall@10 + 0.2 CKA."""

from __future__ import annotations

import math
from collections.abc import Mapping

from foresight.metrics.estimate import Estimate

WEIGHTS: Mapping[str, float] = {"r2": 0.3, "spearman": 0.3, "recall": 0.2, "cka": 0.2}


def composite_score(*, r2: Estimate, spearman: Estimate, recall: Estimate, cka: Estimate) -> Estimate:
    """Return the weighted sum of the four, at most 1.

    R² below 0 counts as 0: it has no lower end, and one diverged probe would sink the rest. The other three
    enter as they are, negative or not. The interval adds the parts' half-widths as if they erred together,
    which is the widest the sum can be: the parts come from the same samples. nan, naming the part, when one
    is undefined. Controls: 'not floored' (R² as it is), 'biased CKA' (the same score with the biased CKA the
    plan's bands were set on), 'calibrated' (each part as (value - chance) / (1 - chance)).
    """
    parts = {"r2": r2, "spearman": spearman, "recall": recall, "cka": cka}
    n, g = min(p.n for p in parts.values()), min(p.n_effective for p in parts.values())
    missing = [f"{name}: {part.why}" for name, part in parts.items() if not part.defined]
    if missing:
        return Estimate.undefined("a part is undefined; " + "; ".join(missing), n=n, n_effective=g)
    values = {name: _floored(name, part.value) for name, part in parts.items()}
    controls = {"not floored": _sum({name: part.value for name, part in parts.items()})}
    if "biased" in cka.controls:
        controls["biased CKA"] = _sum({**values, "cka": cka.controls["biased"]})
    if all("calibrated" in part.controls for part in parts.values()):
        controls["calibrated"] = _sum(
            {name: _floored(name, part.controls["calibrated"]) for name, part in parts.items()}
        )
    lows = {name: _floored(name, part.low) for name, part in parts.items()}
    highs = {name: _floored(name, part.high) for name, part in parts.items()}
    nulls = {name: _floored(name, part.null) for name, part in parts.items()}
    without = [name for name, part in parts.items() if not math.isfinite(part.low)]
    return Estimate(
        value=_sum(values),
        low=_sum(lows),
        high=_sum(highs),
        null=_sum(nulls),
        n=n,
        n_effective=g,
        controls=controls,
        detail={"weights": dict(WEIGHTS), "parts": values},
        why=f"no interval: {', '.join(without)} has none" if without else "",
    )


def _floored(name: str, value: float) -> float:
    return max(value, 0.0) if name == "r2" and not math.isnan(value) else value


def _sum(values: Mapping[str, float]) -> float:
    return sum(WEIGHTS[name] * value for name, value in values.items())

"""The best of several measurements, with a p that knows it was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from foresight.metrics.estimate import Estimate
from foresight.metrics.statistics import holm, max_t

NULL = "null draws"


def best_of(estimates: Mapping[str, Estimate]) -> tuple[str, Estimate]:
    """Return the name and estimate of the largest value, its p corrected for choosing it among all.

    Max-T when every defined estimate kept its null (`keep_null=True`) under the same seed and groups, else
    Holm, which needs smaller p. `detail` names the correction, `chosen from` and the corrected p of each.
    The value and interval are those of the winner and still flatter it: the best of 28 layers of noise has a
    debiased CKA of 0.03. To report an unflattered value, choose on one half of the groups and measure on the
    other. Raises when nothing is defined.
    """
    known = {name: e for name, e in estimates.items() if e.defined}
    if not known:
        reasons = "; ".join(f"{name}: {e.why}" for name, e in estimates.items())
        raise ValueError(
            f"the best is chosen among defined values, but there are none ({reasons or 'none given'})"
        )
    values = np.array([e.value for e in known.values()])
    draws = [e.detail.get(NULL) for e in known.values()]
    if all(d is not None and len(d) == len(draws[0] or ()) for d in draws) and len(draws[0] or ()) > 1:
        correction, p = "max-T", max_t(values, np.array(draws, dtype=float).T)
    else:
        correction, p = "Holm", holm([e.p for e in known.values()])
    corrected = dict(zip(known, p.tolist(), strict=True))
    name = max(known, key=lambda n: known[n].value)
    won = known[name]
    detail = {k: v for k, v in won.detail.items() if k != NULL}
    chosen = replace(
        won,
        p=corrected[name] if math.isfinite(corrected[name]) else math.nan,
        detail={**detail, "correction": correction, "chosen from": len(estimates), "p of each": corrected},
    )
    return name, chosen

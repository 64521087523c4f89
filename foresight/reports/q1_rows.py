"""Which Q1 rows belong together: the metric that leads, the points in order, the judged number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from foresight.reports.tables import known
from foresight.studies.decoded import OF
from foresight.studies.position import POSITION

if TYPE_CHECKING:
    from foresight.reports.q1 import Q1Inputs

Row = Mapping[str, Any]
NAN = float("nan")

LEADS = {
    "Q1.1": ("k-nn", "knn", "nearest", "silhouette"),
    "Q1.3": ("twonn", "two-nn", "two_nn", "mle"),
    "Q1.4": ("r²", "r2"),
    "Q1.5": ("spearman",),
    "Q1.6": ("recall@10", "recall"),
    "Q1.7": ("cka",),
    "Q1.D": ("composite",),
}
JUDGED = {"Q1.4": "q1.r2", "Q1.5": "q1.spearman", "Q1.6": "q1.recall@10", "Q1.7": "q1.cka"}


LOWER = (
    "variance share",
    "intra-class",
    "residual",
    "disparity",
    "procrustes",
    "lpips",
    "perceptual distance",
    "mse",
)


NO_BASELINES = ("calibrated", "uniform", "ignoring groups", "biased", "biased null", "debiased", "chance")
"""Controls that are another reading of the same number, not something it has to beat."""


def baselines(m: Row) -> dict[str, float]:
    """Return the defined controls that the number has to beat."""
    return {k: v for k, v in (m.get("controls") or {}).items() if known(v) and k not in NO_BASELINES}


def lower_is_better(name: str) -> bool:
    return any(part in name.lower() for part in LOWER)


def names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(str(m["name"]) for m in rows))


def lead_like(name: str, row: str) -> bool:
    aside = name == POSITION or name.endswith(OF)
    return not aside and any(part in name.lower() for part in LEADS.get(row, ()))


def is_decoded(m: Row) -> bool:
    """Return whether the measurement is of the decoded prediction."""
    return str(m["name"]).endswith(OF)


def lead_name(rows: Sequence[Row], row: str) -> str:
    """Return the metric the row is told by: the first that is named in `LEADS`, else the first of all."""
    held = names(rows)
    for part in LEADS.get(row, ()):
        for name in held:
            if part in name.lower() and ("biased" not in name.lower() or "debiased" in name.lower()):
                return name
    return held[0]


def is_decoder(inputs: Q1Inputs, m: Row) -> bool:
    return inputs.is_decoder(m)


def vlm_points(inputs: Q1Inputs, rows: Sequence[Row]) -> list[str]:
    """Return the VLM's points among `rows` in order of depth: as its card lists them, else as they come."""
    present = list(
        dict.fromkeys(str(m.get("point")) for m in rows if m.get("point") and not is_decoder(inputs, m))
    )
    order = {p: i for i, p in enumerate(inputs.vlm_order)}
    return sorted(present, key=lambda p: (order.get(p, len(order)), present.index(p)))


def verdict_of(inputs: Q1Inputs, name: str | None) -> Mapping[str, Any] | None:
    return next((v for v in inputs.decision.get("verdicts", ()) if v["name"] == name), None)


def threshold_of(inputs: Q1Inputs, name: str | None) -> float | None:
    verdict = verdict_of(inputs, name)
    return None if verdict is None else float(verdict["threshold"])


def real(value: Any) -> float:
    return float(value) if known(value) else NAN

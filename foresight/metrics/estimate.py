"""Estimate: one measured number with its interval, its chance level and its controls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NAN = math.nan
NUMBERS = ("value", "low", "high", "null", "p")
"""Fields that are nan when unknown."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number that can be believed or doubted, because what is needed to do so stands beside it.

    `value` is nan when the number is undefined, and then `why` says why; it is never a plausible stand-in.
    """

    value: float
    """The number itself; nan when undefined."""
    low: float = NAN
    """Lower end of the 95 % interval over groups; nan when none could be made."""
    high: float = NAN
    """Upper end of the 95 % interval over groups; nan when none could be made."""
    null: float = NAN
    """What the metric gives by chance: the mean of its permutation null, or the analytic chance level."""
    p: float = NAN
    """Permutation p, (1 + b) / (1 + N), so never 0; nan when no test applies."""
    n: int
    """Samples the number was computed from."""
    n_effective: int
    """Groups (videos) among them: the number of independent observations."""
    controls: Mapping[str, float] = field(default_factory=dict)
    """The same number under a named control: 'biased', 'train mean', 'shuffled pairs', 'calibrated' …"""
    why: str = ""
    """Why the number (or, with a value present, its interval) is undefined."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """Plain extras: per-k table, chosen penalty, spectrum …"""

    def __post_init__(self) -> None:
        if math.isnan(self.value) and not self.why:
            raise ValueError(
                "an undefined value (nan) says why, but `why` is empty; give the reason in one sentence"
            )

    @classmethod
    def undefined(
        cls, why: str, *, n: int, n_effective: int, detail: Mapping[str, Any] | None = None
    ) -> Estimate:
        """Return the estimate of a number that does not exist, with the reason."""
        return cls(value=NAN, n=n, n_effective=n_effective, why=why, detail=dict(detail or {}))

    @property
    def defined(self) -> bool:
        return not math.isnan(self.value)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: numpy scalars and arrays unpacked, nan and infinities as None."""
        return {
            "value": plain(self.value),
            "low": plain(self.low),
            "high": plain(self.high),
            "null": plain(self.null),
            "p": plain(self.p),
            "n": int(self.n),
            "n_effective": int(self.n_effective),
            "controls": plain(self.controls),
            "why": self.why,
            "detail": plain(self.detail),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Estimate:
        """Undo `to_json`, but for entries that were not finite: None is read as nan."""
        numbers = {name: NAN if value[name] is None else float(value[name]) for name in NUMBERS}
        return cls(
            **numbers,
            n=int(value["n"]),
            n_effective=int(value["n_effective"]),
            controls={k: NAN if v is None else float(v) for k, v in value["controls"].items()},
            why=str(value["why"]),
            detail=dict(value["detail"]),
        )


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it; numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    raise TypeError(f"an estimate holds plain values, but got {type(value).__name__}; convert it first")

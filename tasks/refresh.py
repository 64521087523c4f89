"""Rows computed again: how far they are from those the store keeps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import store
from foresight.nouns import Sample

LIMITS = {"float32": 1e-3, "float16": 5e-2, "bfloat16": 5e-2}
"""Largest difference taken for rounding, as a share of the row's largest value. Rows that were computed in
other batches or on another machine differ in their last digits; another model's differ by about 1."""


@dataclass(kw_only=True)
class Again:
    """Rows of one stage that were computed again. Stored rows stay: rows never change under a recipe."""

    rows: int = 0
    equal: int = 0
    """Of those, how many are equal to the bit."""
    furthest: float = 0.0
    differ: int = 0
    first: str = ""
    """The first row that differs by more than rounding."""

    def compare(self, latents: store.Store, recipe: store.Recipe, sample: Sample, values: np.ndarray) -> None:
        """Take in one row's new values, [token feature], unless the store has none to compare with."""
        if latents.missing(recipe.id, [sample.digest]):
            return
        kept = latents.row(recipe.id, sample.digest).values
        self.rows += 1
        if kept.dtype == values.dtype and kept.tobytes() == values.tobytes():
            self.equal += 1
            return
        apart = _apart(kept, values)
        self.furthest = max(self.furthest, apart)
        if not apart <= LIMITS[kept.dtype.name]:
            self.differ += 1
            self.first = self.first or f"{sample.key} at {recipe.settings['point']}"

    def verdict(self) -> str:
        """Return how it went, in words. Raises `RuntimeError` when rows differ by more than rounding."""
        if self.differ:
            raise RuntimeError(
                f"{self.differ} of {self.rows} rows computed again differ from the stored ones by more than "
                f"rounding, the first is {self.first}; the stored rows stay. `foresight store verify` finds "
                "damaged ones; if the code was changed, raise VERSION in tasks/extract.py"
            )
        told = f"refreshed: {self.rows} rows computed again, {self.equal} equal to the bit"
        return told if self.equal == self.rows else f"{told}, the rest within {self.furthest:.1g} (rounding)"


def _apart(kept: np.ndarray, values: np.ndarray) -> float:
    """Return the largest difference as a share of the largest stored value; infinite for other shapes."""
    if kept.shape != values.shape or kept.dtype != values.dtype:
        return float("inf")
    a, b = kept.astype(np.float64), values.astype(np.float64)
    return float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30))

"""Ridge regression from blocks of tokens to blocks of latent cells, from sums that are taken in one pass.

Only sums of products are held, so memory does not grow with the number of samples. Both sides are centred block by
block: what is the same in every sample at a place predicts nothing and costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

PENALTIES = tuple(10.0**k for k in range(-6, 3))
"""Multiples of the mean eigenvalue of the training covariance."""


@dataclass(eq=False)
class Sums:
    """Sums over samples of x [block source], y [block target] and their products; pools with `+`."""

    n: int
    x: Float[np.ndarray, "block source"]
    y: Float[np.ndarray, "block target"]
    xx: Float[np.ndarray, "source source"]
    xy: Float[np.ndarray, "source target"]
    yy: float

    @classmethod
    def of(
        cls, x: Float[np.ndarray, "sample block source"], y: Float[np.ndarray, "sample block target"]
    ) -> Sums:
        """Return the sums over some samples, in float64."""
        if x.shape[:2] != y.shape[:2]:
            raise ValueError(f"both sides have the same samples and blocks, but got {x.shape} and {y.shape}")
        flat_x = x.reshape(-1, x.shape[-1]).astype(np.float64)
        flat_y = y.reshape(-1, y.shape[-1]).astype(np.float64)
        return cls(
            n=len(x),
            x=x.sum(axis=0, dtype=np.float64),
            y=y.sum(axis=0, dtype=np.float64),
            xx=flat_x.T @ flat_x,
            xy=flat_x.T @ flat_y,
            yy=float(np.vdot(flat_y, flat_y)),
        )

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.n + other.n, self.x + other.x, self.y + other.y,
            self.xx + other.xx, self.xy + other.xy, self.yy + other.yy,
        )  # fmt: skip

    def about(
        self, x: Float[np.ndarray, "block source"], y: Float[np.ndarray, "block target"]
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Return (xx, xy, yy) of the samples less `x` and `y`."""
        cross = self.x.T @ x
        xx = self.xx - cross - cross.T + self.n * (x.T @ x)
        xy = self.xy - self.x.T @ y - x.T @ self.y + self.n * (x.T @ y)
        yy = self.yy - 2 * float(np.vdot(self.y, y)) + self.n * float(np.vdot(y, y))
        return xx, xy, yy


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockRidge:
    """A fitted map: y = mean_y + (x - mean_x) W, the means block by block, W the same in every block."""

    mean_x: Float[np.ndarray, "block source"]
    mean_y: Float[np.ndarray, "block target"]
    weights: Float[np.ndarray, "source target"]
    penalty: float
    """The multiple that was chosen."""
    validation_r2: float
    """Share of variance predicted on the fold the penalty was chosen on; nan where the target is constant."""

    def predict(
        self, x: Float[np.ndarray, "sample block source"]
    ) -> Float[np.ndarray, "sample block target"]:
        """Return predictions, float32."""
        return ((x - self.mean_x) @ self.weights + self.mean_y).astype(np.float32)


def fit_out_of_fold(folds: Sequence[Sums], *, penalties: Sequence[float] = PENALTIES) -> list[BlockRidge]:
    """Return one map a fold, fitted without that fold; its penalty is chosen without it too.

    The penalty has the least squared error on the next fold when it is fitted on the others. Needs three folds.
    """
    k = len(folds)
    if k < 3:
        raise ValueError(
            f"a penalty is chosen and tested on folds of their own, so three are needed, but got {k}"
        )
    found = []
    for held in range(k):
        inner = (held + 1) % k
        others = [folds[i] for i in range(k) if i not in (held, inner)]
        found.append(fit_on(others, folds[inner], penalties=penalties))
    return found


def fit_on(
    fitting: Sequence[Sums], validation: Sums, *, penalties: Sequence[float] = PENALTIES
) -> BlockRidge:
    """Return the map fitted on all that is given, its penalty the best on `validation` when fitted on the rest."""
    whole = _pooled(fitting)
    penalty, r2 = _choose(whole, validation, penalties)
    return _fit(whole + validation, penalty, r2)


def _pooled(parts: Sequence[Sums]) -> Sums:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    return whole


def _taken_apart(sums: Sums) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    mean_x, mean_y = sums.x / sums.n, sums.y / sums.n
    xx, xy, _ = sums.about(mean_x, mean_y)
    values, vectors = np.linalg.eigh(xx)
    return mean_x, mean_y, np.maximum(values, 0.0), vectors, vectors.T @ xy


def _shrink(values: np.ndarray, penalty: float) -> np.ndarray:
    ridge = penalty * float(values.mean())
    # a constant source has no variance at all: nothing is predicted from it
    return np.divide(1.0, values + ridge, out=np.zeros_like(values), where=values + ridge > 0)


def _choose(fitting: Sums, validation: Sums, penalties: Sequence[float]) -> tuple[float, float]:
    """Return the best penalty and its R² on `validation`, about the mean of `fitting`."""
    mean_x, mean_y, values, vectors, rotated = _taken_apart(fitting)
    xx, xy, yy = validation.about(mean_x, mean_y)
    seen, wanted = vectors.T @ xx @ vectors, vectors.T @ xy
    losses = []
    for penalty in penalties:
        w = _shrink(values, penalty)[:, None] * rotated
        losses.append(float(np.vdot(w, seen @ w) - 2 * np.vdot(w, wanted)))
    r2 = -min(losses) / yy if yy > 0 else math.nan
    return float(penalties[int(np.argmin(losses))]), r2


def _fit(sums: Sums, penalty: float, r2: float) -> BlockRidge:
    mean_x, mean_y, values, vectors, rotated = _taken_apart(sums)
    weights = vectors @ (_shrink(values, penalty)[:, None] * rotated)
    return BlockRidge(mean_x=mean_x, mean_y=mean_y, weights=weights, penalty=penalty, validation_r2=r2)

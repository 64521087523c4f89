"""Ridge regression on folds of the samples: each training part taken apart once, for every penalty and target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from foresight.metrics.space import Space
from foresight.metrics.statistics import grouped_folds
from foresight.metrics.threads import one_thread


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """One train/test split of the samples with the training Gram matrix of `x` taken apart."""

    train: Int[np.ndarray, " train"]
    test: Int[np.ndarray, " test"]
    values: Float[np.ndarray, " component"]
    vectors: Float[np.ndarray, "train component"]
    cross: Float[np.ndarray, "test component"]
    """Centred inner products test x train, times `vectors`."""
    scale: float
    """Mean squared length of a centred training row."""
    inner: Fold | None
    """The split of `train` on which the penalty is chosen."""

    def shrink(self, penalty: float) -> np.ndarray:
        return 1.0 / (self.values + penalty * self.scale)

    def weights(self, penalty: float) -> Float[np.ndarray, "test train"]:
        """Return W with prediction - ȳ = W (y_train - ȳ)."""
        return (self.cross * self.shrink(penalty)) @ self.vectors.T

    def residual(
        self, penalty: float, values: Float[np.ndarray, "sample feature"]
    ) -> Float[np.ndarray, "test feature"]:
        """Return y - ŷ of the test samples, given `values` of all."""
        seen = values[self.train]
        mean = seen.mean(axis=0)
        seen -= mean
        (test, rank), (train, width) = self.cross.shape, seen.shape
        if rank * width * (train + test) < train * test * (rank + width):
            guess = (self.cross * self.shrink(penalty)) @ (self.vectors.T @ seen)
        else:
            guess = self.weights(penalty).astype(values.dtype, copy=False) @ seen
        return np.asarray(values[self.test] - mean - guess)


@one_thread()
def taken_apart(space: Space, *, folds: int, seed: int) -> list[Fold]:
    """Return `folds` folds of whole groups of `space`, each with the split of its training part inside."""
    held, out = grouped_folds(space.groups, folds=folds, seed=seed), []
    for f in range(folds):
        train, test = np.flatnonzero(held != f), np.flatnonzero(held == f)
        part = grouped_folds(
            space.groups[train], folds=min(folds, len(np.unique(space.groups[train]))), seed=seed + f
        )
        inner = _fold(space.points, train[part != 0], train[part == 0], None)
        out.append(_fold(space.points, train, test, inner))
    return out


def best_penalty(
    fold: Fold,
    points: Float[np.ndarray, "sample feature"],
    gram: Float[np.ndarray, "sample sample"] | None,
    penalties: Sequence[float],
) -> float:
    """Return the penalty with the least squared error on the validation part; `gram`, where there is one, is
    that of the targets `points`, and saves time when they are wide."""
    inner = fold.inner
    assert inner is not None
    # with W = C S Vᵀ the error is const - 2 Σ s_k d_k + sᵀ Q s: cheap for every penalty
    if gram is None:
        mean = points[inner.train].mean(axis=0)
        turned = inner.vectors.T @ (points[inner.train] - mean)
        rotated, common = turned @ turned.T, (points[inner.test] - mean) @ turned.T
    else:
        targets = gram[np.ix_(inner.train, inner.train)]
        cross = gram[np.ix_(inner.test, inner.train)]
        means = targets.mean(axis=0)
        cross = cross - cross.mean(axis=1, keepdims=True) - means[None, :] + means.mean()
        targets = targets - means[:, None] - means[None, :] + means.mean()
        rotated, common = inner.vectors.T @ targets @ inner.vectors, cross @ inner.vectors
    linear = np.einsum("ij,ij->j", inner.cross, common)
    quadratic = (inner.cross.T @ inner.cross) * rotated
    losses = []
    for penalty in penalties:
        s = inner.shrink(penalty)
        losses.append(float(s @ quadratic @ s - 2.0 * s @ linear))
    return float(penalties[int(np.argmin(losses))])


def _fold(points: np.ndarray, train: np.ndarray, test: np.ndarray, inner: Fold | None) -> Fold:
    mean = points[train].mean(axis=0)
    rows, others = points[train] - mean, points[test] - mean
    if rows.shape[1] < len(rows):
        values, axes = np.linalg.eigh(rows.T @ rows)
        values, axes = _kept(values, axes)
        vectors = (rows @ axes) / np.sqrt(values)
        cross = (others @ axes) * np.sqrt(values)
    else:
        values, vectors = np.linalg.eigh(rows @ rows.T)
        values, vectors = _kept(values, vectors)
        cross = others @ rows.T @ vectors
    return Fold(
        train=train,
        test=test,
        values=values,
        vectors=vectors,
        cross=cross,
        scale=float(values.sum()) / len(train) or 1.0,
        inner=inner,
    )


def _kept(values: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    good = values > max(float(values[-1]), 0.0) * len(values) * np.finfo(np.float64).eps
    return values[good], vectors[:, good]

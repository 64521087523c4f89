"""Space: samples as rows of features, checked once; Gram matrix, distances and spectrum computed once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from foresight.metrics.threads import one_thread

Metric = Literal["euclidean", "cosine"]
FEWEST = 4
"""Below four observations no debiased estimator exists (Song et al. 2012 divide by n(n-3))."""

LARGEST = 1e60
"""Beyond this, or below its inverse, products of kernels leave the range of float64."""
MANY = 500
"""Rows beyond which the spectrum of a narrow space is that of its features; up to there either is quick."""
MOST = 20_000
"""Rows beyond which an n x n matrix in float64 (3 GiB) is refused."""


class Space:
    """Latents of `sample` rows in one space; what several metrics need is computed on first use and kept.

    Every metric takes a plain array or a Space, so `Space(values)` is only worth writing when several metrics
    read the same array. Rows of one group (frames of one video, say) are one observation, not several:
    `observations()` averages them. Values are never changed.
    """

    def __init__(self, values: Any, *, groups: Sequence[Any] | np.ndarray | None = None) -> None:
        """Check and wrap `values` [sample feature]; `groups` [sample] holds any ids, default each its own.

        Raises ValueError for a wrong shape and for nan or infinite entries (with the first such row).
        """
        self.values = as_matrix(values)
        self.groups: Int[np.ndarray, " sample"] = group_codes(groups, len(self.values))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def width(self) -> int:
        return int(self.values.shape[1])

    @cached_property
    def n_groups(self) -> int:
        return int(self.groups.max()) + 1

    @cached_property
    def observed(self) -> Space:
        """The same space with one row per group, its mean; the space itself when each sample is a group."""
        if self.n_groups == len(self):
            return self
        counts = np.bincount(self.groups, minlength=self.n_groups)
        order = np.argsort(self.groups, kind="stable")
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        sums = np.add.reduceat(self.values[order].astype(np.float64), starts, axis=0)
        return Space(sums / counts[:, None])

    @cached_property
    def mean(self) -> Float[np.ndarray, " feature"]:
        return self.values.mean(axis=0, dtype=np.float64)

    @cached_property
    def row_ids(self) -> Int[np.ndarray, " sample"]:
        """Equal numbers for rows that are equal bit for bit."""
        starts = np.ascontiguousarray(self.values[:, : 8 // self.values.itemsize] + 0.0)
        if starts.shape[1] * starts.itemsize == 8 and len(np.unique(starts.view(np.int64))) == len(self):
            return np.arange(len(self))
        for width in (64, self.width):  # rows mostly differ early, and the rest need not be read
            rows = np.ascontiguousarray(self.values[:, :width] + 0.0)  # adding 0 turns -0.0 into 0.0
            seen: dict[bytes, int] = {}
            ids = np.array([seen.setdefault(row.tobytes(), len(seen)) for row in rows], dtype=np.int64)
            if len(seen) == len(ids):
                break
        return ids

    @cached_property
    def constant(self) -> bool:
        """Whether all rows are one point: then no similarity, neighbour or dimension is defined."""
        return bool(np.ptp(self.row_ids) == 0) if len(self) else True

    @cached_property
    def gram(self) -> Float[np.ndarray, "sample sample"]:
        """Inner products of the centred rows, in float64."""
        self._affordable()
        centred = self.values - self.mean
        return centred @ centred.T

    @cached_property
    def spectrum(self) -> tuple[Float[np.ndarray, " component"], Float[np.ndarray, "sample component"]]:
        """Eigenvalues of the centred Gram matrix, descending and not negative, and their vectors.

        Only components above rounding are kept: at most min(sample - 1, feature).
        """
        by_features = self.width < len(self) and len(self) > MANY
        rows = self.points if by_features else None
        with one_thread():
            values, vectors = np.linalg.eigh(self.gram if rows is None else rows.T @ rows)
        values, vectors = values[::-1], vectors[:, ::-1]
        top = max(float(values[0]), 0.0) if len(values) else 0.0
        keep = values > top * len(self) * np.finfo(np.float64).eps
        keep[min(len(self) - 1, self.width) :] = False
        values, vectors = values[keep], vectors[:, keep]
        return values, vectors if rows is None else (rows @ vectors) / np.sqrt(values)

    @cached_property
    def coordinates(self) -> Float[np.ndarray, "sample component"]:
        """The centred rows turned onto their principal axes: same distances, at most sample - 1 columns."""
        values, vectors = self.spectrum
        return vectors * np.sqrt(values)

    @property
    def points(self) -> Float[np.ndarray, "sample component"]:
        """The centred rows, turned onto principal axes where that makes them narrower: same distances."""
        return self._centred if self.width < len(self) else self.coordinates

    @cached_property
    def _centred(self) -> Float[np.ndarray, "sample feature"]:
        return np.asarray(self.values - self.mean)

    @cached_property
    def _euclidean(self) -> Float[np.ndarray, "sample sample"]:
        squared = self._settled(self.values - self.mean, self.gram)
        return np.asarray(np.sqrt(squared, out=squared))

    @cached_property
    def _cosine(self) -> Float[np.ndarray, "sample sample"]:
        self._affordable()
        rows = unit_rows(self.values.astype(np.float64))
        return self._settled(rows, rows @ rows.T) / 2  # of unit rows, |u - v|² = 2 (1 - cosine)

    def _affordable(self) -> None:
        if len(self) > MOST:
            raise ValueError(
                f"matrices of sample pairs are built for at most {MOST} rows, but got {len(self)} "
                f"({len(self) ** 2 * 8 / 2**30:.0f} GiB each); use cka_blockwise, rsa_blockwise or knn_blockwise, "
                "or a random part"
            )

    def _settled(self, rows: np.ndarray, gram: np.ndarray) -> Float[np.ndarray, "sample sample"]:
        """Return squared distances with small ones exact and equal ones equal."""
        norms = np.diag(gram)
        # in place: to fetch memory for an n x n matrix takes longer than to fill it
        squared = norms[:, None] + norms[None, :]
        squared -= 2.0 * gram
        np.maximum(squared, 0.0, out=squared)
        # what is small beside the largest has lost its digits to cancellation
        near = np.argwhere(np.triu(squared < 1e-3 * squared.max(initial=0.0), 1))
        for part in np.array_split(near, 1 + near.size * rows.shape[1] // 8_000_000):
            i, j = part.T
            squared[i, j] = squared[j, i] = np.square(rows[i] - rows[j]).sum(axis=1)
        squared += squared.T
        squared /= 2
        squared = with_equals(squared)
        squared[self.row_ids[:, None] == self.row_ids[None, :]] = 0.0
        return squared

    def distances(self, metric: Metric = "euclidean") -> Float[np.ndarray, "sample sample"]:
        """Return the symmetric distance matrix; 'cosine' is 1 - cosine of the rows as given, not centred.

        Distances that differ by less than 1e-10 of themselves count as equal: that is rounding, not order.
        """
        if metric == "euclidean":
            return self._euclidean
        if metric == "cosine":
            return self._cosine
        raise ValueError(f"a metric is 'euclidean' or 'cosine', but got {metric!r}")

    def rows(self, indices: np.ndarray) -> Space:
        """Return the space of these rows, each its own group."""
        return Space(self.values[indices])


def as_matrix(values: Any, *, checked: bool = False) -> Float[np.ndarray, "sample feature"]:
    """Return `values` as a float matrix; float32 and float64 stay as they are, without a copy.

    Their size is not looked at when it was `checked` before.
    """
    array = np.asarray(values)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"latents are [sample feature] and not empty, but got shape {list(array.shape)}; "
            "pool or flatten tokens first"
        )
    if array.dtype not in (np.float32, np.float64):
        if array.dtype == object or array.dtype.kind in "cSUMmO":
            raise TypeError(f"latents are real numbers, but got dtype {array.dtype}; convert them first")
        array = array.astype(np.float64 if array.dtype.kind in "iu" else np.float32)
    if checked:
        return array
    size = max(float(array.max()), -float(array.min()))  # nan and infinity come through; no copy is made
    if not np.isfinite(size):
        bad = ~np.isfinite(array).all(axis=1)
        raise ValueError(
            f"latents must be finite, but {int(bad.sum())} of {len(array)} rows hold nan or infinity, "
            f"first row {int(np.argmax(bad))}; leave these samples out or extract them again"
        )
    if size > LARGEST or 0.0 < size < 1.0 / LARGEST:
        raise ValueError(
            f"latents lie between 1e-60 and 1e60 in size, so that their fourth powers exist, but the largest "
            f"is {size:.1e}; rescale them"
        )
    return array


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Return `rows` scaled to length 1; raises for a row of zeros."""
    norms = np.sqrt(
        np.einsum("ij,ij->i", rows, rows)
    )  # np.linalg.norm takes longer than a product of all rows
    if not norms.all():
        raise ValueError(
            f"cosine needs rows of non-zero length, but row {int(np.argmin(norms))} is all zeros; "
            'use metric="euclidean" or leave the row out'
        )
    return np.asarray(rows / norms[:, None])


def with_equals(squared: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """Return squared distances with those that differ by less than 1e-10 of themselves made equal."""
    # equal distances come out of a product 1e-16 apart, and ranks would make an order of that
    mantissa, exponent = np.frexp(squared)
    mantissa *= 2.0**33
    exponent -= 33
    return np.asarray(np.ldexp(np.rint(mantissa, out=mantissa), exponent, out=mantissa))


def group_codes(groups: Sequence[Any] | np.ndarray | None, n: int) -> Int[np.ndarray, " sample"]:
    """Return groups as numbers 0, 1, … in order of first appearance; None makes each sample its own group."""
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise ValueError(f"each sample has one group, but got {n} samples and {len(groups)} groups")
    seen: dict[Any, int] = {}
    return np.array([seen.setdefault(g, len(seen)) for g in np.asarray(groups).tolist()], dtype=np.int64)


def as_space(x: Any, groups: Sequence[Any] | np.ndarray | None = None) -> Space:
    """Return `x` as a Space; `groups`, when given, must agree with the ones a Space already has."""
    if not isinstance(x, Space):
        return Space(x, groups=groups)
    if groups is not None and not np.array_equal(group_codes(groups, len(x)), x.groups):
        raise ValueError("a Space already has its groups, but other groups were passed; build a new Space")
    return x


def as_pair(x: Any, y: Any, groups: Sequence[Any] | np.ndarray | None = None) -> tuple[Space, Space]:
    """Return both sides as spaces over the same samples and groups.

    Samples that are equal on both sides are one observation: their groups are joined.
    """
    if groups is None:
        groups = next((s.groups for s in (x, y) if isinstance(s, Space)), None)
    a, b = as_space(x, groups), as_space(y, groups)
    if len(a) != len(b):
        raise ValueError(
            f"both sides hold the same samples in the same order, but got {len(a)} and {len(b)} rows; "
            "join them by sample first"
        )
    joined = join_duplicates(a.groups, a.row_ids, b.row_ids)
    if joined is a.groups:
        return a, b
    return Space(a.values, groups=joined), Space(b.values, groups=joined)


def join_duplicates(groups: np.ndarray, *ids: np.ndarray) -> np.ndarray:
    """Return groups joined wherever two samples agree in every one of `ids`; `groups` itself if none do."""
    _, which = np.unique(np.stack(ids, axis=1), axis=0, return_inverse=True)
    which = which.reshape(-1)
    if which.max() + 1 == len(groups):
        return groups
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n_groups = int(groups.max()) + 1
    links = coo_array(
        (np.ones(len(groups)), (groups, n_groups + which)), shape=(n_groups + which.max() + 1,) * 2
    )
    _, part = connected_components(links, directed=False)
    joined = group_codes(part[groups], len(groups))
    return groups if np.array_equal(joined, groups) else joined

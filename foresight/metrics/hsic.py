"""HSIC of two spaces with a linear kernel, biased and unbiased, from sums over blocks of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from foresight.metrics.blocks import Blocks, centred, dots, in_order, over_pairs
from foresight.metrics.rows import Rows


def hsic_sums(a: Rows, b: Rows, block: int) -> list[dict[str, float]]:
    """Return for xy, xx and yy the sums over rows from which biased and unbiased HSIC follow."""
    sides = [Blocks(rows, centred(rows.mean(block)), block) for rows in (a, b)]
    n, p, q = len(a), a.width, b.width
    by_features = p * p + q * q + p * q < n * (p + q) / 2 and 8 * (p * p + q * q + p * q) <= 2**30
    products, (k, m) = (_by_features if by_features else _by_samples)(sides)
    pairs = ((k, m), (k, k), (m, m))
    return [
        # the centred rows sum to 0, up to rounding of the mean, so a row of K without its diagonal sums to -k
        {"products": s, "diagonal": float(u @ v), "left": float(u.sum()), "right": float(v.sum())}
        for s, (u, v) in zip(products, pairs, strict=True)
    ]


def hsic(sums: Mapping[str, float], n: int, *, unbiased: bool) -> float:
    """Return HSIC of `n` rows from one entry of `hsic_sums`, up to a factor that cancels in a ratio.

    Unbiased: Song et al. (2012), eq. 5.
    """
    if not unbiased:
        return sums["products"]
    off = sums["products"] - sums["diagonal"]
    return off - 2.0 / (n - 2) * sums["diagonal"] + sums["left"] * sums["right"] / ((n - 1) * (n - 2))


def cka_of(xy: float, xx: float, yy: float) -> float:
    """Return CKA from three HSICs; nan when that of a space with itself is not positive."""
    return xy / math.sqrt(xx * yy) if xx > 0 and yy > 0 else math.nan


def biased_null(sums: Sequence[Mapping[str, float]], n: int) -> float:
    """Return the mean of biased CKA over all orders of one side's `n` rows."""
    return sums[0]["left"] * sums[0]["right"] / (n - 1) / math.sqrt(sums[1]["products"] * sums[2]["products"])


_Sums = tuple[list[float], tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]]]
"""Sums of products of kernel entries for xy, xx and yy, and the diagonals of both kernels."""


def _by_features(sides: Sequence[Blocks]) -> _Sums:
    # Σ_ij K_ij L_ij = |XᵀY|²
    p, q = (side.rows.width for side in sides)
    sums = [np.zeros(shape) for shape in ((p, q), (p, p), (q, q))]
    diagonals: list[list[np.ndarray]] = []

    def products(i: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        x, y = (side(i) for side in sides)
        return [x.T @ y, x.T @ x, y.T @ y], [dots(x, x), dots(y, y)]

    def add(parts: tuple[list[np.ndarray], list[np.ndarray]]) -> None:
        for total, part in zip(sums, parts[0], strict=True):
            total += part
        diagonals.append(parts[1])

    in_order(products, range(len(sides[0])), add)
    return [float(np.vdot(s, s)) for s in sums], _joined(diagonals)


def _by_samples(sides: Sequence[Blocks]) -> _Sums:
    sums = np.zeros(3)
    diagonals: list[list[np.ndarray]] = []

    def visit(
        rows: Sequence[np.ndarray], row: int, cols: Sequence[np.ndarray], col: int
    ) -> tuple[Float[np.ndarray, " 3"], list[np.ndarray]]:
        k, m = (u @ v.T for u, v in zip(rows, cols, strict=True))
        twice = 1.0 if row == col else 2.0
        # row by row: sums over rows are float64 even where a product is float32
        found = np.array([twice * dots(u, v).sum() for u, v in ((k, m), (k, k), (m, m))])
        return found, [np.diagonal(s).astype(np.float64) for s in (k, m)] if row == col else []

    def add(part: tuple[np.ndarray, list[np.ndarray]]) -> None:
        np.add(sums, part[0], out=sums)
        if part[1]:
            diagonals.append(part[1])

    over_pairs(sides, visit, add)
    return sums.tolist(), _joined(diagonals)


def _joined(diagonals: Sequence[Sequence[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    first, second = (np.concatenate(parts) for parts in zip(*diagonals, strict=True))
    return first, second

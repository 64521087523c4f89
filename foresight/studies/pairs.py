"""Distances of some pairs of samples only: of one class, of two, of one scene: is order shared beyond classes?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from foresight.metrics import Estimate, Space
from foresight.metrics.space import FEWEST
from foresight.metrics.statistics import calibrated, half_sample_error, interval, permutation_p
from foresight.studies.rows import Spaces, unlabelled

PERMUTATIONS, RESAMPLES = 99, 20
FEWEST_PAIRS = 20
MOST_ATTRIBUTES = 3


class Kind:
    """One kind of pairs of groups, and the parts within which groups can change places without leaving it."""

    def __init__(self, among: Bool[np.ndarray, "group group"], parts: Int[np.ndarray, " group"]) -> None:
        self.among, self.parts = among, parts


def kinds_of_pairs(spaces: Spaces) -> dict[str, Kind]:
    """Return the kinds of pairs that labels and attributes tell apart, by name; {} without labels.

    `usable_attributes` says which attributes are used.
    """
    if unlabelled(spaces.labels):
        return {}
    groups = spaces.decoder.space.groups
    labels = _codes(spaces.labels, groups)
    off = ~np.eye(len(labels), dtype=bool)
    same = labels[:, None] == labels[None, :]
    kinds = {"pairs of one label": Kind(same & off, labels), "pairs of two labels": Kind(~same & off, labels)}
    for name, values in usable_attributes(spaces.attributes, spaces.labels).items():
        codes = _codes(values, groups)
        alike = codes[:, None] == codes[None, :]
        both = labels * (int(codes.max()) + 1) + codes
        kinds[f"one {name}, two labels"] = Kind(alike & ~same & off, both)
        kinds[f"one label, two of {name}"] = Kind(same & ~alike & off, both)
    return kinds


def usable_attributes(
    attributes: Mapping[str, Sequence[str]], labels: Sequence[str | None]
) -> dict[str, Sequence[str]]:
    """Return the attributes that cross the labels, those of fewest values first, at most `MOST_ATTRIBUTES`.

    One takes 2 to n / 4 values, and neither follows from the other.
    """
    found: dict[str, Sequence[str]] = {}
    for name, values in sorted(attributes.items(), key=lambda a: (len(set(a[1])), a[0])):
        count, pairs = len(set(values)), len(set(zip(labels, values, strict=True)))
        if 2 <= count <= len(values) / 4 and pairs > max(len(set(labels)), count):
            found[name] = values
    return dict(list(found.items())[:MOST_ATTRIBUTES])


def within_pairs(x: Space, y: Space, kind: Kind, *, seed: int) -> Estimate:
    """Return Spearman's ρ of the distances of the pairs of `kind` alone.

    p and the null move groups only within their part, so every pair stays of its kind: what they test is
    order beyond what labels and attributes explain. The interval is from halves of the groups.
    """
    a, b = x.observed, y.observed
    n, g = len(x), len(a)
    i, j = np.nonzero(np.triu(kind.among, 1))
    if g < FEWEST or len(i) < FEWEST_PAIRS:
        why = f"a correlation of distances needs {FEWEST_PAIRS} pairs, but {len(i)} are of this kind"
        return Estimate.undefined(why, n=n, n_effective=g)
    first, second = _ranks(a.distances()[i, j]), _ranks(b.distances()[i, j])
    norm = float(np.sqrt(np.vdot(first, first) * np.vdot(second, second)))
    if not norm > 0:
        return Estimate.undefined("all distances of this kind are equal", n=n, n_effective=g)
    value = float(np.vdot(first, second)) / norm
    square = np.zeros((g, g), np.float32)
    square[i, j] = square[j, i] = first
    rng = np.random.default_rng([seed, 23])
    null = np.empty(PERMUTATIONS)
    for k in range(PERMUTATIONS):
        order = _within(kind.parts, rng)
        null[k] = float(np.vdot(square[order[i], order[j]], second)) / norm

    def half(s: np.ndarray) -> float:
        inside = np.zeros(g, dtype=bool)
        inside[s] = True
        kept = inside[i] & inside[j]
        if kept.sum() < FEWEST:
            return float("nan")
        u, v = first[kept] - first[kept].mean(), second[kept] - second[kept].mean()
        return float(np.vdot(u, v) / np.sqrt(np.vdot(u, u) * np.vdot(v, v)))

    error = float(half_sample_error(half, g, resamples=RESAMPLES, seed=seed))
    low, high = interval(value, error, g, bounds=(-1, 1))
    chance = float(null.mean())
    return Estimate(
        value=value,
        low=low,
        high=high,
        null=chance,
        p=permutation_p(value, null),
        n=n,
        n_effective=g,
        controls={"calibrated": calibrated(value, chance)},
        detail={"pairs": len(i)},
        why="" if np.isfinite(low) else "too few pairs of this kind in halves of the groups",
    )


def _codes(values: Sequence[str | None], groups: np.ndarray) -> Int[np.ndarray, " group"]:
    first = [values[int(np.argmax(groups == i))] for i in range(int(groups.max()) + 1)]
    return np.unique(np.array(first, dtype=object).astype(str), return_inverse=True)[1]


def _ranks(distances: Float[np.ndarray, " pair"]) -> Float[np.ndarray, " pair"]:
    """Return mean ranks less their mean."""
    from scipy.stats import rankdata

    ranks: np.ndarray = rankdata(distances).astype(np.float32)
    return ranks - ranks.mean(dtype=np.float64).astype(np.float32)


def _within(parts: np.ndarray, rng: np.random.Generator) -> Int[np.ndarray, " group"]:
    order = np.arange(len(parts))
    for code in range(int(parts.max()) + 1):
        mine = np.flatnonzero(parts == code)
        order[mine] = rng.permutation(mine)
    return order

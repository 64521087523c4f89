"""What is only looked at: components, pairs of distances, nearest samples, outliers. No number is read off them."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from foresight.metrics import Space

MOST_PLACED = 2000
"""Groups among which outliers are looked for; their pairs grow with the square."""


def projection(space: Space) -> dict[str, Any]:
    """Return the first two principal components: `xy` [sample 2] and the share of variance of each.

    The sign of a component is set so that its largest entry is positive.
    """
    centred = space.values.astype(np.float64) - space.values.mean(axis=0, dtype=np.float64)
    if len(centred) < 3 or not np.any(centred):
        return {"xy": np.zeros((len(centred), 2)).tolist(), "explained": [None, None]}
    left, singular = components(space)
    xy = np.zeros((len(centred), 2))
    width = min(2, len(singular))
    xy[:, :width] = left[:, :width] * singular[:width]
    xy *= np.where(np.take_along_axis(xy, np.abs(xy).argmax(axis=0)[None], 0)[0] < 0, -1, 1)
    share = singular**2 / (singular**2).sum()
    return {"xy": xy.tolist(), "explained": [float(s) for s in share[:2]]}


def distance_pairs(a: Space, b: Space, *, most: int, seed: int) -> dict[str, list[float]]:
    """Return the distances of the same random pairs of samples in both spaces, at most `most` of them."""
    n = len(a)
    first, second = np.triu_indices(n, 1)
    if len(first) > most:
        keep = np.random.default_rng(seed).choice(len(first), most, replace=False)
        first, second = first[keep], second[keep]
    return {
        name: np.linalg.norm(
            space.values[first].astype(np.float64) - space.values[second].astype(np.float64), axis=1
        ).tolist()
        for name, space in (("vlm", a), ("decoder", b))
    }


def outliers(a: Space, b: Space, count: int) -> list[dict[str, Any]]:
    """Return the pairs of groups whose distances the spaces order most differently, both ways in turn.

    Each is {first, second: sample; vlm, decoder: share of pairs that lie closer, from 0 to 1}; no sample stands in
    two pairs. [] for fewer than 4 groups. Larger spaces are looked at on 2000 groups, evenly spread.
    """
    x, y = a.observed, b.observed
    if len(x) < 4:
        return []
    kept = np.arange(len(x)) if len(x) <= MOST_PLACED else np.linspace(0, len(x) - 1, MOST_PLACED).astype(int)
    where = np.array([int(np.argmax(a.groups == g)) for g in kept])
    first, second = np.triu_indices(len(kept), 1)
    places = [_places(space.rows(kept).distances()[first, second]) for space in (x, y)]
    order = np.argsort(places[0] - places[1], kind="stable")
    found: list[dict[str, Any]] = []
    used: set[int] = set()
    for ways in (iter(order), iter(order[::-1])):
        held = 0
        for pair in ways:
            i, j = int(where[first[pair]]), int(where[second[pair]])
            if held == count // 2:
                break
            if not used & {i, j}:
                used |= {i, j}
                held += 1
                found.append(
                    {
                        "first": i,
                        "second": j,
                        "vlm": float(places[0][pair]),
                        "decoder": float(places[1][pair]),
                    }
                )
    return found


def nearest(space: Space, query: int, k: int) -> list[int]:
    """Return the `k` samples nearest to `query` by cosine of centred rows, nearest first, itself left out."""
    centred = space.values.astype(np.float64) - space.values.mean(axis=0, dtype=np.float64)
    lengths = np.linalg.norm(centred, axis=1)
    unit = centred / np.where(lengths > 0, lengths, 1)[:, None]
    order = np.argsort(-(unit @ unit[query]), kind="stable")
    return [int(i) for i in order if i != query][:k]


def components(
    space: Space,
) -> tuple[Float[np.ndarray, "sample component"], Float[np.ndarray, " component"]]:
    """Return left singular vectors and singular values of the centred rows, largest first."""
    values, vectors = space.spectrum
    return vectors, np.sqrt(np.maximum(values, 0.0))


def _places(distances: np.ndarray) -> Float[np.ndarray, " pair"]:
    from scipy.stats import rankdata

    ranks: np.ndarray = rankdata(distances)
    return (ranks - 1) / max(len(ranks) - 1, 1)

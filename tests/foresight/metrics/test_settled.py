"""Neighbours from float32 products are those of the distances in float64, near ties and ties included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from foresight.metrics import Space, knn_overlap
from foresight.metrics.neighbours import neighbour_order, ranks_of
from foresight.metrics.settled import Settled
from tests.foresight.metrics.planted import frames_of_videos, shared

Change = Callable[[np.ndarray], np.ndarray]
KINDS: dict[str, Change] = {
    "as they are": lambda x: x,
    "float32": lambda x: x.astype("f4"),
    "far from the origin": lambda x: (x + 100.0).astype("f4"),
    "tiny": lambda x: x * 1e-30,
    "huge": lambda x: x * 1e30,
    "copies": lambda x: x[np.arange(len(x)) // 2 * 2],
    "nearly copies": lambda x: x[np.arange(len(x)) // 2 * 2] + 1e-9 * x,
    "on a grid": lambda x: np.round(x * 4) / 4,
}


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("kind", KINDS)
def test_overlap_without_a_null_is_the_overlap_with_one(kind: str, metric: Any) -> None:
    for seed, widths in enumerate([(3, 40), (200, 5), (90, 90)]):
        x, y = shared(90, widths, noise=1.0, seed=seed)
        x, y = KINDS[kind](x), y.astype("f4")
        options: dict[str, Any] = {"ks": (1, 4, 20), "metric": metric, "seed": seed, "resamples": 0}
        quick = knn_overlap(x, y, permutations=0, **options)
        whole = knn_overlap(x, y, permutations=1, **options)
        for name, estimate in whole.items():
            assert quick[name].value == estimate.value, name
            assert quick[name].detail == estimate.detail, name


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_orders_and_ranks_are_settled_where_rounding_would_decide(metric: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 40)) + 2.0
    x[1::50] = x[::50] * (1.0 + 1e-9 * rng.standard_normal((6, 40)))  # closer than float32 can tell
    space, shuffle = Space(x), np.random.default_rng([3, 6]).permutation(300)
    settled = Settled(space, metric, shuffle)
    order = neighbour_order(space, metric, seed=3)
    np.testing.assert_array_equal(settled.nearest(15), order[:, :15])
    near = np.argsort(rng.random((300, 300)), axis=1)[:, :4]
    near = np.where(near == np.arange(300)[:, None], (near + 1) % 300, near)
    np.testing.assert_array_equal(settled.ranks(near), np.take_along_axis(ranks_of(order), near, axis=1))
    assert not settled.doubtful


def test_where_most_pairs_would_be_measured_again_it_says_so() -> None:
    x = np.random.default_rng(0).integers(0, 2, (200, 3)) + 1.0
    few = Settled(Space(x), "euclidean", np.arange(200))
    few.nearest(10)
    assert few.doubtful
    assert Settled(Space(np.eye(50)), "euclidean", np.arange(50)).doubtful


def test_without_a_null_groups_zeros_and_constants_are_treated_alike() -> None:
    x, y, videos = frames_of_videos(40, 4, (20, 10))
    bare: dict[str, Any] = {"ks": (5,), "permutations": 0, "resamples": 0}
    quick = knn_overlap(x, y, groups=videos, **bare)["recall@5"]
    whole = knn_overlap(x, y, groups=videos, ks=(5,), permutations=1, resamples=0)["recall@5"]
    assert quick.value == whole.value
    assert quick.controls["ignoring groups"] == whole.controls["ignoring groups"]
    assert "distances of the second space are equal" in knn_overlap(x, np.ones((160, 2)), **bare)["mrr@5"].why
    y[7] = 0.0
    with pytest.raises(ValueError, match="row 7 is all zeros"):
        knn_overlap(x, y, **bare)
    with pytest.raises(ValueError, match="'euclidean' or 'cosine', but got 'l1'"):
        knn_overlap(x, y, metric="l1", **bare)  # type: ignore[arg-type]

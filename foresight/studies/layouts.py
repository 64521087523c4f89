"""Pictures of a space in two dimensions that keep neighbours together: t-SNE and UMAP. No distance is read off them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from foresight.metrics import Space
from foresight.metrics.threads import one_thread
from foresight.studies.pictures import components

Points = Float[np.ndarray, "sample component"]

MOST = 2000
"""Samples that are laid out; the time of t-SNE grows with their number and a picture of more is a blot."""
FEWEST = 12
COMPONENTS = 50
STEPS = 500
"""Steps of t-SNE: begun at the components, twice as many move trustworthiness by less than 0.005."""
PERPLEXITY = 30.0
NEIGHBOURS = 15
"""Of UMAP; half of t-SNE's perplexity is its authors' choice."""


@one_thread()
def layouts(space: Space, *, seed: int) -> dict[str, dict[str, Any]]:
    """Return by method, 't-SNE' and 'UMAP', a layout of the first 50 principal components.

    Each is `xy` [sample 2] and its `trustworthiness`: 1 when neighbours in the picture are neighbours in the space,
    0.5 for a random layout; of 12 neighbours, as `k` tells, or fewer. Both start from the components, so equal spaces
    give equal pictures. Empty for fewer than 12 or more than 2000 samples, and for a space of fewer than two
    dimensions.

    van der Maaten & Hinton (2008); McInnes, Healy & Melville (2018); Venna & Kaski (2001).
    """
    from sklearn.manifold import trustworthiness

    n = len(space)
    if not FEWEST <= n <= MOST or space.constant:
        return {}
    left, singular = components(space)
    points = (left * singular)[:, : min(COMPONENTS, len(singular))].astype(np.float32)
    if points.shape[1] < 2:
        return {}
    k = min(12, n // 2 - 1)
    found = {}
    for method, lay in METHODS.items():
        xy = lay(points, seed)
        trust = float(trustworthiness(points, xy, n_neighbors=k))
        found[method] = {"xy": xy.tolist(), "explained": [], "trustworthiness": trust, "k": k}
    return found


def tsne(points: Points, seed: int) -> Float[np.ndarray, "sample 2"]:
    """Return t-SNE of `points`, with a smaller perplexity where there are few of them."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    # its steps are short: on a busy machine threads that wait for each other cost ten times the work
    with threadpool_limits(1, user_api="openmp"):
        found: np.ndarray = TSNE(
            perplexity=min(PERPLEXITY, (len(points) - 1) / 3),
            init="pca",
            learning_rate="auto",
            max_iter=STEPS,
            random_state=seed,
            n_jobs=1,
        ).fit_transform(points)
    return found


def umap(points: Points, seed: int) -> Float[np.ndarray, "sample 2"]:
    """Return UMAP of `points`, of fewer neighbours where there are few of them."""
    from umap import UMAP

    # one thread is what a seed demands; said here, so that it is no surprise
    laid = UMAP(n_neighbors=min(NEIGHBOURS, len(points) - 1), init="pca", random_state=seed, n_jobs=1)
    found: np.ndarray = laid.fit_transform(points)
    return found


METHODS: dict[str, Callable[[Points, int], np.ndarray]] = {"t-SNE": tsne, "UMAP": umap}

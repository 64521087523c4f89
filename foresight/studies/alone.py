"""Q1.1 and Q1.3: every space by itself, its classes and its dimension."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from foresight import metrics
from foresight.metrics import Estimate
from foresight.studies.rows import Measurement, Spaces, row_of, undefined, unlabelled


def categories(spaces: Spaces) -> list[Measurement]:
    """Q1.1: do classes separate? Silhouette, purity, k-NN accuracy, share of variance within classes."""
    measures: dict[str, Callable[..., Estimate]] = {
        "k-NN accuracy": metrics.knn_accuracy,
        "silhouette": metrics.silhouette,
        "cluster purity": metrics.cluster_purity,
        "intra-class variance share": metrics.intra_class_variance,
    }
    why = unlabelled(spaces.labels)
    rows = []
    for latent in spaces.own:
        for name, measure in measures.items():
            if why:
                estimate = undefined(why, latent.space)
            else:
                estimate = measure(latent.space, spaces.labels, seed=spaces.seed)
            rows.append(row_of("Q1.1", name, latent, estimate))
    return rows


DIMENSIONS: Mapping[str, Callable[..., Estimate]] = {
    "TwoNN dimension": metrics.two_nn,
    "MLE dimension": metrics.mle_dimension,
    "correlation dimension": metrics.correlation_dimension,
    "PCA 95 % dimension": metrics.pca_dimension,
    "Isomap residual": metrics.isomap_residual,
    "LLE residual": metrics.lle_residual,
}
"""The last two are shares of what a flat map of few dimensions misses, not dimensions."""


def dimensions(spaces: Spaces) -> list[Measurement]:
    """Q1.3: how many dimensions does each space use, and how much does a flat map of it miss?"""
    return [
        row_of("Q1.3", name, latent, measure(latent.space, seed=spaces.seed))
        for latent in spaces.own
        for name, measure in DIMENSIONS.items()
    ]

"""Measures on plain arrays, each with its source, its null and its interval.

Every measure takes `[sample feature]` arrays (or a `Space`, which keeps what several measures share) and
returns an `Estimate`, or a mapping of them by name. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foresight.metrics.blockwise import cka_blockwise, knn_blockwise, rsa_blockwise
    from foresight.metrics.categories import cluster_purity, intra_class_variance, knn_accuracy, silhouette
    from foresight.metrics.cka import cka_minibatch, linear_cka, rbf_cka
    from foresight.metrics.composite import composite_score
    from foresight.metrics.curves import correlation_dimension, isomap_residual, lle_residual
    from foresight.metrics.dimension import mle_dimension, pca_dimension, two_nn
    from foresight.metrics.estimate import Estimate
    from foresight.metrics.neighbours import knn_overlap
    from foresight.metrics.probes import ridge_probe
    from foresight.metrics.procrustes import procrustes_distance
    from foresight.metrics.rsa import mantel_test, rsa_spearman
    from foresight.metrics.selection import best_of
    from foresight.metrics.space import Space
    from foresight.metrics.spatial import morans_i, radial_power_spectrum

_HOME = {
    "Estimate": "estimate",
    "Space": "space",
    "best_of": "selection",
    "cka_blockwise": "blockwise",
    "cka_minibatch": "cka",
    "cluster_purity": "categories",
    "composite_score": "composite",
    "correlation_dimension": "curves",
    "intra_class_variance": "categories",
    "isomap_residual": "curves",
    "knn_accuracy": "categories",
    "knn_blockwise": "blockwise",
    "knn_overlap": "neighbours",
    "linear_cka": "cka",
    "lle_residual": "curves",
    "mantel_test": "rsa",
    "mle_dimension": "dimension",
    "morans_i": "spatial",
    "pca_dimension": "dimension",
    "procrustes_distance": "procrustes",
    "radial_power_spectrum": "spatial",
    "rbf_cka": "cka",
    "ridge_probe": "probes",
    "rsa_blockwise": "blockwise",
    "rsa_spearman": "rsa",
    "silhouette": "categories",
    "two_nn": "dimension",
}

__all__ = [
    "Estimate",
    "Space",
    "best_of",
    "cka_blockwise",
    "cka_minibatch",
    "cluster_purity",
    "composite_score",
    "correlation_dimension",
    "intra_class_variance",
    "isomap_residual",
    "knn_accuracy",
    "knn_blockwise",
    "knn_overlap",
    "linear_cka",
    "lle_residual",
    "mantel_test",
    "mle_dimension",
    "morans_i",
    "pca_dimension",
    "procrustes_distance",
    "radial_power_spectrum",
    "rbf_cka",
    "ridge_probe",
    "rsa_blockwise",
    "rsa_spearman",
    "silhouette",
    "two_nn",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

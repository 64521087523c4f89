"""Every interval holds the mean of repeated samples about 95 times in 100, and is no wider than it must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import foresight.metrics as m
from foresight.metrics import Estimate

CENTRES = np.random.default_rng(1).standard_normal((4, 8))
MAPS = [np.random.default_rng(2 + i).standard_normal((5, d)) for i, d in enumerate((12, 10))]
MIXING = np.random.default_rng(9).standard_normal((6, 20))
NONE: dict[str, Any] = {"permutations": 0}


def labelled(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 100)
    return 0.8 * CENTRES[labels] + rng.standard_normal((100, 8)), labels


def pair(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((100, 5))
    return [latent @ w + 1.5 * rng.standard_normal((100, w.shape[1])) for w in MAPS]


def cloud(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((100, 6)) * np.geomspace(1, 0.3, 6) @ MIXING + 0.1 * rng.standard_normal(
        (100, 20)
    )


def maps(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((100, 8, 8))
    return z + 0.5 * np.roll(z, 1, 1) * rng.random((100, 1, 1))


MEASURES: dict[str, Callable[..., Estimate]] = {
    "silhouette": lambda s, **o: m.silhouette(*labelled(s), **NONE, **o),
    "cluster_purity": lambda s, **o: m.cluster_purity(*labelled(s), **NONE, **o),
    "knn_accuracy": lambda s, **o: m.knn_accuracy(*labelled(s), **NONE, **o),
    "intra_class_variance": lambda s, **o: m.intra_class_variance(*labelled(s), **NONE, **o),
    "pca_dimension": lambda s, **o: m.pca_dimension(cloud(s), **o),
    "correlation_dimension": lambda s, **o: m.correlation_dimension(cloud(s), **o),
    "lle_residual": lambda s, **o: m.lle_residual(cloud(s), **o),
    "procrustes_distance": lambda s, **o: m.procrustes_distance(*pair(s), **NONE, **o),
    "rbf_cka": lambda s, **o: m.rbf_cka(*pair(s), **NONE, **o),
    "mantel_test": lambda s, **o: m.mantel_test(*pair(s), **NONE, **o),
    "morans_i": lambda s, **o: m.morans_i(maps(s), **NONE, **o),
    "radial_power_spectrum": lambda s, **o: m.radial_power_spectrum(maps(s), **o),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURES)
def test_the_interval_covers_and_is_not_vacuous(name: str) -> None:
    measure = MEASURES[name]
    values = np.array([measure(1000 + s, resamples=0).value for s in range(80)])
    found = [measure(s) for s in range(60)]
    inside = sum(e.low <= values.mean() <= e.high for e in found)
    assert inside >= 51  # 57 expected; 60 draws of 95 % fall below 52 once in a hundred
    half_width = np.median([e.high - e.low for e in found]) / 2
    assert half_width < 2 * 2.0 * values.std() + (1.0 if name == "pca_dimension" else 0.0)

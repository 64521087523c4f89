"""Every public measure has keyword-only options and gives estimates with the same fields, defined or not."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

import foresight.metrics as m
from foresight.metrics import Estimate
from foresight.metrics.estimate import NUMBERS
from tests.foresight.metrics.planted import shared

FEW: dict[str, Any] = {"permutations": 19, "resamples": 8}
HALVES: dict[str, Any] = {"resamples": 8}
X, Y = shared(60, (9, 7), noise=1.0)
LABELS = np.arange(60) % 3
MAPS = np.random.default_rng(0).standard_normal((60, 6, 6))

PAIRS = ("linear_cka", "rbf_cka", "procrustes_distance", "rsa_spearman", "mantel_test", "knn_overlap")
BLOCKS = ("cka_blockwise", "rsa_blockwise", "knn_blockwise")
CLASSES = ("silhouette", "cluster_purity", "knn_accuracy", "intra_class_variance")
CLOUDS = (
    "two_nn",
    "mle_dimension",
    "correlation_dimension",
    "pca_dimension",
    "isomap_residual",
    "lle_residual",
)
Measured = Estimate | Mapping[str, Estimate]
CALLS: dict[str, Callable[[], Measured]] = {
    **{name: partial(getattr(m, name), X, Y, **FEW) for name in (*PAIRS, *BLOCKS)},
    **{name: partial(getattr(m, name), X, LABELS, **FEW) for name in CLASSES},
    **{name: partial(getattr(m, name), X, **HALVES) for name in CLOUDS},
    "cka_minibatch": partial(m.cka_minibatch, X, Y, batch=6, **FEW),
    "ridge_probe": partial(m.ridge_probe, X, Y, shuffles=1, **FEW),
    "morans_i": partial(m.morans_i, MAPS, **FEW),
    "radial_power_spectrum": partial(m.radial_power_spectrum, MAPS, **HALVES),
    "composite_score": lambda: m.composite_score(r2=PART, spearman=PART, recall=PART, cka=PART),
}
PART = Estimate(value=0.5, low=0.4, high=0.6, null=0.0, p=0.01, n=60, n_effective=60)
NO_TEST = {*CLOUDS, "radial_power_spectrum", "composite_score"}
"""A dimension, a spectrum or a sum of scores has no hypothesis to test, so no p."""


def test_every_public_measure_is_held_to_these_promises() -> None:
    assert set(CALLS) == set(m.__all__) - {"Estimate", "Space", "best_of"}


@pytest.mark.parametrize("name", CALLS)
def test_options_are_given_by_name_and_have_defaults(name: str) -> None:
    for option in inspect.signature(getattr(m, name)).parameters.values():
        if option.name in ("x", "y", "labels", "maps"):
            assert option.default is option.empty
        else:
            assert option.kind is option.KEYWORD_ONLY
            assert name == "composite_score" or option.default is not option.empty
    if name in ("linear_cka", "rbf_cka", "cka_minibatch", "cka_blockwise"):
        assert "debiased" in inspect.signature(getattr(m, name)).parameters


@pytest.mark.parametrize("name", CALLS)
def test_a_measure_gives_its_value_inside_its_interval_with_null_p_and_counts(name: str) -> None:
    found = CALLS[name]()
    estimates = found if isinstance(found, Mapping) else {name: found}
    assert estimates
    for each, e in estimates.items():
        if "50" in each or "100" in each:  # more neighbours than there are samples, or than an interval needs
            continue
        assert isinstance(e, Estimate)
        assert e.low <= e.value <= e.high, each
        assert all(isinstance(getattr(e, field), int | float) for field in NUMBERS), each
        assert (e.n, e.n_effective) == (60, 60)
        assert np.isfinite(e.null) or name == "radial_power_spectrum", each
        assert (0 < e.p <= 1) if name not in NO_TEST and each != "cosine" else np.isnan(e.p), each
        assert replace(Estimate.from_json(e.to_json()), detail={}) == replace(e, detail={})


@pytest.mark.parametrize("name", [*PAIRS, *BLOCKS, *CLASSES, *CLOUDS, "cka_minibatch", "ridge_probe"])
def test_three_samples_are_undefined_and_say_why(name: str) -> None:
    second = () if name in CLOUDS else (LABELS[:3],) if name in CLASSES else (Y[:3],)
    found = getattr(m, name)(X[:3], *second)
    for e in found.values() if isinstance(found, Mapping) else (found,):
        assert np.isnan(e.value)
        assert e.why
        assert e.n == 3

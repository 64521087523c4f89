"""Choosing the best layer: the p must know about the others."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.metrics import Estimate, best_of, linear_cka, rsa_spearman
from tests.foresight.metrics.planted import gaussians, shared

FAST = {"permutations": 199, "resamples": 0}


def test_the_best_of_many_layers_of_noise_is_significant_no_more_often_than_one() -> None:
    raw, corrected = 0, 0
    for seed in range(60):
        y, *layers = gaussians(25, (4, *[5] * 10), seed=seed)
        found = {
            str(i): linear_cka(x, y, keep_null=True, permutations=99, resamples=0)
            for i, x in enumerate(layers)
        }
        name, best = best_of(found)
        raw += found[name].p <= 0.05
        corrected += best.p <= 0.05
        assert best.detail["correction"] == "max-T"
    assert raw > 12  # 40 % of ten tests at 5 %
    assert corrected <= 8  # 3 of 60 expected


def test_a_real_layer_among_noise_is_named_and_stays_significant() -> None:
    x, y = shared(60, (8, 6))
    layers = {f"noise {i}": z for i, z in enumerate(gaussians(60, (8, 8, 8), seed=9))}
    name, best = best_of(
        {"real": rsa_spearman(x, y, keep_null=True, **FAST)}
        | {k: rsa_spearman(z, y, keep_null=True, **FAST) for k, z in layers.items()}
    )
    assert name == "real"
    assert best.p == pytest.approx(0.005)
    assert best.detail["chosen from"] == 4
    assert "null draws" not in best.detail


def test_without_nulls_holm_is_used_and_undefined_layers_are_passed_over() -> None:
    def layer(value: float, p: float) -> Estimate:
        return Estimate(value=value, p=p, n=9, n_effective=9)

    missing = Estimate.undefined("constant", n=9, n_effective=9)
    name, best = best_of({"a": layer(0.2, 0.03), "b": layer(0.4, 0.02), "c": missing})
    assert (name, best.detail["correction"]) == ("b", "Holm")
    assert best.p == pytest.approx(0.04)
    with pytest.raises(ValueError, match="there are none \\(c: constant\\)"):
        best_of({"c": missing})


def test_the_null_of_the_same_seed_uses_the_same_orders_for_every_layer() -> None:
    x, y = gaussians(30, (5, 4))
    a = linear_cka(x, y, keep_null=True, **FAST).detail["null draws"]
    b = linear_cka(2.0 * x, y, keep_null=True, **FAST).detail["null draws"]
    np.testing.assert_allclose(a, b, atol=1e-5)

"""The Estimate type, and what importing the metrics costs."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest

import foresight.metrics as metrics
from foresight.metrics import Estimate


def test_an_undefined_number_becomes_null_in_json_with_its_reason() -> None:
    estimate = Estimate.undefined(
        "one class", n=5, n_effective=3, detail={"k": np.int64(2), "x": np.arange(2.0)}
    )
    text = json.dumps(estimate.to_json(), allow_nan=False)
    assert json.loads(text)["value"] is None
    assert json.loads(text)["why"] == "one class"
    assert json.loads(text)["detail"] == {"k": 2, "x": [0.0, 1.0]}
    assert not estimate.defined


def test_numpy_values_nan_controls_and_tuples_become_plain_json() -> None:
    estimate = Estimate(
        value=np.float64(0.5),
        n=4,
        n_effective=4,
        controls={"biased": np.float32(0.25), "none": math.nan},
        detail={"range": (1, math.inf), "names": ["a"], "on": np.bool_(True)},
    )
    loaded = json.loads(json.dumps(estimate.to_json(), allow_nan=False))
    assert loaded["controls"] == {"biased": 0.25, "none": None}
    assert loaded["detail"] == {"range": [1, None], "names": ["a"], "on": True}


def test_an_estimate_survives_the_way_through_json() -> None:
    defined = Estimate(
        value=0.5, low=0.1, high=0.9, p=0.01, n=9, n_effective=3, controls={"a": 0.2}, detail={"k": 3}
    )
    for estimate in (defined, Estimate.undefined("one class", n=5, n_effective=5)):
        back = Estimate.from_json(json.loads(json.dumps(estimate.to_json())))
        assert back.to_json() == estimate.to_json()
        assert math.isnan(back.null)


def test_a_number_that_does_not_exist_must_say_why() -> None:
    with pytest.raises(ValueError, match="says why"):
        Estimate(value=math.nan, n=3, n_effective=3)
    with pytest.raises(TypeError, match="plain values, but got object"):
        Estimate(value=1.0, n=3, n_effective=3, detail={"x": object()}).to_json()


def test_importing_the_metrics_loads_nothing_heavy() -> None:
    code = "import sys, foresight.metrics as m; m.Estimate; m.linear_cka; print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"'torch'", "'sklearn'", "'skdim'"} & set(out.strip("[]\n").split(", "))


def test_every_promised_name_is_there() -> None:
    for name in metrics.__all__:
        assert callable(getattr(metrics, name)), name
    with pytest.raises(AttributeError, match="has no attribute 'cca'"):
        _ = metrics.cca

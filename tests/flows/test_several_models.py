"""Studies of several models at once: each beside its own control, and every point known by its model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import c1, q1
from flows.engine import perform
from tests.conftest import quickly_trained

pytestmark = pytest.mark.slow

MODELS = ["qwen2.5-vl-tiny", "qwen2.5-vl-tiny@seed1"]
POINTS = ["patch", "llm.2"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The document and the report of a run over a model and the same trained from another seed."""
    with quickly_trained(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("several"))
        document = perform(q1, q1.Settings(samples=24, vlm=MODELS, points=POINTS)).to_json()
        rebuilt = perform(c1, c1.Settings(samples=24, vlm=MODELS, points=POINTS, adapters=["linear"]))
        yield {**document, "page": Path(document["report"]).read_text(), "c1": rebuilt.to_json()}


@pytest.mark.parametrize(
    ("experiment", "stage", "metric"),
    [("q1", "extract qwen2.5-vl-tiny@random0", "ridge R² VLM→decoder"),
     ("c1", "rebuild qwen2.5-vl-tiny@random0 patch", "latent R²")],
)  # fmt: skip
def test_two_models_of_one_card_share_one_copy_and_each_stands_beside_it(
    ran: dict[str, Any], experiment: str, stage: str, metric: str
) -> None:
    document = ran["c1"] if experiment == "c1" else ran
    assert [s["name"] for s in document["stages"]].count(stage) == 1
    r2 = {
        (m["model"], m["point"], m["variant"]): m["value"]
        for m in document["metrics"]
        if m["name"] == metric and m["row"] in ("Q1.4", "C1.2") and not m.get("target")
    }
    for point in POINTS:
        copies = {r2[model, point, "random weights"] for model in MODELS}
        assert len(copies) == 1
        assert len({r2[model, point, "trained"] for model in MODELS} | copies) == 3


def test_a_point_is_known_by_its_model_wherever_it_is_named(ran: dict[str, Any]) -> None:
    names = [f"{model} {point}" for model in MODELS for point in POINTS]
    (best,) = [m for m in ran["metrics"] if m["name"] == "CKA of the best point"]
    assert sorted(best["detail"]["p of each"]) == sorted(names)
    for name in names:
        assert f"{name}, UMAP" in ran["page"]
    assert f"at {best['model']} {best['point']}" in ran["page"]

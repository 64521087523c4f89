"""`foresight demo` as a newcomer runs it: real training, meaningful numbers, and nothing the second time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def demo(folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "foresight"), "demo", "--samples", "200", "--json"],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
        capture_output=True,
        text=True,
        check=False,
        timeout=1100,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, demo(folder), demo(folder)


def numbers(document: dict[str, Any], name: str, variant: str) -> dict[str, dict[str, Any]]:
    return {m["point"]: m for m in document["metrics"] if m["name"] == name and m["variant"] == variant}


def test_the_tiny_models_learn_what_their_points_are_read_for(
    shown: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    folder, _, _ = shown
    results = [r for r in store.open(folder / "runs" / "store").recipes() if r.operation == "zoo"]
    scores: dict[str, float] = {}
    for recipe in results:
        found = store.open(folder / "runs" / "store").result(recipe.id)
        assert found is not None
        scores |= found.values["scores"]
    assert scores["colour"] > scores["colour_by_chance"] + 0.5
    assert scores["row"] > scores["row_by_chance"] + 0.2
    assert scores["psnr_db"] > scores["psnr_db_of_the_mean_image"] + 3


def test_training_shows_in_the_numbers(shown: tuple[Path, dict[str, Any], dict[str, Any]]) -> None:
    document = shown[1]
    trained = numbers(document, "k-NN accuracy", "trained")
    copies = numbers(document, "k-NN accuracy", "random weights")
    assert trained["vit.2"]["low"] > copies["vit.2"]["high"]  # the intervals do not even meet
    assert trained["vit.2"]["low"] > trained["vit.2"]["null"]
    # layers differ: the same number falls along the language model
    assert trained["vit.2"]["value"] > trained["llm.4"]["value"]
    probes = numbers(document, "ridge R² VLM→decoder", "trained")
    baselines = ("train mean", "shuffled pairs", "random projection", "PCA-reduced random projection")
    assert all(p["low"] > max(p["controls"][b] for b in baselines) for p in probes.values())


def test_the_second_demo_computes_nothing_and_takes_a_fraction(
    shown: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    folder, first, second = shown
    assert second["forwards"] == second["rows_written"] == 0
    assert {s["state"] for s in second["stages"]} == {"cached"}
    assert second["seconds"] < first["seconds"] / 10
    assert second["metrics"] == first["metrics"]
    assert (folder / "runs" / "demo" / "report.html").stat().st_size > 500_000

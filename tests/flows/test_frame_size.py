"""--size and --decoder-size: the frames models are given, before their own preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import store
from flows import extract
from flows.cli import main
from flows.engine import perform
from tasks.house import WrongRequest

WANTED = {
    "samples": 4,
    "vlm": ["qwen2.5-vl-tiny@random0"],
    "points": ["vit.2", "merged"],
    "decoder": "ltx-video-tiny@random0",
}


def run(**change: Any) -> tuple[dict[str, Any], dict[str, list[store.Row]]]:
    """Return what a run says, and the rows of its own extractions by point."""
    done = perform(extract, extract.Settings(**WANTED | change))
    house = done.house
    recipes = [look.values["recipes"] for name, look in done.looks.items() if name.startswith("extract")]
    return done.to_json(), {
        point: [house.store.row(recipe, d) for d in house.manifest.digests]
        for found in recipes
        for point, recipe in found.items()
    }


def test_frames_have_the_size_that_was_asked_for_and_other_sizes_are_other_latents(workplace: Path) -> None:
    first, square = run()
    (latent,) = set(square) - {"vit.2", "merged"}
    assert {r.grid for r in square["vit.2"]} == {(1, 8, 8)}
    second, wide = run(size="64x96", decoder_size="64x128")
    assert second["rows_written"] == first["rows_written"] == 12
    assert {r.grid for r in wide["vit.2"]} == {(1, 8, 12)}
    assert {r.grid for r in wide["merged"]} == {(1, 4, 6)}
    assert {r.grid for r in wide[latent]} == {(1, 8, 16)}
    for row in wide["merged"]:
        assert np.unique(row.col).tolist() == [8, 24, 40, 56, 72, 88]
    assert run(size="64x64")[0]["rows_written"] == 0  # the cards' own size, said aloud


def test_a_size_that_a_model_cannot_take_is_refused_before_it_is_loaded(workplace: Path) -> None:
    with pytest.raises(WrongRequest, match="multiples of 8 px, but got 50 x 50"):
        run(decoder_size="50x50")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("extract", "--size", "big"), "size"),
        (("extract", "--size", "0x64"), "size"),
        (("q1", "--size", "448x672"), "one ratio, but got 448x672 and a square; give both"),
        (("q1", "--size", "448x672", "--decoder-size", "256x256"), "one ratio"),
    ],
)
def test_sizes_that_are_none_or_would_compare_different_pictures_are_refused(
    workplace: Path, words: tuple[str, ...], why: str
) -> None:
    done = CliRunner().invoke(main, ["plan", *words])
    assert done.exit_code == 2
    assert why in done.stderr


def test_a_study_takes_sizes_of_one_ratio(workplace: Path) -> None:
    done = CliRunner().invoke(main, ["plan", "q1", "--size", "96x128", "--decoder-size", "192x256"])
    assert done.exit_code == 0, done.stderr

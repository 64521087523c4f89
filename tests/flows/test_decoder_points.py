"""A decoder's points are chosen like a VLM's, and only latents that become pixels are decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows import extract, q1
from flows.engine import perform, planned
from foresight import models
from tasks.house import WrongRequest

TRANSFORMER = "ltx-video-transformer-tiny"
SMALL: dict[str, Any] = {"samples": 16, "vlm": ["qwen2.5-vl-tiny@random0"], "points": ["vit.2", "merged"]}


def study(decoder: str, *points: str) -> q1.Settings:
    return q1.Settings(**SMALL, decoder=decoder, decoder_points=list(points))


def test_an_extraction_reads_the_points_asked_of_the_decoder(workplace: Path) -> None:
    asked = ["dit.1@0.5", "dit.3@0.05"]
    given = {"samples": 4, "vlm": ["clip-tiny"], "points": ["patch"], "decoder": TRANSFORMER}
    done = perform(extract, extract.Settings(**given, decoder_points=asked))
    assert set(done.looks[f"extract {TRANSFORMER}@random0"].outputs) == set(asked)
    assert set(done.looks["extract clip-tiny@random0"].outputs) == {"patch"}


@pytest.mark.parametrize("asked", [(), ("dit.1@0.5", "dit.3@0.05"), ("all",)])
def test_the_study_compares_with_one_point(workplace: Path, asked: tuple[str, ...]) -> None:
    with pytest.raises(WrongRequest, match=r"one point of the decoder is compared, but .* choose one, as in"):
        planned(q1, study(TRANSFORMER, *asked))


def test_examples_are_planned_where_latents_become_pixels(workplace: Path) -> None:
    decoders = {name for name, card in models.cards().items() if card.tiny and card.role == "decoder"}
    for name in sorted(decoders):
        points = [models.points(models.get(name))[0].name]
        stages = {look.name for look in planned(q1, study(f"{name}@random0", *points))}
        family = models.family(models.get(name))
        loaded = family.load(
            models.parse_ref(f"{name}@random0"), None, device="cpu", dtype="float32", attention="sdpa"
        )
        assert ("decode examples" in stages) == hasattr(loaded, "decode"), name
        assert ("Q1.4 decoded prediction" in stages) == hasattr(loaded, "decode"), name


@pytest.mark.slow
def test_a_study_of_a_layer_says_that_nothing_of_it_is_decoded(workplace: Path) -> None:
    done = perform(q1, study(TRANSFORMER, "dit.2@0.25"))
    assert done.report is not None
    page = done.report.read_text()
    assert "none: its layers are not what becomes pixels" in page
    told = (
        f"No prediction was decoded: dit.2@0.25 of {TRANSFORMER}@random0 is read, and its layers are not what"
    )
    assert told in page
    assert not any("decoded" in m["name"] for m in done.to_json()["metrics"])

"""`foresight models`: what a card's points cost, before anything is loaded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from flows.cli import main
from foresight import models


def asked(*words: str) -> str:
    done = CliRunner().invoke(main, ["models", *words])
    assert done.exit_code == 0, done.stderr
    return done.stdout


def points_of(*words: str) -> dict[str, dict[str, Any]]:
    return {p["point"]: p for p in json.loads(asked(*words, "--json"))["points"]}


def test_a_card_s_points_say_grid_tokens_and_bytes_at_a_size() -> None:
    found = points_of("qwen2.5-vl-7b", "--size", "448x672")
    assert found["vit.12"]["grid"] == [1, 32, 48]
    assert found["vit.12"]["tokens"] == 1536
    assert found["vit.12"]["bytes"] == 1536 * 1280 * 2
    assert found["llm.8"]["bytes"] == 384 * 3584 * 2
    assert (found["llm.8"]["prompted"], found["vit.12"]["prompted"]) == (True, False)


def test_a_clip_s_points_count_its_frames_as_the_model_does() -> None:
    assert points_of("qwen2.5-vl-7b", "--size", "448x672", "--frames", "16")["merged"]["grid"] == [8, 16, 24]
    assert points_of("ltx-video-vae", "--frames", "17")["latent"]["grid"] == [3, 8, 8]
    done = CliRunner().invoke(main, ["models", "ltx-video-vae", "--frames", "16"])
    assert done.exit_code == 2
    assert "encodes 8k+1 frames, but got 16; ask for --frames 9 or 17" in done.stderr


def test_every_table_of_models_fits_in_110_columns_with_no_value_cut() -> None:
    for name, card in models.cards().items():
        lines = asked(name).splitlines()
        assert max(map(len, lines)) <= 110
        for point in models.points(card):
            assert any(line.split()[:1] == [point.name] and point.path in line for line in lines)
    assert max(map(len, asked().splitlines())) <= 110


@pytest.mark.parametrize("card", sorted(models.cards()))
def test_every_point_answers_to_every_name_it_has(card: str) -> None:
    available = models.points(models.get(card))
    for point in available:
        for name in (point.name, *point.plans):
            (found,) = models.resolve_points(available, [name], model=card)
            assert found == point

"""README's table of families is what the cards say now."""

from __future__ import annotations

import pytest

from flows.families import README, UNPINNED, table, written
from foresight import models


def test_readme_lists_every_family_as_its_cards_are_now() -> None:
    text = README.read_text()
    assert text == written(text), "write it again: python -m flows.families"


def test_every_card_is_named_once_and_marked_when_its_commit_is_not_pinned() -> None:
    text = table()
    for name, card in models.cards().items():
        if card.family != "declared":
            assert text.count(f"`{name}`") == 1
            assert (f"`{name}`{UNPINNED}" in text) == (card.repo is not None and card.revision is None)


def test_every_plan_name_and_every_refused_length_is_told() -> None:
    rows = {line.split("`")[1]: line for line in table().splitlines()[2:]}
    assert "L1 `vit.23`" in rows["llava-next-mistral-7b"]
    assert "I3.in `shuffled`" in rows["internvl2-8b"]
    assert "clips of 8k+1 frames, sides of 32k px" in rows["ltx-video-vae"]
    assert "clips of 4k+1 frames, sides of 8k px" in rows["hunyuan-video-vae"]
    assert "9×16×16" in rows["qwen2.5-vl-3b"]
    assert "clips of" not in rows["qwen2.5-vl-3b"]


def test_a_readme_without_the_marks_is_left_alone() -> None:
    with pytest.raises(ValueError, match="one is missing"):
        written("# Foresight\n")

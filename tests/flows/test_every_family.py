"""Every family through a whole extraction: all points of stills and of clips, as the store gives them back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import store
from flows import extract
from flows.describe import card_points
from flows.engine import perform
from foresight import models

CARDS = sorted(name for name, card in models.cards().items() if card.tiny)
SAMPLES = 4
LEAST_CHANGE = 1e-3
"""Random deep layers tell pictures apart by less than their size, but by far more than rounding, 1e-6."""


def size_of(card: str, frames: int) -> tuple[int, int] | None:
    """Return the card's own size for stills, and for clips one that is odd where the model takes that."""
    if frames == 1:
        return None
    return (48, 96) if models.get(card).role == "decoder" else (45, 83)


def read_here(card: str, data: str, frames: int) -> extract.Settings:
    size = size_of(card, frames)
    told = "x".join(map(str, size)) if size else ""
    return extract.Settings(
        data=data,
        frames=frames,
        **{"decoder_size" if models.get(card).role == "decoder" else "size": told},
        samples=SAMPLES,
        vlm=[f"{card}@random0"],
        points=["all"],
    )


@pytest.mark.parametrize(("data", "frames"), [("synthetic", 1), ("synthetic:moving", 9)])
@pytest.mark.parametrize("card", CARDS)
def test_every_point_of_a_family_is_read_from_stills_and_clips_and_comes_out_as_planned(
    workplace: Path, card: str, data: str, frames: int
) -> None:
    told = card_points(card, size_of(card, frames), frames)["points"]
    done = perform(extract, read_here(card, data, frames))
    assert done.house.rows_written == SAMPLES * len(told)
    assert not done.house.manifest.skipped
    latents = store.open("runs/store")
    asked = {"model": card, "manifest": done.house.manifest_id}
    for point in told:
        whole = latents.view(**asked, point=point["point"])
        values = whole["values"].to_numpy().astype(np.float32)
        assert values.shape == (SAMPLES, point["tokens"], point["width"])
        assert np.isfinite(values).all()
        for sample in range(1, SAMPLES):
            change = np.abs(values[sample] - values[0]).max() / np.abs(values[0]).max()
            assert change > LEAST_CHANGE, (point["point"], "sees no picture")
        grid = latents.view(**asked, point=point["point"], grid=True)
        assert grid["values"].shape[1:4] == tuple(point["grid"])
        assert (grid["kind"].to_numpy() == 0).all()
        for name, axis in (("time_s", 1), ("row", 2), ("col", 3)):
            assert (np.diff(grid[name].to_numpy(), axis=axis) > 0).all(), (point["point"], name)
    again = perform(extract, read_here(card, data, frames))
    assert (again.house.rows_written, again.house.forwards) == (0, 0)

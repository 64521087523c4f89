"""Fixtures every part of the tests shares."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from foresight import models
from foresight.models import zoo
from foresight.nouns import Frames


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder: `runs/` and everything in it goes there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def quickly_trained() -> Iterator[None]:
    """Train tiny models for a moment: real classes and real training, weights good for nothing."""
    known = models.cards()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("qwen2.5-vl-tiny", "ltx-video-tiny"):
            card = known[name]
            quick = dataclasses.replace(card, training=dict(card.training) | {"images": 48, "steps": 3})
            patch.setitem(known, name, quick)
        patch.setattr(zoo, "HELD_OUT", 8)
        yield


@pytest.fixture
def quick_zoo() -> Iterator[None]:
    with quickly_trained():
        yield


def frames_of(height: int, width: int, *, time: int = 1, seed: int = 0, step_s: float = 0.25) -> Frames:
    """Return noise frames: every pixel tells where it is."""
    pixels = np.random.default_rng(seed).integers(0, 256, (time, height, width, 3), dtype=np.uint8)
    return Frames(pixels=pixels, times_s=np.arange(time) * step_s)

"""A folder of stills and a clip, in labels, with files that are no media beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from .media import save_clip, save_picture


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    root = tmp_path / "mixed"
    for i in range(4):
        save_picture(root / "cats" / f"{i}.png", seed=i)
    for i in range(3):
        save_picture(root / "dogs" / "deep" / f"{i}.jpg", seed=10 + i)
    save_picture(root / "top.webp", seed=20, lossless=True)
    save_clip(root / "moves" / "a.webm", frames=12)
    (root / "notes.txt").write_text("about")
    (root / "labels.json").write_text("{}")
    return root

"""The guide to declared cards: its files declare what it says, and its commands run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from foresight.models.declaration import read

GUIDE = Path(__file__).parents[3] / "docs" / "your-own-model.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", GUIDE.read_text(), re.S)


@pytest.fixture
def written(workplace: Path) -> Path:
    """A folder with the guide's TOML files, each under the name of its first line."""
    for kind, block in BLOCKS:
        if kind == "toml":
            (workplace / block.partition("\n")[0].removeprefix("# ")).write_text(block)
    return workplace


def test_every_file_of_the_guide_declares_its_card(written: Path) -> None:
    found = {card.name: card for file in written.glob("*.toml") for card in read(file)}
    assert set(found) == {"resnet18", "vit-b16", "my-net"}
    assert found["resnet18"].default_points == ("stage.2", "stage.3")


@pytest.mark.slow
def test_the_guide_runs_from_top_to_bottom(written: Path) -> None:
    commands = [
        [str(Path(sys.executable).parent / "foresight"), *line.split()[1:]]
        if kind == "sh"
        else [sys.executable, "-c", line]
        for kind, block in BLOCKS
        if kind in ("sh", "python")
        for line in (block.splitlines() if kind == "sh" else [block])
    ]
    assert len(commands) == 5
    for command in commands:
        done = subprocess.run(command, cwd=written, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr[-2000:])

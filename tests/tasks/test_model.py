"""The model stage: what a checkpoint is, known before it is loaded and without hashing it twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flows.cli import main
from foresight import models


@pytest.fixture
def checkpoint(workplace: Path) -> Path:
    ref = models.parse_ref("qwen2.5-vl-tiny@random3")
    family: Any = models.family(ref.card)
    family.load(ref, None, device="cpu", dtype="float32", attention="sdpa").save(workplace / "tiny")
    return workplace / "tiny"


def planned(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["plan", "extract", "--samples", "4", *words])
    return done.exit_code, done.stderr


def test_a_torn_checkpoint_is_refused_while_planning(checkpoint: Path) -> None:
    assert planned("--vlm", f"qwen2.5-vl-tiny@path:{checkpoint}")[0] == 0
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    status, said = planned("--vlm", f"qwen2.5-vl-tiny@path:{checkpoint}")
    assert status == 2
    assert said.startswith("foresight: model.safetensors of qwen2.5-vl-tiny in tiny should have")
    assert len(said.splitlines()) == 1

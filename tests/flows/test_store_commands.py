"""Looking after a store from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flows import extract
from flows.cli import main
from flows.engine import perform

SETTINGS = extract.Settings(samples=6, vlm=["qwen2.5-vl-tiny@random0"], points=["patch", "vit.1"])


def told(*words: str, status: int = 0) -> Any:
    result = CliRunner().invoke(main, ["store", *words, "--json"])
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


@pytest.fixture
def filled(workplace: Path) -> Path:
    perform(extract, SETTINGS)
    return workplace


def test_a_store_says_what_it_holds(filled: Path) -> None:
    listed = told("ls")
    assert [m["n"] for m in listed["manifests"]] == [6]
    used = told("du")["latents"]
    assert {(u["model"], u["point"], u["rows"]) for u in used} == {
        ("qwen2.5-vl-tiny", "patch", 6),
        ("qwen2.5-vl-tiny", "vit.1", 6),
    }
    shown = told("show", listed["manifests"][0]["id"][:8])
    assert shown["kind"] == "manifest"
    assert shown["read_by"]
    result = CliRunner().invoke(main, ["store", "show", "ffffffff"])
    assert result.exit_code == 2
    assert "nothing with the id ffffffff" in result.stderr


def test_latents_travel_as_one_folder(filled: Path) -> None:
    manifest = told("ls")["manifests"][0]["id"]
    told("export", manifest[:12], "travel")
    taken = told("import", "travel", "--store", "elsewhere")
    assert taken["rows_written"] == 12
    assert told("import", "travel", "--store", "elsewhere")["rows_written"] == 0
    assert told("verify", "--store", "elsewhere")["ok"]


def test_nothing_is_swept_without_being_asked(filled: Path) -> None:
    assert told("sweep", "--grace-days", "0") == {"removed": False, "items": [], "bytes": 0}


def test_a_flipped_byte_is_found_and_just_its_row_computed_again(filled: Path) -> None:
    (values, *_) = sorted((filled / "runs" / "store" / "shards").rglob("c/*/*/*")) or sorted(
        p for p in (filled / "runs" / "store" / "shards").rglob("*") if p.is_file() and "values" in str(p)
    )
    content = bytearray(values.read_bytes())
    content[1000] ^= 1
    values.write_bytes(content)
    report = told("verify", status=1)
    assert report["problems"]
    outcome = perform(extract, SETTINGS)
    assert outcome.house.rows_written == 1
    assert told("verify")["ok"]

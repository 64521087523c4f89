"""Bad input gets one clear sentence and exit status 2, or a listed skip; nothing half-written stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from flows.cli import main


def foresight(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def photographs(folder: Path, count: int = 6) -> Path:
    rng = np.random.default_rng(0)
    for i in range(count):
        place = folder / ("cats" if i % 2 else "dogs")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40 + 8 * i, 64, 3), dtype=np.uint8)).save(place / f"{i}.jpg")
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "q9"], "no experiment is called 'q9'; there are c1, "),
        (["plan", "q1", "--vlm", "gpt-17"], "no model card is called 'gpt-17'; there are "),
        (["plan", "q1", "--points", "vit.99"], "qwen2.5-vl-tiny has no point 'vit.99'; it has patch, vit.1"),
        (["plan", "q1", "--decoder", "qwen2.5-vl-tiny"], "is a vlm, but a decoder was asked for"),
        (["plan", "q1", "--vlm", "ltx-video-tiny"], "is a decoder, but a vlm was asked for"),
        (["plan", "q1", "--vlm", "qwen2.5-vl-tiny@soon"], "its revision is a training seed (seed1)"),
        (["plan", "q1", "--vlm", "qwen2.5-vl-7b@main"], "is a commit of 40 hex digits"),
        (["plan", "q1", "--data", "folder:nowhere"], "names a folder that is there"),
        (["plan", "q1", "--data", "imagenet:x"], "data is one of"),
        (["plan", "q1", "--samples", "-3"], "--samples: Input should be greater than or equal to 4"),
        (["plan", "q1", "--adapters", "linear"], "q1 has no --adapters"),
        (["plan", "c1", "--adapters", "mlp:x"], "--adapters: mlp needs a hidden width"),
        (["plan", "q1", "--vlm", "qwen2.5-vl-tiny@path:nowhere"], "is no folder; save the model there"),
        (["models", "nothing"], "no model card is called 'nothing'"),
        (["models", "qwen2.5-vl-tiny", "--size", "big"], "a size is HEIGHTxWIDTH in pixels"),
        (["store", "ls", "--store", "nowhere"], "nowhere"),
    ],
)
def test_a_wrong_request_is_told_in_one_sentence(workplace: Path, words: list[str], said: str) -> None:
    result = foresight(*words)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(workplace.iterdir()) in ([], [workplace / "runs"])
    assert not (workplace / "runs" / "store").exists()


def test_a_store_command_never_makes_a_store(workplace: Path) -> None:
    (workplace / "photos").mkdir()
    (workplace / "photos" / "a.txt").write_text("mine")
    for verb in ("ls", "du", "verify"):
        assert foresight("store", verb, "--store", "photos").exit_code == 2
    assert [p.name for p in (workplace / "photos").iterdir()] == ["a.txt"]


def test_a_run_refuses_to_make_a_store_of_a_folder_of_other_things(workplace: Path) -> None:
    photographs(workplace / "photos")
    result = foresight("run", "q1", "--store", "photos", "--samples", "8")
    assert result.exit_code == 2, result.output
    assert sorted(p.name for p in (workplace / "photos").iterdir()) == ["cats", "dogs"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_cannot_be_written_is_refused(workplace: Path) -> None:
    locked = workplace / "locked"
    locked.mkdir(mode=0o555)
    result = foresight("run", "q1", "--samples", "8", "--store", str(locked / "store"))
    assert result.exit_code == 2


def test_a_store_below_a_file_is_refused(workplace: Path) -> None:
    (workplace / "file").write_text("")
    result = foresight("run", "extract", "--samples", "8", "--store", "file/store")
    assert result.exit_code == 2, result.output
    assert "file" in result.stderr


def test_an_empty_folder_is_refused_and_says_what_was_found(workplace: Path) -> None:
    (workplace / "empty").mkdir()
    (workplace / "empty" / "notes.txt").write_text("no pictures")
    result = foresight("run", "q1", "--data", "folder:empty")
    assert result.exit_code == 2
    assert "empty" in result.stderr
    checked = foresight("data", "check", "folder:empty", "--json")
    assert checked.exit_code == 2
    assert json.loads(checked.stdout)["usable"] is False


def test_damaged_files_are_listed_with_their_reason(workplace: Path) -> None:
    folder = photographs(workplace / "photos")
    whole = (folder / "cats" / "1.jpg").read_bytes()
    (folder / "cats" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "cats" / "none.webm").write_bytes(b"")
    (folder / "cats" / "again.jpg").write_bytes(whole)
    (folder / "dogs" / "1.jpg").write_bytes(bytes(whole[:-2]) + b"\xff\xd9")
    result = foresight("data", "check", f"folder:{folder}", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    skipped = {s["sample"]: s["why"] for s in found["skipped"]}
    assert {"cats/cut.jpg", "cats/none.webm"} <= set(skipped)
    assert all(skipped.values())
    # equal bytes under two names are one sample; two files with one stem are two
    assert ("cats/again.jpg" in skipped) != ("cats/1.jpg" in skipped)
    assert found["labels"] == {"cats": 3, "dogs": 3}


@pytest.mark.slow
def test_a_run_counts_what_it_skipped_and_leaves_nothing_half_written(workplace: Path) -> None:
    folder = photographs(workplace / "photos")
    (folder / "dogs" / "cut.jpg").write_bytes((folder / "cats" / "1.jpg").read_bytes()[:300])
    # a process of its own: here Prefect may be imported already, and keeps to the folder it was told first
    command = [
        str(Path(sys.executable).parent / "foresight"),
        "run",
        "extract",
        "--json",
        "--points",
        "vit.1",
    ]
    done = subprocess.run(
        [*command, "--data", f"folder:{folder}", "--vlm", "qwen2.5-vl-tiny@random0"],
        env={k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    document: dict[str, Any] = json.loads(done.stdout)
    assert [s["sample"] for s in document["skipped"]] == ["dogs/cut.jpg"]
    assert document["rows_written"] == 6
    verified = foresight("store", "verify", "--json")
    assert verified.exit_code == 0
    assert json.loads(verified.stdout)["ok"]


def test_a_real_card_without_network_says_what_is_missing_and_how_to_get_it(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(workplace / "hub"))
    result = foresight("plan", "extract", "--vlm", "qwen2.5-vl-3b", "--samples", "4", "--json")
    assert result.exit_code == 0, result.stderr
    stages = {s["name"]: s for s in json.loads(result.stdout)["stages"]}
    why = stages["model qwen2.5-vl-3b"]["why"]
    assert "Qwen/Qwen2.5-VL-3B-Instruct at commit 66285546d2b8" in why
    assert "hf download" in why
    assert "@path:DIR" in why
    assert stages["extract qwen2.5-vl-3b"]["state"] == "waiting"
    assert stages["extract qwen2.5-vl-3b"]["rows_missing"] is None


def test_stills_and_clips_of_several_frames_are_not_mixed(workplace: Path) -> None:
    from tests.foresight.data.media import save_clip

    folder = photographs(workplace / "photos")
    save_clip(folder / "cats" / "clip.mp4")
    result = foresight("plan", "q1", "--data", f"folder:{folder}", "--frames", "9")
    assert result.exit_code == 2, result.output
    assert "ask for --frames 1" in result.stderr


def test_a_clip_length_the_decoder_would_cut_is_refused(workplace: Path) -> None:
    result = foresight("plan", "q1", "--data", "synthetic:moving", "--samples", "4", "--frames", "4")
    assert result.exit_code == 2, result.output
    assert "2k+1 frames, but got 4; ask for --frames 3 or 5" in result.stderr

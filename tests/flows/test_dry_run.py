"""`foresight run … --dry-run`: what the run would read, keep and take, and nothing stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import store
from flows import extract
from flows.cli import main
from flows.engine import perform
from foresight.models.qwen2_5_vl import QwenVision

REF = "qwen2.5-vl-tiny@random0"
REQUEST = ("extract", "--vlm", REF, "--points", "vit.2,merged")


def foresight(*words: str) -> Result:
    return CliRunner().invoke(main, ["run", *words])


def dry(*words: str) -> dict[str, Any]:
    done = foresight(*words, "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that real forward passes were made over."""
    plain, found = QwenVision.extract, []

    def counting(self: QwenVision, batch: Any, asked: Any) -> Any:
        found.append(len(batch))
        return plain(self, batch, asked)

    monkeypatch.setattr(QwenVision, "extract", counting)
    return found


def test_ten_samples_are_timed_for_real_and_nothing_is_stored(workplace: Path, sizes: list[int]) -> None:
    found = dry(*REQUEST, "--samples", "40")
    assert sizes == [10, 10]  # once to warm up
    (part,) = found["extractions"]
    assert part["probe"]["samples"] == 10
    assert found["seconds"] == pytest.approx(
        part["probe"]["load_s"] + 40 * part["probe"]["sample_s"], abs=1e-2
    )
    assert not Path("runs/store").exists()


def test_what_it_counts_is_what_the_run_then_writes(workplace: Path) -> None:
    before = dry(*REQUEST, "--samples", "12", "--data", "synthetic:moving", "--frames", "5")
    asked: dict[str, Any] = {"data": "synthetic:moving", "samples": 12, "frames": 5}
    perform(extract, extract.Settings(vlm=[REF], points=["vit.2", "merged"], **asked))
    latents = store.open("runs/store")
    rows = {
        r.settings["point"]: [latents.row(r.id, s["sample"]) for s in samples_of(latents)]
        for r in latents.recipes()
        if r.operation == "extract"
    }
    assert before["rows_missing"] == sum(map(len, rows.values())) == 24
    for point in before["extractions"][0]["points"]:
        mine = rows[point["point"]]
        assert point["tokens"] == sum(len(row.values) for row in mine)
        assert point["bytes"] == sum(row.values.nbytes for row in mine)
    assert before["bytes"] == sum(row.values.nbytes for mine in rows.values() for row in mine)


def samples_of(latents: store.Store) -> list[dict[str, Any]]:
    (manifest,) = latents.manifests()
    samples: list[dict[str, Any]] = latents.manifest(manifest.id)["samples"]
    return samples


def test_only_what_is_missing_counts(workplace: Path, sizes: list[int]) -> None:
    perform(extract, extract.Settings(samples=8, vlm=[REF], points=["vit.2", "merged"]))
    sizes.clear()
    found = dry(*REQUEST, "--samples", "8")
    assert (found["rows_missing"], found["tokens"], found["bytes"], found["seconds"]) == (0, 0, 0, 0.0)
    assert found["extractions"][0]["probe"] is None
    assert sizes == []
    more = dry("extract", "--vlm", REF, "--points", "vit.2,vit.3", "--samples", "11")
    assert {p["point"]: p["rows_missing"] for p in more["extractions"][0]["points"]} == {
        "vit.2": 3,
        "vit.3": 11,
    }


def test_stills_count_one_frame_whatever_clips_would_have(workplace: Path) -> None:
    one, many = (dry(*REQUEST, "--samples", "8", "--frames", n) for n in ("1", "16"))
    assert one["tokens"] == many["tokens"] == 8 * (64 + 16)


def test_a_model_that_is_not_here_has_no_time_and_the_reason_is_said(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(workplace / "hub"))
    found = dry("extract", "--vlm", "qwen2.5-vl-7b", "--samples", "4", "--points", "merged")
    assert found["seconds"] is None
    assert "hf download Qwen/Qwen2.5-VL-7B-Instruct" in found["extractions"][0]["why"]
    assert found["bytes"] == 4 * 256 * 3584 * 2


def test_a_study_s_dry_run_names_every_model_it_reads(workplace: Path) -> None:
    done = foresight("q1", "--samples", "8", "--dry-run")
    assert done.exit_code == 0, done.stderr
    for name in ("ltx-video-tiny", "qwen2.5-vl-tiny", "qwen2.5-vl-tiny@random0"):
        assert f"extract {name}: 8 of 8 samples to read" in done.stderr
    assert "random weights: not trained yet" in done.stderr
    assert "Nothing was stored" in done.stderr
    assert done.stdout == ""
    assert not Path("runs/store").exists()

"""Something-Something v2 and COCO in their official layouts, through whole runs: clips, labels, a broken file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import store
from flows import extract, q1
from flows.cli import main
from flows.engine import perform
from foresight import data
from foresight.studies.decoded import OF
from tests.conftest import quickly_trained
from tests.foresight.data.benchmarks_on_disk import TEMPLATES, coco, plain, something

pytestmark = pytest.mark.slow

POINTS = ["vit.2", "merged", "llm.2"]
ROWS = 2 * (len(POINTS) + 1)
"""Rows of a sample: each point of the model and the decoder's latent, and the same of their random copies."""
FRAMES = data.causal_length(9)
CLIPS = 14
BROKEN = "109"
"""A clip in the middle of the validation split, whole outside and broken inside."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A working folder in which both data sets went through the alignment study, with what was printed."""

    folder: Path
    clips: dict[str, Any]
    images: dict[str, Any]


def foresight(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def break_inside(clip: Path) -> None:
    content = clip.read_bytes()
    first_cluster = content.index(b"\x1f\x43\xb6\x75") + 8
    clip.write_bytes(content[:first_cluster] + bytes(len(content) - first_cluster))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("layouts")
    ssv2 = something(folder / "ssv2", train=2, validation=CLIPS, test=1)
    break_inside(ssv2 / "20bn-something-something-v2" / f"{BROKEN}.webm")
    coco(folder / "coco")
    with quickly_trained(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        clips = perform(q1, q1.Settings(data="ssv2:ssv2", frames=FRAMES, points=POINTS, out="clips"))
        images = perform(q1, q1.Settings(data="coco:coco", points=POINTS, out="images"))
        yield Place(folder=folder, clips=clips.to_json(), images=images.to_json())


def extraction(source: str, frames: int) -> extract.Settings:
    return extract.Settings(data=source, frames=frames, points=POINTS, decoder="ltx-video-tiny")


def counts(document: dict[str, Any]) -> set[int]:
    """Return the samples behind every number but those of decoded predictions, which are of a part of them."""
    return {m["n"] for m in document["metrics"] if not m["name"].endswith(OF)}


def test_a_prediction_is_decoded_of_clips_and_of_images(place: Place) -> None:
    for document in (place.clips, place.images):
        found = {m["name"].removesuffix(f" {OF}"): m for m in document["metrics"] if m["name"].endswith(OF)}
        assert 0 < found["SSIM"]["value"] <= 1
        assert found["SSIM"]["low"] is None
        assert "interval needs 8 groups" in found["SSIM"]["why"]


def test_a_study_of_clips_leaves_out_the_broken_one_and_says_why(place: Place) -> None:
    (skipped,) = place.clips["skipped"]
    assert skipped["sample"] == BROKEN
    assert "no reader can decode it" in skipped["why"]
    assert counts(place.clips) == {CLIPS - 1}
    assert place.clips["rows_written"] == (CLIPS - 1) * ROWS
    assert {s["state"] for s in place.clips["stages"]} <= {"completed", "cached"}
    assert place.clips["verdict"]


def test_the_report_of_clips_lists_classes_and_what_was_left_out(place: Place) -> None:
    page = (place.folder / place.clips["report"]).read_text()
    assert "1 file could not be used</summary>" in page
    assert f'<th scope="row">{BROKEN}</th>' in page
    assert "no reader can decode it" in page
    for template in TEMPLATES:
        assert plain(template) in page
    assert str(place.folder) not in page


def test_a_clip_is_one_sample_whose_frames_never_part(place: Place) -> None:
    latents = store.open(place.folder / "runs" / "store")
    # the first was that of the scan, before the broken clip was met
    listed = [latents.manifest(m.id)["samples"] for m in latents.manifests() if m.source == "ssv2"]
    samples, scanned = sorted(listed, key=len)
    assert len(scanned) == CLIPS
    # validation ids follow those of the two training clips
    wanted = [str(n) for n in range(103, 103 + CLIPS) if str(n) != BROKEN]
    assert [s["key"] for s in samples] == wanted
    assert [s["group"] for s in samples] == wanted
    assert {s["label"] for s in samples} == {plain(t) for t in TEMPLATES}
    source = data.open(f"ssv2:{place.folder / 'ssv2'}")
    by_digest = {s.digest: s for s in source.manifest}
    trained_and_random = [
        r for r in latents.recipes() if r.operation == "extract" and r.settings["point"] == "latent"
        and r.settings["frames"]["sampling"]["frames"] == FRAMES
    ]  # fmt: skip
    assert len(trained_and_random) == 2
    for recipe, sample in product(trained_and_random, samples):
        row = latents.row(recipe.id, sample["sample"])
        times, rows, cols = row.grid
        assert (times - 1) * ((FRAMES - 1) // (times - 1)) + 1 == FRAMES, "the first frame stands by itself"
        assert len(row.values) == times * rows * cols
        frames = source.frames(by_digest[sample["sample"]], data.Sampling(frames=FRAMES))
        assert row.time_s.min() >= frames.times_s[0]
        assert row.time_s.max() <= frames.times_s[-1]
        assert len(np.unique(row.time_s)) == times


def test_an_extraction_of_the_same_clips_reuses_every_row(place: Place, monkeypatch) -> None:
    monkeypatch.chdir(place.folder)
    document = perform(extract, extraction("ssv2:ssv2", FRAMES)).to_json()
    assert document["rows_written"] == 0
    assert document["rows_reused"] == (CLIPS - 1) * (len(POINTS) + 1)
    assert [s["sample"] for s in document["skipped"]] == [BROKEN]


def test_an_extraction_of_clips_with_nothing_kept_names_the_broken_one_too(
    place: Place, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = extract.Settings(
        data=f"ssv2:{place.folder / 'ssv2'}", frames=FRAMES, points=["vit.1"], vlm=["qwen2.5-vl-tiny@random0"]
    )
    document = perform(extract, settings).to_json()
    assert document["rows_written"] == CLIPS - 1
    assert [s["sample"] for s in document["skipped"]] == [BROKEN]


def test_a_study_of_images_takes_every_listed_one(place: Place, monkeypatch) -> None:
    assert place.images["skipped"] == []
    assert counts(place.images) == {6}
    assert place.images["rows_written"] == 6 * ROWS
    # six images are too few for five folds: undefined with its reason, not zero
    probes = [m for m in place.images["metrics"] if m["name"].startswith("ridge R²")]
    assert probes
    assert all(m["value"] is None and "at least 10 groups, but got 6" in m["why"] for m in probes)
    page = (place.folder / place.images["report"]).read_text()
    assert "cat" in page
    assert "dog" in page
    assert "could not be used</summary>" not in page
    monkeypatch.chdir(place.folder)
    document = perform(extract, extraction("coco:coco", 1)).to_json()
    assert (document["rows_written"], document["rows_reused"]) == (0, 6 * (len(POINTS) + 1))


def test_the_command_line_says_the_same_of_both(place: Place, monkeypatch) -> None:
    monkeypatch.chdir(place.folder)
    points = ["--points", ",".join(POINTS)]
    clips = ["--data", "ssv2:ssv2", "--frames", str(FRAMES), "--out", "clips", *points]
    images = ["--data", "coco:coco", "--out", "images", *points]
    for words, before in ((clips, place.clips), (images, place.images)):
        result = foresight("run", "q1", *words, "--json")
        assert result.exit_code == 0, result.stderr
        document = json.loads(result.stdout)
        assert {s["state"] for s in document["stages"]} == {"cached"}
        assert document["metrics"] == before["metrics"]
        assert document["skipped"] == before["skipped"]
        result = foresight("run", "extract", *words, "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["forwards"] == 0
    checked = foresight("data", "check", "ssv2:ssv2", "--json")
    assert checked.exit_code == 0, checked.stderr
    found = json.loads(checked.stdout)
    assert found["samples"] == CLIPS - 1
    assert [s["sample"].rpartition("/")[2] for s in found["skipped"]] == [f"{BROKEN}.webm"]
    assert json.loads(foresight("data", "check", "coco:coco", "--json").stdout)["labels"] == {
        "cat": 3,
        "dog": 3,
    }

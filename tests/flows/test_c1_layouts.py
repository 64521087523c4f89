"""C1 on Something-Something v2 and COCO in their official layouts: clips are rebuilt, what cannot be had is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import store
from flows import c1
from flows.engine import perform, prepare
from foresight import data
from tasks.extract import Extract
from tasks.ingest import Ingest
from tasks.kept import read_measurements
from tasks.locate import Locate, Patches
from tasks.model import Model
from tasks.stages import run
from tests.conftest import quickly_trained
from tests.foresight.data.benchmarks_on_disk import coco, something

pytestmark = pytest.mark.slow

FRAMES = data.causal_length(9)
CLIPS = 8


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("c1-layouts")
    something(folder / "ssv2", train=2, validation=CLIPS, test=1)
    coco(folder / "coco")
    shared: dict[str, Any] = {"points": ["merged"], "adapters": ["linear"]}
    with quickly_trained(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        clips = perform(c1, c1.Settings(data="ssv2:ssv2", frames=FRAMES, out="clips", **shared))
        images = perform(c1, c1.Settings(data="coco:coco", out="images", **shared))
        yield {"clips": clips.to_json(), "images": images.to_json(), "folder": {"path": folder}}


def values(document: dict[str, Any], row: str) -> dict[str, Any]:
    return {m["name"]: m for m in document["metrics"] if m["row"] == row and m["variant"] == "trained"}


@pytest.mark.parametrize("kind", ["clips", "images"])
def test_pictures_are_rebuilt_and_scored(documents: dict[str, dict[str, Any]], kind: str) -> None:
    for row in ("C1.2", "C1.5"):
        found = values(documents[kind], row)
        assert found["SSIM"]["value"] is not None
        assert found["PSNR (dB)"]["controls"]["mean image"] is not None
        assert found["SSIM"]["n"] == (2 if kind == "clips" else found["SSIM"]["n_effective"])


def test_a_clip_is_rebuilt_on_the_steps_of_the_decoder(documents: dict[str, dict[str, Any]]) -> None:
    detail = values(documents["clips"], "C1.2")["SSIM"]["detail"]
    assert detail["placed"][0] == detail["blocks"][0] > 1


def test_rows_that_the_data_cannot_give_say_why(documents: dict[str, dict[str, Any]]) -> None:
    clips, images = (values(documents[k], "C1.4")["spatial IoU"] for k in ("clips", "images"))
    assert clips["value"] is None
    assert "have no boxes" in clips["why"]
    assert images["value"] is None
    assert "learns from at least 8 samples" in images["why"]
    merger = values(documents["images"], "C1.3")["SSIM, after − before"]
    assert "before and after the merger" in merger["why"]


@pytest.mark.parametrize("kind", ["clips", "images"])
def test_too_few_samples_end_in_no_verdict_and_a_whole_report(
    documents: dict[str, dict[str, Any]], kind: str
) -> None:
    assert documents[kind]["verdict"] == "CAN'T TELL"
    folder: Path = documents["folder"]["path"]
    page = (folder / documents[kind]["report"]).read_text()
    assert "interval needs 8 groups" in page
    assert str(folder) not in page


def test_places_are_read_off_clips_whose_boxes_are_known_over_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = c1.Settings(
        data="synthetic:moving", samples=48, frames=5, vlm=["qwen2.5-vl-tiny@random0"], points=["merged"]
    )
    prepared = prepare(c1, settings)
    (last,) = (i for i, s in enumerate(prepared.stages) if isinstance(s, Locate))
    stages = [
        s for s in prepared.stages[: last + 1] if isinstance(s, Ingest | Model | Extract | Patches | Locate)
    ]
    prepared.house.store = store.open(settings.store, create=True)
    _, looks = run([s for s in stages if "ltx" not in s.name], prepared.house)
    measured = read_measurements(prepared.house, [looks[prepared.stages[last].name]])
    iou = next(m for m in measured if m["name"] == "spatial IoU")
    assert iou["n"] == 12
    assert iou["detail"]["grid"] == [1, 4, 4]
    assert iou["value"] > iou["controls"]["constant prediction"] + 0.1

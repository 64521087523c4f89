"""The Q2 page: curves with their controls, boxes on the samples, and rows that could not be measured."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foresight.decisions.spatial import q2_decision
from foresight.probes import CONTROLS
from foresight.reports import q2_pictures, render
from foresight.reports.q2 import Q2Inputs, build_q2_report
from foresight.reports.style import LIGHT


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def number(point: str, value: float) -> dict[str, Any]:
    controls = dict(zip(CONTROLS, (0.1, 0.12, 0.14, value - 0.2, 0.9), strict=True))
    return {
        "row": "Q2.1", "name": "box IoU", "model": "<b>m</b>", "point": point, "variant": "trained", "value": value,
        "low": value - 0.02, "high": value + 0.02, "null": 0.1, "p": 0.001, "n": 40, "n_effective": 40, "why": "",
        "controls": controls,
        "detail": {
            "floor": 0.14, "knows places": value - 0.02 > 0.14,
            "box IoU by hidden features": {"0": value - 0.1, "256": value},
        },
    }  # fmt: skip


@pytest.fixture
def inputs() -> Q2Inputs:
    measured = [number("patch", 0.8), number("merged", 0.6), number("llm.2", 0.12)]
    absent = {"Q2.2": "no sample of folder has an annotated box"}
    undefined: dict[str, Any] = {
        "row": "Q2.2", "name": "mAP@0.5", "model": None, "point": None, "variant": "trained", "value": None,
        "low": None, "high": None, "null": None, "p": None, "n": 40, "n_effective": 40, "controls": {},
        "why": absent["Q2.2"], "detail": {},
    }  # fmt: skip
    item = {"picture": png(0), "truth": [[0.1, 0.1, 0.5, 0.5]], "found": [[0.2, 0.1, 0.6, 0.5]]}
    return Q2Inputs(
        measurements=[*measured, undefined],
        decision=q2_decision(measured, absent=absent),
        about={"Q2.1": "Every token says where.", "Q2.2": "Sets."},
        data={"source": "folder", "n": 130, "skipped": [{"key": "bad.png", "why": "no picture"}]},
        models=[
            {"card": "m", "role": "vlm", "params": 10, "points": ["patch", "merged"], "fingerprint": "0" * 64}
        ],
        boxes={"Q2.1": [("patch", [item, item]), ("llm.2", [item, item])]},
    )


def test_the_page_says_where_places_are_read_and_where_they_are_lost(inputs: Q2Inputs) -> None:
    page = render(build_q2_report(inputs))
    assert "Box IoU is 0.800 at patch, the highest of 3 points" in page
    assert "At llm.2 the interval does not clear them" in page
    assert "patch → merged" in page
    assert "merged → llm.2" in page
    assert "Not measured: no sample of folder has an annotated box" in page
    assert "<b>m</b>" not in page
    for control in CONTROLS:
        assert control in page


@pytest.mark.parametrize("samples", [1, 2, 8])
def test_what_the_colours_of_boxes_mean_is_whole_below_few_samples(samples: int) -> None:
    item = {"picture": png(0), "truth": [[0.1, 0.1, 0.5, 0.5]], "found": [[0.2, 0.1, 0.6, 0.5]]}
    picture = q2_pictures.boxes([("patch", [item] * samples)])
    drawn = np.asarray(Image.open(io.BytesIO(picture.png())).convert("L"))
    assert (drawn[-40:, -4:] == 255).all()


def test_the_only_model_is_not_repeated_in_every_line(inputs: Q2Inputs) -> None:
    page = render(build_q2_report(inputs))
    assert "&lt;b&gt;m&lt;/b&gt; · patch" not in page
    beside = [{**m, "model": "other"} for m in inputs.measurements if m["model"]]
    both = render(build_q2_report(replace(inputs, measurements=[*inputs.measurements, *beside])))
    assert "&lt;b&gt;m&lt;/b&gt; · patch" in both


def test_two_models_side_by_side_have_a_curve_and_a_section_of_their_own(inputs: Q2Inputs) -> None:
    beside = []
    for point, value in (("patch", 0.81), ("merged", 0.9)):
        m = number(f"{point}+dinov2:vit.2", value)
        beside.append({**m, "model": "m+dinov2:vit.2", "detail": m["detail"] | {"beside": "dinov2:vit.2"}})
    both = [*inputs.measurements[:3], *beside, *inputs.measurements[3:]]
    report = build_q2_report(replace(inputs, measurements=both))
    page = render(report)
    assert "curve-box-iou-m-dinov2-vit-2" in [f.name for f in report.sections[0].figures]
    assert "box IoU of m+dinov2:vit.2 by extraction point: patch 0.810; merged 0.900" in page
    assert "Box IoU is 0.800 at patch, the highest of 3 points" in page
    assert "it is 0.900 at merged+dinov2:vit.2" in page
    assert "Side by side, box IoU is better than alone: the intervals do not touch" in page
    assert "Does a second model bring places back?" not in render(build_q2_report(inputs))


def test_equal_inputs_give_equal_pages(inputs: Q2Inputs) -> None:
    assert render(build_q2_report(inputs)) == render(build_q2_report(inputs))


def test_curves_and_galleries_have_names_to_be_exported_by(inputs: Q2Inputs) -> None:
    section = build_q2_report(inputs).sections[0]
    assert [f.name for f in section.figures] == ["curve-box-iou-b-m-b", "boxes-q2-1"]


def test_a_gallery_without_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        q2_pictures.boxes([("patch", [])]).png()


@pytest.mark.parametrize("name", ["merged+dinov2-tiny@random0:vit.2", "merged+dinov2-base@path:a:vit.final"])
def test_the_name_of_two_models_side_by_side_does_not_run_into_the_pictures(name: str) -> None:
    sheet = q2_pictures.rebuilt([(name, [png(1)])]).draw(LIGHT)
    (text,) = sheet.axes[0].texts
    assert text.get_window_extent().x1 < q2_pictures.LEFT * sheet.dpi

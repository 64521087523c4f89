"""The mistakes other extractors make with rows, made impossible here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import store
from flows import extract
from flows.build import open_house
from flows.engine import perform
from foresight import data, models
from foresight.nouns import Frames, Sample
from tasks.extract import Extract, Undecodable, as_numpy
from tasks.house import House
from tasks.stages import Look, plan, run

REF = "qwen2.5-vl-tiny@random0"


def settings(**change: Any) -> extract.Settings:
    return extract.Settings(
        **{"samples": 10, "vlm": [REF], "points": ["merged", "vit.1"], "batch": 4} | change
    )


def house_of(wanted: extract.Settings) -> House:
    return open_house(wanted, store.open(wanted.store, create=True))


def extraction(stages: list[Any]) -> Extract:
    (found,) = [s for s in stages if isinstance(s, Extract)]
    return found


def rows(house: House, stage: Extract, looks: dict[str, Look], point: str) -> list[np.ndarray]:
    recipe = looks[stage.name].values["recipes"][point]
    return [house.store.row(recipe, d).values for d in house.manifest.digests]


def test_the_last_partial_batch_is_kept_and_every_row_is_the_model_s_own(workplace: Path) -> None:
    wanted = settings()
    house = house_of(wanted)
    stages = extract.stages(wanted, house)
    _, looks = run(stages, house)
    stage = extraction(stages)
    model = models.family(stage.ref.card).load(
        stage.ref, None, device="cpu", dtype="float32", attention="sdpa"
    )
    assert house.forwards == 3  # 10 samples by 4
    for point in ("vit.1", "merged"):
        stored = rows(house, stage, looks, point)
        for sample, values in zip(house.manifest, stored, strict=True):
            frames = stage.framing.apply(house.source.frames(sample, stage.framing.sampling))
            plain = model.extract([frames], [point])[0][point].values.numpy()
            np.testing.assert_allclose(values, plain, rtol=1e-4, atol=1e-5)


def test_points_asked_out_of_order_keep_their_names(workplace: Path) -> None:
    one = settings(points=["merged", "vit.1", "patch"], store="one")
    other = settings(points=["patch", "merged", "vit.1"], store="other")
    found = []
    for wanted in (one, other):
        house = house_of(wanted)
        _, looks = run(extract.stages(wanted, house), house)
        found.append(looks[f"extract {REF}"].outputs)
    assert found[0] == found[1]
    assert len(set(found[0].values())) == 3


def test_batch_size_and_workers_change_no_content_id(workplace: Path) -> None:
    found = []
    for i, change in enumerate([{"batch": 1, "workers": 0}, {"batch": 7}, {"batch": 32, "workers": 4}]):
        wanted = settings(store=f"store{i}", **change)
        house = house_of(wanted)
        _, looks = run(extract.stages(wanted, house), house)
        recipes = looks[f"extract {REF}"].values["recipes"]
        found.append(
            [rows(house, extraction(extract.stages(wanted, house)), looks, p) for p in sorted(recipes)]
        )
        assert recipes == looks[f"extract {REF}"].values["recipes"]
    # the split of a product over a batch may round differently in fp32; the recipe does not depend on it
    for values in found[1:]:
        for a, b in zip(np.concatenate([np.stack(p).ravel() for p in found[0]]),
                        np.concatenate([np.stack(p).ravel() for p in values]), strict=True):  # fmt: skip
            assert abs(a - b) < 1e-4


def test_an_extraction_that_stops_half_way_leaves_rows_missing_never_zero(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = settings()
    house = house_of(wanted)
    stages = extract.stages(wanted, house)
    family = models.family(extraction(stages).ref.card)
    plain = family.QwenVision.extract
    calls: list[int] = []

    def failing(self: Any, batch: list[Frames], points: list[str]) -> Any:
        calls.append(len(batch))
        if len(calls) == 2:
            raise RuntimeError("the power went")
        return plain(self, batch, points)

    monkeypatch.setattr(family.QwenVision, "extract", failing)
    with pytest.raises(Exception, match="the power went"):
        run(stages, house)
    monkeypatch.undo()
    look = {k.name: k for k in plan(stages, house)}[f"extract {REF}"]
    assert look.state == "missing"
    assert look.rows_missing == 2 * 6  # the four rows of the first batch were kept
    _, looks = run(stages, house)
    assert house.rows_written >= 12
    for values in rows(house, extraction(stages), looks, "merged"):
        assert np.abs(values).sum() > 0
    assert house.store.verify().problems == []


def test_a_second_run_writes_no_row_twice(workplace: Path) -> None:
    outcomes = [perform(extract, settings()) for _ in range(2)]
    assert [o.house.rows_written for o in outcomes] == [20, 0]
    used = store.open("runs/store").du()
    assert sorted(u.rows for u in used) == [10, 10]


def test_a_sweep_keeps_what_was_extracted_even_before_anything_reads_it(workplace: Path) -> None:
    perform(extract, settings())
    latents = store.open("runs/store")
    before = {u.recipe: u.rows for u in latents.du()}
    latents.sweep(apply=True, grace_s=0)
    assert {u.recipe: u.rows for u in store.open("runs/store").du()} == before
    assert perform(extract, settings()).to_json()["forwards"] == 0


def test_other_preprocessing_is_no_hit(workplace: Path) -> None:
    wanted = settings()
    house = house_of(wanted)
    stages = extract.stages(wanted, house)
    run(stages, house)
    stage = extraction(stages)
    for framing in (
        dataclasses.replace(stage.framing, size=(96, 96)),
        dataclasses.replace(stage.framing, fit="letterbox"),
    ):
        others = [dataclasses.replace(s, framing=framing) if s is stage else s for s in stages]
        look = {k.name: k for k in plan(others, house)}[stage.name]
        assert look.state == "missing"
        assert look.rows_missing == 20
        assert look.why.startswith("frames.")


def test_another_compute_type_is_no_hit_and_bfloat16_is_kept_bit_for_bit(workplace: Path) -> None:
    perform(extract, settings())
    outcome = perform(extract, settings(dtype="bfloat16"))
    assert outcome.house.rows_written == 20
    recipe = outcome.looks[f"extract {REF}"].values["recipes"]["merged"]
    row = outcome.house.store.row(recipe, outcome.house.manifest.digests[0])
    assert row.values.dtype.name == "bfloat16"


def test_how_clips_are_sampled_does_not_touch_stills(workplace: Path) -> None:
    perform(extract, settings())
    assert perform(extract, settings(frames=5)).house.rows_written == 0


def test_every_bit_of_a_bfloat16_tensor_survives() -> None:
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    tensor = bits.view(torch.bfloat16).reshape(256, 256)
    array = as_numpy(tensor)
    assert array.dtype.name == "bfloat16"
    np.testing.assert_array_equal(array.view(np.uint16).ravel(), bits.numpy().view(np.uint16))


def test_a_device_short_of_memory_gets_smaller_batches(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = settings(batch=8)
    house = house_of(wanted)
    stages = extract.stages(wanted, house)
    family = models.family(extraction(stages).ref.card)
    plain, sizes = family.QwenVision.extract, []

    def small(self: Any, batch: list[Frames], points: list[str]) -> Any:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return plain(self, batch, points)

    monkeypatch.setattr(family.QwenVision, "extract", small)
    run(stages, house)
    assert sizes == [8, 4, 2, 2, 4, 2, 2, 2]
    assert house.rows_written == 20


def test_a_sample_that_turns_out_not_to_decode_is_left_out_and_counted(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foresight.data.synthetic import Synthetic

    plain = Synthetic.frames

    def frames(self: Synthetic, sample: Sample, sampling: data.Sampling) -> Frames:
        if sample.key.endswith("3"):
            raise data.Unreadable(sample.key, "the second half of the file is missing")
        return plain(self, sample, sampling)

    monkeypatch.setattr(Synthetic, "frames", frames)
    outcome = perform(extract, settings())
    document = outcome.to_json()
    assert [s["sample"] for s in document["skipped"]] == ["shapes/000003"]
    assert "second half" in document["skipped"][0]["why"]
    assert document["rows_written"] == 18
    # it is remembered: the next run plans without it
    assert perform(extract, settings()).to_json()["forwards"] == 0


def test_undecodable_samples_do_not_stop_the_others(workplace: Path) -> None:
    bad = Sample(digest="0" * 64, key="a")
    assert "1 samples cannot be decoded, the first is a: torn" in str(Undecodable({bad: "torn"}))

"""What the study reads from the store: every number's sample is finite, and a row reads only its own spaces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import store
from flows import q1
from flows.build import open_house
from tasks.extract import Extract
from tasks.house import House, WrongRequest
from tasks.ingest import Ingest
from tasks.measure import Compared, Measure, attributes, read_spaces
from tasks.stages import Look, run

SAMPLES = 12


def planted(bad: dict[str, Any]) -> tuple[House, Compared, dict[str, Look]]:
    """A store in which rows of noise stand where the models' latents would; `bad` maps points to a sample."""
    wanted = q1.Settings(samples=SAMPLES, vlm=["qwen2.5-vl-tiny@random0"], points=["vit.1", "merged"])
    wanted = wanted.model_copy(update={"decoder": "ltx-video-tiny@random0"})
    house = open_house(wanted, store.open(wanted.store, create=True))
    stages = q1.stages(wanted, house)
    run([Ingest()], house)
    (row,) = [s for s in stages if isinstance(s, Measure) and s.row == "Q1.5"]
    return house, row.compared, {e.name: _fill(house, e, bad) for e in row.compared.extractions}


def _fill(house: House, extract: Extract, bad: dict[str, Any]) -> Look:
    rng = np.random.default_rng(0)
    recipes = extract.recipes(house, {"weights": "0" * 64})
    for point in extract.points:
        with house.store.writer(recipes[point.name], rows_per_shard=4) as writer:
            for sample in house.manifest:
                values = rng.normal(size=(4, point.width)).astype(np.float32)
                if bad.get(point.name) == sample.key:
                    values[1, :3] = np.nan, np.inf, np.nan
                where = {"row": np.array([0, 0, 1, 1.0]), "col": np.array([0, 1, 0, 1.0])}
                writer.put(
                    sample=sample.digest, values=values, time_s=np.zeros(4), kind=np.zeros(4, np.uint8),
                    tile=np.zeros(4, np.int32), grid=(1, 2, 2), **where,
                )  # fmt: skip
    contents = {p: house.store.content_id(r.id, house.manifest.digests) or "" for p, r in recipes.items()}
    return Look(
        name=extract.name,
        state="ready",
        why="planted",
        outputs=contents,
        values={"recipes": {p: r.id for p, r in recipes.items()}},
    )


def test_latents_that_are_not_finite_are_refused_by_sample_and_point(workplace: Path) -> None:
    house, compared, given = planted({"merged": "shapes/000007"})
    with pytest.raises(
        WrongRequest, match=r"merged \(random weights\) of sample shapes/000007 holds 3 of 512"
    ):
        read_spaces(house, given, compared, 0)


def test_finite_latents_are_read_whole_with_the_decoders_grid(workplace: Path) -> None:
    house, compared, given = planted({})
    spaces = read_spaces(house, given, compared, 0)
    assert [v.point for v in spaces.vlm] == ["vit.1", "merged"]
    assert spaces.decoder.cells == (1, 2, 2)
    assert spaces.decoder.space.values.shape == (SAMPLES, 4 * 16)
    assert spaces.decoder.maps().shape == (SAMPLES, 1, 2, 2, 16)
    assert set(spaces.attributes) >= {"shape", "place"}
    assert attributes(house.manifest)["shape"][0] == house.manifest.samples[0].annotations["shape"]


def test_a_row_reads_only_the_spaces_it_measures(workplace: Path) -> None:
    _, compared, _ = planted({})
    twin = replace(compared.decoder, ref=replace(compared.decoder.ref, value="1"))
    whole = replace(compared, decoder_copy=twin)
    assert whole.read_by("Q1.2").extractions == (compared.decoder, twin)
    assert whole.read_by("Q1.5").extractions == compared.extractions
    assert whole.read_by("Q1.1") is whole

"""The format: stores of every released version open, and FORMAT.md says what is true."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import store
from tests.store.golden_store import POINTS, TOKENS, write
from tests.store.helpers import manifest, recipe, row, sample

GOLDEN = sorted((Path(__file__).parent / "golden").iterdir())
DOCUMENT = Path(store.__file__).parent / "FORMAT.md"


@pytest.fixture(params=GOLDEN, ids=lambda path: path.name)
def golden(request, tmp_path):
    shutil.copytree(request.param, tmp_path / "golden")
    return tmp_path / "golden"


def test_a_store_of_every_released_version_reads_as_it_was_written(golden):
    catalog = store.open(golden)
    assert catalog.verify().problems == []
    for point, dtype in POINTS.items():
        for i in range(5):
            back, put = catalog.row(recipe(point=point).id, sample(i)), row(i, dtype=dtype)
            assert back.values.tobytes() == put["values"].tobytes()
            assert all(np.array_equal(getattr(back, name), put[name]) for name in ("time_s", "row", "col"))
    for i, tokens in enumerate(TOKENS):
        back = catalog.row(recipe(point="ragged").id, sample(i))
        np.testing.assert_array_equal(back.values, row(i, tokens=tokens)["values"])
    (listed,) = catalog.manifests()
    assert catalog.manifest(listed.id) == manifest(range(5))
    there = catalog.latents(recipe().id, listed.id)
    assert there.content_id == "70fbacf2551013e02aad400e06f11a349c26c27b92c4b61f48641a87485690cb"
    made = store.Recipe(operation="metric.cka", version=1, inputs={"latents": there.content_id})
    assert catalog.result(made.id).values == {"cka": 0.5}
    assert catalog.pins() == {"golden": listed.id}


def test_a_store_written_today_has_the_ids_of_the_golden_one(golden, tmp_path):
    write(str(tmp_path / "today"))

    def ids(folder: Path) -> set[str]:
        # a shard's name covers the time it was made at, and so does a drop's
        names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
        stamped = re.compile(r"(?<=^shards/.{64}/)[0-9a-f]{64}|(?<=-)[0-9a-f]{64}(?=\.(rows|drop))")
        return {stamped.sub("…", name) for name in names}

    assert ids(tmp_path / "today") == ids(golden)


def test_the_examples_of_the_format_document_run(golden):
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) >= 4
    names: dict[str, object] = {"folder": golden}
    for block in blocks:
        exec(compile(block, str(DOCUMENT), "exec"), names)


def test_the_format_document_names_every_folder_a_store_has(golden):
    document = DOCUMENT.read_text()
    for path in golden.iterdir():
        assert f"`{path.name}" in document

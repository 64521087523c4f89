"""COCO's boxes, categories, crowds and masks arrive as they were annotated."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask
from pycocotools.coco import COCO

from foresight import data
from foresight.data import coco_instances

from .benchmarks_on_disk import coco, coco_value, write_json
from .media import save_picture


def whys(src: data.DataSource) -> dict[str, str]:
    return {skip.key: skip.why for skip in src.manifest.skipped}


def test_the_official_layout_is_read(tmp_path):
    src = data.open(f"coco:{coco(tmp_path)}")
    assert src.manifest.source == "coco"
    assert src.manifest.skipped == ()
    assert [s.key for s in src.manifest] == [f"val2017/{i:012d}.jpg" for i in range(6)]
    second = src.manifest.samples[1]
    assert second.annotations["boxes"] == [[11, 20, 31, 35], [40, 5, 70, 45]]
    assert second.annotations["classes"] == ["cat", "dog"]
    assert second.label == "dog"
    third = src.manifest.samples[2]
    assert third.annotations["crowd"] == [False, True]
    assert third.label == "cat"
    assert src.frames(second, data.Sampling(frames=8)).pixels.shape == (1, 60, 80, 3)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_masks_are_the_ones_that_pycocotools_draws(tmp_path, capsys):
    src = data.open(f"coco:{coco(tmp_path)}")
    official = COCO(tmp_path / "annotations" / "instances_val2017.json")
    capsys.readouterr()
    for sample in src.manifest:
        masks = src.masks(sample)
        ids = sample.annotations["object_ids"]
        assert masks.shape == (len(ids), 60, 80)
        for drawn, number in zip(masks, ids, strict=True):
            np.testing.assert_array_equal(drawn, official.annToMask(official.anns[number]))
    crowd = src.masks(src.manifest.samples[2])[1]
    assert crowd[40:58, 50:78].all()
    assert crowd.sum() == 18 * 28


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 40), width=st.integers(1, 40))
def test_compressed_masks_are_known_to_fill_their_image(seed, height, width):
    drawn = np.random.default_rng(seed).random((height, width)) < 0.5
    text = mask.encode(np.asfortranarray(drawn.astype(np.uint8)))["counts"].decode()
    assert sum(coco_instances._unpack(text)) == height * width


def test_chosen_categories_choose_images_and_objects(tmp_path):
    src = data.open(f"coco:{coco(tmp_path)}", categories=("dog",))
    assert [s.annotations["image_id"] for s in src.manifest] == [1001, 1002, 1003, 1005]
    assert {c for s in src.manifest for c in s.annotations["classes"]} == {"dog"}
    assert src.manifest.samples[1].label is None, "a crowd alone gives no label"
    with pytest.raises(ValueError, match=r"categories are among \['cat', 'dog'\], but got \['bird'\]"):
        _ = data.open(f"coco:{tmp_path}", categories=("bird",)).manifest


def test_boxes_are_carried_along_by_fit(tmp_path):
    src = data.open(f"coco:{coco(tmp_path)}")
    sample = src.manifest.samples[0]
    _, geometry = data.fit(src.frames(sample, data.Sampling()), size=(120, 160), how="letterbox")
    assert geometry.boxes(sample.annotations["boxes"]).tolist() == [[20, 40, 60, 70]]


def test_a_subset_reads_only_what_it_takes(tmp_path):
    root = coco(tmp_path / "coco")
    src = data.open(f"coco:{root}", samples=2, seed=1)
    seen = []
    src.scan_progress = lambda done, total: seen.append((done, total))
    two = src.manifest
    assert seen == [(1, 2), (2, 2)]
    assert sorted(two.labels) == ["cat", "dog"]
    four = data.open(f"coco:{root}", samples=4, seed=1).manifest
    assert set(two.digests) < set(four.digests)
    # the next of the order takes the place of one that cannot be read
    (root / two.samples[0].key).write_bytes(b"")
    again = data.open(f"coco:{root}", samples=2, seed=1).manifest
    assert len(again) == 2
    assert whys(data.open(f"coco:{root}", samples=2, seed=1)) == {
        two.samples[0].key: "it is empty: zero bytes"
    }


def test_every_entry_that_makes_no_sense_is_listed_with_its_reason(tmp_path):
    value = coco_value()
    images, annotations = value["images"], value["annotations"]
    good = copy.deepcopy(annotations[0])
    images += [
        {"id": 1000, "file_name": "other.jpg", "height": 60, "width": 80},
        {"id": 7, "file_name": "../../outside.jpg", "height": 60, "width": 80},
        {"id": 8, "file_name": "..\\outside.jpg", "height": 60, "width": 80},
        {"id": 9, "file_name": "missing.jpg", "height": 60, "width": 80},
        {"id": "ten", "file_name": "x.jpg", "height": 60, "width": 80},
        {"id": 11, "file_name": "y.jpg"},
        {"id": 12, "file_name": f"{0:012d}.jpg", "height": 60, "width": 80},
        "not an image",
    ]
    wrong = [
        ({"id": 501, "image_id": 4}, "of image 4, which is not listed"),
        ({"id": 502, "category_id": 99}, "category 99, which is not listed"),
        ({"id": 503, "bbox": [1, 2, 0, 4]}, "box without area"),
        ({"id": 504, "bbox": [70, 2, 40, 4]}, "leaves its image"),
        ({"id": 505, "bbox": [1, 2, 3]}, "no box of four numbers"),
        ({"id": 506, "bbox": [1, 2, "3", 4]}, "no box of four numbers"),
        ({"id": 507, "segmentation": [[1, 2]]}, "no segmentation"),
        ({"id": 508, "segmentation": {"size": [60, 80], "counts": [5, 5]}}, "no segmentation"),
        ({"id": 509, "segmentation": {"size": [80, 60], "counts": "0Pf4"}}, "no segmentation"),
        ({"id": 510, "segmentation": {"size": [60, 80], "counts": "zzzzzzzz"}}, "no segmentation"),
        ({"id": 511, "segmentation": {"size": [60, 80], "counts": "é"}}, "no segmentation"),
        ({"id": 0}, "stands a second time"),
        ({"id": None}, "whole number as its id"),
    ]
    first = len(annotations)
    annotations += [good | change for change, _ in wrong]
    root = coco(tmp_path / "coco", value=value)
    save_picture(tmp_path / "outside.jpg")
    save_picture(root / "val2017" / "unlisted.jpg", seed=77)
    (root / "val2017" / f"{3:012d}.jpg").write_bytes(b"")
    found = whys(data.open(f"coco:{root}"))
    name = "instances_val2017.json"
    expected = {f"{name}#annotations/{first + i}": why for i, (_, why) in enumerate(wrong)} | {
        f"{name}#images/6": "image id 1000 stands a second time",
        f"{name}#images/7": "a path for a name",
        f"{name}#images/8": "a path for a name",
        f"{name}#images/10": "whole number as its id",
        f"{name}#images/11": "no size in whole pixels",
        f"{name}#images/13": "whole number as its id",
        "val2017/missing.jpg": "the file is not there",
        "val2017/unlisted.jpg": "no annotations list this file",
        f"val2017/{0:012d}.jpg": "names the same file as",
        f"val2017/{3:012d}.jpg": "zero bytes",
    }
    assert found.keys() == expected.keys()
    for key, why in expected.items():
        assert why in found[key], (key, found[key])
    assert len(data.open(f"coco:{root}").manifest) == 5


def test_an_image_of_another_size_than_its_boxes_is_a_skip(tmp_path):
    root = coco(tmp_path)
    path = root / "val2017" / f"{4:012d}.jpg"
    Image.open(path).resize((60, 80)).save(path)
    assert "boxes are for 80 x 60 px" in whys(data.open(f"coco:{root}"))[f"val2017/{4:012d}.jpg"]


def test_splits_are_found_or_asked_for(tmp_path):
    root = coco(coco(tmp_path), split="train2017")
    assert data.open(f"coco:{root}").manifest.samples[0].key.startswith("val2017/")
    assert data.open(f"coco:{root}", split="train2017").manifest.samples[0].key.startswith("train2017/")
    with pytest.raises(
        ValueError, match=r"those of \['train2017', 'val2017'\] and the split asked for is 'test'"
    ):
        data.open(f"coco:{root}", split="test")


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("", "cannot be parsed"),
        ('{"images": [', "cannot be parsed"),
        ("[]", "holds a JSON list"),
        ('{"images": [], "annotations": []}', "'categories' is not a list"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "its id and name"),
        ('{"images": [], "annotations": [], "categories": [], "x": NaN}', "NaN is not a JSON number"),
    ],
)
def test_a_file_that_is_no_coco_file_is_refused(tmp_path, content, rule):
    root = coco(tmp_path)
    (root / "annotations" / "instances_val2017.json").write_text(content)
    with pytest.raises(ValueError, match=rule):
        _ = data.open(f"coco:{root}").manifest


def test_nothing_usable_says_what_was_found(tmp_path):
    root = coco(tmp_path)
    shutil.rmtree(root / "val2017")
    with pytest.raises(
        data.NoUsableData, match=r"among 6 listed; 6 skipped, such as .* the file is not there"
    ):
        _ = data.open(f"coco:{root}").manifest
    with pytest.raises(ValueError, match="names a folder that is there"):
        data.open("coco:nowhere")


def test_the_manifest_does_not_depend_on_the_order_of_the_file(tmp_path):
    before = data.open(f"coco:{coco(tmp_path)}").manifest.canonical()
    value = coco_value()
    for part in ("images", "annotations", "categories"):
        value[part] = value[part][::-1]
    write_json(Path(tmp_path / "annotations" / "instances_val2017.json"), value)
    assert data.open(f"coco:{tmp_path}").manifest.canonical() == before

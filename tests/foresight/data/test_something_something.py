"""Something-Something v2 in its official layout: classes, splits, quotas, and what can be wrong."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from foresight import data

from .benchmarks_on_disk import TEMPLATES, plain, something, write_json
from .media import independent_frames, save_clip

VIDEOS = "20bn-something-something-v2"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return something(tmp_path_factory.mktemp("ssv2"))


@pytest.fixture
def ssv2(made, tmp_path) -> Path:
    """A copy whose clips are links to one encoded set: tests may break it."""
    root = tmp_path / "ssv2"
    for path in made.rglob("*.*"):
        target = root / path.relative_to(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".webm":
            os.link(path, target)
        else:
            target.write_bytes(path.read_bytes())
    return root


def whys(src: data.DataSource) -> dict[str, str]:
    return {skip.key: skip.why for skip in src.manifest.skipped}


def edit(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    write_json(path, value)


def test_the_official_layout_is_read(made):
    src = data.open(f"ssv2:{made}")
    assert [s.key for s in src.manifest] == [str(n) for n in range(107, 116)]
    assert src.manifest.skipped == ()
    sample = src.manifest.samples[2]
    assert sample.label == "Putting number of something onto something"
    assert sample.media == "clip"
    assert dict(sample.annotations) == {
        "split": "validation",
        "template": TEMPLATES[2],
        "class_index": 2,
        "text": "Putting 2 coins onto a plate",
        "placeholders": ["2", "coins", "a plate"],
    }


def test_frames_are_those_of_an_independent_decode(made):
    src = data.open(f"ssv2:{made}")
    for sample in src.manifest:
        expected, times = independent_frames(made / VIDEOS / f"{sample.key}.webm")
        sampling = data.Sampling(frames=data.causal_length(5))
        frames = src.frames(sample, sampling)
        chosen = sampling.indices(np.array(times))
        np.testing.assert_array_equal(frames.pixels, expected[chosen])
        np.testing.assert_allclose(frames.times_s, np.array(times)[chosen], atol=1e-6)


@pytest.mark.parametrize(
    "layout",
    [
        {"prefix": "something-something-v2-"},
        {"labels": ".", "videos": "."},
        {"labels": "annotations", "videos": "videos"},
    ],
)
def test_either_naming_and_any_flat_layout_is_found(tmp_path, layout):
    root = something(tmp_path, train=1, validation=3, test=1, **layout)
    assert len(data.open(f"ssv2:{root}").manifest) == 3


def test_splits_can_be_taken_one_by_one_or_all(made):
    sizes = {
        s: len(data.open(f"ssv2:{made}", split=s).manifest) for s in ("train", "validation", "test", "all")
    }
    assert sizes == {"train": 6, "validation": 9, "test": 2, "all": 17}
    unlabelled = data.open(f"ssv2:{made}", split="test").manifest.samples[0]
    assert unlabelled.label is None
    assert dict(unlabelled.annotations) == {"split": "test"}
    with pytest.raises(ValueError, match="a split is one of"):
        data.open(f"ssv2:{made}", split="dev")


def test_published_answers_label_the_test_split(ssv2):
    (ssv2 / "labels" / "test-answers.csv").write_text(f"116;{plain(TEMPLATES[1])}\n")
    manifest = data.open(f"ssv2:{ssv2}", split="test").manifest
    assert [s.label for s in manifest] == [plain(TEMPLATES[1]), None]
    assert manifest.samples[0].annotations["class_index"] == 1


def test_a_missing_split_says_which_there_are(ssv2):
    (ssv2 / "labels" / "train.json").unlink()
    with pytest.raises(ValueError, match=r"only has those of \['test', 'validation'\]"):
        _ = data.open(f"ssv2:{ssv2}", split="train").manifest
    src = data.open(f"ssv2:{ssv2}")
    assert len(src.manifest) == 9
    assert src.ignored == {"clips in none of the label files that are here": 6}


def test_classes_and_quotas_choose_a_stable_subset(made):
    holding = plain(TEMPLATES[0])
    only = data.open(f"ssv2:{made}", classes=(holding,)).manifest
    assert set(only.labels) == {holding}
    two_each = data.open(f"ssv2:{made}", per_class=2, seed=3).manifest
    assert Counter(two_each.labels) == {plain(t): 2 for t in TEMPLATES}
    four = data.open(f"ssv2:{made}", samples=4, seed=3).manifest
    assert sorted(Counter(four.labels).values()) == [1, 1, 2]
    seven = data.open(f"ssv2:{made}", samples=7, seed=3).manifest
    assert set(four.digests) < set(seven.digests)
    assert [int(s.key) for s in seven] == sorted(int(s.key) for s in seven)
    others = [set(data.open(f"ssv2:{made}", samples=4, seed=s).manifest.digests) for s in range(4, 10)]
    assert any(set(four.digests) != other for other in others)
    with pytest.raises(ValueError, match=r"names from labels\.json, but it has no \['Flying'\]"):
        _ = data.open(f"ssv2:{made}", classes=("Flying",)).manifest


@pytest.mark.parametrize("subset", [{"samples": 5}, {"per_class": 2}, {"per_class": 2, "samples": 4}])
def test_a_subset_does_not_depend_on_the_order_of_labels_or_listing(ssv2, monkeypatch, subset):
    before = data.open(f"ssv2:{ssv2}", seed=5, **subset).manifest.canonical()
    edit(ssv2 / "labels" / "validation.json", list.reverse)
    edit(ssv2 / "labels" / "labels.json", lambda classes: classes.update(reversed(list(classes.items()))))
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: real(path)[::-1])
    assert data.open(f"ssv2:{ssv2}", seed=5, **subset).manifest.canonical() == before


def test_a_broken_clip_gives_its_place_to_the_next_of_its_class(ssv2):
    before = data.open(f"ssv2:{ssv2}", per_class=2).manifest
    broken = ssv2 / VIDEOS / f"{before.samples[0].key}.webm"
    broken.unlink()
    broken.write_bytes(b"")
    src = data.open(f"ssv2:{ssv2}", per_class=2)
    assert whys(src) == {f"{VIDEOS}/{broken.name}": "it is empty: zero bytes"}
    assert Counter(src.manifest.labels) == Counter(before.labels)


def test_every_entry_and_file_that_makes_no_sense_is_listed(ssv2, tmp_path):
    labels = ssv2 / "labels" / "validation.json"

    def spoil(entries):
        good = entries[0]
        entries += [
            good | {"id": "../../secret"},
            good | {"id": None},
            good | {"id": "107"},
            good | {"id": "101"},
            good | {"id": "900"},
            good | {"id": "901", "template": "Flying [something]"},
            good | {"id": "902", "template": None},
            good | {"id": "903", "placeholders": ["a", "b"]},
            good | {"id": "904", "placeholders": "cup"},
            "not an entry",
            good | {"id": 905},
        ]

    edit(labels, spoil)
    save_clip(tmp_path / "secret.webm")
    save_clip(ssv2 / VIDEOS / "800.webm", frames=3, seed=1)
    save_clip(ssv2 / VIDEOS / "905.webm", frames=3, seed=2)
    save_clip(ssv2 / "more" / "108.webm", frames=3, seed=3)
    whole = (ssv2 / VIDEOS / "109.webm").read_bytes()
    for name, content in (("109", whole[: len(whole) // 2]), ("110", b"text"), ("111", b"")):
        (ssv2 / VIDEOS / f"{name}.webm").unlink()
        (ssv2 / VIDEOS / f"{name}.webm").write_bytes(content)
    expected = {
        "validation.json#9": "an id is a string of digits, but entry 9",
        "validation.json#10": "has None",
        "validation.json#18": "has None",
        "107": "stands a second time",
        "101": "stands a second time",
        "900": "no file 900.webm",
        "901": "is not in labels.json",
        "902": "no template",
        "903": "1 placeholders, but 2",
        "904": "not a list of texts",
        "800": "no label file lists this clip",
        "108": "a second file has this id",
        f"{VIDEOS}/109.webm": "cut short",
        f"{VIDEOS}/110.webm": "no WebM",
        f"{VIDEOS}/111.webm": "zero bytes",
    }
    src = data.open(f"ssv2:{ssv2}")
    found = whys(src)
    assert found.keys() == expected.keys()
    for key, why in expected.items():
        assert why in found[key], (key, found[key])
    assert [s.key for s in src.manifest] == ["107", "108", "112", "113", "114", "115", "905"]


@pytest.mark.parametrize("verify", [False, True])
def test_a_clip_broken_inside_is_told_at_the_scan_or_when_read(ssv2, verify):
    path = ssv2 / VIDEOS / "109.webm"
    content = bytearray(path.read_bytes())
    middle = content.index(b"\x1f\x43\xb6\x75") + 8
    path.unlink()
    path.write_bytes(bytes(content[:middle]) + bytes(len(content) - middle))
    src = data.open(f"ssv2:{ssv2}", verify=verify)
    if verify:
        assert list(whys(src)) == [f"{VIDEOS}/109.webm"]
        assert src.facts(src.manifest.samples[0])["frames"] == 8
    else:
        got = data.prefetch(src, src.manifest, data.Sampling(frames=2))
        assert [s.key for s, f in got if isinstance(f, data.Unreadable)] == ["109"]


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("labels.json", "{", "cannot be parsed"),
        ("labels.json", '{"Holding something": "x"}', "numbers the classes"),
        ("labels.json", '{"a": "1", "b": 1}', "some numbers stand twice"),
        ("validation.json", "{}", "holds a JSON dict"),
        ("validation.json", "[]", "no usable clip of the validation split among 17 files"),
    ],
)
def test_label_files_that_cannot_be_are_refused(ssv2, name, content, rule):
    (ssv2 / "labels" / name).write_text(content)
    with pytest.raises(ValueError, match=rule):
        _ = data.open(f"ssv2:{ssv2}").manifest


def test_a_folder_without_label_files_says_what_to_add(tmp_path):
    with pytest.raises(ValueError, match=r"comes with labels\.json"):
        _ = data.open(f"ssv2:{tmp_path}").manifest

"""A check says what a data set holds and what is wrong with the rest."""

from __future__ import annotations

import json
import shutil

import pytest

from foresight import data

from .benchmarks_on_disk import TEMPLATES, coco, plain, something
from .media import save_clip, save_picture


def test_a_folder_is_counted_by_label_size_and_duration(tmp_path):
    for i in range(3):
        save_picture(tmp_path / "cats" / f"{i}.png", height=40, width=60, seed=i)
    save_picture(tmp_path / "top.png", height=80, width=50, seed=9)
    save_clip(tmp_path / "moves" / "a.webm", frames=10, fps=5)
    save_clip(tmp_path / "moves" / "odd.webm", frames=20, fps=5, height=47, width=63)
    (tmp_path / "zero.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("x")
    steps = []
    report = data.check(f"folder:{tmp_path}", progress=lambda done, total: steps.append((done, total)))
    assert report.usable
    assert report.samples == 6
    assert report.media == {"image": 4, "clip": 2}
    assert report.labels == {"cats": 3, "moves": 2, "(none)": 1}
    assert report.splits == {}
    assert report.sizes["60 x 40"] == 3
    assert (report.heights.least, report.heights.median, report.heights.most) == (40, 43.5, 80)
    assert (report.durations_s.least, report.durations_s.most, report.durations_s.total) == (2.0, 4.0, 6.0)
    assert report.frames.median == 15
    assert sorted(name.split(" ")[0] for name in report.decoders) == ["decord", "pyav"]
    assert [(s.key, s.why) for s in report.skipped] == [("zero.jpg", "it is empty: zero bytes")]
    assert report.ignored == {".txt": 1}
    assert steps[-1] == (7, 7)


def test_a_report_is_plain_json(tmp_path):
    save_picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    report = data.check(f"folder:{tmp_path}")
    value = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert value == report.to_json()
    assert value["usable"] is True
    assert value["why"] is None
    assert value["durations_s"] == {"count": 0, "least": None, "median": None, "most": None, "total": 0}
    assert value["skipped"] == [{"sample": "b.png", "why": "it is empty: zero bytes"}]


def test_nothing_usable_is_a_report_that_says_so(tmp_path):
    (tmp_path / "b.png").write_bytes(b"")
    report = data.check(f"folder:{tmp_path}")
    assert not report.usable
    assert report.samples == 0
    assert "1 unusable" in report.why
    assert [s.key for s in report.skipped] == ["b.png"]
    empty = data.check(f"folder:{coco(tmp_path / 'coco') / 'annotations'}")
    assert "1 files named .json" in empty.why


def test_what_cannot_be_opened_is_an_error_not_a_report(tmp_path):
    for spec in ("nothing", "folder:", f"folder:{tmp_path / 'gone'}", f"ssv2:{tmp_path}", f"coco:{tmp_path}"):
        with pytest.raises(ValueError, match="but"):
            data.check(spec)


def test_something_something_is_counted_by_split_and_class_and_every_clip_is_tried(tmp_path):
    root = something(tmp_path)
    broken = root / "20bn-something-something-v2" / "109.webm"
    content = broken.read_bytes()
    middle = content.index(b"\x1f\x43\xb6\x75") + 8
    broken.write_bytes(content[:middle] + bytes(len(content) - middle))
    report = data.check(f"ssv2:{root}", split="all")
    assert report.samples == 16
    assert {split: sum(counts.values()) for split, counts in report.splits.items()} == {
        "test": 2,
        "train": 6,
        "validation": 8,
    }
    assert report.splits["train"] == {plain(template): 2 for template in sorted(TEMPLATES)}
    assert report.splits["test"] == {"(none)": 2}
    assert [skip.key.rsplit("/")[-1] for skip in report.skipped] == ["109.webm"]
    assert report.durations_s.count == 16
    assert report.frames.least == 8


def test_coco_and_synthetic_data_are_counted_too(tmp_path):
    report = data.check(f"coco:{coco(tmp_path)}")
    assert report.labels == {"cat": 3, "dog": 3}
    assert report.sizes == {"80 x 60": 6}
    moving = data.check("synthetic:moving", samples=8)
    assert moving.media == {"clip": 8}
    assert moving.durations_s.median == pytest.approx(17 / 8)
    assert data.check("synthetic", samples=5).heights.median == 64


def test_one_broken_clip_among_many_is_named(tmp_path):
    good = save_clip(tmp_path / "0000.webm", frames=3)
    whole = good.read_bytes()
    for i in range(1, 60):
        # bytes after the segment make each file another one, and no reader minds
        (tmp_path / f"{i:04d}.webm").write_bytes(whole + bytes([0xEC, 0x82, i, i]))
    (tmp_path / "0030.webm").write_bytes(whole[: len(whole) - 20])
    report = data.check(f"folder:{tmp_path}")
    assert report.samples == 59
    assert [skip.key for skip in report.skipped] == ["0030.webm"]
    assert "cut short" in report.skipped[0].why
    shutil.rmtree(tmp_path)

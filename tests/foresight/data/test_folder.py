"""A folder's manifest names content: neither its place nor its listing shows, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from foresight import data
from foresight.data import folder

from .media import photographs, picture, save_clip, save_picture


def whys(src: data.DataSource) -> dict[str, str]:
    return {skip.key: skip.why for skip in src.manifest.skipped}


def test_photographs_become_labelled_samples(tmp_path):
    src = data.open(f"folder:{photographs(tmp_path / 'photos')}")
    assert {s.label for s in src.manifest} == {"image", "learn"}
    assert len(src.manifest) > 25
    for sample in src.manifest:
        frames = src.frames(sample, data.Sampling())
        assert list(frames.size) == sample.annotations["size"]
    assert src.manifest.skipped == ()


def test_labels_keys_and_media_follow_the_tree(mixed):
    src = data.open(f"folder:{mixed}")
    assert [(s.key, s.label, s.media) for s in src.manifest] == [
        ("cats/0.png", "cats", "image"),
        ("cats/1.png", "cats", "image"),
        ("cats/2.png", "cats", "image"),
        ("cats/3.png", "cats", "image"),
        ("dogs/deep/0.jpg", "dogs", "image"),
        ("dogs/deep/1.jpg", "dogs", "image"),
        ("dogs/deep/2.jpg", "dogs", "image"),
        ("moves/a.webm", "moves", "clip"),
        ("top.webp", None, "image"),
    ]
    assert src.ignored == {".json": 1, ".txt": 1}
    assert src.frames(src.manifest.samples[7], data.Sampling(frames=9)).pixels.shape == (9, 48, 64, 3)
    assert src.frames(src.manifest.samples[0], data.Sampling(frames=9)).pixels.shape == (1, 48, 64, 3)
    np.testing.assert_array_equal(
        src.frames(src.manifest.samples[0], data.Sampling()).pixels[0], picture(seed=0)
    )


def test_a_folder_in_the_layout_of_imagenet_needs_nothing_more(tmp_path):
    root = tmp_path / "train"
    for synset in ("n01440764", "n02105855"):
        for i in range(3):
            save_picture(root / synset / f"{synset}_{i}.JPEG", seed=int(synset[1:]) + i)
    # what the real one holds too: a PNG under a JPEG's name, CMYK, grey
    Image.fromarray(picture(seed=30)).save(root / "n01440764" / "n01440764_30.JPEG", "PNG")
    Image.fromarray(picture(seed=31)).convert("CMYK").save(root / "n01440764" / "n01440764_31.JPEG", "JPEG")
    Image.fromarray(picture(seed=32)[..., 0]).save(root / "n02105855" / "n02105855_32.JPEG", "JPEG")
    src = data.open(f"folder:{root}")
    assert src.manifest.skipped == ()
    assert Counter(src.manifest.labels) == {"n01440764": 5, "n02105855": 4}
    assert {src.frames(s, data.Sampling()).pixels.shape for s in src.manifest} == {(1, 48, 64, 3)}


def test_the_manifest_does_not_show_where_or_when(mixed, tmp_path, monkeypatch):
    before = data.open(f"folder:{mixed}").manifest.canonical()
    moved = tmp_path / "elsewhere" / "copy"
    shutil.copytree(mixed, moved)
    for path in moved.rglob("*.*"):
        os.utime(path, (1, 1))
    real = os.scandir

    class Backwards:
        def __init__(self, path):
            self._found = list(real(path))[::-1]

        def __enter__(self):
            return iter(self._found)

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(os, "scandir", Backwards)
    assert data.open(f"folder:{moved}").manifest.canonical() == before


def test_equal_bytes_are_one_sample_and_one_skip(mixed):
    shutil.copy(mixed / "cats" / "0.png", mixed / "dogs" / "again.png")
    src = data.open(f"folder:{mixed}")
    assert whys(src) == {"dogs/again.png": "same bytes as cats/0.png"}
    assert len(src.manifest) == 9


def test_every_file_that_cannot_be_used_is_listed_with_its_reason(mixed):
    (mixed / "zero.jpg").write_bytes(b"")
    (mixed / "zero.mp4").write_bytes(b"")
    whole = (mixed / "dogs/deep/0.jpg").read_bytes()
    (mixed / "short.jpg").write_bytes(whole[: len(whole) // 2])
    (mixed / "text.png").write_text("not a picture")
    (mixed / "garbage.webm").write_bytes(b"\x1a\x45\xdf\xa3" + bytes(500))
    shutil.copy(mixed / "moves/a.webm", mixed / "clip.png")
    shutil.copy(mixed / "cats/1.png", mixed / "still.mp4")
    shutil.copy(mixed / "cats/1.png", mixed / "still.dat")
    (mixed / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (mixed / "gone.jpg").symlink_to("nowhere.jpg")
    (mixed / "self.jpg").symlink_to("self.jpg")
    (mixed / "cats" / "up").symlink_to("..")
    (mixed / ".hidden").mkdir()
    os.mkfifo(mixed / "pipe.jpg")
    src = data.open(f"folder:{mixed}")
    found = whys(src)
    expected = {
        ".hidden/": "hidden folders",
        "cats/up/": "is the folder . again",
        "clip.png": "named like an image, but its bytes are WebM",
        "garbage.webm": "cannot be opened",
        "gone.jpg": "leads nowhere",
        "phone.heic": "heic files are not read",
        "pipe.jpg": "device, pipe or socket",
        "self.jpg": "leads nowhere",
        "short.jpg": "Truncated File Read",
        "still.dat": "its bytes are PNG",
        "still.mp4": "named like a clip, but its bytes are PNG",
        "text.png": "no JPEG, PNG",
        "zero.jpg": "zero bytes",
        "zero.mp4": "zero bytes",
    }
    assert found.keys() == expected.keys()
    for key, why in expected.items():
        assert why in found[key], key
        assert "\n" not in found[key]
        assert str(mixed) not in found[key]
    assert len(src.manifest) == 9


NOT_ABOVE_PERMISSIONS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""Runs a command without what lets the superuser read everything."""


def test_unreadable_permissions_are_skips(mixed):
    (mixed / "cats" / "0.png").chmod(0)
    (mixed / "moves").chmod(0)
    before = () if os.geteuid() else NOT_ABOVE_PERMISSIONS
    if before and shutil.which(before[0]) is None:
        pytest.skip("only setpriv makes the superuser heed permissions, and it is not installed")
    script = (
        "import json, sys; from foresight import data; m = data.open('folder:' + sys.argv[1]).manifest; "
        "print(json.dumps([len(m), {s.key: s.why for s in m.skipped}]))"
    )
    run = subprocess.run(
        [*before, sys.executable, "-c", script, str(mixed)],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    (mixed / "moves").chmod(0o700)
    clips = sum(1 for _ in (mixed / "moves").iterdir())
    usable, skipped = json.loads(run.stdout)
    assert skipped == {
        "cats/0.png": "it cannot be opened: Permission denied",
        "moves/": "this folder cannot be listed: Permission denied",
    }
    assert usable == 9 - 1 - clips


def test_a_refused_open_is_a_skip(mixed, monkeypatch):
    real = os.open

    def refuse(path, *args, **kwargs):
        if Path(path).name == "0.png":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    assert whys(data.open(f"folder:{mixed}")) == {"cats/0.png": "it cannot be opened: Permission denied"}


def test_two_ways_into_one_folder_list_it_once(mixed):
    (mixed / "a-link").symlink_to("cats")
    src = data.open(f"folder:{mixed}")
    assert whys(src) == {
        "a-link/": "this is the folder cats again, by a symbolic link; its files are listed once"
    }


def test_a_link_out_of_the_folder_is_followed(mixed, tmp_path):
    save_picture(tmp_path / "other" / "x.png", seed=77)
    (mixed / "birds").symlink_to(tmp_path / "other")
    assert "birds/x.png" in [s.key for s in data.open(f"folder:{mixed}").manifest]


def test_unicode_and_very_long_names_are_kept(tmp_path):
    root = tmp_path / "names"
    names = ["ünï", "猫", "a" * 240, "spaces and 'quotes'", "new\nline", "🐈"]
    for i, name in enumerate(names):
        save_picture(root / "x" / f"{name}.png", seed=i)
    keys = {s.key for s in data.open(f"folder:{root}").manifest}
    assert keys == {f"x/{name}.png" for name in names}


def test_names_equal_after_normalisation_are_one_sample_and_one_skip(tmp_path):
    for i, form in enumerate(("NFC", "NFD")):
        save_picture(tmp_path / f"{unicodedata.normalize(form, 'é')}.png", seed=i)
    src = data.open(f"folder:{tmp_path}")
    assert len(src.manifest) == 1
    assert "spelled with other Unicode characters" in src.manifest.skipped[0].why


def test_a_name_that_is_not_utf8_is_a_skip(tmp_path):
    save_picture(tmp_path / "good.png")
    shutil.copy(tmp_path / "good.png", os.fsencode(tmp_path) + b"/b\xff.png")
    assert whys(data.open(f"folder:{tmp_path}")) == {"b\\xff.png": "its name is not valid UTF-8; rename it"}


def test_two_files_with_one_stem_are_two_samples(tmp_path):
    save_picture(tmp_path / "a.v1.png", seed=1)
    save_picture(tmp_path / "a.v2.png", seed=2)
    save_picture(tmp_path / "a.v1.webp", seed=3)
    assert len(data.open(f"folder:{tmp_path}").manifest) == 3


def test_a_folder_without_usable_files_says_what_it_holds(tmp_path):
    with pytest.raises(data.NoUsableData, match="no files at all"):
        _ = data.open(f"folder:{tmp_path}").manifest
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.jpg").write_bytes(b"")
    with pytest.raises(
        data.NoUsableData, match=r"1 files named \.txt; 1 unusable, such as 'b.jpg': it is empty"
    ):
        _ = data.open(f"folder:{tmp_path}").manifest


@pytest.mark.parametrize("location", ["", "nowhere"])
def test_a_folder_that_is_not_there_is_refused(location):
    with pytest.raises(ValueError, match="names a folder that is there"):
        data.open(f"folder:{location}")


def test_a_subset_is_balanced_stable_and_nested(tmp_path):
    for label, count in (("a", 12), ("b", 6), ("c", 2)):
        for i in range(count):
            save_picture(tmp_path / label / f"{i}.png", height=16, width=16, seed=ord(label) * 100 + i)

    def taken(n, seed=0, root=tmp_path):
        return data.open(f"folder:{root}", samples=n, seed=seed).manifest

    nine = taken(9)
    labels = nine.labels
    assert sorted(labels.count(x) for x in "abc") == [2, 3, 4]
    assert set(taken(5).digests) < set(nine.digests)
    assert taken(9, seed=1).digests != nine.digests
    renamed = tmp_path.parent / "renamed"
    for path in tmp_path.rglob("*.png"):
        target = renamed / path.parent.name / f"z{99 - int(path.stem)}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    assert set(taken(9, root=renamed).digests) == set(nine.digests)
    assert len(taken(100)) == 20


def test_a_file_replaced_after_the_scan_is_unreadable_and_never_another_sample(mixed):
    src = data.open(f"folder:{mixed}")
    sample = src.manifest.samples[0]
    save_picture(mixed / "cats" / "0.png", seed=99)
    with pytest.raises(data.Unreadable, match="changed after the scan"):
        src.frames(sample, data.Sampling())
    (mixed / "cats" / "0.png").unlink()
    with pytest.raises(data.Unreadable, match="cannot be opened any more"):
        src.frames(sample, data.Sampling())


def test_a_scan_leaves_no_file_open(mixed):
    for i in range(40):
        save_clip(mixed / "many" / f"{i}.webm", frames=1, height=16, width=16, seed=i)
    (mixed / "zero.jpg").write_bytes(b"")
    _ = data.open(f"folder:{mixed}").manifest
    before = psutil.Process().num_fds()
    _ = data.open(f"folder:{mixed}").manifest
    assert psutil.Process().num_fds() == before


def test_a_file_touched_but_not_changed_is_still_read(mixed):
    src = data.open(f"folder:{mixed}")
    os.utime(mixed / "cats" / "0.png")
    assert src.frames(src.manifest.samples[0], data.Sampling()).size == (48, 64)


def test_a_file_that_vanishes_during_the_scan_is_a_skip(mixed, monkeypatch):
    real = folder.list_folder

    def list_then_delete(root):
        listing = real(root)
        (mixed / "cats" / "2.png").unlink()
        return listing

    monkeypatch.setattr(folder, "list_folder", list_then_delete)
    assert whys(data.open(f"folder:{mixed}")) == {
        "cats/2.png": "it cannot be opened: No such file or directory"
    }


def test_a_key_is_never_opened_as_a_path(mixed, tmp_path):
    secret = save_picture(tmp_path / "secret.png", seed=66)
    src = data.open(f"folder:{mixed}")
    stranger = type(src.manifest.samples[0])(digest="0" * 64, key=f"../{secret.name}")
    with pytest.raises(data.Unreadable, match="no file of this data set has the sample's bytes"):
        src.frames(stranger, data.Sampling())


def test_prefetch_keeps_order_and_hands_failures_over_in_place(mixed):
    src = data.open(f"folder:{mixed}")
    samples = src.manifest.samples
    (mixed / "cats" / "2.png").unlink()
    for workers in (0, 3):
        got = list(data.prefetch(src, samples, data.Sampling(frames=2), workers=workers, ahead=2))
        assert [s.key for s, _ in got] == [s.key for s in samples]
        kinds = [type(f).__name__ for _, f in got]
        assert kinds.count("Unreadable") == 1
        assert kinds[2] == "Unreadable"


def test_prefetch_holds_no_more_than_asked():
    started: list[int] = []

    class Counting:
        def frames(self, sample, sampling):
            started.append(sample)
            return sample

    it = data.prefetch(Counting(), range(100), data.Sampling(), workers=2, ahead=3)
    next(it)
    assert len(started) <= 4
    it.close()
    assert len(started) <= 6
    with pytest.raises(ValueError, match="ahead 1 or more"):
        list(data.prefetch(Counting(), [], data.Sampling(), workers=1, ahead=0))

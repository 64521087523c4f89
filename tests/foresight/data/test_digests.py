"""What is remembered of a file holds while the file stays the same, and costs nothing but time when it is lost."""

from __future__ import annotations

import hashlib
import json
import os

import numpy as np
import pytest
from PIL import Image

from foresight import data
from foresight.data import digests, files, looking

from .media import picture, save_picture


def test_large_and_small_files_have_the_digest_of_their_bytes(tmp_path):
    rng = np.random.default_rng(0)
    for side in (8, 700):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(tmp_path / f"{side}.png")
    assert (tmp_path / "8.png").stat().st_size < looking.AT_ONCE_BYTES < (tmp_path / "700.png").stat().st_size
    for sample in data.open(f"folder:{tmp_path}").manifest:
        assert sample.digest == hashlib.sha256((tmp_path / sample.key).read_bytes()).hexdigest()


def test_a_second_scan_reads_nothing_again(mixed, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    (mixed / "short.jpg").write_bytes((mixed / "dogs/deep/0.jpg").read_bytes()[:300])
    first = data.open(f"folder:{mixed}", cache_dir=cache).manifest
    monkeypatch.setattr(looking, "_read", lambda *_: pytest.fail("a known file was digested again"))
    monkeypatch.setattr(looking, "_try", lambda entry: pytest.fail("a known file was decoded again"))
    second = data.open(f"folder:{mixed}", cache_dir=cache).manifest
    assert second == first
    assert "short.jpg" in {s.key for s in second.skipped}
    assert [p.name[:6] for p in cache.iterdir()] == ["files-"]


def test_a_changed_file_is_read_again_even_when_its_times_are_set_back(mixed, tmp_path):
    cache = tmp_path / "cache"
    path = mixed / "cats" / "0.png"
    before = data.open(f"folder:{mixed}", cache_dir=cache).manifest
    stat = path.stat()
    content = bytearray(path.read_bytes())
    Image.fromarray(picture(seed=55)).save(path)
    path.write_bytes(path.read_bytes()[: len(content)].ljust(len(content), b"\0"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    after = data.open(f"folder:{mixed}", cache_dir=cache).manifest
    assert before.samples[0].digest not in after.digests


def without_a_digest(value):
    value["digests"].pop()


def with_a_short_digest(value):
    value["digests"][0] = "ab"


def with_numbers_for_keys(value):
    value["keys"] = list(range(len(value["keys"])))


def without_inodes(value):
    value["stamps"][3] = []


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"",
        lambda text: text[: len(text) // 2],
        lambda text: b"[]",
        lambda text: b'{"format": 99}',
        lambda text: b'{"format": 3, "readers": ""}',
        without_a_digest,
        with_a_short_digest,
        with_numbers_for_keys,
        without_inodes,
    ],
)
def test_a_damaged_cache_costs_time_and_nothing_else(mixed, tmp_path, damage):
    cache = tmp_path / "cache"
    first = data.open(f"folder:{mixed}", cache_dir=cache).manifest
    (file,) = cache.iterdir()
    if damage.__name__ == "<lambda>":
        file.write_bytes(damage(file.read_bytes()))
    else:
        value = json.loads(file.read_text())
        damage(value)
        file.write_text(json.dumps(value))
    assert data.open(f"folder:{mixed}", cache_dir=cache).manifest == first


def test_a_new_reader_version_tries_the_files_again_but_keeps_digests(mixed, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = data.open(f"folder:{mixed}", cache_dir=cache).manifest
    tried = []
    real = looking._try
    monkeypatch.setattr(files, "READER", "pillow 99")
    monkeypatch.setattr(looking, "_read", lambda *_: pytest.fail("a known file was digested again"))
    monkeypatch.setattr(looking, "_try", lambda entry: tried.append(entry.key) or real(entry))
    assert data.open(f"folder:{mixed}", cache_dir=cache).manifest == first
    assert len(tried) == 9


def test_an_interrupted_save_leaves_the_old_cache(mixed, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    _ = data.open(f"folder:{mixed}", cache_dir=cache).manifest
    (file,) = cache.iterdir()
    before = file.read_bytes()
    save_picture(mixed / "new.png", seed=90)

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(digests.os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        _ = data.open(f"folder:{mixed}", cache_dir=cache).manifest
    assert [p.read_bytes() for p in cache.iterdir()] == [before]

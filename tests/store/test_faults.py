"""Faults: killed writers, full disks, flipped bits, cut files, rival writers, bad networks, read-only stores."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import store
from store import places
from store.index import RowIndex
from store.shards import Shard
from tests.store.golden_store import write
from tests.store.helpers import fill, manifest, recipe, row, sample

WRITER = """
import sys
import store
from tests.store.helpers import recipe, row, sample
url, first, last, step = sys.argv[1], *map(int, sys.argv[2:])
catalog = store.open(url, create=True)
with catalog.writer(recipe(), rows_per_shard=3) as writer:
    for i in range(first, last, step):
        writer.put(**row(i, tokens=64, grid=(0, 0, 0)))
        if (i - first) // step % 3 == 2:
            writer.flush()
            print(i, flush=True)
print("done", writer.rows_written, writer.rows_reused, len(writer.conflicts), flush=True)
"""


def started(url: object, first: int, last: int, step: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(url), str(first), str(last), str(step)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def shards_with_drops(folder: Path) -> tuple[str, ...]:
    place = store.open(folder).place
    indexes = [RowIndex(place, recipe).refresh() for recipe in place.names("rows")]
    found = tuple(
        Shard(place, table).folder
        for index in indexes
        for table in index.tables
        if any(index.is_dropped(table, i) for i in range(len(table)))
    )
    assert len(found) == 1
    return found


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << (at % 8)
    path.write_bytes(data)


@pytest.mark.slow
def test_two_hundred_killed_writers_lose_nothing_they_acknowledged(tmp_path):
    url, dice = tmp_path / "store", random.Random(0)
    local = store.open(url, create=True)
    kills, acknowledged = 0, set()
    while kills < 200:
        # children of one warm process, so that a kill costs milliseconds and lands inside the writing
        rivals = [_forked(url, dice.randrange(60)) for _ in range(4)]
        time.sleep(dice.uniform(0.005, 0.08))
        for pid, told in rivals:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            kills += 1
            with os.fdopen(told) as lines:
                # a line is whole when its line feed is there
                acknowledged |= {int(line) for line in lines.read().split("\n")[:-1]}
        if kills % 40 == 0:
            assert local.verify().problems == []
    assert len(acknowledged) > 50
    for i in acknowledged:
        np.testing.assert_array_equal(local.row(recipe().id, sample(i)).values, row(i, tokens=64)["values"])
    staged = list((url / "staging").iterdir())
    assert staged, "no writer was killed at work"
    fill(local, range(3), tokens=64)
    content = local.latents(recipe().id, local.put_manifest(manifest(sorted(acknowledged)))).content_id
    local.record(store.Recipe(operation="metric", version=1, inputs={"latents": content}))
    local.sweep(grace_s=0, apply=True)
    assert list((url / "staging").iterdir()) == []
    assert local.missing(recipe().id, [sample(i) for i in acknowledged]) == []
    assert local.verify().ok


def _forked(url: Path, first: int) -> tuple[int, int]:
    """Start a writer that tells, through a pipe, the rows it was promised; return its process and the pipe."""
    read, told = os.pipe()
    pid = os.fork()
    if pid:
        os.close(told)
        return pid, read
    try:
        with store.open(url).writer(recipe(), rows_per_shard=3) as writer:
            for i in range(first, first + 1000):
                writer.put(**row(i, tokens=64))
                if i % 3 == 2:
                    writer.flush()
                    os.write(told, b"".join(b"%d\n" % j for j in range(max(first, i - 2), i + 1)))
    finally:
        os._exit(1)


@pytest.mark.slow
def test_eight_writers_on_overlapping_manifests_leave_one_whole_set_of_rows(tmp_path):
    store.open(tmp_path / "store", create=True)
    rivals = [started(tmp_path / "store", 5 * k, 60 + 5 * k) for k in range(8)]
    said = [rival.communicate(timeout=120)[0].splitlines()[-1].split() for rival in rivals]
    assert [words[0] for words in said] == ["done"] * 8
    assert all(int(words[1]) + int(words[2]) == 60 and words[3] == "0" for words in said)
    local = store.open(tmp_path / "store")
    assert local.verify().ok
    everything = [sample(i) for i in range(95)]
    assert local.missing(recipe().id, everything) == []
    alone = store.open(tmp_path / "alone", create=True)
    fill(alone, range(95), tokens=64)
    assert local.du()[0].rows == 95
    m = manifest(range(95))
    assert (
        local.latents(recipe().id, local.put_manifest(m)).content_id
        == alone.latents(recipe().id, alone.put_manifest(m)).content_id
    )


@pytest.mark.slow
def test_every_flipped_bit_is_found_and_named_and_damaged_rows_become_missing(tmp_path):
    write(str(tmp_path / "whole"))
    dice = random.Random(1)
    # the bytes of a row that was dropped are nobody's any more
    with_drops = shards_with_drops(tmp_path / "whole")
    paths = sorted(p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*") if p.is_file())
    files = [p for p in paths if not p.as_posix().startswith(with_drops)]
    kinds = {
        (
            p.parts[0],
            p.name if p.parts[0] == "shards" else p.suffix,
            p.parent.name if p.parts[0] == "shards" else "",
        ): p
        for p in files
    }
    chosen = [p for p in kinds.values() if p.name != "format.json"]
    assert len(chosen) > 15
    assert not any(p.as_posix().startswith(with_drops) for p in chosen)
    for name in chosen:
        shutil.copytree(tmp_path / "whole", tmp_path / "hurt")
        flip(tmp_path / "hurt" / name, dice.randrange((tmp_path / "hurt" / name).stat().st_size))
        hurt = store.open(tmp_path / "hurt")
        report = hurt.verify()
        assert report.problems, name
        assert any(name.as_posix() in p.file or name.parent.as_posix() in p.file for p in report.problems), (
            name
        )
        if report.dropped:
            assert all(p.sample or p.row is None for p in report.problems)
            lost = {u.point: u.rows for u in hurt.du()}
            assert sum(lost.values()) == 18 - report.dropped
        shutil.rmtree(tmp_path / "hurt")


def test_every_byte_of_a_shard_matters(local):
    fill(local, range(2), tokens=3, features=2, grid=(0, 0, 0))
    whole = {p: p.read_bytes() for p in sorted(local.place.root.glob("shards/**/*")) if p.is_file()}
    values = next(p for p in whole if p.name == "c.0.0.0")
    for at in range(len(whole[values])):
        flip(values, at)
        assert not local.verify(drop=False).ok, at
        values.write_bytes(whole[values])
    for path in whole:
        for at in range(0, len(whole[path]), 41):
            flip(path, at)
            assert not local.verify(drop=False).ok, (path, at)
            path.write_bytes(whole[path])
    assert local.verify().ok


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_a_truncated_file_is_named_and_the_next_run_writes_what_it_lost(local, keep):
    fill(local, range(8))
    before = local.latents(recipe().id, local.put_manifest(manifest(range(8)))).content_id
    victim = sorted(local.place.root.glob("shards/*/*/values/c.0.0.0"))[1]
    os.truncate(victim, keep if keep >= 0 else victim.stat().st_size + keep)
    again = store.open(local.url)
    report = again.verify(deep=False)
    assert any("bytes instead of" in p.what for p in report.problems)
    assert fill(again, range(8)).rows_written == report.dropped == (4 if keep >= 0 else 0)
    assert again.latents(recipe().id, again.put_manifest(manifest(range(8)))).content_id == before
    for i in range(8):
        np.testing.assert_array_equal(again.row(recipe().id, sample(i)).values, row(i)["values"])


def test_a_lost_file_is_named_and_its_rows_are_computed_again(local):
    fill(local, range(8))
    shutil.rmtree(next(local.place.root.glob("shards/*/*")))
    with pytest.raises(store.StoreError):
        local.gather(recipe().id, [sample(i) for i in range(8)])
    report = local.verify()
    assert {p.what for p in report.problems} == {"the file is gone"}
    assert fill(local, range(8)).rows_written == 4
    assert local.gather(recipe().id, [sample(i) for i in range(8)]).shape == (8, 12, 8)


def test_a_lost_or_damaged_row_table_makes_its_rows_missing_until_it_is_rebuilt(local):
    fill(local, range(40), rows_per_shard=1)
    assert local.place.names(f"packs/{recipe().id}")
    victim = local.place.root / "rows" / recipe().id / sorted(local.place.names(f"rows/{recipe().id}"))[7]
    victim.unlink()
    again = store.open(local.url)
    lost = again.missing(recipe().id, [sample(i) for i in range(40)])
    assert len(lost) == 1
    assert again.rebuild() == 1
    assert store.open(local.url).missing(recipe().id, lost) == []
    flip(victim, 100)
    hurt = store.open(local.url)
    hurt.place.remove(f"packs/{recipe().id}")
    assert hurt.missing(recipe().id, lost) == lost
    (problem,) = hurt.verify().problems
    assert problem.file.endswith(victim.name)
    assert hurt.missing(recipe().id, lost) == []
    assert hurt.verify().ok


def test_all_row_tables_and_recipes_can_be_rebuilt_from_the_shards(local):
    fill(local, range(9))
    with local.writer(recipe(point="ragged")) as writer:
        for i in range(4):
            writer.put(**row(i, tokens=3 + i))
    whole = {path: path.read_bytes() for path in (local.place.root / "rows").rglob("*.rows")}
    for folder in ("rows", "packs", "recipes"):
        shutil.rmtree(local.place.root / folder, ignore_errors=True)
    bare = store.open(local.url)
    assert bare.du() == []
    assert bare.rebuild() == 4
    assert {path: path.read_bytes() for path in whole} == whole
    assert bare.verify().ok
    np.testing.assert_array_equal(bare.row(recipe().id, sample(8)).values, row(8)["values"])


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system needs the right to mount one")
def test_a_full_disk_is_one_clear_error_and_leaves_nothing_half_written(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(small)], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        local = store.open(small / "store", create=True)
        with pytest.raises(store.StoreFull, match="no room is left"):
            fill(local, range(1000), tokens=256, rows_per_shard=8)
        assert list((small / "store" / "staging").iterdir()) == []
        kept = local.du()[0].rows
        assert 0 < kept < 1000
        assert local.verify(drop=False).ok
        with pytest.raises(store.StoreFull):
            local.put_blob(os.urandom(1 << 23))
        assert local.verify(drop=False).ok
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, store.StoreFull),
        (errno.EDQUOT, store.StoreFull),
        (errno.EROFS, store.NotWritable),
        (errno.EIO, store.StoreError),
    ],
)
@pytest.mark.parametrize("call", [1, 4, 9, 14])
def test_a_disk_that_fails_at_any_sync_leaves_whole_shards_only(local, monkeypatch, number, error, call):
    fill(local, range(2))
    real, calls = os.fsync, []

    def failing(handle: int) -> None:
        calls.append(handle)
        if len(calls) == call:
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr(places.os, "fsync", failing)
    with pytest.raises(error):
        fill(local, range(6))
    monkeypatch.undo()
    again = store.open(local.url)
    assert again.verify().ok
    assert list((local.place.root / "staging").iterdir()) == []
    assert fill(again, range(6)).rows_written + 2 <= 6
    assert again.missing(recipe().id, [sample(i) for i in range(6)]) == []


def test_a_store_made_read_only_is_read_and_refuses_writing(local, monkeypatch):
    fill(local, range(4))
    m = local.put_manifest(manifest(range(4)))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(places, "_written", refuse)
    again = store.open(local.url)
    assert again.view(recipe=recipe().id, manifest=m)["values"].shape == (4, 12, 8)
    assert again.latents(recipe().id, m).content_id is not None
    with pytest.raises(store.NotWritable, match="does not allow it"):
        fill(again, range(6))
    with pytest.raises(store.NotWritable):
        again.put_blob(b"x")

"""Verify: read everything, name what is not what was written, and make damaged rows missing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from blake3 import blake3

from store import artifacts, results
from store.contents import read_manifest
from store.digest import is_id
from store.errors import Damaged, Missing, StoreError
from store.index import RowIndex
from store.places import Place
from store.records import unsealed
from store.rows import row_digest
from store.shards import Shard, crc_bytes, rebuilt_table
from store.tables import Table, decode_tables

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is not what was written."""

    file: str
    """Name from the store's root."""
    what: str
    row: int | None = None
    """Position in its shard, for damage inside a row."""
    sample: str | None = None
    """Sample digest of that row."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `verify` read and found."""

    problems: list[Problem]
    checked: dict[str, int]
    """Counts by kind: rows, shards, tables, recipes, manifests, results, blobs, trees."""
    dropped: int
    """Rows made missing, so that the next run computes them again."""

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(place: Place, *, deep: bool, drop: bool, progress: Progress | None) -> Report:
    """Check the whole store. `deep` reads every byte; otherwise only what is small, and sizes."""
    tell = progress or (lambda _: None)
    problems: list[Problem] = []
    checked = dict.fromkeys(
        ("rows", "shards", "tables", "recipes", "manifests", "results", "blobs", "trees"), 0
    )
    dropped = 0
    for recipe in sorted(place.names("rows")):
        tell(f"rows of {recipe[:12]}")
        dropped += _recipe_rows(place, recipe, deep, drop, problems, checked)
    for kind, check in _SMALL.items():
        for name, _ in place.walk(kind):
            tell(name)
            try:
                counted = check(place, name, deep)
            except (StoreError, ValueError, KeyError, TypeError) as error:
                problems.append(Problem(file=name, what=str(error)))
                counted = None
            if counted:
                checked[counted] += 1
    return Report(problems=problems, checked=checked, dropped=dropped)


def _recipe_rows(
    place: Place, recipe: str, deep: bool, drop: bool, problems: list[Problem], checked: dict[str, int]
) -> int:
    index = RowIndex(place, recipe).refresh()
    hurt = dict(index.damaged)
    for name, why in hurt.items():
        problems.append(Problem(file=f"rows/{recipe}/{name}", what=why))
        if drop and name.endswith(".rows"):
            with contextlib.suppress(StoreError, ValueError, KeyError, TypeError):
                # its rows come back; where the shard is damaged too they stay missing
                index.add(rebuilt_table(place, recipe, name[9:].removesuffix(".rows")))
    if hurt:
        index = RowIndex(place, recipe).refresh()
    bad: list[tuple[str, int]] = []
    for table in index.tables:
        live = [i for i in range(len(table)) if not index.is_dropped(table, i)]
        checked["tables"] += 1
        checked["shards"] += 1
        checked["rows"] += len(live)
        found = list(shard_problems(place, table, live, deep))
        problems += [problem for problem, _ in found]
        lost = {i for _, rows in found for i in rows}
        bad += [(table.shard, i) for i in sorted(lost)]
    if bad and drop:
        index.drop(bad, "verify found them damaged")
        return len(bad)
    return 0


def shard_problems(
    place: Place, table: Table, live: list[int], deep: bool
) -> Iterator[tuple[Problem, list[int]]]:
    """Yield (problem, rows it makes unreadable) of one shard."""
    shard = Shard(place, table)
    whole = True
    for name, (size, check) in table.files.items():
        path = f"{shard.folder}/{name}"
        there = place.size(path)
        lost = [] if name.endswith("zarr.json") else live
        if there is None:
            whole = whole and not lost
            yield Problem(file=path, what="the file is gone"), lost
        elif there != size:
            kept = [
                i for i in live if name == shard.values_file and shard.offsets[i] + shard.sizes[i] <= there
            ]
            whole = whole and not lost
            yield (
                Problem(file=path, what=f"has {there} bytes instead of {size}"),
                [i for i in lost if i not in kept],
            )
        elif deep and check and blake3(place.get(path)).hexdigest() != check:
            # coordinates are also read row by row below, which says whose they are
            yield Problem(file=path, what="some byte differs from what was written"), []
    if deep and whole:
        yield from _row_problems(shard, table, live)


def _row_problems(shard: Shard, table: Table, live: list[int]) -> Iterator[tuple[Problem, list[int]]]:
    path = f"{shard.folder}/{shard.values_file}"
    bad = False
    for i in live:
        sample = table.samples[i].tobytes().hex()
        try:
            if row_digest(shard.row(i)) != table.digests[i].tobytes():
                bad = True
                yield Problem(file=path, row=i, sample=sample, what=f"row {i} differs from its digest"), [i]
        except Damaged as error:
            bad = True
            yield Problem(file=path, row=i, sample=sample, what=str(error)), [i]
    try:
        if not bad and not frame_is_whole(shard, table, live):
            yield (
                Problem(
                    file=path,
                    what="a checksum or the index beside the rows differs; "
                    "rows are whole, other Zarr readers may refuse them",
                ),
                [],
            )
    except StoreError as error:
        yield Problem(file=path, what=str(error)), []


def frame_is_whole(shard: Shard, table: Table, live: list[int]) -> bool:
    """Return whether the bytes of the values file that are not rows are what `encode_shard` writes.

    Rows that were dropped are damage already told and mended elsewhere, so their checksums are left out; a
    ragged shard has one checksum over all rows, which then says nothing.
    """
    path = f"{shard.folder}/{shard.values_file}"
    size = table.files[shard.values_file][0]
    if table.layout == "ragged":
        if len(live) < len(table):
            return True
        data = np.frombuffer(shard.place.get(path), np.uint8)
        return crc_bytes(data[:-4]) == data[-4:].tobytes()
    for i in live:
        chunk = shard.place.get_range(path, int(shard.offsets[i]), int(shard.sizes[i]) + 4)
        if crc_bytes(np.frombuffer(chunk, np.uint8)[:-4]) != chunk[-4:]:
            return False
    index = np.stack([shard.offsets, shard.sizes + 4], axis=1).astype("<u8")
    tail = shard.place.get_range(path, size - 16 * len(table) - 4, 16 * len(table) + 4)
    return tail == index.tobytes() + crc_bytes(index)


def _check_recipe(place: Place, name: str, deep: bool) -> str:
    results.get_recipe(place, _id_in(name))
    return "recipes"


def _check_manifest(place: Place, name: str, deep: bool) -> str:
    read_manifest(place, _id_in(name))
    return "manifests"


def _check_result(place: Place, name: str, deep: bool) -> str:
    _, recipe, file = name.split("/")
    results.read_result(place, recipe, file)
    return "results"


def _check_pointer(place: Place, name: str, deep: bool) -> None:
    unsealed(place.get(name), name)


def _check_tree(place: Place, name: str, deep: bool) -> str:
    for path, blob in artifacts.get_tree(place, _id_in(name)).items():
        if not artifacts.has_blob(place, blob):
            raise Missing(f"{name} names {path}, blob {blob[:12]}, which is gone or cut short")
    return "trees"


def _check_blob(place: Place, name: str, deep: bool) -> str | None:
    if name.endswith(".json"):
        artifacts.about_blob(place, _id_in(name))
        return None
    identity = _id_in(name)
    if not artifacts.has_blob(place, identity):
        raise Damaged(f"{name} has not the size it was written with")
    if deep:
        artifacts.get_blob(place, identity)
    return "blobs"


def _check_pack(place: Place, name: str, deep: bool) -> None:
    for _ in decode_tables(place.get(name), name):
        pass


def _id_in(name: str) -> str:
    identity = name.rsplit("/", 1)[-1].removesuffix(".json")
    if not is_id(identity):
        raise Damaged(f"{name} is no file of this store; remove it")
    return identity


_SMALL: dict[str, Callable[[Place, str, bool], Any]] = {
    "recipes": _check_recipe,
    "manifests": _check_manifest,
    "results": _check_result,
    "latents": _check_pointer,
    "trees": _check_tree,
    "blobs": _check_blob,
    "packs": _check_pack,
    "pins": _check_pointer,
}

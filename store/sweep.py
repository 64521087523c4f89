"""Sweep: remove what no recorded result and no pinned name needs, after a grace period."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

from store import artifacts, results
from store.contents import Contents, read_pairs
from store.digest import check_id, digest
from store.errors import Damaged, Missing, StoreError
from store.manifests import digests_of
from store.places import STAGING, Place
from store.records import sealed, unsealed
from store.shards import shard_folder

GRACE_S = 14 * 86400.0


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep found; removed only when `applied`."""

    applied: bool
    items: list[tuple[str, int, str]]
    """(name from the store's root, bytes, why nobody needs it)."""

    @property
    def bytes(self) -> int:
        return sum(size for _, size, _ in self.items)


@dataclass
class _Live:
    """Everything that recorded results and pinned names reach."""

    content: set[str] = field(default_factory=set)
    recipes: set[str] = field(default_factory=set)
    shards: set[str] = field(default_factory=set)


def sweep(contents: Contents, *, apply: bool, grace_s: float) -> Swept:
    """Find (and remove) staging left by the killed, shards without rows in use, and unreferenced content.

    Ages are by the clock of the place, so a host whose clock is wrong removes nothing early. A result whose
    content a sweep took from under a running stage is no hit, so the stage is run again.
    """
    if grace_s < 0:
        raise ValueError(f"grace_s is seconds from 0 up, but got {grace_s}")
    place = contents.place
    try:
        live = _mark(contents)
    except (Missing, Damaged) as error:
        raise StoreError(
            f"a sweep needs every record it marks from, or it would take what is needed, but {error}; nothing was "
            "removed: put back what is lost, or `forget` the result that needs it"
        ) from error
    before = _place_time(place) - grace_s
    items: list[tuple[str, int, str]] = []
    for names, why in _garbage(contents, live):
        found = [(name, *_extent(place, name)) for name in names]
        if found and max(modified for _, _, modified in found) <= before:
            items += [(name, size, why) for name, size, _ in found]
    if apply:
        for name, _, _ in items:
            place.remove(name)
    return Swept(applied=apply, items=items)


def pin(place: Place, name: str, identity: str) -> None:
    """Keep an id safe under a name, replacing what the name stood for."""
    check_id(identity)
    if not name or len(name) > 200:
        raise ValueError(f"a pin's name has 1 to 200 characters, but got {len(name)}")
    place.put(_pin_file(name), [sealed({"name": name, "id": identity})])


def unpin(place: Place, name: str) -> None:
    """Undo `pin`. Missing when there is no such name."""
    if place.size(_pin_file(name)) is None:
        raise Missing(f"no pin is called {name!r}; there are {sorted(pins(place))}")
    place.remove(_pin_file(name))


def pins(place: Place) -> dict[str, str]:
    """Return pinned ids by name."""
    found = {}
    for file in place.names("pins"):
        record = unsealed(place.get(f"pins/{file}"), f"pins/{file}")
        found[record["name"]] = record["id"]
    return found


def _mark(contents: Contents) -> _Live:
    live = _Live()
    place = contents.place
    todo = list(pins(place).values())
    for recipe_id in place.names("results"):
        live.recipes.add(recipe_id)
        for name in place.names(f"results/{recipe_id}"):
            result = results.read_result(place, recipe_id, name)
            todo += [*result.outputs.values(), *result.recipe.inputs.values()]
    while todo:
        identity = todo.pop()
        if identity not in live.content:
            live.content.add(identity)
            todo += _reached(contents, identity, live)
    return live


def _reached(contents: Contents, identity: str, live: _Live) -> Iterator[str]:
    """Yield ids that `identity` needs, and mark the rows it stands for."""
    place = contents.place
    with contextlib.suppress(Missing):
        yield from artifacts.get_tree(place, identity).values()
    if place.names(f"rows/{identity}"):  # a recipe pinned by name keeps all its rows
        live.recipes.add(identity)
        live.shards.update(table.shard for table, _ in contents.index(identity).live())
    for recipe_id, manifest_id in read_pairs(place, identity, strict=True):
        samples = digests_of(contents.manifest(manifest_id))
        live.recipes.add(recipe_id)
        found = (contents.index(recipe_id).find(sample) for sample in samples)
        live.shards.update(where[0].shard for where in found if where is not None)
        yield manifest_id


def _garbage(contents: Contents, live: _Live) -> Iterator[tuple[list[str], str]]:
    """Yield names that go together, in the order they may be removed in, and why."""
    place = contents.place
    for name in place.names(STAGING):
        yield [f"{STAGING}/{name}"], "left by a writer that was killed"
    for recipe_id in place.names("rows"):
        yield from _rows_garbage(contents, recipe_id, live)
    unseen = set(place.names("shards")) - set(place.names("rows"))
    for recipe_id in set(place.names("shards")) & (live.recipes | unseen):
        visible = {name[9:].removesuffix(".rows") for name in place.names(f"rows/{recipe_id}")}
        for shard in set(place.names(f"shards/{recipe_id}")) - visible:
            yield [shard_folder(recipe_id, shard)], "a shard that never became visible"
    for recipe_id in place.names("packs"):
        if not place.names(f"rows/{recipe_id}"):
            yield [f"packs/{recipe_id}"], "a pack of no rows"
    for kind in ("trees", "manifests"):
        for name in place.names(kind):
            if name.removesuffix(".json") not in live.content:
                yield [f"{kind}/{name}"], "no result and no pin needs it"
    for folder in place.names("blobs"):
        there = place.names(f"blobs/{folder}")
        for identity in {name.removesuffix(".json") for name in there} - live.content:
            name = f"blobs/{folder}/{identity}"
            both = [n for n in (name, f"{name}.json") if place.size(n) is not None]
            yield both, "no result and no pin needs it"
    for content in place.names("latents"):
        if content not in live.content:
            yield [f"latents/{content}"], "no result and no pin needs it"
    for name in place.names("recipes"):
        identity = name.removesuffix(".json")
        if identity not in live.recipes and not place.names(f"rows/{identity}"):
            yield [f"recipes/{name}"], "a recipe without rows and results"


def _rows_garbage(contents: Contents, recipe_id: str, live: _Live) -> Iterator[tuple[list[str], str]]:
    index = contents.index(recipe_id)
    if recipe_id not in live.recipes:
        # as one: while one of its shards is young, all of them stay, and the recipe with them
        names = [index.folder, f"packs/{recipe_id}", f"shards/{recipe_id}", f"recipes/{recipe_id}.json"]
        yield [n for n in names if contents.place.entry(n) is not None], "no result and no pin needs its rows"
        return
    in_use = {table.shard for table, _ in index.live()}
    for table in index.tables:
        if table.shard not in live.shards:
            idle = table.shard in in_use
            why = (
                "no result and no pin needs its rows"
                if idle
                else "its rows were dropped or are elsewhere too"
            )
            # out of sight first, then the bytes
            yield [f"{index.folder}/{table.name}", shard_folder(recipe_id, table.shard)], why
    for name in index.damaged:
        if name.endswith(".rows"):
            yield (
                [f"{index.folder}/{name}", shard_folder(recipe_id, name[9:].removesuffix(".rows"))],
                "damaged",
            )
    shards = {table.shard for table in index.tables}
    for name, dropped in index.drops.items():
        if not {shard for shard, _ in dropped} & shards:
            yield [f"{index.folder}/{name}"], "drops rows of shards that are gone"


def _extent(place: Place, name: str) -> tuple[int, float]:
    """Return (bytes, newest change) of a file or folder."""
    entry = place.entry(name)
    if entry is not None and not entry.is_folder:
        return entry.size, entry.modified
    inside = list(place.walk(name))
    return sum(e.size for _, e in inside), max((e.modified for _, e in inside), default=0.0)


def _place_time(place: Place) -> float:
    """Return the time by the place's own clock."""
    probe = f"{STAGING}/{secrets.token_hex(16)}"
    place.put(probe, [b""])
    try:
        return _extent(place, probe)[1]
    finally:
        place.remove(probe)


def _pin_file(name: str) -> str:
    return f"pins/{digest('pin', name)}.json"

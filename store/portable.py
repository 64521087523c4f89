"""Carrying latents elsewhere: an exported folder is a store of its own, with just those rows."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from store import results
from store.contents import Contents
from store.errors import NotAStore, StoreError, explained
from store.index import RowIndex
from store.manifests import digests_of
from store.places import LocalPlace, place_of
from store.recipe import Recipe
from store.rows import COORDS, Row
from store.tables import Table
from store.writer import Conflict, Writer

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import took in."""

    manifests: int
    rows_written: int
    rows_reused: int
    conflicts: list[Conflict]


def export(
    contents: Contents,
    manifest_id: str,
    folder: str | os.PathLike[str],
    *,
    recipes: Sequence[str] | None,
    progress: Progress | None,
) -> Path:
    """Write a manifest's latents into a new `folder`, which appears whole or not at all."""
    target = Path(folder).absolute()
    if target.exists():
        raise StoreError(f"an export is a new folder, but {target.name} is there already; choose another")
    samples = digests_of(contents.manifest(manifest_id))
    if recipes is None:
        there = contents.place.names("rows")
        recipes = sorted(r for r in there if not contents.index(r).missing(samples))
        if not recipes:
            raise StoreError(
                f"no recipe has all rows of manifest {manifest_id[:12]}; run an extraction first"
            )
    staged = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        staged.mkdir(parents=True)
        place = LocalPlace(staged)
        place.put("format.json", [contents.place.get("format.json")])
        other = Contents(place)
        other.put_manifest(contents.manifest(manifest_id))
        for recipe_id in recipes:
            found = contents.located(recipe_id, manifest_id)
            _copy(contents, other, contents.recipe(recipe_id), found, progress)
            other.latents(recipe_id, manifest_id)
        shutil.rmtree(staged / "staging", ignore_errors=True)
        staged.rename(target)
    except OSError as error:
        raise explained(error, f"exporting to {target.name}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return target


def import_from(contents: Contents, url: str | os.PathLike[str], *, progress: Progress | None) -> Imported:
    """Take in all manifests and rows of another store; every row is checked as it is read."""
    place = place_of(url)
    if place.size("format.json") is None:
        raise NotAStore(f"{place.url} is no store, so nothing can be taken in from it; check the path")
    other = Contents(place)
    manifests = [name.removesuffix(".json") for name in place.names("manifests")]
    written, reused, conflicts = 0, 0, []
    for manifest_id in manifests:
        contents.put_manifest(other.manifest(manifest_id))
    for recipe_id in place.names("rows"):
        recipe = other.recipe(recipe_id)
        writer = _copy(other, contents, recipe, RowIndex(place, recipe_id).refresh().live(), progress)
        written, reused = written + writer.rows_written, reused + writer.rows_reused
        conflicts += writer.conflicts
        for manifest_id in manifests:
            if not contents.index(recipe_id).missing(digests_of(contents.manifest(manifest_id))):
                contents.latents(recipe_id, manifest_id)
    return Imported(manifests=len(manifests), rows_written=written, rows_reused=reused, conflicts=conflicts)


def _copy(
    source: Contents,
    target: Contents,
    recipe: Recipe,
    found: Sequence[tuple[Table, int]],
    progress: Progress | None,
) -> Writer:
    results.put_recipe(target.place, recipe)
    rows_per_shard = max((len(table) for table, _ in found), default=1)
    provenance = {"copied": True}
    with Writer(
        target.place,
        target.index(recipe.id),
        recipe,
        rows_per_shard=rows_per_shard,
        provenance=provenance,
    ) as writer:
        for k, (table, i) in enumerate(found):
            if progress is not None and k % rows_per_shard == 0:
                progress(f"{recipe.id[:12]} row {k} of {len(found)}")
            row: Row = source.rows.row(table, i)
            coords = {name: getattr(row, name) for name in COORDS}
            sample = table.samples[i].tobytes().hex()
            writer.put(sample=sample, values=row.values, grid=row.grid, **coords)
    return writer

"""The store as its users hold it: one object over a place, every public verb in one list."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from store import artifacts, portable, results, sweep
from store.contents import Contents, Latents, card_of, read_manifest
from store.digest import check_id, plain
from store.errors import Damaged, Missing
from store.places import Place
from store.recipe import Recipe
from store.results import Result
from store.rows import Row
from store.shards import rebuilt_table, shard_recipe
from store.show import Shown, shown
from store.sweep import Swept
from store.training import Reader, gather
from store.verify import Progress, Report, verify
from store.writer import Writer

if TYPE_CHECKING:  # xarray and Dask take most of a second to import, and only views need them
    import xarray as xr

    from store.view import How


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Rows of one extraction recipe and the bytes of their shards."""

    model: str
    point: str
    recipe: str
    rows: int
    shards: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One manifest in a listing."""

    id: str
    n: int
    source: str
    created: str


class Store:
    """A store at one place, made by `store.open`. Several threads may use one."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.url = place.url
        self._contents = Contents(place)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    # manifests ----------------------------------------------------------------------------------------
    def put_manifest(self, value: Mapping[str, Any]) -> str:
        """Keep a manifest (a dict with `samples`, each with its unique 64-hex `sample`); return its id."""
        return self._contents.put_manifest(value)

    def manifest(self, manifest_id: str) -> dict[str, Any]:
        """Return a manifest. Missing when it is not here."""
        return plain(self._contents.manifest(manifest_id))

    def manifests(self) -> list[Listed]:
        """Return every manifest: id, number of samples, source, when it was first kept; newest first."""
        found = []
        for name in self.place.names("manifests"):
            identity = name.removesuffix(".json")
            value, created = read_manifest(self.place, identity)
            source = str(value.get("source", ""))
            found.append(Listed(id=identity, n=len(value["samples"]), source=source, created=created))
        return sorted(found, key=lambda m: m.created, reverse=True)

    # rows ---------------------------------------------------------------------------------------------
    def missing(self, recipe_id: str, digests: Sequence[str]) -> list[str]:
        """Return the samples of `digests` without a row under the recipe, in the order given."""
        return self._contents.index(recipe_id).missing(digests)

    @contextmanager
    def writer(
        self, recipe: Recipe, *, rows_per_shard: int = 64, provenance: Mapping[str, Any] | None = None
    ) -> Iterator[Writer]:
        """Open a writer of the recipe's rows; leaving the context seals what was put, also after an error."""
        results.put_recipe(self.place, recipe)
        index = self._contents.index(recipe.id)
        with Writer(
            self.place, index, recipe, rows_per_shard=rows_per_shard, provenance=provenance or {}
        ) as writer:
            yield writer
        # again: a sweep may have taken a recipe that had no rows yet
        results.put_recipe(self.place, recipe)

    def row(self, recipe_id: str, sample: str) -> Row:
        """Return one row, checked on its first read. Missing or Damaged when it cannot be had."""
        check_id(sample, "sample digest")
        ((table, i),) = self._contents.find(recipe_id, [sample])
        return self._contents.rows.row(table, i)

    def token(self, recipe_id: str, sample: str, token: int) -> np.ndarray:
        """Return one token's values, [feature], reading nothing else, so unchecked unless `row` was read."""
        check_id(sample, "sample digest")
        ((table, i),) = self._contents.find(recipe_id, [sample])
        return self._contents.rows.shard(table).token(i, token)

    def gather(self, recipe_id: str, samples: Sequence[str]) -> np.ndarray | list[np.ndarray]:
        """Return rows' values, [row token feature], in the order given; a list where token counts differ."""
        return gather(self._contents.rows, self._contents.find(recipe_id, samples))

    def content_id(self, recipe_id: str, digests: Sequence[str]) -> str | None:
        """Return the content id of a recipe's rows for samples in this order; None while rows are missing."""
        return self._contents.index(recipe_id).content_id(digests)

    def latents(self, recipe_id: str, manifest_id: str) -> Latents:
        """Return what is here of a recipe over a manifest, and its content id when all is."""
        return self._contents.latents(recipe_id, manifest_id)

    def view(
        self,
        *,
        manifest: str,
        recipe: str | None = None,
        model: str | None = None,
        point: str | None = None,
        grid: bool = False,
    ) -> xr.Dataset:
        """Return the latents of a manifest as a lazy labelled Dataset (see `store.view.open_view`).

        Name them by `recipe`, or by `model` (card) and `point`. Missing when rows are; StoreError listing
        the candidates when several recipes fit.
        """
        found = self._contents.resolve(recipe=recipe, model=model, point=point, manifest=manifest)
        from store.view import open_view

        return open_view(self._contents, found, manifest, grid=grid)

    def pooled(
        self,
        *,
        manifest: str,
        recipe: str | None = None,
        model: str | None = None,
        point: str | None = None,
        how: How = "mean",
    ) -> xr.DataArray:
        """Return [sample, feature] float32, lazy; the tokens of a row are reduced where it is read."""
        found = self._contents.resolve(recipe=recipe, model=model, point=point, manifest=manifest)
        from store.view import pooled_view

        return pooled_view(self._contents, found, manifest, how)

    def stacked(
        self, *, manifest: str, model: str, points: Sequence[str], how: How | None = None
    ) -> xr.DataArray:
        """Return several points of one model along a new first axis `point`, lazy, all of one shape.

        [point, sample, token, feature], or [point, sample, feature] when `how` pools.
        """
        chosen = [
            self._contents.resolve(recipe=None, model=model, point=point, manifest=manifest)
            for point in points
        ]
        from store.view import stacked_view

        return stacked_view(self._contents, dict(zip(points, chosen, strict=True)), manifest, how)

    def joined(self, *, manifest: str, sides: Mapping[str, str], how: How | None = None) -> xr.Dataset:
        """Return several recipes over one manifest side by side: `sides` gives a recipe id per name.

        One variable a name, all along `sample`; their other axes are called `<name>_token` and so on.
        """
        chosen = {name: self._contents.recipe(recipe_id) for name, recipe_id in sides.items()}
        from store.view import joined_view

        return joined_view(self._contents, chosen, manifest, how)

    def reader(
        self,
        *,
        manifest: str,
        recipe: str | None = None,
        model: str | None = None,
        point: str | None = None,
        batch_rows: int = 32,
        seed: int | None = 0,
        rank: int = 0,
        ranks: int = 1,
        prefetch: int = 2,
    ) -> Reader:
        """Return a reader of shuffled batches (see `store.training.Reader`); `seed` None keeps the order."""
        found = self._contents.resolve(recipe=recipe, model=model, point=point, manifest=manifest)
        content = self._contents.latents(found.id, manifest).content_id
        return Reader(
            rows=self._contents.rows,
            found=self._contents.located(found.id, manifest),
            content_id=content or "",
            batch_rows=batch_rows,
            seed=seed,
            rank=rank,
            ranks=ranks,
            prefetch=prefetch,
        )

    # results ------------------------------------------------------------------------------------------
    def record(
        self,
        recipe: Recipe,
        *,
        outputs: Mapping[str, str] | None = None,
        values: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep what a recipe gave: content ids, small plain values. Recording the same again is harmless."""
        results.record(
            self.place, recipe, outputs=outputs or {}, values=values or {}, provenance=provenance or {}
        )

    def result(self, recipe_id: str) -> Result | None:
        """Return what a recipe gave; None when nothing was recorded or an output is no longer here whole."""
        return results.result(self.place, recipe_id, self.has)

    def forget(self, recipe_id: str) -> None:
        """Remove a recipe's results, so that `sweep` may reclaim what only they refer to."""
        self.place.remove(f"results/{check_id(recipe_id, 'recipe id')}")

    def recipe(self, recipe_id: str) -> Recipe:
        """Return a recipe by id. Missing when it is not here."""
        return self._contents.recipe(recipe_id)

    def recipes(self) -> list[Recipe]:
        """Return every recipe that was written or recorded, newest first."""
        return [r for r, _ in sorted(self._contents.recipes(), key=lambda pair: pair[1], reverse=True)]

    def nearest(self, recipe: Recipe) -> Recipe | None:
        """Return the other recipe of this operation that differs in the fewest fields, newest of equals."""
        return results.nearest(recipe, self._contents.recipes())

    # artifacts ----------------------------------------------------------------------------------------
    def put_blob(self, data: bytes, media_type: str = "application/octet-stream") -> str:
        """Keep bytes; return their id."""
        return artifacts.put_blob(self.place, data, media_type)

    def put_file(self, path: str | os.PathLike[str], media_type: str = "application/octet-stream") -> str:
        """Keep a file's bytes; return their id."""
        return artifacts.put_blob(self.place, artifacts.read_file(path), media_type)

    def get_blob(self, blob_id: str) -> bytes:
        """Return a blob's bytes, checked against its id."""
        return artifacts.get_blob(self.place, blob_id)

    def has_blob(self, blob_id: str) -> bool:
        """Return whether a blob is here with all its bytes."""
        return artifacts.has_blob(self.place, blob_id)

    def put_tree(self, files: Mapping[str, bytes | str | os.PathLike[str]]) -> str:
        """Keep named files (bytes, or paths to read) as one thing; return its id."""
        return artifacts.put_tree(self.place, files)

    def get_tree(self, tree_id: str) -> dict[str, str]:
        """Return a tree's blob ids by name."""
        return artifacts.get_tree(self.place, tree_id)

    def export_tree(self, tree_id: str, folder: str | os.PathLike[str]) -> Path:
        """Write a tree's files into a new folder, whole or not at all."""
        return artifacts.export_tree(self.place, tree_id, folder)

    def has(self, content_id: str) -> bool:
        """Return whether content (blob, tree, manifest, latents) is here, and as long as it was."""
        return self._contents.has(content_id)

    # keeping ------------------------------------------------------------------------------------------
    def verify(self, *, deep: bool = True, drop: bool = True, progress: Progress | None = None) -> Report:
        """Read everything and name what is not what was written; damaged rows become missing (`drop`)."""
        report = verify(self.place, deep=deep, drop=drop, progress=progress)
        self._contents.forget()
        return report

    def rebuild(self) -> int:
        """Make every whole shard visible that has no row table, as after losing `rows/`; return how many."""
        made = 0
        for recipe_id in self.place.names("shards"):
            seen = {name[9:].removesuffix(".rows") for name in self.place.names(f"rows/{recipe_id}")}
            for shard in set(self.place.names(f"shards/{recipe_id}")) - seen:
                table = rebuilt_table(self.place, recipe_id, shard)
                results.put_recipe(self.place, shard_recipe(self.place, table))
                self._contents.index(recipe_id).add(table)
                made += 1
        return made

    def sweep(self, *, apply: bool = False, grace_s: float = sweep.GRACE_S) -> Swept:
        """Find what no result and no pinned name needs, unchanged for `grace_s`; remove it if `apply`."""
        swept = sweep.sweep(self._contents, apply=apply, grace_s=grace_s)
        if apply:
            self._contents.forget()
        return swept

    def pin(self, name: str, identity: str) -> None:
        """Keep an id (content, manifest or recipe) safe from `sweep` under a name."""
        sweep.pin(self.place, name, identity)

    def unpin(self, name: str) -> None:
        """Undo `pin`."""
        sweep.unpin(self.place, name)

    def pins(self) -> dict[str, str]:
        """Return pinned ids by name."""
        return sweep.pins(self.place)

    def show(self, identity: str) -> Shown:
        """Explain one id, whole or its first digits: what it is, where from, who reads it."""
        return shown(self._contents, identity)

    def export(
        self,
        manifest_id: str,
        folder: str | os.PathLike[str],
        *,
        recipes: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """Write a manifest and its latents to a new folder that is a store itself; return its path.

        `recipes` defaults to every recipe that has all rows of the manifest.
        """
        return portable.export(self._contents, manifest_id, folder, recipes=recipes, progress=progress)

    def import_from(
        self, url: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> portable.Imported:
        """Take in every manifest and row of another store or exported folder, each row checked."""
        return portable.import_from(self._contents, url, progress=progress)

    def du(self) -> list[Usage]:
        """Return rows and bytes per (model card, point, recipe), largest first."""
        found = []
        for recipe_id in self.place.names("rows"):
            index = self._contents.index(recipe_id)
            if not index.tables:
                continue
            model, point = "", ""
            try:
                recipe = self.recipe(recipe_id)
                model, point = card_of(recipe), str(recipe.settings.get("point", ""))
            except (Missing, Damaged):
                pass  # the rows are still counted
            size = sum(size for table in index.tables for size, _ in table.files.values())
            found.append(
                Usage(
                    model=model,
                    point=point,
                    recipe=recipe_id,
                    rows=len(index),
                    shards=len(index.tables),
                    bytes=size,
                )
            )
        return sorted(found, key=lambda u: (-u.bytes, u.recipe))

    def ls(self) -> dict[str, list[Any]]:
        """Return what is here: `manifests`, `latents` (as `du`), `results` (recipe ids and operations)."""
        said = [
            {"recipe": recipe_id, "operation": self.recipe(recipe_id).operation}
            for recipe_id in sorted(self.place.names("results"))
        ]
        return {"manifests": self.manifests(), "latents": self.du(), "results": said}

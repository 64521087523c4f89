"""The store as its users hold it: one object over a place, every public verb in one list."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from store import artifacts, results, view
from store.digest import check_id, digest, plain
from store.errors import Damaged, Missing, NotWritable, StoreError
from store.index import RowIndex
from store.manifests import check_manifest, digests_of
from store.places import Place
from store.reading import Rows
from store.recipe import Recipe
from store.records import now, sealed, unsealed
from store.results import Result
from store.rows import Row
from store.shards import FORMAT
from store.verify import Progress, Report, verify
from store.view import How
from store.writer import Writer


@dataclass(frozen=True, kw_only=True)
class Latents:
    """What is here of one recipe's rows over one manifest."""

    recipe: str
    manifest: str
    content_id: str | None
    """Digest over the rows' digests in manifest order; None while rows are missing."""
    n_rows: int
    """Rows the manifest asks for."""
    missing: list[str]
    """Sample digests without a row, in manifest order."""


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
        self._rows = Rows(place)
        self._indexes: dict[str, RowIndex] = {}
        self._manifests: dict[str, dict[str, Any]] = {}
        self._recipes: dict[str, tuple[Recipe, str]] = {}
        self._whole: set[tuple[str, int]] = set()

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    # manifests -------------------------------------------------------------------------------------------
    def put_manifest(self, value: Mapping[str, Any]) -> str:
        """Keep a manifest (a dict with `samples`, each with its unique 64-hex `sample`); return its id."""
        check_manifest(value)
        kept = plain(dict(value))
        identity = digest("manifest", kept)
        name = f"manifests/{identity}.json"
        if self.place.size(name) is None:
            self.place.put(name, [sealed({"manifest": kept, "created": now()})])
        return identity

    def manifest(self, manifest_id: str) -> dict[str, Any]:
        """Return a manifest. Missing when it is not here."""
        if manifest_id not in self._manifests:
            name = f"manifests/{check_id(manifest_id, 'manifest id')}.json"
            value = unsealed(self.place.get(name), name)["manifest"]
            if digest("manifest", value) != manifest_id:
                raise Damaged(f"{name} holds another manifest")
            self._manifests[manifest_id] = value
        return plain(self._manifests[manifest_id])

    def manifests(self) -> list[Listed]:
        """Return every manifest: id, number of samples, source, when it was first kept; newest first."""
        found = []
        for name in self.place.names("manifests"):
            record = unsealed(self.place.get(f"manifests/{name}"), f"manifests/{name}")
            value = record["manifest"]
            found.append(
                Listed(
                    id=name.removesuffix(".json"),
                    n=len(value["samples"]),
                    source=str(value.get("source", "")),
                    created=record["created"],
                )
            )
        return sorted(found, key=lambda m: m.created, reverse=True)

    # rows ------------------------------------------------------------------------------------------------
    def missing(self, recipe_id: str, digests: Sequence[str]) -> list[str]:
        """Return the samples of `digests` without a row under the recipe, in the order given."""
        return self._index(recipe_id).missing(digests)

    @contextmanager
    def writer(
        self, recipe: Recipe, *, rows_per_shard: int = 64, provenance: Mapping[str, Any] | None = None
    ) -> Iterator[Writer]:
        """Open a writer of the recipe's rows; leaving the context seals what was put, also after an error."""
        results.put_recipe(self.place, recipe)
        writer = Writer(
            self.place,
            self._index(recipe.id),
            recipe,
            rows_per_shard=rows_per_shard,
            provenance=provenance or {},
        )
        with writer:
            yield writer

    def row(self, recipe_id: str, sample: str) -> Row:
        """Return one row, checked on its first read. Missing or Damaged when it cannot be had."""
        check_id(sample, "sample digest")
        ((table, i),) = self._index(recipe_id).locate([sample])
        return self._rows.row(table, i)

    def latents(self, recipe_id: str, manifest_id: str) -> Latents:
        """Return what is here of a recipe over a manifest, and its content id when all is."""
        samples = digests_of(self._manifest(manifest_id))
        index = self._index(recipe_id)
        content = index.content_id(samples)
        if content is not None:
            self._point_to(content, recipe_id, manifest_id)
        return Latents(
            recipe=recipe_id,
            manifest=manifest_id,
            content_id=content,
            n_rows=len(samples),
            missing=[] if content else index.missing(samples),
        )

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

        Name them by `recipe`, or by `model` (card) and `point`. Missing when rows are; StoreError listing the
        candidates when several recipes fit.
        """
        found = self._resolve(recipe, model, point, manifest)
        value = self._manifest(manifest)
        return view.open_view(
            self.place.address,
            found,
            value,
            self._located(found.id, value),
            grid=grid,
            attrs=self._attrs(found, manifest),
        )

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
        found = self._resolve(recipe, model, point, manifest)
        value = self._manifest(manifest)
        return view.pooled_view(
            self.place.address,
            found,
            value,
            self._located(found.id, value),
            how,
            attrs=self._attrs(found, manifest),
        )

    # results ---------------------------------------------------------------------------------------------
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

    def recipe(self, recipe_id: str) -> Recipe:
        """Return a recipe by id. Missing when it is not here."""
        return self._recipe(recipe_id)[0]

    def recipes(self) -> list[Recipe]:
        """Return every recipe that was written or recorded, newest first."""
        return [recipe for recipe, _ in sorted(self._all_recipes(), key=lambda pair: pair[1], reverse=True)]

    def nearest(self, recipe: Recipe) -> Recipe | None:
        """Return the other recipe of this operation that differs in the fewest fields, newest of equals."""
        return results.nearest(recipe, self._all_recipes())

    # artifacts -------------------------------------------------------------------------------------------
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
        check_id(content_id, "content id")
        return (
            artifacts.has_blob(self.place, content_id)
            or self.place.size(f"manifests/{content_id}.json") is not None
            or artifacts.has_tree(self.place, content_id)
            or self._has_latents(content_id)
        )

    # keeping ---------------------------------------------------------------------------------------------
    def verify(self, *, deep: bool = True, drop: bool = True, progress: Progress | None = None) -> Report:
        """Read everything and name what is not what was written; damaged rows become missing (`drop`)."""
        report = verify(self.place, deep=deep, drop=drop, progress=progress)
        self._indexes, self._whole, self._rows = {}, set(), Rows(self.place)
        return report

    def du(self) -> list[Usage]:
        """Return rows and bytes per (model card, point, recipe), largest first."""
        found = []
        for recipe_id in self.place.names("rows"):
            index = self._index(recipe_id)
            try:
                settings: Mapping[str, Any] = self.recipe(recipe_id).settings
            except (Missing, Damaged):
                settings = {}
            found.append(
                Usage(
                    model=_card(settings),
                    point=str(settings.get("point", "")),
                    recipe=recipe_id,
                    rows=len(index),
                    shards=len(index.tables),
                    bytes=sum(size for table in index.tables for size, _ in table.files.values()),
                )
            )
        return sorted(found, key=lambda u: (-u.bytes, u.recipe))

    def ls(self) -> dict[str, list[Any]]:
        """Return what is here: `manifests`, `latents` (as `du`), `results` (recipe ids and operations)."""
        said = []
        for recipe_id in sorted(self.place.names("results")):
            said.append({"recipe": recipe_id, "operation": self.recipe(recipe_id).operation})
        return {"manifests": self.manifests(), "latents": self.du(), "results": said}

    # private ---------------------------------------------------------------------------------------------
    def _index(self, recipe_id: str) -> RowIndex:
        if recipe_id not in self._indexes:
            self._indexes[recipe_id] = RowIndex(self.place, recipe_id)
        return self._indexes[recipe_id].refresh()

    def _manifest(self, manifest_id: str) -> dict[str, Any]:
        if manifest_id not in self._manifests:
            self.manifest(manifest_id)
        return self._manifests[manifest_id]

    def _recipe(self, recipe_id: str) -> tuple[Recipe, str]:
        if recipe_id not in self._recipes:
            self._recipes[recipe_id] = results.get_recipe(self.place, recipe_id)
        return self._recipes[recipe_id]

    def _all_recipes(self) -> list[tuple[Recipe, str]]:
        return [self._recipe(name.removesuffix(".json")) for name in self.place.names("recipes")]

    def _located(self, recipe_id: str, manifest: Mapping[str, Any]) -> list[Any]:
        if not manifest["samples"]:
            raise ValueError(
                "a view needs at least one sample, but the manifest is empty; check the data set"
            )
        return self._index(recipe_id).locate(digests_of(manifest))

    def _attrs(self, recipe: Recipe, manifest_id: str) -> dict[str, Any]:
        return {
            "recipe_id": recipe.id,
            "recipe": recipe.canonical(),
            "manifest_id": manifest_id,
            "content_id": self.latents(recipe.id, manifest_id).content_id,
            "store": self.url,
            "format": FORMAT,
        }

    def _resolve(self, recipe: str | None, model: str | None, point: str | None, manifest: str) -> Recipe:
        if recipe is not None:
            return self.recipe(recipe)
        if model is None or point is None:
            raise ValueError(
                "latents are named by recipe=…, or by model=… and point=…; give one or the other"
            )
        fitting = [self.recipe(i) for i in self.place.names("rows")]
        fitting = [r for r in fitting if _card(r.settings) == model and r.settings.get("point") == point]
        whole = [r for r in fitting if not self._index(r.id).missing(digests_of(self._manifest(manifest)))]
        if len(whole) == 1:
            return whole[0]
        if not fitting:
            raise Missing(f"{self.url} has no rows of {model} at {point}; `store.du()` lists what it has")
        if not whole:
            raise Missing(
                f"rows of {model} at {point} are here, but not for every sample of the manifest; "
                "run the extraction again, it computes just what is missing"
            )
        raise StoreError(
            f"{len(whole)} recipes fit {model} at {point}: {', '.join(r.id for r in whole)}; "
            "give recipe=… (`store.explain_change` tells them apart)"
        )

    def _point_to(self, content: str, recipe_id: str, manifest_id: str) -> None:
        """Remember which recipe and manifest have this content, so that `has` can find it again."""
        value = {"recipe": recipe_id, "manifest": manifest_id}
        name = f"latents/{content}/{digest('latents-of', value)}.json"
        if self.place.size(name) is None:
            try:
                self.place.put(name, [sealed(value)])
            except NotWritable:
                return  # reading a store that others write: nothing is recorded here either

    def _has_latents(self, content: str) -> bool:
        for name in self.place.names(f"latents/{content}"):
            try:
                pair = unsealed(self.place.get(f"latents/{content}/{name}"), name)
                index = self._index(pair["recipe"])
                samples = digests_of(self._manifest(pair["manifest"]))
                if index.content_id(samples) == content and self._sizes_hold(index, samples):
                    return True
            except (Missing, Damaged):
                continue
        return False

    def _sizes_hold(self, index: RowIndex, samples: Sequence[str]) -> bool:
        tables = {table.shard: table for table, _ in index.locate(samples)}
        return all(
            self.place.size(f"shards/{t.recipe}/{t.shard}/{name}") == size
            for t in tables.values()
            for name, (size, _) in t.files.items()
            if "/c/" in name
        )


def _card(settings: Mapping[str, Any]) -> str:
    model = settings.get("model")
    return str(model.get("card", "")) if isinstance(model, dict) else str(model or "")

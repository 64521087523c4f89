"""What a place holds: recipes, manifests, rows and latents by id, with what was read kept at hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from store import artifacts, results
from store.digest import canonical, check_id, digest, digest_bytes
from store.errors import Damaged, Missing, NotWritable, StoreError
from store.index import RowIndex
from store.manifests import check_manifest, digests_of
from store.places import Place
from store.reading import Rows
from store.recipe import Recipe
from store.records import now, sealed, unsealed
from store.shards import FORMAT
from store.tables import Table


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


class Contents:
    """Looks things up in a place. Recipes and manifests never change, so they are read once."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.rows = Rows(place)
        self._indexes: dict[str, RowIndex] = {}
        self._manifests: dict[str, dict[str, Any]] = {}
        self._recipes: dict[str, tuple[Recipe, str]] = {}

    def forget(self) -> None:
        """Read everything anew from here on."""
        self.__init__(self.place)  # type: ignore[misc]

    def index(self, recipe_id: str) -> RowIndex:
        """Return the rows of a recipe, as of now."""
        if recipe_id not in self._indexes:
            self._indexes[recipe_id] = RowIndex(self.place, recipe_id)
        return self._indexes[recipe_id].refresh()

    def put_manifest(self, value: Mapping[str, Any]) -> str:
        """Keep a manifest; return its id."""
        check_manifest(value)
        encoded = canonical(dict(value))
        identity = digest_bytes("manifest", [encoded])
        name = manifest_name(identity)
        if self.place.size(name) is None:
            self.place.put(name, [sealed({"manifest": json.loads(encoded), "created": now()})])
        return identity

    def manifest(self, manifest_id: str) -> dict[str, Any]:
        """Return a manifest, which the caller must not change. Missing when it is not here."""
        if manifest_id not in self._manifests:
            self._manifests[manifest_id], _ = read_manifest(self.place, manifest_id)
        return self._manifests[manifest_id]

    def recipe(self, recipe_id: str) -> Recipe:
        """Return a recipe. Missing when it is not here."""
        return self._dated(recipe_id)[0]

    def recipes(self) -> list[tuple[Recipe, str]]:
        """Return every recipe with the time it was first kept."""
        return [self._dated(name.removesuffix(".json")) for name in self.place.names("recipes")]

    def find(self, recipe_id: str, samples: Sequence[str]) -> list[tuple[Table, int]]:
        """Return where rows lie, looking for new ones only when one is missing: rows never change."""
        if recipe_id in self._indexes:
            index = self._indexes[recipe_id]
            if not index.missing(samples):
                return index.locate(samples)
        return self.index(recipe_id).locate(samples)

    def located(self, recipe_id: str, manifest_id: str) -> list[tuple[Table, int]]:
        """Return where each row of a manifest lies. Missing when one is; ValueError for an empty manifest."""
        samples = digests_of(self.manifest(manifest_id))
        if not samples:
            raise ValueError(
                "a view needs at least one sample, but the manifest is empty; check the data set"
            )
        found = self.index(recipe_id).locate(samples)
        kinds = {(table.dtype, table.features) for table, _ in found}
        if len(kinds) != 1:
            raise StoreError(
                f"rows of one recipe share dtype and features, but recipe {recipe_id[:12]} has {sorted(kinds)}; "
                "two writers disagreed: put the dtype into the recipe and extract again"
            )
        return found

    def latents(self, recipe_id: str, manifest_id: str) -> Latents:
        """Return what is here of a recipe over a manifest; remember the content id when all is."""
        samples = digests_of(self.manifest(manifest_id))
        index = self.index(recipe_id)
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

    def has(self, content_id: str) -> bool:
        """Return whether content of any kind is here, and as long as it was."""
        check_id(content_id, "content id")
        return (
            artifacts.has_blob(self.place, content_id)
            or self.place.size(manifest_name(content_id)) is not None
            or artifacts.has_tree(self.place, content_id)
            or any(True for _ in self.whole_pairs(content_id))
        )

    def whole_pairs(self, content_id: str) -> Iterable[tuple[str, str]]:
        """Yield each (recipe, manifest) whose rows are here, whole, and have this content."""
        for recipe_id, manifest_id in read_pairs(self.place, content_id):
            try:
                samples = digests_of(self.manifest(manifest_id))
                index = self.index(recipe_id)
                if index.content_id(samples) == content_id and self._sizes_hold(index, samples):
                    yield recipe_id, manifest_id
            except (Missing, Damaged):
                continue

    def resolve(self, *, recipe: str | None, model: str | None, point: str | None, manifest: str) -> Recipe:
        """Return the one recipe meant by its id, or by model card and point; StoreError lists several."""
        if recipe is not None:
            return self.recipe(recipe)
        if model is None or point is None:
            raise ValueError(
                "latents are named by recipe=…, or by model=… and point=…; give one or the other"
            )
        fitting = [self.recipe(i) for i in self.place.names("rows")]
        fitting = [r for r in fitting if card_of(r) == model and r.settings.get("point") == point]
        samples = digests_of(self.manifest(manifest))
        whole = [r for r in fitting if not self.index(r.id).missing(samples)]
        if len(whole) == 1:
            return whole[0]
        if not fitting:
            raise Missing(
                f"{self.place.url} has no rows of {model} at {point}; `store.du()` lists what it has"
            )
        if not whole:
            raise Missing(
                f"rows of {model} at {point} are here, but not for every sample of the manifest; "
                "run the extraction again, it computes just what is missing"
            )
        raise StoreError(
            f"{len(whole)} recipes fit {model} at {point}: {', '.join(r.id for r in whole)}; "
            "give recipe=… (`store.explain_change` tells them apart)"
        )

    def attrs(self, recipe: Recipe, manifest_id: str) -> dict[str, Any]:
        """Return where latents come from, for a view's attributes."""
        return {
            "recipe_id": recipe.id,
            "recipe": recipe.canonical(),
            "manifest_id": manifest_id,
            "content_id": self.index(recipe.id).content_id(digests_of(self.manifest(manifest_id))),
            "store": self.place.url,
            "format": FORMAT,
        }

    def _dated(self, recipe_id: str) -> tuple[Recipe, str]:
        if recipe_id not in self._recipes:
            self._recipes[recipe_id] = results.get_recipe(self.place, recipe_id)
        return self._recipes[recipe_id]

    def _point_to(self, content: str, recipe_id: str, manifest_id: str) -> None:
        value = {"recipe": recipe_id, "manifest": manifest_id}
        name = f"latents/{content}/{digest('latents-of', value)}.json"
        if self.place.size(name) is None:
            try:
                self.place.put(name, [sealed(value)])
            except NotWritable:
                return  # reading a store that others write: nothing is recorded here either

    def _sizes_hold(self, index: RowIndex, samples: Sequence[str]) -> bool:
        tables = {table.shard: table for table, _ in index.locate(samples)}
        size_of: Callable[[str], int | None] = self.place.size
        if self.place.at_once > 1:  # far away: one listing instead of a question per file
            listed = {name: entry.size for name, entry in self.place.walk(f"shards/{index.recipe}")}
            size_of = listed.get
        return all(self.rows.shard(table).sizes_hold(size_of) for table in tables.values())


def manifest_name(manifest_id: str) -> str:
    """Return the file of a manifest."""
    return f"manifests/{check_id(manifest_id, 'manifest id')}.json"


def read_manifest(place: Place, manifest_id: str) -> tuple[dict[str, Any], str]:
    """Return (manifest, when it was first kept), checked against its id."""
    name = manifest_name(manifest_id)
    data = place.get(name)
    record = unsealed(data, name)
    # the manifest is the record's last field, so its encoding is the rest of the bytes
    encoded = data[data.index(b'"manifest":') + len(b'"manifest":') : -1]
    if digest_bytes("manifest", [encoded]) != manifest_id:
        raise Damaged(f"{name} holds another manifest; put the manifest again")
    return record["manifest"], record["created"]


def read_pairs(place: Place, content_id: str, *, strict: bool = False) -> Iterable[tuple[str, str]]:
    """Yield each (recipe, manifest) that once had this content; a damaged record raises only if `strict`."""
    for name in place.names(f"latents/{content_id}"):
        try:
            pair = unsealed(place.get(f"latents/{content_id}/{name}"), name)
        except (Missing, Damaged):
            if strict:
                raise
            continue  # verify names it
        yield pair["recipe"], pair["manifest"]


def card_of(recipe: Recipe) -> str:
    """Return the model card a recipe's settings name, '' without one."""
    model = recipe.settings.get("model")
    return str(model.get("card", "")) if isinstance(model, dict) else str(model or "")

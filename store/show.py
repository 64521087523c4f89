"""Show: explain one id: what it is, where it is from, who reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from store import artifacts, results
from store.contents import Contents, read_pairs
from store.digest import is_id
from store.errors import Damaged, Missing, StoreError
from store.sweep import pins


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What is known of one id."""

    id: str
    kind: str
    """'recipe', 'manifest', 'latents', 'blob' or 'tree'."""
    about: dict[str, Any]
    """Plain values: a recipe with its rows, results and provenance; a blob's type and bytes; and so on."""
    made_by: list[str]
    """Recipe ids with a result that has this among its outputs."""
    read_by: list[str]
    """Recipe ids that name this among their inputs."""
    pinned_as: list[str]


def shown(contents: Contents, identity: str) -> Shown:
    """Return what is known of an id, or of the one that begins so. Missing when there is none."""
    kind, whole = _found(contents, identity)
    made = [r for r in contents.place.names("results") if _gives(contents, r, whole)]
    readers = [recipe.id for recipe, _ in contents.recipes() if whole in recipe.inputs.values()]
    pinned = [name for name, pinned in pins(contents.place).items() if pinned == whole]
    about = dict(_ABOUT[kind](contents, whole))
    return Shown(
        id=whole, kind=kind, about=about, made_by=sorted(made), read_by=sorted(readers), pinned_as=pinned
    )


def _found(contents: Contents, identity: str) -> tuple[str, str]:
    if not re.fullmatch(r"[0-9a-f]{6,64}", identity):
        raise ValueError(f"an id is 6 to 64 lower-case hex digits, but got {identity[:80]!r}")
    fitting = sorted({pair for pair in _ids(contents) if pair[1].startswith(identity)})
    if not fitting:
        raise Missing(
            f"{contents.place.url} has nothing with the id {identity}; `store ls` lists what is here"
        )
    if len({whole for _, whole in fitting}) > 1:
        raise StoreError(f"{identity} begins {len(fitting)} ids: {fitting[:5]}; give more digits")
    return fitting[0]


def _ids(contents: Contents) -> Iterator[tuple[str, str]]:
    place = contents.place
    kinds = {"recipes": "recipe", "manifests": "manifest", "latents": "latents", "trees": "tree"}
    for folder, kind in kinds.items():
        for name in place.names(folder):
            yield kind, name.removesuffix(".json")
    for folder in place.names("blobs"):
        yield from (("blob", name) for name in place.names(f"blobs/{folder}") if is_id(name))


def _gives(contents: Contents, recipe_id: str, identity: str) -> bool:
    found = _results_of(contents, recipe_id)
    return any(identity in result.outputs.values() for result in found)


def _results_of(contents: Contents, recipe_id: str) -> Iterator[results.Result]:
    for name in sorted(contents.place.names(f"results/{recipe_id}"), reverse=True):
        try:
            yield results.read_result(contents.place, recipe_id, name)
        except (Missing, Damaged):
            continue  # verify names it


def _about_recipe(contents: Contents, identity: str) -> Iterator[tuple[str, Any]]:
    yield "recipe", contents.recipe(identity).canonical()
    index = contents.index(identity)
    yield "rows", len(index)
    yield (
        "results",
        [
            {"outputs": r.outputs, "values": r.values, "provenance": r.provenance, "created": r.created}
            for r in _results_of(contents, identity)
        ],
    )


def _about_manifest(contents: Contents, identity: str) -> Iterator[tuple[str, Any]]:
    value = contents.manifest(identity)
    yield "source", value.get("source", "")
    yield "samples", len(value["samples"])


def _about_latents(contents: Contents, identity: str) -> Iterator[tuple[str, Any]]:
    yield "of", [{"recipe": r, "manifest": m} for r, m in sorted(read_pairs(contents.place, identity))]
    yield "present", any(True for _ in contents.whole_pairs(identity))


def _about_blob(contents: Contents, identity: str) -> Iterator[tuple[str, Any]]:
    media_type, size = artifacts.about_blob(contents.place, identity)
    yield "media_type", media_type
    yield "bytes", size


def _about_tree(contents: Contents, identity: str) -> Iterator[tuple[str, Any]]:
    yield "files", artifacts.get_tree(contents.place, identity)


_ABOUT = {
    "recipe": _about_recipe,
    "manifest": _about_manifest,
    "latents": _about_latents,
    "blob": _about_blob,
    "tree": _about_tree,
}

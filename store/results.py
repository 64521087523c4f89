"""Results: what a recipe gave, by content id; never a hit when the content is gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from store.digest import check_id, digest, plain
from store.errors import Damaged, Missing
from store.places import Place
from store.recipe import Recipe, explain_change
from store.records import now, sealed, unsealed


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a recipe gave."""

    recipe: Recipe
    outputs: dict[str, str]
    """Content ids by name."""
    values: dict[str, Any]
    """Plain JSON, for numbers small enough to need no blob."""
    provenance: dict[str, Any]
    """How it went: versions, host kind, seconds. Not part of what makes two results equal."""
    created: str
    """UTC."""


def put_recipe(place: Place, recipe: Recipe) -> None:
    """Keep a recipe under its id."""
    if place.size(_recipe(recipe.id)) is None:
        place.put(_recipe(recipe.id), [sealed({"recipe": recipe.canonical(), "created": now()})])


def get_recipe(place: Place, identity: str) -> tuple[Recipe, str]:
    """Return (recipe, when it was first kept). Missing when it never was."""
    name = _recipe(identity)
    record = unsealed(place.get(name), name)
    recipe = Recipe.from_canonical(record["recipe"])
    if recipe.id != identity:
        raise Damaged(f"{name} holds another recipe")
    return recipe, record["created"]


def record(
    place: Place,
    recipe: Recipe,
    *,
    outputs: Mapping[str, str],
    values: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:
    """Keep what a recipe gave, in one atomic step. The same outputs and values again change nothing."""
    for name, identity in outputs.items():
        check_id(identity, f"content id (output {name!r})")
    said = {"outputs": dict(outputs), "values": plain(dict(values))}
    same = digest("result", said)
    there = place.names(_results(recipe.id))
    newest = max(there, default="")
    if newest.endswith(f"-{same}.json"):
        return
    put_recipe(place, recipe)
    seq = 1 + max((int(name[:8]) for name in there), default=0)
    value = {**said, "recipe": recipe.id, "provenance": plain(dict(provenance)), "created": now()}
    place.put(f"{_results(recipe.id)}/{seq:08d}-{same}.json", [sealed(value)])


def result(place: Place, identity: str, has: Callable[[str], bool]) -> Result | None:
    """Return the newest result whose outputs `has` finds, None when there is none."""
    for name in sorted(place.names(_results(identity)), reverse=True):
        try:
            found = read_result(place, identity, name)
        except (Missing, Damaged):
            continue  # verify names it; here it is no result
        if all(has(output) for output in found.outputs.values()):
            return found
    return None


def read_result(place: Place, identity: str, name: str) -> Result:
    """Return one recorded result by its file name."""
    path = f"{_results(identity)}/{name}"
    value = unsealed(place.get(path), path)
    if value["recipe"] != identity:
        raise Damaged(f"{path} holds a result of another recipe")
    recipe, _ = get_recipe(place, identity)
    return Result(
        recipe=recipe,
        outputs=value["outputs"],
        values=value["values"],
        provenance=value["provenance"],
        created=value["created"],
    )


def nearest(recipe: Recipe, recorded: list[tuple[Recipe, str]]) -> Recipe | None:
    """Return the other recipe of the operation with the fewest differing fields, newest of equals."""
    others = [
        (r, created) for r, created in recorded if r.operation == recipe.operation and r.id != recipe.id
    ]
    if not others:
        return None
    newest_first = sorted(others, key=lambda pair: pair[1], reverse=True)
    return min(newest_first, key=lambda pair: len(explain_change(pair[0], recipe)))[0]


def _recipe(identity: str) -> str:
    return f"recipes/{check_id(identity, 'recipe id')}.json"


def _results(identity: str) -> str:
    return f"results/{check_id(identity, 'recipe id')}"

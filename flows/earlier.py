"""Earlier runs: kept in the store as what they were made of, so that a plan can be held against one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import store
from flows.engine import RUN, Prepared
from tasks.house import House, WrongRequest
from tasks.stages import Look, nearest_recipe

LAST = "last"

Word = Literal["same", "cut off", "other", "new", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How one stage of a plan stands to an earlier run."""

    name: str
    word: Word
    """'same': the run read or made just this; 'cut off': the same, although something above it is other;
    'other': made of something else; 'new': the run had no such stage; 'unknown': an input is not known yet."""
    why: str

    def to_json(self) -> dict[str, str]:
        return {"word": self.word, "why": self.why}


def find_run(latents: store.Store, experiment: str | None, text: str) -> store.Recipe:
    """Return the run `text` means: the beginning of an id, or 'last'; of any experiment when it is None.

    Raises `WrongRequest` when none is meant.
    """
    runs = [
        r
        for r in latents.recipes()
        if r.operation == RUN and experiment in (None, r.settings["experiment"]) and latents.result(r.id)
    ]
    fitting = runs[:1] if text == LAST else [r for r in runs if r.id.startswith(text)]
    if len(fitting) == 1:
        return fitting[0]
    known, what = ", ".join(store.short(r.id) for r in runs[:5]) or "none yet", experiment or "experiment"
    raise WrongRequest(
        f"one earlier {what} run is compared with, but {len(fitting)} in {latents.url} are called "
        f"{text!r}; the newest are {known}"
    )


def against(prepared: Prepared, run: store.Recipe) -> tuple[list[Difference], list[str]]:
    """Return each planned stage's difference to an earlier run, and the stages only that run had."""
    kept: Mapping[str, Any] = run.settings["stages"]
    found: dict[str, Difference] = {}
    matched: set[str] = set()
    for stage, look in zip(prepared.stages, prepared.looks, strict=True):
        if "manifest" in look.outputs:
            word, why = _samples(prepared.house, kept.get(look.name))
            like: set[str] = set()
        else:
            word, why, like = _made(look, kept)
        if word == "same" and any(found[n].word != "same" for n in stage.needs):
            word, why = (
                "cut off",
                "made of the same content, although what it reads came about in another way",
            )
        matched |= {name for name, k in kept.items() if name == look.name or like & set(_recipes(k))}
        found[look.name] = Difference(name=look.name, word=word, why=why)
    return list(found.values()), [name for name in kept if name not in matched]


def _samples(house: House, kept: Mapping[str, Any] | None) -> tuple[Word, str]:
    if kept is None:
        return "new", "that run had no such stage"
    if kept["key"] == house.manifest_id:
        return "same", "as in that run"
    try:
        old = house.store.manifest(kept["key"])
    except store.StoreError:
        return "other", f"the manifest of that run, {store.short(kept['key'])}, is no longer in the store"
    return "other", store.manifest_change(old, house.manifest.canonical())


def _made(look: Look, kept: Mapping[str, Any]) -> tuple[Word, str, set[str]]:
    """Return (word, reason, ids of the run's recipes that it was compared with)."""
    if not look.recipes:
        return "unknown", look.why, set()
    known = {i: r for k in kept.values() for i, r in _recipes(k).items()}
    wanted = {r.id for r in look.recipes.values()}
    if wanted <= known.keys():
        if any(k["key"] == look.key for k in kept.values()):
            return "same", "as in that run", wanted
        fewer = not any(set(_recipes(k)) == wanted for k in kept.values())
        return "other", "a part of what that run had" if fewer else "over other samples", wanted
    reasons: dict[str, list[str]] = {}
    like = wanted & known.keys()
    for name, recipe in look.recipes.items():
        if recipe.id in known:
            continue
        nearest = nearest_recipe(list(known.values()), recipe)
        why = "; ".join(store.explain_change(nearest, recipe)) if nearest else "not part of that run"
        like |= {nearest.id} if nearest else set()
        reasons.setdefault(why, []).append(name)
    if not like:
        return "new", "that run had no such stage", like
    if [len(names) for names in reasons.values()] == [len(look.recipes)]:
        return "other", next(iter(reasons)), like
    return "other", "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items()), like


def _recipes(kept: Mapping[str, Any]) -> dict[str, store.Recipe]:
    return {r.id: r for r in map(store.Recipe.from_canonical, kept["recipes"].values())}

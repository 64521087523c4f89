"""Stages: what a run is made of, what of it is ready, why the rest is not, and how to do just the rest.

Planning and running are the same walk over the same stages; a run only also works where the plan says
'missing'. A stage reports what the store holds before and after it worked, so its results always come from
the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import store
from tasks.house import House, Progress, WrongRequest, silent

State = Literal["ready", "missing", "waiting"]


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the store holds for one stage."""

    name: str
    state: State
    why: str
    """Why it is not ready; for a ready stage, what was found."""
    key: str | None = None
    """Digest of the stage's recipe; None while an input it names is not known."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Content ids by name, of a ready stage."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Small plain values later stages need."""
    rows_needed: int = 0
    rows_missing: int | None = 0
    """None while it cannot be known."""
    bytes: int | None = 0
    """Estimate of what will be written; None while it cannot be known."""
    known: bool | None = None
    """Whether what the stage gives is known, kept or not; None: just when it is ready."""
    refreshes: bool = False
    """Whether it is only missing because someone asked to compute it again."""
    roots: tuple[str, ...] = ()
    """Of a waiting stage: the missing stages it waits for in the end."""
    recipes: Mapping[str, store.Recipe] = field(default_factory=dict)
    """What its results stand under in the store, by output; empty while it is not known."""

    @property
    def can_be_read(self) -> bool:
        """Return whether stages that need this one can be looked at."""
        return self.state == "ready" if self.known is None else self.known

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state,
            "why": self.why,
            "key": self.key,
            "rows_needed": self.rows_needed,
            "rows_missing": self.rows_missing,
            "bytes": self.bytes,
        }


class Stage(Protocol):
    """One unit of work."""

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the stages it reads; they come before it."""
        ...

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        """Say what the store holds, without any model in memory. `given` holds the ready stages it needs."""
        ...

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        """Do what is missing and keep it, so that `look` finds it ready."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How one stage went in a run."""

    name: str
    state: Literal["cached", "completed", "failed"]
    key: str | None
    seconds: float
    why: str

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state,
            "key": self.key,
            "seconds": round(self.seconds, 3),
            "why": self.why,
        }


class StageFailed(Exception):
    """A stage raised; `ran` tells how far the run came, `__cause__` holds the error."""

    def __init__(self, message: str, ran: Sequence[Ran]) -> None:
        super().__init__(message)
        self.ran = list(ran)


Worker = Callable[[Stage, Look, Callable[[Progress], Look]], Look]
"""Carries out one stage: called with the stage, its look, and the work to do; returns the look afterwards."""


def directly(_stage: Stage, _look: Look, work: Callable[[Progress], Look]) -> Look:
    """Carry out a stage in this thread."""
    return work(silent)


def plan(stages: Sequence[Stage], house: House) -> list[Look]:
    """Return what is ready, missing or waiting, stage by stage, running nothing."""
    return [look for _, look, _ in _walk(stages, house, {}, {})]


def named(stages: Sequence[Stage], asked: Sequence[str]) -> set[str]:
    """Return the stages people mean: each by its whole name, or by a beginning no other stage shares.

    Raises `WrongRequest` for a name that fits none or several.
    """
    names = [stage.name for stage in stages]
    found = set()
    for text in asked:
        fitting = [text] if text in names else [name for name in names if name.startswith(text)]
        if len(fitting) != 1:
            which = f"{len(fitting)} stages begin with" if fitting else "no stage is called"
            raise WrongRequest(f"{which} {text!r}; there are {', '.join(fitting or names)}")
        found.add(fitting[0])
    return found


def waiting(stage: Stage, looks: Mapping[str, Look], **known: Any) -> Look:
    """Return the look of a stage whose inputs are not all known yet."""
    unknown = [looks[n] for n in stage.needs if not looks[n].can_be_read]
    roots = tuple(dict.fromkeys(r for look in unknown for r in (look.roots or (look.name,))))
    return Look(
        name=stage.name,
        state="waiting",
        why=f"waits for {' and '.join(roots)}",
        roots=roots,
        **({"rows_missing": None, "bytes": None} | known),
    )


def run(
    stages: Sequence[Stage],
    house: House,
    worker: Worker = directly,
    *,
    known: Mapping[str, Look] | None = None,
) -> tuple[list[Ran], dict[str, Look]]:
    """Do every stage that is not ready; return how each went and what it left in the store.

    `known` holds the looks of a plan made before, by stage. Raises `StageFailed` at the first stage that
    fails; what was finished before stays, and a later run goes on from there.
    """
    looks: dict[str, Look] = {}
    ran: list[Ran] = []
    for stage, look, given in _walk(stages, house, looks, known or {}):
        begun = time.perf_counter()
        try:
            looks[stage.name] = after = worker(stage, look, _work(stage, look, given, house))
        except Exception as error:
            why = str(error) or type(error).__name__
            ran.append(_ran(look, "failed", begun, why))
            raise StageFailed(f"{stage.name}: {why}", ran) from error
        state: Literal["cached", "completed"] = "cached" if look.state == "ready" else "completed"
        ran.append(_ran(after, state, begun, after.why if look.refreshes else look.why))
    return ran, looks


def _walk(
    stages: Sequence[Stage], house: House, looks: dict[str, Look], known: Mapping[str, Look]
) -> Iterator[tuple[Stage, Look, dict[str, Look]]]:
    """Yield each stage with its look and what it needs; `looks` may be brought up to date in between.

    What a plan found ready is not looked at again while its inputs are what the plan saw. The rest is:
    another run may have done it since.
    """
    for stage in stages:
        given = {n: looks[n] for n in stage.needs}
        before = known.get(stage.name)
        if before and before.state == "ready" and all(_same(known.get(n), g) for n, g in given.items()):
            look = before
        elif all(g.can_be_read for g in given.values()):
            look = _refreshed(stage.look(house, given), house)
            if before and before.state == "waiting" and look.state == "ready":
                look = replace(look, why=f"{look.why}; not run, what it reads came out as stored before")
        else:
            estimate = getattr(stage, "estimate", None)
            look = waiting(stage, looks, **(estimate(house) if estimate else {}))
        looks[stage.name] = look
        yield stage, look, given


def _same(known: Look | None, now: Look) -> bool:
    return known is not None and (known.key, known.outputs, known.values) == (
        now.key,
        now.outputs,
        now.values,
    )


def _refreshed(look: Look, house: House) -> Look:
    """Return the look of a stage that is computed again because someone asked; what it gave stays known."""
    if look.state != "ready" or look.name not in house.refresh:
        return look
    again = f"{look.rows_needed} rows" if look.rows_needed else "its result"
    return replace(
        look,
        state="missing",
        known=True,
        refreshes=True,
        why=f"refresh asked for: {again} computed again and compared with what is stored",
        rows_missing=look.rows_needed,
    )


def _work(stage: Stage, look: Look, given: Mapping[str, Look], house: House) -> Callable[[Progress], Look]:
    def work(progress: Progress) -> Look:
        if look.state == "ready":
            return look
        stage.run(house, given, progress)
        house.refresh.discard(stage.name)
        after = stage.look(house, given)
        if after.state != "ready":
            raise RuntimeError(f"{stage.name} ran, but the store does not hold its result: {after.why}")
        if look.refreshes:
            return replace(after, why=house.said.get(stage.name) or _compared(look, after))
        return after

    return work


def _compared(before: Look, after: Look) -> str:
    """Say what computing a stage again showed."""
    names = sorted(before.outputs.keys() | after.outputs.keys())
    moved = [n for n in names if before.outputs.get(n) != after.outputs.get(n)]
    if not moved:
        return "refreshed: computed again, equal to what was stored"
    changes = (f"{n} {_shown(before.outputs.get(n))} → {_shown(after.outputs.get(n))}" for n in moved)
    return f"refreshed: other content than before, which is used from here on: {', '.join(changes)}"


def _shown(identity: str | None) -> str:
    return f"{identity[:4]}…" if identity else "none"


def _ran(look: Look, state: Literal["cached", "completed", "failed"], begun: float, why: str) -> Ran:
    return Ran(name=look.name, state=state, key=look.key, seconds=time.perf_counter() - begun, why=why)


def look_up(house: House, name: str, recipe: store.Recipe) -> Look:
    """Return the look of a stage whose whole result is recorded under one recipe."""
    found = house.store.result(recipe.id)
    if found is None:
        return Look(
            name=name,
            state="missing",
            why=why_missing(house.store, recipe),
            key=recipe.id,
            bytes=None,
            recipes={"result": recipe},
        )
    return Look(
        name=name,
        state="ready",
        why="in the store",
        key=recipe.id,
        outputs=found.outputs,
        values=found.values,
        recipes={"result": recipe},
    )


def why_missing(latents: store.Store, recipe: store.Recipe) -> str:
    """Say what changed since the nearest recorded recipe of the same operation."""
    known = latents.recipes()
    if any(r.id == recipe.id for r in known):
        return "computed before, but its content was swept or damaged"
    nearest = nearest_recipe(known, recipe)
    if nearest is None:
        return "never computed"
    return "; ".join(store.explain_change(nearest, recipe))


def shortened(why: str, most: int = 3) -> str:
    """Return the first few changes of a reason, and how many more there are."""
    parts = why.split("; ")
    return why if len(parts) <= most else "; ".join(parts[:most]) + f"; and {len(parts) - most} more"


def nearest_recipe(known: Sequence[store.Recipe], recipe: store.Recipe) -> store.Recipe | None:
    """Return the recorded recipe that explains `recipe` best: the same operation on the same card and point
    with the fewest changed fields, the newest of equals (`known` is newest first); None when there is none.
    """
    same = [
        r
        for r in known
        if r.operation == recipe.operation and _subject(r) == _subject(recipe) and r.id != recipe.id
    ]
    return min(same, key=lambda other: len(store.explain_change(other, recipe)), default=None)


def _subject(recipe: store.Recipe) -> tuple[Any, Any]:
    settings = recipe.settings
    return settings.get("card") or (settings.get("model") or {}).get("card"), settings.get("point")

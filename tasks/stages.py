"""Stages: what a run is made of, what of it is ready, why the rest is not, and how to do just the rest.

Planning and running are the same walk over the same stages; a run only also works where the plan says
'missing'. A stage reports what the store holds before and after it worked, so its results always come from
the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import store
from tasks.house import House, Progress, silent

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
    roots: tuple[str, ...] = ()
    """Of a waiting stage: the missing stages it waits for in the end."""

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
    return [look for _, look, _ in _walk(stages, house, {})]


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
    stages: Sequence[Stage], house: House, worker: Worker = directly
) -> tuple[list[Ran], dict[str, Look]]:
    """Do every stage that is not ready; return how each went and what it left in the store.

    Raises `StageFailed` at the first stage that fails; what was finished before stays, and a later run goes
    on from there.
    """
    looks: dict[str, Look] = {}
    ran: list[Ran] = []
    for stage, look, given in _walk(stages, house, looks):
        begun = time.perf_counter()
        try:
            looks[stage.name] = after = worker(stage, look, _work(stage, look, given, house))
        except Exception as error:
            why = str(error) or type(error).__name__
            ran.append(_ran(look, "failed", begun, why))
            raise StageFailed(f"{stage.name}: {why}", ran) from error
        state: Literal["cached", "completed"] = "cached" if look.state == "ready" else "completed"
        ran.append(_ran(after, state, begun, look.why))
    return ran, looks


def _walk(
    stages: Sequence[Stage], house: House, looks: dict[str, Look]
) -> Iterator[tuple[Stage, Look, dict[str, Look]]]:
    """Yield each stage with its look and what it needs; `looks` may be brought up to date in between."""
    for stage in stages:
        given = {n: looks[n] for n in stage.needs}
        if all(g.can_be_read for g in given.values()):
            look = stage.look(house, given)
        else:
            estimate = getattr(stage, "estimate", None)
            look = waiting(stage, looks, **(estimate(house) if estimate else {}))
        looks[stage.name] = look
        yield stage, look, given


def _work(stage: Stage, look: Look, given: Mapping[str, Look], house: House) -> Callable[[Progress], Look]:
    def work(progress: Progress) -> Look:
        if look.state == "ready":
            return look
        stage.run(house, given, progress)
        after = stage.look(house, given)
        if after.state != "ready":
            raise RuntimeError(f"{stage.name} ran, but the store does not hold its result: {after.why}")
        return after

    return work


def _ran(look: Look, state: Literal["cached", "completed", "failed"], begun: float, why: str) -> Ran:
    return Ran(name=look.name, state=state, key=look.key, seconds=time.perf_counter() - begun, why=why)


def look_up(house: House, name: str, recipe: store.Recipe) -> Look:
    """Return the look of a stage whose whole result is recorded under one recipe."""
    found = house.store.result(recipe.id)
    if found is None:
        return Look(
            name=name, state="missing", why=why_missing(house.store, recipe), key=recipe.id, bytes=None
        )
    return Look(
        name=name,
        state="ready",
        why="in the store",
        key=recipe.id,
        outputs=found.outputs,
        values=found.values,
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

"""Recipes: what was computed, and what tells two of them apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from store.digest import canonical, check_id, digest, is_id, plain

_OPERATION = re.compile(r"[a-z][a-z0-9_.-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An operation, its version, the settings that change its numbers, and its inputs by content id.

    Looks like `Recipe(operation="extract", version=1, settings={"point": "vit.4"}, inputs={"manifest": id})`.
    Plain values only; equal recipes have equal ids, whatever order their settings were given in.
    """

    operation: str
    """A lower-case name: 'extract', 'metric.cka'."""
    version: int
    """Goes up when the operation's numbers move."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Identity only: nothing on how or where it ran."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Content ids (64 hex digits) by name."""
    id: str = field(init=False, compare=False)
    """The recipe's digest, 64 hex digits."""

    def __post_init__(self) -> None:
        if not isinstance(self.operation, str) or not _OPERATION.fullmatch(self.operation):
            raise ValueError(f"an operation is a short lower-case name, but got {self.operation!r}")
        if isinstance(self.version, bool) or not isinstance(self.version, int) or self.version < 1:
            raise ValueError(f"a version is an integer from 1 up, but got {self.version!r}")
        for name, identity in self.inputs.items():
            check_id(identity, f"content id (input {name!r} of {self.operation})")
        object.__setattr__(self, "settings", plain(dict(self.settings)))
        object.__setattr__(self, "inputs", plain(dict(self.inputs)))
        object.__setattr__(self, "id", digest("recipe", self.canonical()))

    def __hash__(self) -> int:
        return hash(self.id)

    def canonical(self) -> dict[str, Any]:
        """Return the plain value whose digest is the recipe's id."""
        return {
            "operation": self.operation,
            "version": self.version,
            "settings": plain(dict(self.settings)),
            "inputs": dict(self.inputs),
        }

    @classmethod
    def from_canonical(cls, value: Mapping[str, Any]) -> Recipe:
        """Undo `canonical`."""
        return cls(
            operation=value["operation"],
            version=value["version"],
            settings=value["settings"],
            inputs=value["inputs"],
        )


def explain_change(old: Recipe, new: Recipe) -> list[str]:
    """Return one line per field that differs, dotted: 'model.weights 3f2a… → 9bc1…'. Empty when equal."""
    lines = []
    if old.operation != new.operation:
        lines.append(f"operation {old.operation} → {new.operation}")
    if old.version != new.version:
        lines.append(f"{new.operation} version {old.version} → {new.version}")
    for before, after, prefix in ((old.settings, new.settings, ""), (old.inputs, new.inputs, "input ")):
        was, now = _leaves(before), _leaves(after)
        for name in sorted(was.keys() | now.keys()):
            if name not in was:
                lines.append(f"{prefix}{name} added: {_shown(now[name])}")
            elif name not in now:
                lines.append(f"{prefix}{name} removed: was {_shown(was[name])}")
            elif canonical(was[name]) != canonical(now[name]):
                lines.append(f"{prefix}{name} {_change(was[name], now[name])}")
    return lines


def _change(was: Any, now: Any) -> str:
    """Return 'old → new'; of two lists what came and what went, where that is shorter."""
    if isinstance(was, list) and isinstance(now, list):
        came = [f"+{_shown(x)}" for x in now if x not in was]
        went = [f"−{_shown(x)}" for x in was if x not in now]
        if came + went and len(came + went) < len(was) + len(now):
            return " ".join([*came, *went][:6]) + (" …" if len(came + went) > 6 else "")
    return f"{_shown(was)} → {_shown(now)}"


def _leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts under dotted names; lists and empty dicts are leaves."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict) and item:
            found.update(_leaves(item, f"{prefix}{key}."))
        else:
            found[prefix + key] = item
    return found


def _shown(value: Any) -> str:
    if isinstance(value, str):
        # digests of any kind, SHA-1 to SHA-256, are told apart by their first digits
        if is_id(value) or re.fullmatch(r"[0-9a-f]{32,64}", value):
            return value[:4] + "…"
        return value if len(value) <= 60 else value[:57] + "…"
    text = canonical(value).decode()
    return text if len(text) <= 60 else text[:57] + "…"

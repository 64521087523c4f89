"""Manifests as plain values: what makes one valid, and what changed between two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from store.digest import is_id


def check_manifest(value: Mapping[str, Any]) -> None:
    """Raise ValueError unless `value` has samples, each a dict with its own 64-hex `sample` digest."""
    samples = value.get("samples") if isinstance(value, Mapping) else None
    if not isinstance(samples, list):
        raise ValueError(
            "a manifest is a dict with a list `samples`, "
            f"but got {type(value).__name__} with {sorted(value) if samples is None else samples!r}"
        )
    seen: set[str] = set()
    for i, sample in enumerate(samples):
        identity = sample.get("sample") if isinstance(sample, dict) else None
        if identity is None or not is_id(identity):
            raise ValueError(
                f"each sample is a dict whose `sample` is 64 lower-case hex digits, "
                f"but number {i} has {str(identity)[:80]!r}; put names under `key`"
            )
        if identity in seen:
            raise ValueError(
                f"each sample stands once in a manifest, but {identity[:12]}… stands twice "
                f"(again at number {i}); leave the second one out"
            )
        seen.add(identity)


def digests_of(value: Mapping[str, Any]) -> list[str]:
    """Return the sample digests in manifest order."""
    return [sample["sample"] for sample in value["samples"]]


def manifest_change(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> str:
    """Return what changed, for people: 'manifest +500 −0 samples'; '' when nothing did."""
    after = digests_of(new)
    if old is None:
        return f"manifest of {len(after)} samples is new"
    before = digests_of(old)
    was, now = set(before), set(after)
    if was != now:
        return f"manifest +{len(now - was)} −{len(was - now)} samples"
    said = ["manifest reordered"] if before != after else []
    by_digest = {sample["sample"]: sample for sample in old["samples"]}
    names = sorted({name for sample in [*old["samples"], *new["samples"]] for name in sample})
    for name in names:
        count = sum(by_digest[s["sample"]].get(name) != s.get(name) for s in new["samples"])
        if count:
            said.append(f"{_plural(name)} of {count} sample{'s' * (count != 1)} changed")
    said += [
        f"manifest {name} changed"
        for name in sorted((old.keys() | new.keys()) - {"samples"})
        if old.get(name) != new.get(name)
    ]
    return ", ".join(said)


def _plural(name: str) -> str:
    return name if name.endswith("s") else name + "s"

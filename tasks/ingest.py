"""The data stage: which samples there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import store
from tasks.house import House, Progress
from tasks.stages import Look


@dataclass(frozen=True, kw_only=True)
class Ingest:
    """Keep the manifest of the run's data. Scanning is part of planning: it tells which rows are needed."""

    name: str = "data"
    needs: tuple[str, ...] = ()

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        manifest, identity = house.manifest, house.manifest_id
        told = f"{len(manifest)} samples" + (f", {len(manifest.skipped)} skipped" if manifest.skipped else "")
        common: dict[str, Any] = {
            "name": self.name,
            "key": identity,
            "outputs": {"manifest": identity},
            "values": {"n": len(manifest)},
            "known": True,
        }
        if house.store.has(identity):
            return Look(state="ready", why=told, **common)
        before = next((m for m in house.store.manifests() if m.source == manifest.source), None)
        if before is None:
            return Look(state="missing", why=f"{told}, not seen before", **common)
        change = store.manifest_change(house.store.manifest(before.id), manifest.canonical())
        return Look(state="missing", why=f"{told}; {change}", **common)

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        house.store.put_manifest(house.manifest.canonical())

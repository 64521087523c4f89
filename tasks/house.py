"""House: what every stage of a run works with: the store, the data, the working folder, where to compute."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import store
from foresight import data
from foresight.metrics import Space
from foresight.nouns import Manifest, Sample, Skip

Progress = Callable[[int, int, str], None]
"""Called with (units done, units in all, what to show beside it) while a stage works."""


def silent(_done: int, _all: int, _text: str) -> None:
    """Show no progress."""


class WrongRequest(Exception):
    """What was asked for cannot be done as asked; the message says what to change. Exit status 2."""


@dataclass(kw_only=True)
class House:
    """One run's surroundings. Placement only: nothing here changes a number.

    `store` keeps results; `runs` is the working folder for everything that may be deleted at any time.
    """

    store: store.Store
    source: data.DataSource
    runs: Path
    device: str = "cpu"
    spread: bool = False
    """Whether a model's layers are spread over all GPUs, and over memory where they do not fit."""
    deterministic: bool = False
    """Whether the same batches give the same bits; recorded with every row."""
    workers: int = 2
    """Threads that decode ahead of the model."""
    batch: int | None = None
    """Samples per forward pass; None: by card and device."""
    part: tuple[int, int] | None = None
    """(i, n): only the i-th of n parts of the samples, from 1; None: all of them."""
    refresh: set[str] = field(default_factory=set)
    """Stages to compute again although the store has them; a stage leaves it when that is done."""
    said: dict[str, str] = field(default_factory=dict)
    """What stages have to tell of how they went, by stage."""
    forwards: int = 0
    """Forward passes made for latents so far."""
    rows_written: int = 0
    rows_reused: int = 0
    _spaces: dict[tuple[str, str], Space] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        return self.runs / "cache"

    @cached_property
    def manifest(self) -> Manifest:
        """Return the usable samples of this part: what the source lists, less what could not be decoded before.

        Which part a sample belongs to hangs on its digest alone, so workers that see the data set differently
        still never share one. Raises `foresight.data.NoUsableData` when nothing is left.
        """
        whole = self._of_this_part(self.source.manifest)
        bad = self._unreadable()
        kept = tuple(s for s in whole.samples if s.digest not in bad)
        skipped = [Skip(key=s.key, why=bad[s.digest]) for s in whole.samples if s.digest in bad]
        if not kept:
            raise WrongRequest(
                f"a run needs at least one readable sample, but none of {len(whole.samples)} can be decoded "
                f"({skipped[0].key}: {skipped[0].why}); look at the files with `foresight data check`"
            )
        return replace(whole, samples=kept, skipped=(*whole.skipped, *skipped))

    def _of_this_part(self, whole: Manifest) -> Manifest:
        if self.part is None:
            return whole
        i, n = self.part
        kept = tuple(s for s in whole.samples if int(s.digest[:15], 16) % n == i - 1)
        if not kept:
            raise WrongRequest(
                f"each part needs at least one sample, but part {i}/{n} of {len(whole.samples)} holds none; "
                "use fewer parts"
            )
        return replace(whole, samples=kept, source=f"{whole.source}, part {i} of {n}")

    @cached_property
    def manifest_id(self) -> str:
        return store.digest("manifest", self.manifest.canonical())

    @cached_property
    def labels_id(self) -> str:
        """Digest of what statistics read of a manifest: its labels and which samples are one group."""
        codes = {g: i for i, g in enumerate(dict.fromkeys(self.manifest.groups))}
        value = {"labels": self.manifest.labels, "groups": [codes[g] for g in self.manifest.groups]}
        return store.digest("labels", value)

    def forget(self, unreadable: dict[Sample, str]) -> None:
        """Leave samples out from now on, in this and later runs: they could not be decoded whole.

        A file that changes is another sample, so a repaired one comes back by itself.
        """
        known = self._unreadable() | {s.digest: why for s, why in unreadable.items()}
        write_whole(self._unreadable_file, json.dumps(known, indent=1, sort_keys=True).encode())
        for name in ("manifest", "manifest_id", "labels_id"):
            self.__dict__.pop(name, None)

    def space(self, *, recipe: str, content: str, how: str) -> Space:
        """Return the latents of the manifest at one point, pooled to [sample feature]; kept for the run."""
        key = (content, how)
        if key not in self._spaces:
            pooled = self.store.pooled(recipe=recipe, manifest=self.manifest_id, how=how)  # type: ignore[arg-type]
            self._spaces[key] = Space(pooled.compute().to_numpy(), groups=self.manifest.groups)
        return self._spaces[key]

    @property
    def _unreadable_file(self) -> Path:
        return self.cache / "unreadable.json"

    def _unreadable(self) -> dict[str, str]:
        try:
            value: Any = json.loads(self._unreadable_file.read_text())
        except (OSError, ValueError):
            return {}
        return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one atomic step: readers see the old bytes or the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        staged.write_bytes(content)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)

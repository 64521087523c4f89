"""The model stage: which weights a reference means here and now; for a tiny card, training them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import store
from foresight import models
from foresight.data.digests import DigestCache, Seen, stamp
from foresight.models import ModelRef
from foresight.models.checkpoint import MissingCheckpoint, find_checkpoint
from foresight.models.compiling import blocks, check_compiler, compile_blocks
from foresight.models.fingerprint import (
    adapter_fingerprint,
    file_sha256,
    fingerprint,
    random_fingerprint,
    snapshot_sha256,
    versions,
)
from foresight.models.loading import WrongCheckpoint, check_adapter, check_folder, merge_adapter
from tasks.house import House, Progress
from tasks.stages import Look, look_up


@dataclass(frozen=True, kw_only=True)
class Model:
    """Find or make the weights of one model. Its `values["fingerprint"]` is what later stages depend on."""

    ref: ModelRef
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"model {self.ref.short}"

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        if self.ref.kind == "seed":
            found = look_up(house, self.name, zoo_recipe(self.ref))
            return replace(found, values=_with_adapter(self.ref, found.values)) if self.ref.adapter else found
        try:
            known = self._fingerprint(house)
        except MissingCheckpoint as error:
            if self.ref.kind == "path":
                raise
            return Look(name=self.name, state="missing", why=str(error), bytes=None)
        return Look(
            name=self.name,
            state="ready",
            why={"path": "found in its folder", "hub": "found in the hub cache"}.get(
                self.ref.kind, "drawn when it is loaded"
            ),
            key=known["weights"],
            values={"fingerprint": known},
            recipes={
                "weights": store.Recipe(
                    operation="weights", version=1, settings={"model": {"card": self.ref.card.name, **known}}
                )
            },
        )

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        if self.ref.kind == "seed":
            _train(self.ref, house, progress)
        else:
            find_checkpoint(self.ref.base or self.ref, download=True)

    def _fingerprint(self, house: House) -> dict[str, str]:
        ref = self.ref
        if ref.kind == "random":
            config = dict(ref.card.config)
            if ref.base:
                folder = find_checkpoint(ref.base, download=False)
                config = json.loads((folder / "config.json").read_text())
            return random_fingerprint(config, int(ref.value))
        folder = find_checkpoint(ref, download=False)
        check_folder(ref, folder)
        known = (
            fingerprint(folder, sha256=snapshot_sha256)
            if ref.kind == "hub"
            else _cached_fingerprint(folder, house.cache)
        )
        return known | _adapter(ref)


def zoo_recipe(ref: ModelRef) -> store.Recipe:
    """Return the recipe of a tiny model's training."""
    from foresight.models import zoo

    settings = zoo.recipe(ref.card, int(ref.value))
    return store.Recipe(operation="zoo", version=zoo.VERSION, settings=settings, inputs={})


def checkpoint_folder(ref: ModelRef, look: Look, house: House) -> Path | None:
    """Return a folder with the model's files; None when random weights need none.

    A tiny model's files are written out of the store once, under the id of their content.
    """
    if ref.kind == "random":
        return find_checkpoint(ref.base, download=True) if ref.base else None
    if ref.kind != "seed":
        return find_checkpoint(ref, download=True)
    tree = look.outputs["checkpoint"]
    folder = house.cache / "models" / tree
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # another process was faster; trees are written whole
            house.store.export_tree(tree, folder)
    return folder


def load(
    ref: ModelRef,
    look: Look,
    house: House,
    *,
    dtype: str,
    attention: str,
    points: Sequence[str] | None = None,
    compiled: bool = False,
) -> Any:
    """Load the model into memory; of a family that can, just the layers that `points` need.

    An adapter is merged into the whole model, on the first device. With `compiled` its transformer blocks are.
    Raises `WrongCheckpoint` where a family cannot take an adapter, and `ValueError` where nothing can be compiled.
    """
    if compiled:
        check_compiler(house.device)
    family = models.family(ref.card)
    some = {"points": points} if points and models.loads_parts(ref.card) and not ref.adapter else {}
    loaded = family.load(
        ref,
        checkpoint_folder(ref, look, house),
        device="auto" if house.spread else house.device,
        dtype=dtype,
        attention=attention,
        **some,
    )
    if ref.adapter:
        if not hasattr(loaded, "model"):
            raise WrongCheckpoint(
                f"an adapter is merged into a transformers model, and {ref.card.name} is none"
            )
        loaded.model = merge_adapter(ref, loaded.model)
    if compiled:
        compile_blocks(loaded.model, blocks(models.points(ref.card)))
    return loaded


def _adapter(ref: ModelRef) -> dict[str, str]:
    return {"adapter": adapter_fingerprint(check_adapter(ref))} if ref.adapter else {}


def _with_adapter(ref: ModelRef, values: Mapping[str, Any]) -> dict[str, Any]:
    known = {"fingerprint": values["fingerprint"] | _adapter(ref)} if values else {}
    return dict(values) | known


def _train(ref: ModelRef, house: House, progress: Progress) -> None:
    from foresight.models import zoo

    recipe = zoo_recipe(ref)
    scratch = house.cache / "training" / recipe.id
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch.parent) as name:
        folder = Path(name)
        scores = zoo.train(ref, folder, scratch=scratch, progress=progress)
        files = {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}
        values = {"fingerprint": fingerprint(folder), "scores": scores}
    tree = house.store.put_tree(files)
    house.store.record(recipe, outputs={"checkpoint": tree}, values=values, provenance=provenance())
    shutil.rmtree(scratch, ignore_errors=True)


def provenance() -> dict[str, Any]:
    """Return how a result came about: versions of what computes, and the kind of machine."""
    import platform

    packages = ("torch", "transformers", "diffusers", "numpy", "scikit-learn", "foresight-pipeline")
    return {
        "packages": versions(packages),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def _cached_fingerprint(folder: Path, cache: Path) -> dict[str, str]:
    """Fingerprint a local folder, hashing again only files whose size, times or inode changed."""
    known = DigestCache(cache, root=folder, readers="sha256")

    def sha256(path: Path) -> str:
        now = stamp(path.stat())
        seen = known.get(path.name, now)
        if seen is None:
            seen = Seen(stamp=now, digest=file_sha256(path), facts=None)
            known.put(path.name, seen)
        return seen.digest

    found = fingerprint(folder, sha256=sha256)
    known.save()
    return found

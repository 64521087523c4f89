"""What every kind of data offers, and how a kind is found by its name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from foresight.data.sampling import Sampling
from foresight.data.spec import split_spec, typed
from foresight.nouns import Frames, Manifest, Sample

Progress = Callable[[int, int], None]
"""Called with (files or samples done, all of them) while a data set is scanned."""


class DataSource(Protocol):
    """One opened data set.

    `manifest` is scanned once, when it is first asked for. `frames` finds a sample by its digest; its key is
    a name and is never opened as a path.
    """

    scan_progress: Progress | None
    ignored: dict[str, int]
    """After the scan: files that are neither samples nor skips, counted by kind."""

    @property
    def manifest(self) -> Manifest: ...

    def frames(self, sample: Sample, sampling: Sampling) -> Frames:
        """Return the decoded frames; raises `Unreadable` with the reason in one sentence."""
        ...

    def facts(self, sample: Sample) -> dict[str, Any]:
        """Return what the scan saw of a sample: `size` (height, width) px; of a clip also `frames` and
        `duration_s`. Not part of any identity; may be empty for kinds that scan without decoding."""
        ...

    def thumbnail(self, sample: Sample, size: int = 96) -> bytes:
        """Return a PNG file, at most `size` px on its longer side; of a clip, its middle frame."""
        ...


def kinds() -> dict[str, ModuleType]:
    """Return the module of every kind of data, by name: each file here with a `KIND` and an `open`."""
    package = importlib.import_module("foresight.data")
    found: dict[str, ModuleType] = {}
    for info in pkgutil.iter_modules(package.__path__, "foresight.data."):
        module = importlib.import_module(info.name)
        if hasattr(module, "KIND"):
            found[module.KIND] = module
    return dict(sorted(found.items()))


def options_of(kind: str) -> list[str]:
    """Return the names of the options that `open` takes for a kind, beyond those that it always takes."""
    always = {"location", "samples", "seed", "cache_dir"}
    return sorted(set(inspect.signature(kinds()[kind].open).parameters) - always)


def open(
    spec: str,
    *,
    samples: int | None = None,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    **options: Any,
) -> DataSource:
    """Open `KIND` or `KIND:LOCATION`, as in `synthetic`, `synthetic:moving`, `folder:photos`.

    `samples` is how many are taken (None: all; `synthetic` has its own default), chosen by `seed`.
    `cache_dir` keeps digests and verdicts of files between runs; None keeps nothing. Further options depend
    on the kind, and may also be written behind the location: `ssv2:clips?split=train&per_class=20`. Raises
    ValueError for an unknown kind or option, and for a location that is not there.
    """
    kind, location, written = split_spec(spec)
    known = kinds()
    if kind not in known:
        raise ValueError(f"data is one of {_spelled(known)}, but got {spec!r}")
    if samples is not None and (isinstance(samples, bool) or not isinstance(samples, int) or samples < 1):
        raise ValueError(f"samples is a whole number from 1 on, or None for all, but got {samples!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"a seed is a whole number from 0 to 2^63 - 1, but got {seed!r}")
    accepted = options_of(kind)
    if unknown := sorted((set(options) | set(written)) - set(accepted)):
        raise ValueError(f"{kind!r} data takes the options {accepted}, but got {unknown}")
    if twice := sorted(set(options) & set(written)):
        raise ValueError(f"an option is given once, but got {twice} both in {spec!r} and beside it")
    entry = known[kind].open
    options |= typed(written, entry)
    cache = None if cache_dir is None else Path(cache_dir)
    source: DataSource = entry(location, samples=samples, seed=seed, cache_dir=cache, **options)
    return source


def _spelled(known: dict[str, ModuleType]) -> str:
    return ", ".join(getattr(module, "SPELLING", name) for name, module in known.items())

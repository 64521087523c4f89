"""What a data set holds, and every file of it that cannot be used, with why."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foresight.data.errors import NoUsableData
from foresight.data.source import DataSource, Progress, kinds, options_of
from foresight.data.source import open as open_data
from foresight.data.spec import split_spec
from foresight.nouns import Manifest, Skip

COMMON_SIZES = 10


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Some numbers in short; None where there are none."""

    count: int
    least: float | None
    median: float | None
    most: float | None
    total: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        found = sorted(values)
        if not found:
            return cls(count=0, least=None, median=None, most=None, total=0)
        return cls(
            count=len(found),
            least=found[0],
            median=statistics.median(found),
            most=found[-1],
            total=round(sum(found), 3),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "least": self.least,
            "median": self.median,
            "most": self.most,
            "total": self.total,
        }


@dataclass(frozen=True, kw_only=True)
class Report:
    """The answer of `check`. `usable` says whether any sample is left; `why` says what there is when none is."""

    data: str
    """What was asked for, such as 'folder:photos'."""
    samples: int
    media: dict[str, int]
    """Samples by medium."""
    labels: dict[str, int]
    """Samples by label, most first; '(none)' counts those without."""
    splits: dict[str, dict[str, int]]
    """Samples by split and label, where the data set has splits."""
    heights: Spread
    """px, upright."""
    widths: Spread
    sizes: dict[str, int]
    """The most common sizes, 'width x height' -> samples."""
    durations_s: Spread
    """Of the clips."""
    frames: Spread
    """Frames in a clip."""
    decoders: dict[str, int]
    """What reads the clips; another than the first reader says why."""
    skipped: tuple[Skip, ...]
    ignored: dict[str, int]
    """Files that are no media, or that no label names, by kind."""
    why: str
    seconds: float

    @property
    def usable(self) -> bool:
        return self.samples > 0

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "data": self.data,
            "usable": self.usable,
            "why": self.why or None,
            "samples": self.samples,
            "media": self.media,
            "labels": self.labels,
            "splits": self.splits,
            "heights": self.heights.to_json(),
            "widths": self.widths.to_json(),
            "sizes": self.sizes,
            "durations_s": self.durations_s.to_json(),
            "frames": self.frames.to_json(),
            "decoders": self.decoders,
            "skipped": [{"sample": skip.key, "why": skip.why} for skip in self.skipped],
            "ignored": self.ignored,
            "seconds": self.seconds,
        }


def check(
    spec: str,
    *,
    samples: int | None = None,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Report:
    """Return what the data set holds, after decoding a frame of every clip and the whole of every still.

    Takes what `data.open` takes. Data in which nothing is usable gives a report too, with `usable` False; what
    cannot be opened at all (an unknown kind, a folder that is not there, label files that cannot be parsed)
    raises ValueError.
    """
    start = time.monotonic()
    kind, _, written = split_spec(spec)
    # kinds that scan without decoding say so by having this option
    if kind in kinds() and "verify" in options_of(kind) and "verify" not in written:
        options = {"verify": True} | options
    source = open_data(spec, samples=samples, seed=seed, cache_dir=cache_dir, **options)
    source.scan_progress = progress
    why = ""
    try:
        manifest = source.manifest
    except NoUsableData as error:
        why = str(error)
        manifest = Manifest(source=kind, samples=(), skipped=error.skipped)
    return _report(spec, source, manifest, why, round(time.monotonic() - start, 3))


def _report(spec: str, source: DataSource, manifest: Manifest, why: str, seconds: float) -> Report:
    labels: Counter[str] = Counter()
    splits: dict[str, Counter[str]] = {}
    sizes: Counter[tuple[int, int]] = Counter()
    decoders: Counter[str] = Counter()
    durations_s: list[float] = []
    frames: list[float] = []
    for sample in manifest:
        label = "(none)" if sample.label is None else sample.label
        labels[label] += 1
        if "split" in sample.annotations:
            splits.setdefault(sample.annotations["split"], Counter())[label] += 1
        facts = source.facts(sample)
        sizes[tuple(facts["size"])] += 1
        if "decoder" in facts:
            decoders[facts["decoder"]] += 1
        if sample.media == "clip":
            durations_s.append(facts["duration_s"])
            frames.append(facts["frames"])
    return Report(
        data=spec,
        samples=len(manifest),
        media=dict(Counter(sample.media for sample in manifest)),
        labels=_most_first(labels),
        splits={split: _most_first(counts) for split, counts in sorted(splits.items())},
        heights=Spread.of(height for (height, _), n in sizes.items() for _ in range(n)),
        widths=Spread.of(width for (_, width), n in sizes.items() for _ in range(n)),
        sizes={f"{w} x {h}": n for (h, w), n in sizes.most_common(COMMON_SIZES)},
        durations_s=Spread.of(durations_s),
        frames=Spread.of(frames),
        decoders=_most_first(decoders),
        skipped=manifest.skipped,
        ignored=dict(source.ignored),
        why=why,
        seconds=seconds,
    )


def _most_first(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))

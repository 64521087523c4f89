"""The nouns every part of the project shares: Sample, Skip, Manifest, Frames, Tokens."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, UInt8

Media = Literal["image", "clip"]
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image or clip, named by its content.

    `digest` alone identifies the sample; `key` is how its data set names it and is never opened as a path.
    """

    digest: str
    """SHA-256 of the file's bytes (or of the rendered frames, for synthetic data), 64 hex digits."""
    key: str
    """Name inside the data set, '/'-separated, NFC. Unique within a manifest."""
    media: Media = "image"
    label: str | None = None
    """Class name; None when the data set has none."""
    group: str = ""
    """Samples of one group (one video, say) never straddle a split. Defaults to the key."""
    annotations: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Plain JSON values: `size` [height, width] px, `boxes` [[x0, y0, x1, y1], …] px, `classes`, `colour`, …"""

    def __post_init__(self) -> None:
        if _DIGEST.fullmatch(self.digest) is None:
            raise ValueError(f"a sample digest is 64 hex digits, but {self.key!r} has {self.digest!r}")
        object.__setattr__(self, "key", unicodedata.normalize("NFC", self.key))
        if not self.group:
            object.__setattr__(self, "group", self.key)


@dataclass(frozen=True, kw_only=True)
class Skip:
    """A file that cannot be used, with the reason in one sentence."""

    key: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The ordered samples of one data set, and what had to be left out.

    Digests and keys are unique: equal bytes under two names are one sample, the second name is a `Skip`.
    """

    source: str
    """Kind of data, for people: 'synthetic', 'folder', 'coco', 'ssv2'. No path: a manifest names content."""
    samples: tuple[Sample, ...]
    skipped: tuple[Skip, ...] = ()

    def __post_init__(self) -> None:
        for what in ("digest", "key"):
            seen: set[str] = set()
            for sample in self.samples:
                value = getattr(sample, what)
                if value in seen:
                    raise ValueError(
                        f"each {what} stands once in a manifest, but {value!r} stands twice; "
                        "list the second one under `skipped`"
                    )
                seen.add(value)

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    @property
    def digests(self) -> list[str]:
        return [s.digest for s in self.samples]

    @property
    def labels(self) -> list[str | None]:
        return [s.label for s in self.samples]

    @property
    def groups(self) -> list[str]:
        return [s.group for s in self.samples]

    def canonical(self) -> dict[str, Any]:
        """Return the plain value whose digest is the manifest's id.

        Samples only, in order. What was skipped is told in reports but does not change any number.
        """
        return {
            "source": self.source,
            "samples": [
                {
                    "sample": s.digest,
                    "key": s.key,
                    "media": s.media,
                    "label": s.label,
                    "group": s.group,
                    "annotations": dict(s.annotations),
                }
                for s in self.samples
            ],
        }

    @classmethod
    def from_canonical(cls, value: Mapping[str, Any], *, skipped: Sequence[Skip] = ()) -> Manifest:
        """Undo `canonical`."""
        samples = tuple(
            Sample(
                digest=s["sample"],
                key=s["key"],
                media=s["media"],
                label=s["label"],
                group=s["group"],
                annotations=s["annotations"],
            )
            for s in value["samples"]
        )
        return cls(source=value["source"], samples=samples, skipped=tuple(skipped))

    def take(self, indices: Sequence[int]) -> Manifest:
        """Return the manifest of the samples at `indices`, in that order."""
        return replace(self, samples=tuple(self.samples[i] for i in indices))


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Decoded pixels of one sample.

    `pixels` is uint8 RGB; `times_s` holds the time of each frame in seconds, 0.0 for a still.
    """

    pixels: UInt8[np.ndarray, "time row col 3"]
    times_s: Float[np.ndarray, " time"]
    decoder: str = ""
    """What read the file, with its version: 'pillow 12.0', 'decord 0.6.0'. Provenance, not identity."""

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4 or self.pixels.shape[-1] != 3:
            raise ValueError(
                f"frames are uint8 [time row col 3], but got {self.pixels.dtype} {list(self.pixels.shape)}"
            )
        if len(self.times_s) != len(self.pixels) or len(self.pixels) == 0:
            raise ValueError(
                f"one time per frame and at least one frame, but got {len(self.pixels)} frames "
                f"and {len(self.times_s)} times"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.pixels.shape[1]), int(self.pixels.shape[2])


KINDS = ("patch", "class", "register", "newline", "text")
"""Token kinds by code: `Tokens.kind` holds indices into this tuple."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """One sample's latents at one extraction point, with the place of every token.

    The tokens that fill `grid` come first, in raster order (time, then row, then column) whatever order the
    model used; any others follow: class and register tokens, line breaks, the base view of a tiled image.
    `row` and `col` are the centre of the token's cell in pixels of the frames the model was given, `time_s` its
    time. A token that stands for no place has nan there.
    """

    values: Any
    """[token feature]: a torch tensor on the CPU, or a numpy array (bfloat16 through ml_dtypes)."""
    time_s: Float[np.ndarray, " token"]
    row: Float[np.ndarray, " token"]
    col: Float[np.ndarray, " token"]
    kind: UInt8[np.ndarray, " token"]
    """Index into `KINDS`."""
    tile: Int[np.ndarray, " token"]
    """Which tile of a tiled image the token is from; 0 where the model does not tile."""
    grid: tuple[int, int, int]
    """(time, row, col) counts of the leading tokens when they fill a grid, else (0, 0, 0)."""

    def __post_init__(self) -> None:
        n = len(self.values)
        for name in ("time_s", "row", "col", "kind", "tile"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{n} tokens need {n} entries of {name}, but got {len(getattr(self, name))}")
        t, h, w = self.grid
        if any(self.grid) and not 0 < t * h * w <= n:
            raise ValueError(f"a grid of {t} x {h} x {w} takes {t * h * w} tokens, but there are {n}")
        if np.any(np.asarray(self.kind)[: t * h * w] != KINDS.index("patch")):
            raise ValueError(
                "the tokens of a grid are patches; class, register and newline tokens come after it"
            )

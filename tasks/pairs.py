"""Stored tokens of one point beside the decoder's latent of the same samples, cut into blocks of one place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from foresight.data.fitting import Fit, fit
from foresight.data.sampling import Sampling
from foresight.nouns import Frames, Sample, Tokens
from foresight.studies import blocks
from foresight.studies.blocks import Layout
from foresight.studies.reconstruction import POOLED, SHUFFLED
from tasks.extract import Extract
from tasks.house import House
from tasks.stages import Look

AT_ONCE_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Source:
    """One point of one extraction, as reports name it."""

    extract: Extract
    point: str
    model: str
    """Card of the model; a random-weights copy goes by the name of the model it controls."""
    variant: str


@dataclass(kw_only=True)
class Pairs:
    """Blocks of one point's tokens and of the decoder's cells, read from the store as they are asked for.

    Raises `ValueError` for tokens that fill no grid.
    """

    house: House
    given: Mapping[str, Look]
    source: Source
    decoder: Extract
    reading: str
    """One of `reconstruction.READINGS`."""
    seed: int = 0
    _fields: dict[tuple[int, int], blocks.Field] = field(default_factory=dict)

    @cached_property
    def where(self) -> Layout:
        """How both grids are cut, by the first sample's."""
        first = self.house.manifest.samples[0]
        cells = self.cells(first).grid
        if self.reading == POOLED:
            return blocks.pooled_layout(cells)
        tokens = self.tokens(first)
        counts = blocks.counts_in(tokens, self._field(first))
        return blocks.layout(counts, cells, width=tokens.values.shape[-1])

    @property
    def grid(self) -> tuple[int, int, int]:
        """(time, row, col) of the tokens as the model gave them."""
        return self.tokens(self.house.manifest.samples[0]).grid

    @property
    def at_once(self) -> int:
        """Samples to read together."""
        first = self.house.manifest.samples[0]
        size = self.tokens(first).values.size + self.cells(first).values.size
        return max(1, min(64, AT_ONCE_BYTES // (4 * size)))

    def read(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (x [sample block source], y [sample block target]) of these samples, float32."""
        samples = [self.house.manifest.samples[int(i)] for i in indices]
        cells = [self.cells(s) for s in samples]
        x = np.stack([self._placed(s, c) for s, c in zip(samples, cells, strict=True)])
        y = np.stack([c.values for c in cells])
        return self.where.split_tokens(x), self.where.split_cells(y)

    def parts(self, indices: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield (indices, x, y) of all samples of `indices`, a few at a time."""
        step = self.at_once
        for first in range(0, len(indices), step):
            some = indices[first : first + step]
            yield some, *self.read(some)

    def tokens(self, sample: Sample) -> Tokens:
        """Return the model's tokens of one sample."""
        return stored(self.house, self.given, self.source.extract, self.source.point, sample)

    def cells(self, sample: Sample) -> Tokens:
        """Return the decoder's latent of one sample."""
        return stored(self.house, self.given, self.decoder, self.decoder.points[0].name, sample)

    def _placed(self, sample: Sample, cells: Tokens) -> Float[np.ndarray, "token feature"]:
        tokens = self.tokens(sample)
        if self.reading == POOLED:
            pooled: np.ndarray = tokens.values[tokens.kind == 0].mean(axis=0, keepdims=True)
            return pooled
        times = cells.time_s.reshape(cells.grid)[:, 0, 0]
        placed = blocks.place(tokens, self._field(sample), self.where, times)
        if self.reading == SHUFFLED:
            return blocks.shuffled(placed, seed=self.seed, digest=sample.digest)
        return placed

    def _field(self, sample: Sample) -> blocks.Field:
        """Return what the decoder sees of a sample, by the size of its file."""
        sizes = [e.framing.size or e.ref.card.size for e in (self.source.extract, self.decoder)]
        same = sizes[0][0] * sizes[1][1] == sizes[0][1] * sizes[1][0]
        own: tuple[int, int] = sizes[0]
        if not same or self.source.extract.framing.size is None:
            own = self._file_size(sample)
        if own not in self._fields:
            fits = [_geometry(own, e) for e in (self.source.extract, self.decoder)]
            self._fields[own] = blocks.field(fits[0], fits[1])
        return self._fields[own]

    def _file_size(self, sample: Sample) -> tuple[int, int]:
        known = self.house.source.facts(sample).get("size")
        height, width = known or self.house.source.frames(sample, Sampling(frames=1)).size
        return int(height), int(width)


def stored(house: House, given: Mapping[str, Look], extract: Extract, point: str, sample: Sample) -> Tokens:
    """Return one sample's stored tokens at a point, float32."""
    row = house.store.row(given[extract.name].values["recipes"][point], sample.digest)
    return Tokens(
        values=row.values.astype(np.float32), time_s=row.time_s, row=row.row, col=row.col,
        kind=row.kind, tile=row.tile, grid=row.grid,
    )  # fmt: skip


def as_cells(predicted: Any, like: Sequence[Tokens]) -> list[Tokens]:
    """Return predicted latents [sample cell channel] as the decoder's tokens of the same samples."""
    return [replace(t, values=v) for t, v in zip(like, predicted, strict=True)]


def _geometry(size: tuple[int, int], extract: Extract) -> Fit:
    blank = Frames(pixels=np.zeros((1, *size, 3), np.uint8), times_s=np.zeros(1))
    return fit(blank, size=extract.framing.size, how=extract.framing.fit)[1]  # type: ignore[arg-type]

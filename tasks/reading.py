"""Reading latents off a loaded model: samples in, batches of one shape, tokens out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foresight import data
from foresight.models import ModelRef
from foresight.nouns import Frames, Sample, Tokens
from tasks.house import House, WrongRequest

Batch = list[tuple[Sample, Frames]]


class ReadFailed(RuntimeError):
    """A model failed on samples; the message names them. What was read before is kept."""


@dataclass(frozen=True, kw_only=True)
class Framing:
    """What is done to frames before a model's own preprocessing. Identity."""

    sampling: data.Sampling
    size: tuple[int, int] | None
    """(height, width) px every frame is fitted to; None keeps each file's own size."""
    fit: str = "crop"

    def canonical(self, *, stills: bool) -> dict[str, Any]:
        """Return the identity as plain values; how clips are sampled does not touch a data set of stills."""
        sampling = data.Sampling(frames=1) if stills else self.sampling
        return {
            "sampling": sampling.canonical(),
            "size": list(self.size) if self.size else None,
            "fit": self.fit,
        }

    def apply(self, frames: Frames) -> Frames:
        return data.fit(frames, size=self.size, how=self.fit)[0]  # type: ignore[arg-type]


def batches(
    house: House,
    ref: ModelRef,
    framing: Framing,
    wanted: Mapping[Sample, tuple[str, ...]],
    unreadable: dict[Sample, str],
) -> Iterator[Batch]:
    """Yield batches of equal shape and equal points, decoded ahead of the model.

    `wanted` names the points each sample is read at; what cannot be decoded is noted in `unreadable`.
    """
    size = house.batch or (32 if ref.card.tiny else 8)
    pending: dict[tuple[Any, ...], Batch] = {}
    ahead = data.prefetch(house.source, wanted, framing.sampling, workers=house.workers, ahead=2 * size)
    for sample, frames in ahead:
        if not isinstance(frames, Frames):
            unreadable[sample] = frames.why
            continue
        fitted = framing.apply(frames)
        key = (fitted.pixels.shape, wanted[sample])
        pending.setdefault(key, []).append((sample, fitted))
        if len(pending[key]) == size:
            yield pending.pop(key)
    yield from pending.values()


def read(model: Any, batch: Batch, points: Sequence[str]) -> list[dict[str, Tokens]]:
    """Return the tokens of one batch; when the device has too little memory, of its halves one after the other.

    Raises `ReadFailed`, which names the samples, when the model cannot take them.
    """
    import torch

    try:
        found: list[dict[str, Tokens]] = model.extract([frames for _, frames in batch], points)
        return found
    except torch.OutOfMemoryError as error:
        if len(batch) == 1:
            told = "one sample is too large for the device; ask for smaller or fewer frames, or another dtype"
            raise ReadFailed(f"{_samples(batch)}: {told}") from error
    except Exception as error:
        told = "" if len(batch) == 1 else "; run again with --batch 1 to see which one"
        raise ReadFailed(f"{_samples(batch)}: {error or type(error).__name__}{told}") from error
    torch.cuda.empty_cache()
    half = len(batch) // 2
    return [*read(model, batch[:half], points), *read(model, batch[half:], points)]


def _samples(batch: Batch) -> str:
    first, last = batch[0][0].key, batch[-1][0].key
    return f"sample {first}" if len(batch) == 1 else f"{len(batch)} samples, {first} to {last}"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What reading a few samples took, to estimate all of them by."""

    samples: int
    load_s: float
    sample_s: float
    """Seconds of wall time a sample: decode, preprocess, forward, and back to the CPU; nothing is written."""

    def seconds(self, samples: int) -> float:
        """Return the estimate for `samples` samples on this machine, as busy as it is now."""
        return self.load_s + samples * self.sample_s if samples else 0.0


def probe(
    house: House, ref: ModelRef, framing: Framing, points: Sequence[str], load: Any, *, samples: int = 10
) -> Probe:
    """Time real forward passes over `samples` samples spread through the manifest, and keep none of their latents.

    `load()` gives the model. One batch goes ahead uncounted: the first call sets things up. Raises
    `WrongRequest` when none of the samples can be decoded.
    """
    whole = house.manifest.samples
    count = min(samples, len(whole))
    chosen = [whole[i * len(whole) // count] for i in range(count)]
    wanted = {s: tuple(points) for s in chosen}
    begun = time.perf_counter()
    model = load()
    load_s = time.perf_counter() - begun
    unreadable: dict[Sample, str] = {}
    first = next(batches(house, ref, framing, wanted, unreadable), None)
    if first is None:
        why = next(iter(unreadable.values()))
        raise WrongRequest(f"{count} samples were to be timed, but none of them can be decoded: {why}")
    read(model, first, points)
    begun = time.perf_counter()
    done = sum(len(read(model, batch, points)) for batch in batches(house, ref, framing, wanted, {}))
    return Probe(samples=done, load_s=load_s, sample_s=(time.perf_counter() - begun) / done)

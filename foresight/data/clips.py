"""Read clips: decord where it gives the same frames as PyAV, else PyAV; both behind one call."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from foresight.data import decord_reader, pyav_reader, vp9_header
from foresight.data.clip_errors import ClipError
from foresight.data.pyav_reader import Header
from foresight.data.sampling import Sampling
from foresight.nouns import Frames

__all__ = ["ClipError", "ClipFacts", "Header", "probe_clip", "read_clip", "read_header", "readers"]

SAME_IN_BOTH = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"})
"""Pixel formats whose RGB is bit for bit equal in both readers, at even heights (a test compares them).

Elsewhere (10 bits, odd heights) the FFmpeg inside decord spreads colour over pixels by another filter than
the current one, by up to a third of the range at edges. The reader is not part of an identity, so it may not
change the pixels: PyAV reads those.
"""

CHECKED_PIXELS = 200_000_000
"""Pixels of all frames up to which a probe decodes a whole VP9 stream: a second or two. A clip of
Something-Something has a fortieth of it."""


@dataclass(frozen=True, kw_only=True)
class ClipFacts:
    """What a container holds, after decoding one frame to see that it can be done."""

    frames: int
    duration_s: float
    size: tuple[int, int]
    """(height, width) in px, upright."""
    decoder: str
    header: Header


def read_header(path: str) -> Header:
    """Return a clip's header. Raises ClipError when there is no video stream to open."""
    return vp9_header.read(path) or pyav_reader.header(path)


def read_clip(path: str, sampling: Sampling, *, header: Header | None = None) -> Frames:
    """Return the sampled frames, upright, with their times after the first frame, in seconds.

    `header`, when known from a probe, saves opening the container twice. `Frames.decoder` names the reader
    that did it and, when that was the second, why not the first. Raises ClipError with the reason of each
    reader, also where a decoder reports that it made up for damage before a frame asked for. No more than that
    can be noticed, as video streams carry no checksums: of damaged H.264 streams some 9 in 10 are, of VP9
    streams, whose decoders report nothing, only those that do not decode at all.
    """
    frames, _ = _first_that_can(path, sampling, header or read_header(path))
    return frames


def probe_clip(path: str) -> ClipFacts:
    """Return a clip's facts; its middle frame is decoded, and a small VP9 stream checked whole.

    Raises ClipError.
    """
    header = read_header(path)
    frames, starts_s = _first_that_can(path, Sampling(frames=1), header)
    if len(starts_s) * math.prod(frames.size) <= CHECKED_PIXELS:
        pyav_reader.check_vp9(path)
    step_s = float(np.median(np.diff(starts_s))) if len(starts_s) > 1 else 0.0
    return ClipFacts(
        frames=len(starts_s),
        duration_s=round(float(starts_s[-1] - starts_s[0]) + step_s, 6),
        size=frames.size,
        decoder=frames.decoder,
        header=header,
    )


@cache
def readers() -> str:
    """Return the readers of this machine with their versions: 'decord 0.6.0, pyav 18.1.0'."""
    return f"{decord_reader.version()}, {pyav_reader.version()}"


def _first_that_can(path: str, sampling: Sampling, header: Header) -> tuple[Frames, np.ndarray]:
    """Return the frames and the start of every frame of the clip, in seconds."""
    why_not: list[str] = []
    attempts: list[tuple[str, Callable[[str, Sampling], tuple[np.ndarray, np.ndarray, np.ndarray]]]] = []
    if reason := _not_for_decord(header):
        why_not.append(f"{decord_reader.version()}: {reason}")
    else:
        attempts.append((decord_reader.version(), decord_reader.read))
    attempts.append((pyav_reader.version(), pyav_reader.read))
    for name, read in attempts:
        try:
            pixels, starts_s, chosen = read(path, sampling)
        except ClipError as error:
            why_not.append(f"{name}: {error}")
            continue
        times_s = starts_s[chosen] - starts_s[0]
        decoder = name if not why_not else f"{name} ({'; '.join(why_not)})"
        return Frames(pixels=pixels, times_s=times_s, decoder=decoder), starts_s
    raise ClipError("no reader can decode it; " + "; ".join(why_not))


def _not_for_decord(header: Header) -> str:
    if not decord_reader.available():
        return "not installed"
    if header.pixel_format == "None":
        return "its pixel format is not told"
    if header.pixel_format not in SAME_IN_BOTH:
        return f"it converts {header.pixel_format} in another way"
    if header.height % 2:
        return "it converts odd heights in another way"
    return ""

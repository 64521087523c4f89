"""Read clips with PyAV, the second reader: current FFmpeg, whatever it can decode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

from foresight.data.clip_errors import ClipError, choose
from foresight.data.errors import one_sentence
from foresight.data.sampling import Sampling


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a container says before anything is decoded."""

    height: int
    """px, as stored: not turned upright."""
    pixel_format: str


def version() -> str:
    return f"pyav {av.__version__}"


def header(path: str) -> Header:
    """Return the header of the first video stream. Raises ClipError when there is none to open."""
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise ClipError("it has no video stream")
            context = container.streams.video[0].codec_context
            return Header(height=context.height, pixel_format=str(context.pix_fmt))
    except ClipError:
        raise
    except Exception as error:  # FFmpeg's errors, OSError, and IndexError for broken stream tables
        raise ClipError(f"it cannot be opened: {_reason(error)}") from error


def read(path: str, sampling: Sampling) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (pixels [time row col 3], start of every frame in s, which frames were taken).

    Times come from the packets; then frames are decoded from the start up to the last one asked for.
    Raises ClipError, also when a frame that was asked for does not decode.
    """
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise ClipError("it has no video stream")
            stream = container.streams.video[0]
            ticks = sorted(p.pts for p in container.demux(stream) if p.pts is not None and not p.is_discard)
            time_base = stream.time_base
        if not ticks or time_base is None:
            raise ClipError("it has no frames")
        starts_s = np.array([float(tick * time_base) for tick in ticks]).round(6)
        chosen = choose(sampling, starts_s)
        taken = _decode(path, {ticks[i] for i in chosen})
    except ClipError:
        raise
    except Exception as error:  # FFmpeg's errors and OSError
        raise ClipError(_reason(error)) from error
    return np.stack([taken[ticks[i]] for i in chosen]), starts_s, chosen


def check_vp9(path: str) -> None:
    """Refuse a clip of 8-bit VP9 that libvpx finds damaged; says nothing of other clips, or without libvpx.

    It notices a part of a frame that ends too early, as after two thirds of random damage. FFmpeg's own
    decoder, which both readers use, decodes on. Raises ClipError.
    """
    if "libvpx-vp9" not in av.codecs_available:
        return
    packets = 0
    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            if stream.codec_context.name != "vp9" or stream.codec_context.pix_fmt != "yuv420p":
                return
            decoder = av.CodecContext.create("libvpx-vp9", "r")
            for packet in container.demux(stream):
                decoder.decode(packet)
                packets += 1
    except Exception as error:  # FFmpeg's errors and OSError
        raise ClipError(f"its stream is damaged at packet {packets}: {_reason(error)}") from error


def _decode(path: str, wanted: set[int]) -> dict[int, UInt8[np.ndarray, "row col 3"]]:
    """Return the upright frames whose presentation times, in ticks, are wanted.

    Refuses a wanted frame that its decoder reports as damaged, or that is predicted from such a one.
    """
    taken: dict[int, UInt8[np.ndarray, "row col 3"]] = {}
    damaged_at: int | None = None
    with av.open(path) as container:
        container.streams.video[0].thread_type = "NONE"
        for position, frame in enumerate(container.decode(video=0)):
            if frame.is_corrupt:
                damaged_at = position
            elif frame.key_frame:
                damaged_at = None
            if frame.pts is not None and frame.pts in wanted:
                if damaged_at is not None:
                    raise ClipError(f"its decoder reports damage, at frame {damaged_at}")
                taken[frame.pts] = _upright(frame)
                if len(taken) == len(wanted):
                    return taken
    raise ClipError(f"{len(wanted) - len(taken)} of {len(wanted)} frames asked for do not decode")


def _upright(frame: Any) -> UInt8[np.ndarray, "row col 3"]:
    turns, rest = divmod(frame.rotation, 90)
    if rest:
        raise ClipError(f"it is turned by {frame.rotation} degrees; only quarter turns are read")
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns % 4))


def _reason(error: Exception) -> str:
    return one_sentence(getattr(error, "strerror", None) or error)

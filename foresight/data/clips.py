"""Read clips: decord first, PyAV where decord cannot; both give the same frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from foresight.data.errors import one_sentence
from foresight.data.sampling import Sampling
from foresight.nouns import Frames


class ClipError(ValueError):
    """A clip cannot be read; the message is the reason, without the file's name."""


@dataclass(frozen=True, kw_only=True)
class ClipFacts:
    """What a container says about its clip, after decoding one frame to see that it can be done."""

    frames: int
    duration_s: float
    size: tuple[int, int]
    """(height, width) in px, upright."""
    decoder: str


Read = Callable[[str, Sampling], tuple[np.ndarray, np.ndarray, np.ndarray]]


def read_clip(path: str, sampling: Sampling) -> Frames:
    """Return the sampled frames, upright, with their times after the first frame, in seconds.

    `Frames.decoder` names the reader that did it and, when that was the second, why the first could not.
    Raises ClipError with the reason of each reader.
    """
    pixels, starts_s, chosen, decoder = _first_that_can(path, sampling)
    times_s = starts_s[chosen] - starts_s[0]
    return Frames(pixels=pixels, times_s=times_s, decoder=decoder)


def probe_clip(path: str) -> ClipFacts:
    """Return a clip's facts; its middle frame is decoded. Raises ClipError."""
    _check_container(path)
    pixels, starts_s, _, decoder = _first_that_can(path, Sampling(frames=1))
    step_s = float(np.median(np.diff(starts_s))) if len(starts_s) > 1 else 0.0
    return ClipFacts(
        frames=len(starts_s),
        duration_s=float(starts_s[-1] - starts_s[0]) + step_s,
        size=(int(pixels.shape[1]), int(pixels.shape[2])),
        decoder=decoder,
    )


@cache
def readers() -> str:
    """Return the readers of this machine with their versions: 'decord 0.6.0, pyav 18.1.0'."""
    return ", ".join(name for name, _ in _readers())


def _first_that_can(path: str, sampling: Sampling) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    failures: list[str] = []
    for name, read in _readers():
        try:
            pixels, starts_s, chosen = read(path, sampling)
        except ClipError as error:
            failures.append(f"{name}: {error}")
            continue
        return pixels, starts_s, chosen, " after ".join([name, *failures])
    raise ClipError("no reader can decode it; " + "; ".join(failures))


def _readers() -> list[tuple[str, Read]]:
    found: list[tuple[str, Read]] = []
    if (module := _decord()) is not None:
        found.append((f"decord {module.__version__}", _read_with_decord))
    import av

    found.append((f"pyav {av.__version__}", _read_with_pyav))
    return found


@cache
def _decord() -> ModuleType | None:
    try:
        import decord
    except ImportError:  # no wheel for every platform; the second reader is then the only one, and is named
        return None
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _read_with_decord(path: str, sampling: Sampling) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (pixels, start of every frame in s, which were chosen) as decord sees them."""
    decord = _decord()
    assert decord is not None
    try:
        video = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        count = len(video)
        # decord keeps times as 32-bit numbers; whole microseconds make them equal to PyAV's again
        starts_s = np.asarray(video.get_frame_timestamp(np.arange(count)), np.float64)[:, 0].round(6)
        _check_times(starts_s)
        chosen = _choose(sampling, starts_s)
        unique, back = np.unique(chosen, return_inverse=True)
        pixels = video.get_batch(unique.tolist()).asnumpy()[back]
    except ClipError:
        raise
    except Exception as error:
        raise ClipError(_decord_reason(error)) from error
    return pixels, starts_s, chosen


def _read_with_pyav(path: str, sampling: Sampling) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the same as `_read_with_decord`, as PyAV sees it: times from the packets, then one decode."""
    import av

    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise ClipError("it has no video stream")
            stream = container.streams.video[0]
            ticks = sorted(p.pts for p in container.demux(stream) if p.pts is not None and not p.is_discard)
        if not ticks or stream.time_base is None:
            raise ClipError("it has no frames")
        starts_s = np.array([float(tick * stream.time_base) for tick in ticks]).round(6)
        _check_times(starts_s)
        chosen = _choose(sampling, starts_s)
        wanted = {ticks[i] for i in chosen}
        taken: dict[int, UInt8[np.ndarray, "row col 3"]] = {}
        with av.open(path) as container:
            container.streams.video[0].thread_type = "NONE"
            for frame in container.decode(video=0):
                if frame.pts is not None and frame.pts in wanted:
                    taken[frame.pts] = _upright(frame)
                    if len(taken) == len(wanted):
                        break
    except ClipError:
        raise
    except Exception as error:
        raise ClipError(_pyav_reason(error)) from error
    if missing := sorted(wanted - set(taken)):
        raise ClipError(f"{len(missing)} of {len(wanted)} asked frames cannot be decoded")
    return np.stack([taken[ticks[i]] for i in chosen]), starts_s, chosen


def _upright(frame: Any) -> UInt8[np.ndarray, "row col 3"]:
    pixels = frame.to_ndarray(format="rgb24")
    turns, rest = divmod(frame.rotation, 90)
    if rest:
        raise ClipError(f"it is rotated by {frame.rotation} degrees; only quarter turns are read")
    return np.ascontiguousarray(np.rot90(pixels, turns % 4))


def _check_container(path: str) -> None:
    """Refuse what no reader opens, in PyAV's words: decord's are a stack trace, and it prints another."""
    import av

    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise ClipError("it has no video stream")
    except ClipError:
        raise
    except Exception as error:
        raise ClipError(f"it cannot be opened: {_pyav_reason(error)}") from error


def _choose(sampling: Sampling, starts_s: Float[np.ndarray, " frame"]) -> np.ndarray:
    try:
        return sampling.indices(starts_s)
    except ValueError as error:
        raise ClipError(str(error)) from None


def _check_times(starts_s: Float[np.ndarray, " frame"]) -> None:
    if len(starts_s) == 0:
        raise ClipError("it has no frames")
    if not np.isfinite(starts_s).all() or (np.diff(starts_s) < 0).any():
        raise ClipError("the times of its frames do not ascend")


def _pyav_reason(error: Exception) -> str:
    return one_sentence(getattr(error, "strerror", None) or error)


def _decord_reason(error: Exception) -> str:
    """Return decord's own words: the text after the source line it failed on, without its stack."""
    line = one_sentence(error)
    if "Error reading" in line:
        return "cannot open it"
    _, marker, reason = line.rpartition(": ")
    return reason if marker and reason else line

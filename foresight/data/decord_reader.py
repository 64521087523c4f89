"""Read clips with decord, the first reader: fast at taking a few frames of many."""

from __future__ import annotations

import os
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from foresight.data.clip_errors import ClipError, choose
from foresight.data.errors import one_sentence
from foresight.data.sampling import Sampling

_log: int | None = None
NO_RECOVERED_FRAMES = 1e-9
"""decord puts a neighbour in place of a frame it cannot decode, and by default says nothing."""
CONCEALED = b"concealing "
"""What FFmpeg logs when it makes up the damaged part of a frame; decord hands the frame out as if whole."""


def available() -> bool:
    return _decord() is not None


def version() -> str:
    module = _decord()
    return "decord" if module is None else f"decord {module.__version__}"


def hear(log: int) -> None:
    """From now on refuse clips of which FFmpeg logs that it conceals damage.

    `log` is the descriptor of a file that is this process's standard error, where FFmpeg writes. So this is
    only for a process that reads files and nothing else, one at a time, and calls `heard` before each.
    """
    global _log
    _log = log
    if (decord := _decord()) is not None:
        # FFmpeg says it in a line of this level
        decord.logging.set_level(decord.logging.INFO)


def heard() -> bytes:
    """Return what was logged since the last call; nothing without `hear`."""
    if _log is None or not (size := os.fstat(_log).st_size):
        return b""
    text = os.pread(_log, size, 0)
    os.ftruncate(_log, 0)
    os.lseek(_log, 0, os.SEEK_SET)
    return text


def read(path: str, sampling: Sampling) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (pixels [time row col 3], start of every frame in s, which frames were taken).

    Pixels may be read, not written. After `hear`, refuses a clip in which damage was concealed up to the last
    frame that was asked for. A clip turned by its container to stand upright is refused: decord 0.6.0 gives it
    a fourth channel. Raises ClipError.
    """
    decord = _decord()
    if decord is None:
        raise ClipError("decord is not installed")
    try:
        video = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1, fault_tol=NO_RECOVERED_FRAMES)
        count = len(video)
        # decord keeps times as 32-bit numbers; whole microseconds make them equal to PyAV's again
        starts_s = np.asarray(video.get_frame_timestamp(np.arange(count)), np.float64)[:, 0].round(6)
        chosen = choose(sampling, starts_s)
        unique, back = np.unique(chosen, return_inverse=True)
        pixels = np.from_dlpack(_InMemory(video.get_batch(unique.tolist())))
        if CONCEALED in heard():
            raise ClipError("it conceals damage")
    except ClipError:
        raise
    except Exception as error:  # decord raises DECORDError, RuntimeError, AssertionError and IndexError
        raise ClipError(_reason(error)) from error
    if len(unique) < len(chosen):
        pixels = pixels[back]
    return pixels, starts_s, chosen


class _InMemory:
    """decord's array, lent to NumPy where it lies: it holds the pixels, and a copy costs as much as a frame."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.to_dlpack()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


@cache
def _decord() -> ModuleType | None:
    try:
        import decord
    except ImportError:  # there is no wheel for every platform; PyAV is then the only reader, and is named
        return None
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _reason(error: Exception) -> str:
    """Return decord's own words: what follows the source line it failed on, without its stack."""
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    if "Error reading" in line:
        return "cannot open it"
    return one_sentence(line.rpartition(": ")[2]).rstrip(".")

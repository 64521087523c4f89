"""Read files in other processes: one that crashes or hangs its decoder costs itself and nothing else."""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import mmap
import os
import queue
import selectors
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np

from foresight.data.clips import ClipError, ClipFacts, Header
from foresight.data.decode_worker import anonymous_memory, probe_request, read_request, still_request
from foresight.data.sampling import Sampling
from foresight.data.stills import StillError
from foresight.nouns import Frames

WAIT_S = 120.0
"""How long one file may take before its process is given up."""


def read(
    path: str, sampling: Sampling, header: Header | None = None, *, wait_s: float = WAIT_S
) -> tuple[Frames, Header]:
    """Return what `read_clip` returns, decoded in another process, and the clip's header for the next time.

    May be called from any number of threads; each call has a process to itself, and idle ones are kept for
    the next call. A process that dies is blamed on its file: ClipError, as for any clip that cannot be read.
    """
    value, pixels = _ask(read_request(_absolute(path), sampling, header), wait_s, refuse=ClipError)
    return _frames(value, pixels), Header(**value["header"])


def probe(path: str) -> ClipFacts:
    """Return what `probe_clip` returns, found in another process. Raises ClipError."""
    facts = _ask(probe_request(_absolute(path)), refuse=ClipError)[0]["facts"]
    return ClipFacts(**(facts | {"size": tuple(facts["size"]), "header": Header(**facts["header"])}))


def read_still(path: str) -> Frames:
    """Return the still as one frame, decoded in another process. Raises StillError and OSError."""
    request = still_request(_absolute(path), pixels=True)
    return _frames(*_ask(request, refuse=StillError))


def probe_still(path: str) -> dict[str, Any]:
    """Return `size` [height, width] px and how many `pictures` the file holds, after decoding the still whole.

    Raises StillError and OSError.
    """
    request = still_request(_absolute(path), pixels=False)
    facts: dict[str, Any] = _ask(request, refuse=StillError)[0]["facts"]
    return facts


def stop_idle() -> None:
    """End the processes that wait for work; the next call starts new ones."""
    with contextlib.suppress(queue.Empty):
        while True:
            _idle.get_nowait().stop()


def _ask(
    request: bytes, wait_s: float = WAIT_S, *, refuse: type[ClipError | StillError]
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Return a worker's answer; a file that it refuses, or dies of, raises `refuse`."""
    worker = _idle_one() or _Worker()
    try:
        value, pixels = worker.ask(request, wait_s)
    except _NoAnswer as error:
        worker.stop()
        raise refuse(str(error)) from None
    except BaseException:
        # interrupted in the middle of an answer whose rest must not become the next one's
        worker.stop()
        raise
    _idle.put(worker)
    if "refused" in value:
        raise refuse(value["refused"])
    if "gone" in value:
        raise OSError(*value["gone"])
    if "bug" in value:
        raise RuntimeError(f"reading a file failed in a way that is not the file's: {value['bug']}")
    return value, pixels


def _frames(value: dict[str, Any], pixels: np.ndarray | None) -> Frames:
    assert pixels is not None
    times_s = np.array(value["times_s"], np.float64)
    return Frames(pixels=pixels, times_s=times_s, decoder=value["decoder"])


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _idle_one() -> _Worker | None:
    """Return a process that waits for work, if there is one; one that died while waiting is no file's fault."""
    with contextlib.suppress(queue.Empty):
        while True:
            worker = _idle.get_nowait()
            if worker.alive():
                return worker
            worker.stop()
    return None


class _NoAnswer(Exception):
    """A decoding process died or hangs."""


class _Worker:
    """One decoding process, and the memory it leaves pixels in."""

    def __init__(self) -> None:
        # found where this process found it, wherever it runs
        paths = [str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)]
        self._memory = anonymous_memory("frames")
        self._room: mmap.mmap | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-m", "foresight.data.decode_worker", str(self._memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(self._memory,),
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )

    def ask(self, request: bytes, wait_s: float) -> tuple[dict[str, Any], np.ndarray | None]:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
            if not _readable(process.stdout, wait_s):
                raise _NoAnswer(f"the decoder did not answer within {wait_s:g} s")
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line.endswith(b"\n"):
            raise _NoAnswer(f"the decoder crashed: {_how(process.wait())}")
        value = json.loads(line)
        return value, self._pixels(value["shape"]) if "shape" in value else None

    def alive(self) -> bool:
        return self._process.poll() is None

    def _pixels(self, shape: list[int]) -> np.ndarray:
        size = math.prod(shape)
        if self._room is None or len(self._room) < size:
            self._room = mmap.mmap(self._memory, size)
        return np.ndarray(shape, np.uint8, buffer=self._room).copy()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()
        os.close(self._memory)


def _readable(stream: IO[bytes], wait_s: float) -> bool:
    """Wait until something can be read, or the other end is closed; False when it took too long."""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        return bool(selector.select(wait_s))


def _how(code: int) -> str:
    if code >= 0:
        return f"its process ended with status {code}"
    try:
        return f"its process was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"its process was ended by signal {-code}"


_idle: queue.LifoQueue[_Worker] = queue.LifoQueue()


def _forget_idle() -> None:
    """In a forked child: the processes belong to the parent, whose pipes may not be shared."""
    global _idle
    _idle = queue.LifoQueue()


atexit.register(stop_idle)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_idle)

"""A process that decodes files for another one, so that a decoder's crash is only its own.

Started as `python -m foresight.data.decode_worker FD`. Each request is one line of JSON on standard input; each
answer is one line of JSON on standard output. Pixels are left in the memory behind FD, which both processes
map. Nothing is pickled. It ends when its input does, so it never outlives the process that started it.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from foresight.data import decord_reader
from foresight.data.clips import ClipError, Header, probe_clip, read_clip, read_header
from foresight.data.sampling import Sampling
from foresight.data.stills import StillError, read_still
from foresight.nouns import Frames


def read_request(path: str, sampling: Sampling, header: Header | None) -> bytes:
    """Return the line that asks for the frames of a clip."""
    rule = {"frames": sampling.frames, "rate_hz": sampling.rate_hz, "times_s": sampling.times_s}
    return _line({"path": path, "sampling": rule, "header": None if header is None else asdict(header)})


def probe_request(path: str) -> bytes:
    """Return the line that asks for the facts of a clip."""
    return _line({"path": path})


def still_request(path: str, *, pixels: bool) -> bytes:
    """Return the line that asks for a still, or, without `pixels`, only for what decoding it shows."""
    return _line({"still": path, "pixels": pixels})


def serve(requests: IO[bytes], answers: IO[bytes], memory: int) -> None:
    """Answer requests until there are no more; `memory` is the descriptor of the memory for pixels."""
    room: mmap.mmap | None = None
    for line in iter(requests.readline, b""):
        # nothing that was said of an earlier file
        decord_reader.heard()
        # the pixels live until the next ones are there: memory that is all given back at once goes to the
        # system and has to be fetched from it again, which doubles the time of a large still
        value, pixels = _answer(json.loads(line))
        if pixels is not None and "shape" in value:
            if room is None or len(room) < pixels.nbytes:
                os.ftruncate(memory, pixels.nbytes)
                room = mmap.mmap(memory, pixels.nbytes)
            np.copyto(np.ndarray(pixels.shape, np.uint8, buffer=room), pixels)
        answers.write(_line(value))
        answers.flush()


def anonymous_memory(name: str) -> int:
    """Return the descriptor of a file without a place, which is gone when nothing holds it any more."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _answer(request: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray | None]:
    try:
        if "still" in request:
            return _still(request)
        if "sampling" not in request:
            return {"facts": asdict(probe_clip(request["path"]))}, None
        rule = request["sampling"]
        sampling = Sampling(**(rule if rule["times_s"] is None else {"times_s": tuple(rule["times_s"])}))
        header = Header(**request["header"]) if request["header"] else read_header(request["path"])
        frames = read_clip(request["path"], sampling, header=header)
        return _described(frames) | {"header": asdict(header)}, frames.pixels
    except (ClipError, StillError) as error:
        return {"refused": str(error)}, None
    except OSError as error:
        return {"gone": [error.errno, error.strerror]}, None
    except MemoryError:
        return {"refused": "there was not enough memory to decode it"}, None
    except Exception as error:  # a mistake of ours, not of the file: raised again where it was asked for
        return {"bug": f"{type(error).__name__}: {error}"}, None


def _still(request: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray | None]:
    with Path(request["still"]).open("rb") as file:
        frames, pictures = read_still(file)
    facts = {"size": frames.size, "pictures": pictures}
    return _described(frames) if request["pixels"] else {"facts": facts}, frames.pixels


def _described(frames: Frames) -> dict[str, Any]:
    return {"shape": frames.pixels.shape, "times_s": frames.times_s.tolist(), "decoder": frames.decoder}


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _main() -> None:
    # libraries print to standard output and error as they like: keep our channel to ourselves
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(anonymous_memory("log"), 2)
    decord_reader.hear(2)
    try:
        serve(sys.stdin.buffer, answers, int(sys.argv[1]))
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)


if __name__ == "__main__":
    _main()

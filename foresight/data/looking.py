"""Look at files: what they are, whether their end is there, and, when asked, whether they can be decoded."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Sequence
from typing import IO, Any

from foresight.data import isolated
from foresight.data.clips import ClipError, Header
from foresight.data.containers import cut_short
from foresight.data.digests import Seen, Stamp, digest_of, stamp
from foresight.data.listing import HEAD_BYTES, Entry, sniff
from foresight.data.stills import StillError
from foresight.nouns import Skip

AT_ONCE_BYTES = 1 << 20
"""Files up to this size are read in one piece."""


def look(
    entries: Sequence[Entry], *, known: Callable[[str, Stamp], Seen | None], decode: bool
) -> list[Seen | Skip]:
    """Return what each file is. `known(key, stamp)` is what an earlier look found, or None.

    All files are opened and asked of the disk before the first is read: a disk serves many requests in little
    more time than one. With `decode` a still is decoded whole, a clip opened and its middle frame decoded.
    """
    opened: list[tuple[int, Stamp] | Skip] = []
    try:
        for entry in entries:
            opened.append(_open(entry))
        return [
            about if isinstance(about, Skip) else _look(entry, *about, known=known, decode=decode)
            for entry, about in zip(entries, opened, strict=True)
        ]
    finally:
        for about in opened:
            if not isinstance(about, Skip):
                os.close(about[0])


def known_header(facts: dict[str, Any] | None) -> Header | None:
    """Return the header of a clip among what a look found, if it is there."""
    if not facts or "header" not in facts:
        return None
    height, pixel_format = facts["header"]
    return Header(height=height, pixel_format=pixel_format)


def _open(entry: Entry) -> tuple[int, Stamp] | Skip:
    """Return the descriptor of a file and its stamp, the beginning of the file being on its way."""
    try:
        file = os.open(entry.path, os.O_RDONLY)
    except OSError as error:
        return _cannot_be_opened(entry, error)
    now = stamp(os.fstat(file))
    if now[0] == 0:
        os.close(file)
        return Skip(key=entry.key, why="it is empty: zero bytes")
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):  # a hint, which not every file system takes
            os.posix_fadvise(file, 0, min(now[0], AT_ONCE_BYTES), os.POSIX_FADV_WILLNEED)
    return file, now


def _look(
    entry: Entry, file: int, now: Stamp, *, known: Callable[[str, Stamp], Seen | None], decode: bool
) -> Seen | Skip:
    try:
        seen = known(entry.key, now) or _read(entry, file, now)
        if decode and not seen.refused and seen.facts is None:
            seen = seen._replace(facts=_try(entry))
        if stamp(os.stat(entry.path)) != now:  # noqa: PTH116 (hundred thousands)
            why = "it changed while it was read; scan again when nothing writes to it"
            return Skip(key=entry.key, why=why)
    except OSError as error:
        return _cannot_be_opened(entry, error)
    return seen


def _read(entry: Entry, file: int, now: Stamp) -> Seen:
    size = now[0]
    if size <= AT_ONCE_BYTES:
        content = os.read(file, size)
        while len(content) < size and (more := os.read(file, size - len(content))):
            content += more
        digest = hashlib.sha256(content).hexdigest()
        return Seen(now, digest, _refused(entry, io.BytesIO(content), size))
    with os.fdopen(file, "rb", buffering=0, closefd=False) as stream:
        return Seen(now, digest_of(stream), _refused(entry, stream, size))


def _refused(entry: Entry, file: IO[bytes], size: int) -> str:
    """Return why a file cannot be what its name says, '' when nothing speaks against it."""
    file.seek(0)
    kind = sniff(file.read(HEAD_BYTES))
    if kind is not None and kind[0] != entry.media:
        named = "an image" if entry.media == "image" else "a clip"
        return f"it is named like {named}, but its bytes are {kind[1]}; give it the right suffix"
    if entry.media == "image":
        return ""
    if kind is None:
        return "its bytes are no WebM, Matroska, MP4, QuickTime or AVI"
    return cut_short(file, size)


def _try(entry: Entry) -> dict[str, Any]:
    """Return the facts of a file, or `{"why": reason}`."""
    try:
        if entry.media == "image":
            return isolated.probe_still(entry.path)
        clip = isolated.probe(entry.path)
    except (StillError, ClipError) as error:
        return {"why": str(error)}
    return {
        "size": list(clip.size),
        "frames": clip.frames,
        "duration_s": clip.duration_s,
        "decoder": clip.decoder,
        "header": [clip.header.height, clip.header.pixel_format],
    }


def _cannot_be_opened(entry: Entry, error: OSError) -> Skip:
    return Skip(key=entry.key, why=f"it cannot be opened: {error.strerror or error}")

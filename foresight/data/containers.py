"""Tell from a file's outermost structure whether its end is missing, without decoding anything."""

from __future__ import annotations

import os
from typing import IO

MAX_BOXES = 100_000


def cut_short(file: IO[bytes], size: int) -> str:
    """Return why a clip of `size` bytes must be cut short, or '' when nothing says so.

    Matroska and WebM announce the size of their one segment, MP4 and QuickTime that of each top-level box,
    AVI that of its list. Decoders play a file without its end up to there, and its uniform frames would then
    come from another stretch of the clip. Sizes left open, as by live recorders, say nothing.
    """
    file.seek(0)
    head = file.read(16)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        end = _matroska_end(file)
    elif head[:4] == b"RIFF":
        announced = int.from_bytes(head[4:8], "little")
        end = 8 + announced if 0 < announced < 0xFFFFFFFF else 0
    elif len(head) >= 8 and head[4:8].isalnum():
        end = _boxes_end(file, size)
    else:
        end = 0
    if end > size:
        return f"it is cut short: its header announces {end:,} bytes, but there are {size:,}"
    return ""


def _boxes_end(file: IO[bytes], size: int) -> int:
    """Return where the last top-level box ends; boxes that cannot be walked are left to the decoder."""
    at = 0
    for _ in range(MAX_BOXES):
        if at >= size:
            break
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return at + 8
        length = int.from_bytes(head[:4], "big")
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or not head[4:8].isascii():
            return 0
        at += length
    return at


def _matroska_end(file: IO[bytes]) -> int:
    """Return where the segment ends, 0 when its size is left open or is not found."""
    file.seek(4)
    length = _variable(file)
    if length is None:
        return 0
    file.seek(length, os.SEEK_CUR)
    if file.read(4) != b"\x18\x53\x80\x67":
        return 0
    length = _variable(file)
    return 0 if length is None else file.tell() + length


def _variable(file: IO[bytes]) -> int | None:
    """Return a variable-length size (RFC 8794, section 4), None when it is absent or left open."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    width = 9 - first[0].bit_length()
    rest = file.read(width - 1)
    if len(rest) < width - 1:
        return None
    value = int.from_bytes(bytes([first[0] & (0xFF >> width)]) + rest, "big")
    return None if value == (1 << 7 * width) - 1 else value

"""List the media files of a folder: what to read, what can't be read and why, and what is something else."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from foresight.nouns import Media, Skip

IMAGES = frozenset({"jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "tif", "tiff", "gif"})
CLIPS = frozenset({"mp4", "m4v", "webm", "mkv", "mov", "avi"})
_OTHER_STILLS = {
    "heic",
    "heif",
    "avif",
    "jp2",
    "jxl",
    "svg",
    "psd",
    "dng",
    "cr2",
    "nef",
    "arw",
    "tga",
    "exr",
    "hdr",
}
_OTHER_CLIPS = {"wmv", "flv", "mpg", "mpeg", "m2ts", "mts", "3gp", "ogv"}
NOT_READ = frozenset(_OTHER_STILLS | _OTHER_CLIPS)
"""Media that people have and this project does not read: each is a skip that says so."""
HEAD_BYTES = 32


class Entry(NamedTuple):
    """One file that is named like media. A tuple, because there are hundred thousands."""

    key: str
    """Path under the root, '/'-separated, NFC."""
    path: str
    """Where it is on this machine; never part of an identity."""
    media: Media


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Everything under a root, in the order of the keys."""

    entries: tuple[Entry, ...]
    skipped: tuple[Skip, ...]
    ignored: dict[str, int]
    """How many files are no media, by suffix."""


def list_folder(root: Path) -> Listing:
    """Walk `root` and sort every file into entries, skips and ignored ones.

    Symbolic links are followed after everything real has been seen, and no folder is entered twice: a link
    back up, or a second way into a folder, is a skip. Hidden folders are skips. Keys are sorted, so neither
    the file system's order nor the mount point shows.
    """
    entries: dict[str, Entry] = {}
    skipped: list[Skip] = []
    ignored: Counter[str] = Counter()
    seen: dict[tuple[int, int], str] = {_identity(root.stat()): "."}
    real: list[tuple[str, str]] = [(str(root), "")]
    linked: list[tuple[str, str]] = []
    while real or linked:
        if real:
            folder, prefix = real.pop()
        else:
            linked.sort(key=lambda pair: pair[1], reverse=True)
            folder, prefix = linked.pop()
            here = _enter(folder, prefix, seen, skipped)
            if not here:
                continue
        try:
            with os.scandir(folder) as scan:
                found = sorted(scan, key=lambda e: e.name)
        except OSError as error:
            skipped.append(
                Skip(key=f"{_shown(prefix)}/", why=f"this folder cannot be listed: {error.strerror}")
            )
            continue
        for item in found:
            name = prefix + "/" + item.name if prefix else item.name
            if not _is_utf8(item.name):
                skipped.append(Skip(key=_shown(name), why="its name is not valid UTF-8; rename it"))
            elif _is_folder(item):
                if item.name.startswith("."):
                    skipped.append(Skip(key=name + "/", why="hidden folders are not entered"))
                elif item.is_symlink():
                    linked.append((item.path, name))
                elif _enter(item.path, name, seen, skipped):
                    real.append((item.path, name))
            else:
                _sort_file(item, name, entries, skipped, ignored)
    return Listing(
        entries=tuple(entries[key] for key in sorted(entries)),
        skipped=tuple(sorted(skipped, key=lambda skip: skip.key)),
        ignored=dict(sorted(ignored.items())),
    )


def sniff(head: bytes) -> tuple[Media, str] | None:
    """Return (medium, format) that the first bytes of a file announce, or None."""
    if head[:3] == b"\xff\xd8\xff":
        return "image", "JPEG"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "image", "PNG"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "image", "GIF"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "image", "TIFF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image", "WebP"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "clip", "AVI"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "clip", "WebM or Matroska"
    if head[4:8] == b"ftyp":
        if head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis"):
            return "image", "HEIF or AVIF"
        return "clip", "MP4 or QuickTime"
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
        return "clip", "QuickTime"
    return None


def _enter(folder: str, name: str, seen: dict[tuple[int, int], str], skipped: list[Skip]) -> bool:
    try:
        identity = _identity(Path(folder).stat())
    except OSError as error:
        skipped.append(Skip(key=f"{_shown(name)}/", why=f"this folder cannot be entered: {error.strerror}"))
        return False
    if identity in seen:
        why = f"this is the folder {seen[identity]} again, by a symbolic link; its files are listed once"
        skipped.append(Skip(key=f"{name}/", why=why))
        return False
    seen[identity] = name
    return True


def _sort_file(
    item: os.DirEntry[str],
    name: str,
    entries: dict[str, Entry],
    skipped: list[Skip],
    ignored: Counter[str],
) -> None:
    suffix = name.rsplit("/", 1)[-1].rpartition(".")[2].lower() if "." in item.name else ""
    named_media = suffix in IMAGES or suffix in CLIPS or suffix in NOT_READ
    try:
        regular = item.is_file()
        if not regular and item.is_symlink():
            Path(item.path).stat()
    except OSError as error:
        skipped.append(Skip(key=name, why=f"its symbolic link leads nowhere: {error.strerror}"))
        return
    if not regular:
        if named_media:
            skipped.append(Skip(key=name, why="it is a device, pipe or socket, not a file"))
        else:
            ignored["(no regular file)"] += 1
        return
    if suffix in NOT_READ:
        skipped.append(
            Skip(key=name, why=f".{suffix} files are not read; convert it to PNG, JPEG, WebM or MP4")
        )
    elif named_media:
        key = unicodedata.normalize("NFC", name)
        if key in entries:
            skipped.append(
                Skip(key=key, why="a second file has this name, spelled with other Unicode characters")
            )
            return
        entries[key] = Entry(key=key, path=item.path, media="image" if suffix in IMAGES else "clip")
    else:
        try:
            with Path(item.path).open("rb") as file:
                kind = sniff(file.read(HEAD_BYTES))
        except OSError:
            kind = None
        if kind is None:
            ignored[f".{suffix}" if suffix else "(no suffix)"] += 1
        else:
            why = f"its bytes are {kind[1]} but its name does not say so; give it that suffix to have it read"
            skipped.append(Skip(key=name, why=why))


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:
        return False


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

"""A file's digest and verdict, remembered while the file stays the same."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import IO, Any, NamedTuple

AT_ONCE_BYTES = 1 << 20
FORMAT = 2
"""Goes up when the layout or the checks behind `refused` change."""
Stamp = tuple[int, int, int, int]
"""(size, mtime_ns, ctime_ns, inode): while they stay, the bytes are taken to be the same."""


class Seen(NamedTuple):
    """What is known about one file. A tuple, because there are hundred thousands."""

    stamp: Stamp
    digest: str
    refused: str = ""
    """Why its bytes cannot be what its name says, whatever reads it; '' when nothing speaks against it."""
    facts: dict[str, Any] | None = None
    """What decoding it showed: `{"why": …}` when it cannot be used. None: not tried yet."""


def stamp(stat: os.stat_result) -> Stamp:
    """Return what must stay for a file to count as unchanged.

    The change time is in it because copying tools set the modification time back.
    """
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def digest_of(file: IO[bytes], size: int | None = None) -> str:
    """Return the SHA-256 of the rest of an open file, 64 hex digits; `size`, if known, saves time on small ones."""
    if size is not None and size <= AT_ONCE_BYTES:
        digest = hashlib.sha256(file.read(size))
        # a file that grew meanwhile has more
        while more := file.read(AT_ONCE_BYTES):
            digest.update(more)
        return digest.hexdigest()
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


class DigestCache:
    """The files of one folder as they were last seen: one JSON file under the cache folder.

    Only a cache: a missing, damaged or foreign file means that everything is read again. Facts are dropped
    when `readers` (the decoders with their versions) changed, digests are not.
    """

    def __init__(self, folder: Path | None, *, root: Path, readers: str) -> None:
        self._readers = readers
        self._files: dict[str, Seen] = {}
        self._changed = False
        self._path: Path | None = None
        if folder is not None:
            name = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:32]
            self._path = folder / f"files-{name}.json"
            self._load(self._path)

    def get(self, key: str, now: Stamp) -> Seen | None:
        """Return what is known of the file, if it is still the same."""
        seen = self._files.get(key)
        return seen if seen is not None and seen.stamp == now else None

    def put(self, key: str, seen: Seen) -> None:
        if self._files.get(key) != seen:
            self._files[key] = seen
            self._changed = True

    def keep_only(self, keys: set[str]) -> None:
        """Forget the files that are gone."""
        if gone := set(self._files) - keys:
            for key in gone:
                del self._files[key]
            self._changed = True

    def save(self) -> None:
        """Write the cache in one atomic step; does nothing without a cache folder or without news."""
        if self._path is None or not self._changed:
            return
        value = {
            "format": FORMAT,
            "readers": self._readers,
            "files": {
                key: [list(s.stamp), s.digest, s.refused, s.facts] for key, s in sorted(self._files.items())
            },
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".files-", suffix=".tmp", dir=self._path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(value, file, ensure_ascii=False, separators=(",", ":"))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self._path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        self._changed = False

    def _load(self, path: Path) -> None:
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if value["format"] != FORMAT:
                return
            same = value["readers"] == self._readers
            self._files = {
                str(key): Seen(
                    stamp=_stamp(*s),
                    digest=_hex(digest),
                    refused=str(refused),
                    facts=facts if same else None,
                )
                for key, (s, digest, refused, facts) in value["files"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            self._files = {}


def _stamp(size: int, mtime_ns: int, ctime_ns: int, inode: int) -> Stamp:
    return size, mtime_ns, ctime_ns, inode


def _hex(text: str) -> str:
    if len(text) != 64:
        raise ValueError("a digest has 64 hex digits")
    return text

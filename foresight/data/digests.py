"""A file's digest and verdict, remembered while the file stays the same."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from itertools import starmap
from pathlib import Path
from typing import IO, Any, NamedTuple

FORMAT = 3
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


def digest_of(file: IO[bytes]) -> str:
    """Return the SHA-256 of the rest of an open file, 64 hex digits."""
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


class DigestCache:
    """The files of one folder as they were last seen: one JSON file under the cache folder.

    It holds columns, a list for each field: of hundred thousands of files they are parsed in half the time.
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
        before = self._files.get(key)
        if before is not seen and before != seen:
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
        keys = sorted(self._files)
        seen = [self._files[key] for key in keys]
        value = {
            "format": FORMAT,
            "readers": self._readers,
            "keys": keys,
            "stamps": [[s.stamp[field] for s in seen] for field in range(4)],
            "digests": [s.digest for s in seen],
            "refused": [s.refused for s in seen],
            "facts": [s.facts for s in seen],
        }
        # in one piece: `json.dump` would encode in Python, at a tenth of the speed
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".files-", suffix=".tmp", dir=self._path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
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
            keys, digests, refused = value["keys"], value["digests"], value["refused"]
            facts = value["facts"] if value["readers"] == self._readers else [None] * len(keys)
            for texts in (keys, digests, refused):
                if set(map(type, texts)) - {str}:
                    raise ValueError("keys, digests and reasons are texts")
            if set(map(len, digests)) - {64}:
                raise ValueError("a digest has 64 hex digits")
            stamps = zip(*value["stamps"], strict=True)
            rows = zip(stamps, digests, refused, facts, strict=True)
            self._files = dict(zip(keys, starmap(Seen, rows), strict=True))
        except (OSError, ValueError, KeyError, TypeError):
            self._files = {}

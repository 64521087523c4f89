"""The files behind a data set: digested once, tried once, found again by digest."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from foresight.data import isolated
from foresight.data.ahead import ahead_of
from foresight.data.clips import ClipError, Header, readers
from foresight.data.digests import DigestCache, Seen, digest_of, stamp
from foresight.data.errors import Unreadable
from foresight.data.listing import Entry
from foresight.data.looking import known_header, look
from foresight.data.sampling import Sampling
from foresight.data.source import Progress
from foresight.data.stills import READER, StillError
from foresight.nouns import Frames, Sample, Skip

FILES_AT_ONCE = 16
"""Files a thread asks the disk for together."""
OPEN_FILES = 256
"""Files that all threads together have open at most."""


class Files:
    """Files of one root. `keep` makes a file the one behind its digest; `frames` reads it under that digest.

    A file is digested and its outermost structure checked. With `decode` it is also tried: a still is decoded
    whole, a clip opened and its middle frame decoded.
    """

    def __init__(self, root: Path, *, cache_dir: Path | None, workers: int | None, decode: bool) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers is 1 or more, or None for one per core, but got {workers}")
        self.root = root
        self._workers = workers or os.cpu_count() or 1
        self._decode = decode
        self._kept: dict[str, tuple[Entry, Seen]] = {}
        self._headers: dict[str, Header] = {}
        self._cache = DigestCache(cache_dir, root=root, readers=f"{READER}, {readers()}")

    def look_at(self, entries: Iterable[Entry]) -> Generator[tuple[Entry, Seen | Skip], None, None]:
        """Yield what each file is, in order, looking ahead on threads; what was learnt is cached."""
        # a file that is decoded keeps a thread busy by itself
        at_once = 1 if self._decode else max(1, min(FILES_AT_ONCE, OPEN_FILES // self._workers))
        looks = ahead_of(
            self._look,
            _in_chunks(entries, at_once),
            workers=self._workers,
            ahead=max(2, 8 // at_once) * self._workers,
            known=self._known,
        )
        put, decode = self._cache.put, self._decode
        try:
            for chunk, found in looks:
                for entry, seen in zip(chunk, found, strict=True):
                    if isinstance(seen, Seen):
                        put(entry.key, seen)
                        why = seen.refused
                        if decode and seen.facts is not None:
                            why = why or seen.facts.get("why", "")
                        yield entry, Skip(key=entry.key, why=why) if why else seen
                    else:
                        yield entry, seen
        finally:
            looks.close()
            # also when a scan is interrupted: what was read need not be read again
            self._cache.save()

    def take(
        self,
        entries: Iterable[Entry],
        count: int | None,
        *,
        total: int,
        progress: Progress | None,
        group_of: Callable[[Entry], str | None] | None = None,
        per_group: int | None = None,
        refuse: Callable[[Entry, dict[str, Any]], str] | None = None,
    ) -> tuple[list[tuple[Entry, Seen]], list[Skip]]:
        """Return the first `count` usable files (None: all) and what had to be skipped on the way.

        The second of two files with the same bytes is a skip. With `per_group`, a file whose group is full is
        neither taken nor a skip. `refuse(entry, facts)` gives a further reason to skip a file, or ''.
        """
        taken: list[tuple[Entry, Seen]] = []
        skipped: list[Skip] = []
        groups: Counter[str | None] = Counter()
        kept = self._kept
        of_all = total if count is None else min(count, total)

        def full(entry: Entry) -> bool:
            return group_of is not None and per_group is not None and groups[group_of(entry)] >= per_group

        wanted = entries if per_group is None else (entry for entry in entries if not full(entry))
        looking = self.look_at(wanted)
        for done, (entry, seen) in enumerate(looking, start=1):
            # asked again: the group may have filled up since this file was sent ahead
            if per_group is not None and full(entry):
                pass
            elif isinstance(seen, Skip):
                skipped.append(seen)
            elif refuse is not None and (why := refuse(entry, seen.facts or {})):
                skipped.append(Skip(key=entry.key, why=why))
            elif seen.digest in kept:
                skipped.append(Skip(key=entry.key, why=f"same bytes as {kept[seen.digest][0].key}"))
            else:
                pair = kept[seen.digest] = (entry, seen)
                taken.append(pair)
                if group_of is not None:
                    groups[group_of(entry)] += 1
            if progress is not None:
                progress(done if count is None else len(taken), of_all)
            if len(taken) == count:
                break
        looking.close()
        return taken, skipped

    def forget_others(self, entries: Iterable[Entry]) -> None:
        """Drop from the cache the files that are not there any more."""
        self._cache.keep_only({entry.key for entry in entries})
        self._cache.save()

    def facts(self, digest: str) -> dict[str, Any]:
        """Return what trying the file showed: `size`; of a clip `frames`, `duration_s`, `decoder`; of a still
        `pictures`. Empty when it was not tried."""
        return {k: v for k, v in (self._kept[digest][1].facts or {}).items() if k != "header"}

    def frames(self, sample: Sample, sampling: Sampling) -> Frames:
        """Return the frames of the file behind the sample's digest, decoded in another process.

        Raises Unreadable, also when the file has other bytes by now.
        """
        kept = self._kept.get(sample.digest)
        if kept is None:
            raise Unreadable(sample.key, "no file of this data set has the sample's bytes; scan it again")
        entry, seen = kept
        path = Path(entry.path)
        try:
            if entry.media == "clip":
                known = self._headers.get(sample.digest) or known_header(seen.facts)
                frames, self._headers[sample.digest] = isolated.read(entry.path, sampling, known)
            else:
                frames = isolated.read_still(entry.path)
            changed = stamp(path.stat()) != seen.stamp and _digest(path) != sample.digest
        except OSError as error:
            raise Unreadable(sample.key, f"it cannot be opened any more: {error.strerror}") from None
        except (StillError, ClipError) as error:
            raise Unreadable(sample.key, str(error)) from error
        if changed:
            raise Unreadable(sample.key, "its bytes changed after the scan; scan it again")
        return frames

    def _known(self, entries: Sequence[Entry]) -> list[Seen | Skip] | None:
        """Return what the cache knows of the files, if that is all that is asked for of each."""
        get, decode = self._cache.get, self._decode
        found: list[Seen | Skip] = []
        for entry in entries:
            try:
                seen = get(entry.key, stamp(os.stat(entry.path)))  # noqa: PTH116 (hundred thousands)
            except OSError:
                return None
            if seen is None or (decode and seen.facts is None and not seen.refused):
                return None
            found.append(seen)
        return found

    def _look(self, entries: Sequence[Entry]) -> list[Seen | Skip]:
        return look(entries, known=self._cache.get, decode=self._decode)


def _in_chunks(entries: Iterable[Entry], size: int) -> Iterator[list[Entry]]:
    waiting = iter(entries)
    while chunk := list(islice(waiting, size)):
        yield chunk


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return digest_of(file)

"""A folder of images and clips; the first subfolder is the label."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foresight.data.ahead import ahead_of
from foresight.data.clips import ClipError, Header, probe_clip, read_clip, readers
from foresight.data.digests import DigestCache, Seen, Stamp, digest_of, stamp
from foresight.data.errors import NoUsableData, Unreadable
from foresight.data.listing import HEAD_BYTES, Entry, Listing, list_folder, sniff
from foresight.data.sampling import Sampling
from foresight.data.source import DataSource, Progress
from foresight.data.stills import READER, StillError, read_still
from foresight.data.subset import balanced_subset
from foresight.data.thumbnails import thumbnail_png
from foresight.nouns import Frames, Manifest, Media, Sample, Skip

KIND = "folder"
SPELLING = "folder:DIR"


def open(
    location: str,
    *,
    samples: int | None,
    seed: int,
    cache_dir: Path | None = None,
    workers: int | None = None,
) -> DataSource:
    """Open the folder at `location`. `workers` threads read it the first time; None: one per core."""
    root = Path(location)
    if not location or not root.is_dir():
        raise ValueError(f"folder:DIR names a folder that is there, but got {location!r}; check the path")
    return Folder(
        root, samples=samples, seed=seed, cache_dir=cache_dir, workers=workers or os.cpu_count() or 1
    )


@dataclass(frozen=True, kw_only=True)
class _Place:
    path: str
    media: Media
    stamp: Stamp
    header: Header | None
    """Of a clip, so that it is not opened twice."""


class Folder:
    """Every regular file that looks like media is a sample or a skip; `ignored` counts the others by suffix.

    At the scan each file is digested and tried: a still is decoded whole, a clip opened and one frame
    decoded.
    """

    def __init__(
        self, root: Path, *, samples: int | None, seed: int, cache_dir: Path | None, workers: int
    ) -> None:
        self.scan_progress: Progress | None = None
        self.ignored: dict[str, int] = {}
        self._root = root
        self._samples = samples
        self._seed = seed
        self._cache_dir = cache_dir
        self._workers = workers
        self._manifest: Manifest | None = None
        self._places: dict[str, _Place] = {}
        self._facts: dict[str, dict[str, Any]] = {}

    @property
    def manifest(self) -> Manifest:
        if self._manifest is None:
            self._manifest = self._scan()
        return self._manifest

    def facts(self, sample: Sample) -> dict[str, Any]:
        """Return what the scan saw: `size`; of a clip `frames`, `duration_s`, `decoder`; else `pictures`."""
        _ = self.manifest
        return dict(self._facts[sample.digest])

    def frames(self, sample: Sample, sampling: Sampling) -> Frames:
        _ = self.manifest
        place = self._places.get(sample.digest)
        if place is None:
            raise Unreadable(sample.key, "no file of this folder has the sample's bytes")
        try:
            frames = _decode(place, sampling)
            unchanged = stamp(Path(place.path).stat()) == place.stamp or _digest(place.path) == sample.digest
        except OSError as error:
            raise Unreadable(sample.key, f"it cannot be opened any more: {error.strerror}") from None
        except (StillError, ClipError) as error:
            raise Unreadable(sample.key, str(error)) from error
        if not unchanged:
            raise Unreadable(sample.key, "its bytes changed after the folder was scanned; scan it again")
        return frames

    def thumbnail(self, sample: Sample, size: int = 96) -> bytes:
        return thumbnail_png(self.frames(sample, Sampling(frames=1)), size)

    def _scan(self) -> Manifest:
        listing = list_folder(self._root)
        cache = DigestCache(self._cache_dir, root=self._root, readers=f"{READER}, {readers()}")
        skipped = list(listing.skipped)
        samples: list[Sample] = []
        first: dict[str, str] = {}

        def look(entry: Entry) -> Seen | Skip:
            return _look(entry, cache)

        results = ahead_of(look, listing.entries, workers=self._workers, ahead=4 * self._workers + 1)
        try:
            for done, (entry, seen) in enumerate(results, start=1):
                if isinstance(seen, Skip):
                    skipped.append(seen)
                else:
                    cache.put(entry.key, seen)
                    facts = seen.facts or {}
                    if "why" in facts:
                        skipped.append(Skip(key=entry.key, why=facts["why"]))
                    elif seen.digest in first:
                        skipped.append(Skip(key=entry.key, why=f"same bytes as {first[seen.digest]}"))
                    else:
                        first[seen.digest] = entry.key
                        self._places[seen.digest] = _Place(
                            path=entry.path, media=entry.media, stamp=seen.stamp, header=_header(facts)
                        )
                        self._facts[seen.digest] = facts
                        samples.append(_sample(entry, seen.digest, facts))
                if self.scan_progress is not None:
                    self.scan_progress(done, len(listing.entries))
        finally:
            # what was read stays known, also when the scan is interrupted
            cache.save()
        cache.keep_only({entry.key for entry in listing.entries})
        cache.save()
        self.ignored = listing.ignored
        skipped.sort(key=lambda skip: skip.key)
        if not samples:
            raise NoUsableData(_nothing(self._root, listing, skipped))
        chosen = balanced_subset(samples, self._samples, seed=self._seed)
        return Manifest(source=KIND, samples=tuple(chosen), skipped=tuple(skipped))


def _look(entry: Entry, cache: DigestCache) -> Seen | Skip:
    """Return a file's digest and facts, or a skip when it cannot even be read."""
    try:
        with Path(entry.path).open("rb") as file:
            before = stamp(os.fstat(file.fileno()))
            known = cache.get(entry.key, before)
            if known is not None and known.facts is not None:
                return known
            if before[0] == 0:
                return Skip(key=entry.key, why="it is empty: zero bytes")
            head = file.read(HEAD_BYTES)
            file.seek(0)
            digest = known.digest if known is not None else digest_of(file)
            facts = _try(entry, head)
            if stamp(Path(entry.path).stat()) != before:
                return Skip(
                    key=entry.key, why="it changed while it was read; scan again when nothing writes to it"
                )
    except OSError as error:
        return Skip(key=entry.key, why=f"it cannot be opened: {error.strerror or error}")
    return Seen(stamp=before, digest=digest, facts=facts)


def _try(entry: Entry, head: bytes) -> dict[str, Any]:
    """Return the facts of a file, or `{"why": reason}`."""
    kind = sniff(head)
    if kind is not None and kind[0] != entry.media:
        named = "an image" if entry.media == "image" else "a clip"
        return {"why": f"it is named like {named}, but its bytes are {kind[1]}; give it the right suffix"}
    try:
        if entry.media == "image":
            with Path(entry.path).open("rb") as file:
                frames, pictures = read_still(file)
            return {"size": list(frames.size), "pictures": pictures}
        clip = probe_clip(entry.path)
    except (StillError, ClipError) as error:
        return {"why": str(error)}
    return {
        "size": list(clip.size),
        "frames": clip.frames,
        "duration_s": clip.duration_s,
        "decoder": clip.decoder,
        "header": [clip.header.height, clip.header.pixel_format],
    }


def _sample(entry: Entry, digest: str, facts: dict[str, Any]) -> Sample:
    """Only what every reader agrees on goes into the annotations: they are part of the manifest's id."""
    label, slash, _ = entry.key.partition("/")
    annotations: dict[str, Any] = {"size": facts["size"]}
    if facts.get("pictures", 1) > 1:
        annotations["first_of_pictures"] = facts["pictures"]
    return Sample(
        digest=digest,
        key=entry.key,
        media=entry.media,
        label=label if slash else None,
        annotations=annotations,
    )


def _decode(place: _Place, sampling: Sampling) -> Frames:
    if place.media == "clip":
        return read_clip(place.path, sampling, header=place.header)
    with Path(place.path).open("rb") as file:
        return read_still(file)[0]


def _header(facts: dict[str, Any]) -> Header | None:
    if "header" not in facts:
        return None
    height, pixel_format = facts["header"]
    return Header(height=height, pixel_format=pixel_format)


def _digest(path: str) -> str:
    with Path(path).open("rb") as file:
        return digest_of(file)


def _nothing(root: Path, listing: Listing, skipped: list[Skip]) -> str:
    found = [f"{count} files named {suffix}" for suffix, count in listing.ignored.items()]
    if skipped:
        found.append(f"{len(skipped)} unusable, such as {skipped[0].key!r}: {skipped[0].why}")
    return (
        f"a data folder holds at least one image or clip that can be read, but {str(root)!r} has "
        + ("; ".join(found) if found else "no files at all")
        + "; put images or clips there, in one subfolder per label"
    )

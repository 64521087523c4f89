"""A folder of images and clips; the first subfolder is the label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foresight.data.errors import NoUsableData
from foresight.data.files import Files
from foresight.data.listing import Entry, Listing, list_folder
from foresight.data.on_disk import OnDisk, folder_at
from foresight.data.source import DataSource
from foresight.data.subset import balanced_subset
from foresight.nouns import Manifest, Sample, Skip

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
    root = folder_at(location, SPELLING)
    files = Files(root, cache_dir=cache_dir, workers=workers, decode=True)
    return Folder(files, samples=samples, seed=seed)


class Folder(OnDisk):
    """Every file that looks like media is a sample or a skip; `ignored` counts the others by suffix."""

    def _scan(self) -> Manifest:
        listing = list_folder(self._files.root)
        # every file is digested, whatever `samples` says: the subset is chosen by content
        taken, unusable = self._files.take(
            listing.entries, None, total=len(listing.entries), progress=self.scan_progress
        )
        self._files.forget_others(listing.entries)
        self.ignored = listing.ignored
        skipped = sorted([*listing.skipped, *unusable], key=lambda skip: skip.key)
        samples = [_sample(entry, seen.digest, seen.facts or {}) for entry, seen in taken]
        if not samples:
            raise NoUsableData(_nothing(self._files.root, listing, skipped), skipped=skipped)
        chosen = balanced_subset(samples, self._samples, seed=self._seed)
        return Manifest(source=KIND, samples=tuple(chosen), skipped=tuple(skipped))


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


def _nothing(root: Path, listing: Listing, skipped: list[Skip]) -> str:
    found = [f"{count} files named {suffix}" for suffix, count in listing.ignored.items()]
    if skipped:
        found.append(f"{len(skipped)} unusable, such as {skipped[0].key!r}: {skipped[0].why}")
    return (
        f"a data folder holds at least one image or clip that can be read, but {str(root)!r} has "
        + ("; ".join(found) if found else "no files at all")
        + "; put images or clips there, in one subfolder per label"
    )

"""Something-Something v2: clips of people doing something with something, in 174 classes.

The data set is released by its publisher under its own licence, for research, to people who accept it: the
user downloads it and points here at the folder. Nothing of it is fetched or shipped.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foresight.data.errors import NoUsableData
from foresight.data.files import Files
from foresight.data.listing import Entry
from foresight.data.on_disk import OnDisk, folder_at
from foresight.data.pause import paused_collection
from foresight.data.something_labels import SPLITS, Labelled, find_labels, read_split
from foresight.data.source import DataSource
from foresight.data.subset import in_turns
from foresight.nouns import Manifest, Sample, Skip

KIND = "ssv2"
SPELLING = "ssv2:DIR"


def open(
    location: str,
    *,
    samples: int | None,
    seed: int,
    cache_dir: Path | None = None,
    workers: int | None = None,
    split: str = "validation",
    classes: Sequence[str] = (),
    per_class: int | None = None,
    verify: bool = False,
) -> DataSource:
    """Open the folder that holds the official clips and label files, in itself or one level down.

    `split` is train, validation, test or all; `classes` are class names (none: every class); `per_class` caps
    the samples of each. `verify` decodes a frame of every clip at the scan; without it a clip that is whole
    outside and broken inside shows only when its frames are read.
    """
    root = folder_at(location, SPELLING)
    if split not in (*SPLITS, "all"):
        raise ValueError(f"a split is one of {[*SPLITS, 'all']}, but got {split!r}")
    if per_class is not None and per_class < 1:
        raise ValueError(f"per_class is 1 or more, or None for no cap, but got {per_class}")
    names = (classes,) if isinstance(classes, str) else tuple(classes)
    files = Files(root, cache_dir=cache_dir, workers=workers, decode=verify)
    return SomethingSomething(
        files, samples=samples, seed=seed, split=split, classes=names, per_class=per_class
    )


class SomethingSomething(OnDisk):
    """Clips `<id>.webm` with the labels of one split. An id is only ever looked up among the listed files."""

    def __init__(
        self,
        files: Files,
        *,
        samples: int | None,
        seed: int,
        split: str,
        classes: tuple[str, ...],
        per_class: int | None,
    ) -> None:
        super().__init__(files, samples=samples, seed=seed)
        self._split = split
        self._classes = classes
        self._per_class = per_class

    def _scan(self) -> Manifest:
        with paused_collection():
            return self._scanned()

    def _scanned(self) -> Manifest:
        labels = find_labels(self._files.root)
        skipped: list[Skip] = []
        clips = _list_clips(self._files.root, skipped)
        wanted, mentioned = self._labelled(labels, skipped)
        candidates: dict[str, tuple[Entry, Labelled]] = {}
        for item in wanted:
            if item.id in clips:
                candidates[item.id] = (clips[item.id], item)
            else:
                why = f"the {item.split} labels list it, but there is no file {item.id}.webm"
                skipped.append(Skip(key=item.id, why=why))
        unlisted = sorted(set(clips) - mentioned, key=_number)
        if all(split in labels.splits for split in SPLITS):
            skipped += [Skip(key=name, why="no label file lists this clip") for name in unlisted]
        elif unlisted:
            self.ignored["clips in none of the label files that are here"] = len(unlisted)
        samples = self._take(candidates, skipped)
        if not samples:
            raise NoUsableData(_nothing(self._files.root, self._split, len(clips), skipped), skipped=skipped)
        return Manifest(source=KIND, samples=tuple(samples), skipped=tuple(skipped))

    def _labelled(self, labels: Any, skipped: list[Skip]) -> tuple[list[Labelled], set[str]]:
        """Return the wanted entries of the label files, and every id that any of them mentions."""
        unknown = [name for name in self._classes if name not in labels.classes]
        if unknown:
            raise ValueError(f"classes are names from {labels.classes_file.name}, but it has no {unknown}")
        asked = SPLITS if self._split == "all" else (self._split,)
        if missing := [split for split in asked if self._split != "all" and split not in labels.splits]:
            raise ValueError(
                f"the {missing[0]} split has a label file of its own, but {str(self._files.root)!r} only has "
                f"those of {sorted(labels.splits)}; ask for one of these or add the file"
            )
        wanted: list[Labelled] = []
        mentioned: set[str] = set()
        for split in SPLITS:
            if split not in labels.splits:
                continue
            trouble: list[Skip] = []
            asked_for = split in asked
            for item in read_split(labels, split, trouble):
                if item.id in mentioned:
                    why = f"its id stands a second time, in the {split} labels"
                    trouble.append(Skip(key=item.id, why=why))
                    continue
                mentioned.add(item.id)
                if asked_for and (not self._classes or item.label in self._classes):
                    wanted.append(item)
            mentioned.update(skip.key for skip in trouble)
            if asked_for:
                skipped += trouble
        return sorted(wanted, key=lambda item: (int(item.id), item.id)), mentioned

    def _take(self, candidates: dict[str, tuple[Entry, Labelled]], skipped: list[Skip]) -> list[Sample]:
        """Return the samples in order of their ids; an unusable clip gives way to the next of its class."""
        ordered = list(candidates.values())
        if self._samples is not None or self._per_class is not None:
            order = in_turns(((item.label, item.id) for _, item in ordered), seed=self._seed)
            ordered = [ordered[position] for position in order]
        labelled = {entry.key: item for entry, item in ordered}
        taken, unusable = self._files.take(
            [entry for entry, _ in ordered],
            self._samples,
            total=len(ordered),
            progress=self.scan_progress,
            group_of=None if self._per_class is None else (lambda entry: labelled[entry.key].label),
            per_group=self._per_class,
        )
        skipped += unusable
        samples = [_sample(labelled[entry.key], seen.digest) for entry, seen in taken]
        return sorted(samples, key=lambda sample: (int(sample.key), sample.key))


def _sample(item: Labelled, digest: str) -> Sample:
    annotations: dict[str, Any] = {"split": item.split}
    if item.label is not None:
        annotations["template"] = item.template
        annotations["class_index"] = item.class_index
    if item.text is not None:
        annotations["text"] = item.text
        annotations["placeholders"] = list(item.placeholders)
    return Sample(digest=digest, key=item.id, media="clip", label=item.label, annotations=annotations)


def _list_clips(root: Path, skipped: list[Skip]) -> dict[str, Entry]:
    """Return the clips named by digits, by id, in `root` and in the folders right under it."""
    clips: dict[str, Entry] = {}
    folders = [(str(root), "")]
    with os.scandir(root) as scan:
        folders += sorted((item.path, item.name + "/") for item in scan if _is_folder(item))
    for folder, prefix in folders:
        try:
            names = os.listdir(folder)  # noqa: PTH208 (hundred thousands of names)
        except OSError as error:
            skipped.append(Skip(key=prefix, why=f"this folder cannot be listed: {error.strerror}"))
            continue
        for name in sorted(names):
            stem = name[:-5]
            if not (stem.isdigit() and stem.isascii()) or name[-5:].lower() != ".webm":
                continue
            if stem in clips:
                skipped.append(Skip(key=stem, why=f"a second file has this id: {prefix}{name}"))
                continue
            clips[stem] = Entry(prefix + name, f"{folder}/{name}", "clip")
    return clips


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:
        return False


def _number(name: str) -> tuple[int, str]:
    return (int(name), name) if name.isascii() and name.isdigit() else (-1, name)


def _nothing(root: Path, split: str, clips: int, skipped: list[Skip]) -> str:
    first = f", such as {skipped[0].key!r}: {skipped[0].why}" if skipped else ""
    return (
        f"Something-Something v2 is a folder of <id>.webm files with label files, but {str(root)!r} has no "
        f"usable clip of the {split} split among {clips} files, and {len(skipped)} skipped{first}"
    )

"""The label files of Something-Something v2: classes, splits, templates and what fills them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from foresight.data.json_files import read_json
from foresight.nouns import Skip

SPLITS = ("train", "validation", "test")
PREFIXES = ("", "something-something-v2-")
"""The two namings of the official download."""
_PLACEHOLDER = re.compile(r"\[[^\[\]]*\]")


@dataclass(frozen=True, kw_only=True)
class LabelFiles:
    """Where the label files are, and the classes."""

    classes_file: Path
    classes: dict[str, int]
    """Class name -> index."""
    splits: dict[str, Path]
    answers: Path | None
    """The published labels of the test split, a CSV file of its own."""


class Labelled(NamedTuple):
    """One entry of a split. A tuple, because there are hundred thousands."""

    id: str
    split: str
    label: str | None
    """The class: the template without its brackets. None where the test split has no answers."""
    template: str | None
    class_index: int | None
    placeholders: tuple[str, ...]
    text: str | None
    """The template with its placeholders filled."""


def find_labels(root: Path) -> LabelFiles:
    """Return the label files in `root` or in a folder right under it; ValueError names what is missing."""
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    for folder in folders:
        for prefix in PREFIXES:
            classes_file = folder / f"{prefix}labels.json"
            if not classes_file.is_file():
                continue
            splits = {s: folder / f"{prefix}{s}.json" for s in SPLITS}
            answers = [folder / f"{prefix}{name}" for name in ("test-answers.csv", "test_answers.csv")]
            return LabelFiles(
                classes_file=classes_file,
                classes=_read_classes(classes_file),
                splits={split: path for split, path in splits.items() if path.is_file()},
                answers=next((path for path in answers if path.is_file()), None),
            )
    raise ValueError(
        f"Something-Something v2 comes with labels.json (or {PREFIXES[1]}labels.json), but {str(root)!r} has "
        "it neither itself nor one folder down; put the label files there"
    )


def read_split(labels: LabelFiles, split: str, skipped: list[Skip]) -> Iterator[Labelled]:
    """Yield the entries of a split, in the file's order; entries that make no sense go to `skipped`."""
    path = labels.splits[split]
    answers = _read_answers(labels.answers) if split == "test" and labels.answers is not None else {}
    for position, entry in enumerate(read_json(path, list, f"the JSON list of the {split} clips")):
        name = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        if not isinstance(name, str) or not (name.isascii() and name.isdigit()):
            shown = repr(name)[:60]
            why = f"an id is a string of digits, but entry {position} of {path.name} has {shown}"
            skipped.append(Skip(key=f"{path.name}#{position}", why=why))
            continue
        template = entry.get("template", answers.get(name))
        if template is None and split == "test":
            yield _unlabelled(name, split)
            continue
        why, item = _labelled(labels, split, name, template, entry.get("placeholders"))
        if item is None:
            skipped.append(Skip(key=name, why=why))
        else:
            yield item


def _labelled(
    labels: LabelFiles, split: str, name: str, template: Any, placeholders: Any
) -> tuple[str, Labelled | None]:
    if not isinstance(template, str):
        return "its entry has no template, so it has no class", None
    label, slots = _class_and_slots(template)
    if label not in labels.classes:
        return f"its class {label[:80]!r} is not in {labels.classes_file.name}", None
    text, filling = None, ()
    if placeholders is not None:
        if not isinstance(placeholders, list) or not all(isinstance(p, str) for p in placeholders):
            return "its placeholders are not a list of texts", None
        if slots != len(placeholders):
            return f"its template has {slots} placeholders, but {len(placeholders)} are given", None
        filling = tuple(placeholders)
        waiting = iter(filling)
        text = _PLACEHOLDER.sub(lambda _: next(waiting), template)
    return "", Labelled(
        id=name,
        split=split,
        label=label,
        template=template,
        class_index=labels.classes[label],
        placeholders=filling,
        text=text,
    )


@cache
def _class_and_slots(template: str) -> tuple[str, int]:
    return template.replace("[", "").replace("]", ""), len(_PLACEHOLDER.findall(template))


def _unlabelled(name: str, split: str) -> Labelled:
    return Labelled(
        id=name, split=split, label=None, template=None, class_index=None, placeholders=(), text=None
    )


def _read_classes(path: Path) -> dict[str, int]:
    value = read_json(path, dict, "the JSON object of class names and their numbers")
    classes: dict[str, int] = {}
    for name, number in value.items():
        if isinstance(number, bool) or not str(number).isdigit():
            raise ValueError(f"{path.name} numbers the classes from 0 on, but {name!r} has {number!r}")
        classes[name] = int(number)
    if len(set(classes.values())) < len(classes):
        raise ValueError(f"{path.name} gives each class a number of its own, but some numbers stand twice")
    return classes


def _read_answers(path: Path) -> dict[str, str]:
    """Return id -> class of the published test answers, `id;class` a line."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row[0]: row[1] for row in csv.reader(file, delimiter=";") if len(row) >= 2}

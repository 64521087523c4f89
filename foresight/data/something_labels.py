"""The label files of Something-Something v2: classes, splits, templates and what fills them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
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
    templates: dict[str, _Template] = {}
    for position, entry in enumerate(read_json(path, list, f"the JSON list of the {split} clips")):
        name = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        if not isinstance(name, str) or not (name.isascii() and name.isdigit()):
            shown = repr(name)[:60]
            why = f"an id is a string of digits, but entry {position} of {path.name} has {shown}"
            skipped.append(Skip(key=f"{path.name}#{position}", why=why))
            continue
        text = entry.get("template", answers.get(name))
        if text is None and split == "test":
            yield _unlabelled(name, split)
            continue
        if not isinstance(text, str):
            skipped.append(Skip(key=name, why="its entry has no template, so it has no class"))
            continue
        template = templates.get(text)
        if template is None:
            template = templates[text] = _template(text, labels)
        filling = entry.get("placeholders")
        why = template.refused or _refused(filling, template)
        if why:
            skipped.append(Skip(key=name, why=why))
            continue
        if filling is None:
            placeholders, filled = (), None
        else:
            placeholders, filled = tuple(filling), template.pattern % tuple(filling)
        yield Labelled(name, split, template.label, text, template.class_index, placeholders, filled)


class _Template(NamedTuple):
    """What every clip of one template shares."""

    label: str
    class_index: int
    slots: int
    pattern: str
    """For `%`: a `%s` in the place of each placeholder."""
    refused: str


def _template(text: str, labels: LabelFiles) -> _Template:
    label = text.replace("[", "").replace("]", "")
    known = label in labels.classes
    return _Template(
        label=label,
        class_index=labels.classes.get(label, -1),
        slots=len(_PLACEHOLDER.findall(text)),
        pattern=_PLACEHOLDER.sub("%s", text.replace("%", "%%")),
        refused="" if known else f"its class {label[:80]!r} is not in {labels.classes_file.name}",
    )


def _refused(placeholders: Any, template: _Template) -> str:
    if placeholders is None:
        return ""
    if not isinstance(placeholders, list) or set(map(type, placeholders)) - {str}:
        return "its placeholders are not a list of texts"
    if template.slots != len(placeholders):
        return f"its template has {template.slots} placeholders, but {len(placeholders)} are given"
    return ""


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

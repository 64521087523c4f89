"""Take a balanced subset that stays the same however the files are listed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from foresight.nouns import Sample


def in_turns(items: Iterable[tuple[str | None, str]], *, seed: int) -> list[int]:
    """Return the positions of (label, name) pairs in the order in which a balanced subset takes them.

    Within a label, names stand in the order of SHA-256(seed, name); labels take turns. So the order depends
    on the seed and on which pairs there are, never on their listing, and the first n are as even over labels
    as the pairs allow, for every n.
    """
    by_label: dict[str | None, list[tuple[str, int]]] = {}
    for position, (label, name) in enumerate(items):
        by_label.setdefault(label, []).append((_rank(seed, name), position))
    turns = [
        (turn, _rank(seed, f"label {label!r}"), position)
        for label, members in by_label.items()
        for turn, (_, position) in enumerate(sorted(members))
    ]
    return [position for _, _, position in sorted(turns)]


def balanced_subset(samples: Sequence[Sample], count: int | None, *, seed: int) -> list[Sample]:
    """Return `count` of the samples, as even over labels as they allow, in the order they were given.

    Chosen by digest, so a file that is renamed stays chosen, and a larger subset holds every smaller one.
    `None`, or more than there are, takes all.
    """
    if count is None or count >= len(samples):
        return list(samples)
    order = in_turns(((sample.label, sample.digest) for sample in samples), seed=seed)
    return [samples[position] for position in sorted(order[:count])]


def _rank(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed} {text}".encode()).hexdigest()

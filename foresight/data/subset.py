"""Take a balanced subset that stays the same however the files are listed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from foresight.nouns import Sample


def balanced_subset(samples: Sequence[Sample], count: int | None, *, seed: int) -> list[Sample]:
    """Return `count` of the samples, as even over labels as they allow, in the order they were given.

    Each label's samples stand in the order of SHA-256(seed, digest), and labels take turns, so the choice
    depends on the seed and on which samples there are, never on their listing, and a larger subset holds
    every smaller one. `None`, or more than there are, takes all.
    """
    if count is None or count >= len(samples):
        return list(samples)
    by_label: dict[str | None, list[Sample]] = {}
    for sample in samples:
        by_label.setdefault(sample.label, []).append(sample)
    turns: list[tuple[int, str, str]] = []
    for label, members in by_label.items():
        label_rank = _rank(seed, f"label {label!r}")
        members.sort(key=lambda s: _rank(seed, s.digest))
        turns += [(turn, label_rank, sample.digest) for turn, sample in enumerate(members)]
    taken = {digest for _, _, digest in sorted(turns)[:count]}
    return [sample for sample in samples if sample.digest in taken]


def _rank(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed} {text}".encode()).hexdigest()

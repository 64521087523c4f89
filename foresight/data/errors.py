"""The two ways data fails: one sample cannot be read, or nothing can."""

from __future__ import annotations

from collections.abc import Sequence

from foresight.nouns import Skip


class Unreadable(ValueError):
    """One sample's file cannot give frames. `why` is one sentence for people; the run goes on without it."""

    def __init__(self, key: str, why: str) -> None:
        self.key = key
        self.why = one_sentence(why)
        super().__init__(f"{key}: {self.why}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.key, self.why)


class NoUsableData(ValueError):
    """A data set holds nothing that can be used; the message names what was found instead."""

    def __init__(self, message: str, *, skipped: Sequence[Skip] = ()) -> None:
        super().__init__(message)
        self.skipped = tuple(skipped)


def one_sentence(text: object, *, limit: int = 200) -> str:
    """Return the first non-empty line of `text`, spaces collapsed, at most `limit` characters.

    Decoders answer with several lines of their own internals (stack addresses, source files of the library).
    """
    lines = [" ".join(line.split()) for line in str(text).splitlines()]
    line = next((line for line in lines if line), "no reason was given")
    return line if len(line) <= limit else line[: limit - 1] + "…"

"""What people type for a data set: KIND, KIND:LOCATION, or KIND:LOCATION?option=value&option=value."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

YES_OR_NO = {"true": True, "false": False}


def split_spec(spec: str) -> tuple[str, str, dict[str, list[str]]]:
    """Return (kind, location, the values of each option), as in `ssv2:clips?split=train&per_class=20`.

    An option that stands several times has several values. Nothing is decoded: a value goes up to the next
    `&`. A question mark without a later `=` belongs to the location. Raises ValueError.
    """
    named, mark, query = spec.rpartition("?")
    if not mark or "=" not in query:
        named, query = spec, ""
    kind, _, location = named.partition(":")
    options: dict[str, list[str]] = {}
    for part in query.split("&") if query else ():
        name, equals, value = part.partition("=")
        if not name or not equals or not value:
            raise ValueError(
                f"options of data are written ?name=value&name=value, but got {part!r} in {spec!r}"
            )
        options.setdefault(name, []).append(value)
    return kind, location, options


def typed(options: Mapping[str, Sequence[str]], entry: Callable[..., Any]) -> dict[str, Any]:
    """Return the options as `entry` takes them: a text, a whole number, true or false, or several texts.

    Options that `entry` does not have are left as they are. Raises ValueError.
    """
    hints = typing.get_type_hints(entry)
    return {name: _value(name, texts, hints.get(name)) for name, texts in options.items()}


def _value(name: str, texts: Sequence[str], hint: Any) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        # the first is the one that can be typed: a side of `int | tuple[int, int] | None`
        hint = next(each for each in typing.get_args(hint) if each is not types.NoneType)
    if typing.get_origin(hint) is Sequence:
        return tuple(texts)
    if len(texts) > 1:
        raise ValueError(f"the option {name!r} is given once, but got {list(texts)}")
    (text,) = texts
    if hint is int:
        if not text.isdecimal():
            raise ValueError(f"the option {name!r} is a whole number, but got {text!r}")
        return int(text)
    if hint is bool:
        if text not in YES_OR_NO:
            raise ValueError(f"the option {name!r} is true or false, but got {text!r}")
        return YES_OR_NO[text]
    return text

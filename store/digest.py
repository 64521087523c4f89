"""One canonical encoding of plain values, and kind-prefixed digests of it.

Plain values are dict (string keys), list, str, int, float, bool and None; a tuple counts as a list. The
encoding is JSON in UTF-8 with keys sorted by code point, no white space, only the escapes JSON demands, and
floats in their shortest form that reads back equal, so 1 and 1.0 differ, and so do 0.0 and -0.0. NaN and
infinities have no encoding. Strings are taken code point by code point: normalising (NFC) is for whoever
reads them from outside.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from blake3 import blake3

_HEX = re.compile(r"[0-9a-f]{64}")
_KIND = re.compile(r"[a-z][a-z0-9-]*")


def canonical(value: Any) -> bytes:
    """Return the one encoding of a plain value. TypeError or ValueError names what is not plain."""
    if not _is_plain(value):
        _explain(value, "value")
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"strings must be valid Unicode, but got a lone surrogate in {text[error.start : error.end]!r}; "
            "decode the bytes it came from properly"
        ) from error


def plain(value: Any) -> Any:
    """Return a deep copy of `value` in plain dicts and lists, equal under `canonical`."""
    return json.loads(canonical(value))


def digest(kind: str, value: Any) -> str:
    """Return 64 hex digits: BLAKE3 of the kind, a line feed, and the canonical encoding of `value`."""
    return digest_bytes(kind, [canonical(value)])


def digest_bytes(kind: str, parts: Iterable[Any]) -> str:
    """Return 64 hex digits: BLAKE3 of the kind, a line feed, and the concatenated `parts` (bytes-like)."""
    if not _KIND.fullmatch(kind):
        raise ValueError(f"a kind is a lower-case word such as 'manifest', but got {kind!r}")
    hasher = blake3(kind.encode() + b"\n")
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def is_id(value: object) -> bool:
    """Return whether `value` is 64 lower-case hex digits."""
    return isinstance(value, str) and _HEX.fullmatch(value) is not None


def check_id(value: object, what: str = "id") -> str:
    """Return `value` when it is 64 lower-case hex digits, else raise ValueError."""
    if not is_id(value):
        raise ValueError(
            f"a {what} is 64 lower-case hex digits, but got {str(value)[:80]!r}; "
            "pass the whole id, not the short form shown to people"
        )
    return str(value)


def short(identity: str) -> str:
    """Return the 12 digits of an id that are shown to people."""
    return check_id(identity)[:12]


def _is_plain(value: Any) -> bool:
    # by exact type first: manifests of a hundred thousand samples pass through here
    kind = type(value)
    if kind is str or value is None or kind is int or kind is bool:
        return True
    if kind is float:
        return math.isfinite(value)
    if kind is dict:
        return all(type(key) is str for key in value) and all(map(_is_plain, value.values()))
    return kind is list and all(map(_is_plain, value))


def _explain(value: Any, where: str) -> None:
    """Raise for what is not plain; accept subclasses of plain types, which encode as what they are."""
    if value is None or isinstance(value, (str, bool, int)):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(
                f"{where} must be finite to have an encoding, but is {value}; "
                "use None (and a reason) for what is undefined"
            )
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"keys must be strings, but {where} has the key {key!r}")
            _explain(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _explain(item, f"{where}[{i}]")
    else:
        raise TypeError(
            f"{where} must be a plain value (dict, list, str, int, float, bool, None), "
            f"but is {type(value).__name__}; convert it first"
        )

"""Small JSON records that carry their own checksum."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from typing import Any

from store.digest import canonical, digest, digest_bytes
from store.errors import Damaged

_CHECK = re.compile(rb'"check":"([0-9a-f]{64})",?')


def sealed(value: Mapping[str, Any]) -> bytes:
    """Return the one encoding of `value` with a `check` field, the digest of the rest."""
    return canonical({**value, "check": digest("record", dict(value))})


def unsealed(data: bytes, name: str) -> dict[str, Any]:
    """Undo `sealed`. Damaged when any byte differs from what `sealed` would write; `name` says which file."""
    # the check is cut out of the bytes themselves: encoding a long manifest again would take most of a second
    for found in _CHECK.finditer(data):  # a field deeper down may be called so too
        rest = data[: found.start()] + data[found.end() :]
        if rest.endswith(b",}"):  # it was the last field
            rest = rest[:-2] + b"}"
        if digest_bytes("record", [rest]) == found[1].decode():
            value: dict[str, Any] = json.loads(data)
            del value["check"]
            return value
    raise Damaged(f"{name} is not what was written; `foresight store verify` tells what depends on it")


def now() -> str:
    """Return the time in UTC, to the millisecond; for people, never to order by."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")

"""Small JSON records that carry their own checksum."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any

from store.digest import canonical, digest
from store.errors import Damaged


def sealed(value: Mapping[str, Any]) -> bytes:
    """Return the one encoding of `value` with a `check` field, the digest of the rest."""
    return canonical({**value, "check": digest("record", dict(value))})


def unsealed(data: bytes, name: str) -> dict[str, Any]:
    """Undo `sealed`. Damaged when any byte differs from what `sealed` would write; `name` says which file."""
    try:
        value = json.loads(data)
        check = value.pop("check")
        whole = check == digest("record", value) and sealed(value) == data
    except (ValueError, TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        raise Damaged(f"{name} is not what was written; `foresight store verify` tells what depends on it")
    return value


def now() -> str:
    """Return the time in UTC, to the millisecond; for people, never to order by."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")

"""Read the JSON files that come with a data set, and say clearly what is wrong with one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json(path: Path, kind: type, rule: str) -> Any:
    """Return the JSON value of a file, which must be a `kind` (list or dict).

    `rule` says what the file holds, for the error. Raises ValueError; NaN and infinities are not JSON.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            value = json.load(file, parse_constant=_refuse)
    except OSError as error:
        raise ValueError(f"{path.name} is {rule}, but it cannot be opened: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path.name} is {rule}, but it cannot be parsed: {error}; download it again"
        ) from None
    if not isinstance(value, kind):
        raise ValueError(f"{path.name} is {rule}, but it holds a JSON {type(value).__name__}")
    return value


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")

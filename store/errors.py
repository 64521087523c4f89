"""The few errors a caller of the store handles differently."""

from __future__ import annotations

import errno


class StoreError(Exception):
    """Something the store refuses or cannot do; the message says the rule, what we got and what to do."""


class NotAStore(StoreError):
    """The place holds no store, and reading never makes one."""


class NewerFormat(StoreError):
    """The store was written by a newer version than this code can read."""


class NotWritable(StoreError):
    """The place refuses writing: permissions, a read-only mount, missing credentials."""


class StoreFull(StoreError):
    """The place has no room left. Nothing of what was being written is visible."""


class Missing(StoreError):
    """A recipe, manifest, row or blob that is not here."""


class Damaged(StoreError):
    """Bytes that are here but are not what was written."""


def explained(error: OSError, doing: str) -> StoreError:
    """Return `error` as the store's own; `doing` says what was tried: 'writing rows/… in runs/store'."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(
            f"{doing}: no room is left on the device; nothing half-written is visible, "
            "so make room (`foresight store sweep` may help) and run again"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NotWritable(
            f"{doing}: the place does not allow it ({error.strerror}); "
            "choose a place you may write to, or change its permissions"
        )
    if error.errno == errno.ENOTDIR:
        return NotAStore(f"{doing}: a part of that path is a file; choose a folder")
    return StoreError(f"{doing}: {error.strerror or error}; nothing half-written is visible, run again")

"""What went wrong: was the request wrong (2), or did the work fail (1)?"""

from __future__ import annotations

from typing import Any

import store
from foresight.data import NoUsableData
from foresight.models.checkpoint import MissingCheckpoint
from tasks.house import WrongRequest
from tasks.stages import StageFailed

FAILED, WRONG = 1, 2

REQUESTS = (
    WrongRequest,
    NoUsableData,
    MissingCheckpoint,
    store.NotAStore,
    store.NewerFormat,
    store.NotWritable,
)
"""Errors that say what the user has to change."""

BEFORE_WORK = (ValueError, KeyError, store.Missing, FileNotFoundError, NotADirectoryError, PermissionError)
"""Errors that mean a wrong request while one is being built, before any stage ran."""


def status_of(error: BaseException) -> tuple[int | None, str, list[dict[str, Any]]]:
    """Return (exit status, one sentence, how stages went); status None for what only a traceback explains."""
    if isinstance(error, StageFailed):
        ran = [r.to_json() for r in error.ran]
        cause = error.__cause__
        return (WRONG if isinstance(cause, REQUESTS) else FAILED), str(error), ran
    if isinstance(error, (*REQUESTS, *BEFORE_WORK)):
        return WRONG, message_of(error), []
    if isinstance(error, store.StoreError | OSError | RuntimeError):
        return FAILED, message_of(error), []
    return None, "", []


def message_of(error: BaseException) -> str:
    """Return an error's sentence; a KeyError's without the quotes Python puts around it."""
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    return str(error) or type(error).__name__

"""One thread of linear algebra while many small products are computed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_users = 0
_limits: list[Any] = []
_controller: Any = None
_looked_at = 0
"""Modules that were imported when `_controller` was made."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep BLAS to one thread inside; what held before holds again when the last user, of any thread, leaves.

    Products of a few hundred rows gain nothing from more, and on a shared machine threads that wait for each
    other cost a hundredfold (0.1 s became 21 s for forty 250 x 250 eigenproblems on two busy cores). A library
    that is loaded inside is limited from the next use on.
    """
    global _users
    with _lock:
        if _users == 0 or _looked_at != len(sys.modules):
            _limits.append(_loaded().limit(limits=1, user_api="blas"))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            while _users == 0 and _limits:
                _limits.pop().restore_original_limits()


def _loaded() -> Any:
    """Return the libraries of this process that have threads, looked up again once modules were imported."""
    global _controller, _looked_at
    if _looked_at != len(sys.modules):
        from threadpoolctl import ThreadpoolController

        # looking takes 1 to 4 ms, which a small product does not
        _controller, _looked_at = ThreadpoolController(), len(sys.modules)
    return _controller

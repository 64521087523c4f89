"""One thread of linear algebra in these tests: on a shared machine more wait longer than they compute."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np  # noqa: F401  the limit holds for libraries that are loaded before it is set
import pytest
import scipy.linalg  # noqa: F401

from foresight.metrics.threads import one_thread


@pytest.fixture(autouse=True, scope="package")
def quiet_threads() -> Iterator[None]:
    with one_thread():
        yield

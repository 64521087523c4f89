"""One thread of linear algebra, whatever is loaded and whoever asks."""

from __future__ import annotations

import os
import subprocess
import sys

LATER = """
from threadpoolctl import threadpool_info

from foresight.metrics.threads import one_thread


def threads():
    return [i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"]


import numpy
with one_thread():
    before = threads()
    import scipy.linalg
    with one_thread():
        inside = threads()
free = threads()
with one_thread():
    again = threads()
print(before, inside, free, again, threads() == free)
"""


def test_a_library_loaded_after_the_first_use_is_kept_to_one_thread_and_let_go_again() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", LATER],
        env=environment | {"OPENBLAS_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[1] [1, 1] [2, 2] [1, 1] True"

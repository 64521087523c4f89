"""What the command line sets before torch is loaded, which reads it once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LOOK = """
import os, sys
from flows.cli import main
main(["models", "--json"], standalone_mode=False)
print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules)
"""


@pytest.mark.parametrize(("asked", "wanted"), [(None, "passive"), ("active", "active")])
def test_threads_that_wait_sleep_unless_somebody_asked_for_otherwise(asked: str | None, wanted: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": asked} if asked else {}
    found = subprocess.run(
        [sys.executable, "-c", LOOK], capture_output=True, text=True, check=True, env=environment
    )
    assert found.stdout.splitlines()[-1] == f"{wanted} False"

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
print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_spin_shortly_while_they_wait_unless_somebody_asked_for_otherwise(
    asked: dict[str, str], wanted: str
) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    found = subprocess.run(
        [sys.executable, "-c", LOOK], capture_output=True, text=True, check=True, env=environment | asked
    )
    assert found.stdout.splitlines()[-1] == f"{wanted} False"

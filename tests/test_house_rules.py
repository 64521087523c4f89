"""The house's own rules: style, types, who imports whom, and what importing costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def said(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout[-4000:] + done.stderr[-2000:]


def test_style() -> None:
    assert not said(str(BIN / "ruff"), "check", ".")
    assert not said(str(BIN / "ruff"), "format", "--check", ".")


@pytest.mark.slow
def test_types() -> None:
    assert not said(str(BIN / "mypy"))


def test_imports_go_one_way() -> None:
    assert not said(str(BIN / "lint-imports"))


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("foresight.models", ("torch", "transformers", "diffusers")),
        ("foresight.data", ("torch", "decord", "av")),
        ("foresight.metrics", ("torch", "sklearn")),
        ("store", ("torch",)),
        ("flows.engine", ("torch", "transformers", "prefect", "matplotlib")),
        ("flows.cli", ("torch", "prefect", "zarr")),
        ("flows.show", ("torch", "prefect", "matplotlib")),
        ("flows.experiments; flows.experiments.experiments()", ("torch", "prefect")),
    ],
)
def test_importing_what_plans_loads_nothing_heavy(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {module}; sys.exit(' '.join(h for h in {heavy!r} if h in sys.modules) or None)"
    assert not said(sys.executable, "-c", code)

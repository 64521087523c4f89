"""What the documents let people type runs: the README's Python and the notebook, on the latents of a real run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from flows import q1
from flows.engine import perform
from tests.conftest import quickly_trained

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"

EXECUTE = """
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read("notebook.ipynb", as_version=4)
client = NotebookClient(notebook, timeout=300, startup_timeout=300, resources={"metadata": {"path": "."}})
client.create_kernel_manager()
client.km.transport = "ipc"
client.execute()
nbformat.write(notebook, "notebook.ipynb")
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which the study ran once."""
    folder = tmp_path_factory.mktemp("ran")
    with quickly_trained(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        perform(q1, q1.Settings(samples=16, points=["vit.1", "merged"]))
    return folder


def test_the_python_of_the_readme_opens_latents(ran: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        shown = f"{block}\nprint(ds.sizes['token'], means.shape)" if "means =" in block else block
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", shown], cwd=ran, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert "means =" not in block or done.stdout == "64 (16, 16)\n"


def test_the_notebook_finds_the_numbers_of_the_report_again(ran: Path) -> None:
    (ran / "docs").mkdir()
    shutil.copy(NOTEBOOK, ran / "docs")
    # with a backend named, the kernel would not choose the one that keeps pictures
    env = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE],
        cwd=ran / "docs",
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    notebook = nbformat.read(ran / "docs" / NOTEBOOK.name, as_version=4)
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", ())]
    told = "".join(o.get("text", "") for o in outputs)
    pairs = re.findall(r"report (\S+)   here (\S+)", told)
    assert len(pairs) == 2
    assert all(report == here for report, here in pairs)
    assert any("image/png" in o.get("data", {}) for o in outputs)

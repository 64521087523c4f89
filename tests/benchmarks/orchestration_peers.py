"""Peers of the orchestration benchmark: the same N stages that do nothing, in a folder each, from their own venv."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from abc import ABC, abstractmethod
from pathlib import Path


class Peer(ABC):
    """One tool: how its N stages are written down, run, and run again when nothing is missing."""

    name: str
    packages: tuple[str, ...] = ()
    note: str = ""

    def __init__(self, venvs: Path) -> None:
        self.bin = venvs / self.name / "bin"

    def install(self) -> None:
        """Make the peer's own environment, once. Raises `CalledProcessError` when it cannot be had."""
        done = self.bin.parent / ".ready"
        if done.exists() and done.read_text() == " ".join(self.packages):
            return
        venv.create(self.bin.parent, with_pip=True, clear=True)
        command = [str(self.bin / "python"), "-m", "pip", "install", "--quiet", *self.packages]
        subprocess.run(command, check=True, capture_output=True)
        done.write_text(" ".join(self.packages))

    @abstractmethod
    def write(self, folder: Path, stages: int) -> None:
        """Write the pipeline down in `folder`."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return what runs it, in its folder; run again it finds everything done."""


class Dvc(Peer):
    name = "dvc"
    packages = ("dvc==3.67.1",)
    note = "a shell process a stage"

    def write(self, folder: Path, stages: int) -> None:
        parts = [
            f"  s{i}:\n    cmd: echo {i} > {i}.txt\n    deps: [in.txt]\n    outs: [{i}.txt]"
            for i in range(stages)
        ]
        (folder / "in.txt").write_text("in\n")
        (folder / "dvc.yaml").write_text("stages:\n" + "\n".join(parts) + "\n")
        subprocess.run([self.bin / "dvc", "init", "--no-scm", "-q"], cwd=folder, check=True)
        subprocess.run([self.bin / "dvc", "config", "core.analytics", "false"], cwd=folder, check=True)

    def command(self) -> list[str]:
        return [str(self.bin / "dvc"), "repro", "-q"]


class Snakemake(Peer):
    name = "snakemake"
    packages = ("snakemake==9.27.0",)
    note = "a shell process a stage"

    def write(self, folder: Path, stages: int) -> None:
        (folder / "in.txt").write_text("in\n")
        rules = [f"rule all:\n    input: {json.dumps([f'{i}.txt' for i in range(stages)])[1:-1]}\n"]
        rules += [
            f'rule s{i}:\n    input: "in.txt"\n    output: "{i}.txt"\n    shell: "echo {i} > {{output}}"\n'
            for i in range(stages)
        ]
        (folder / "Snakefile").write_text("\n".join(rules))

    def command(self) -> list[str]:
        return [str(self.bin / "snakemake"), "--cores", "1", "--quiet", "all"]


class Dagster(Peer):
    name = "dagster"
    packages = ("dagster==1.13.0",)
    note = "in one process, no web server; it has no no-op: everything is made again"

    def write(self, folder: Path, stages: int) -> None:
        (folder / "home").mkdir()
        (folder / "home" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        (folder / "run.py").write_text(
            "import os\nos.environ['DAGSTER_HOME'] = os.path.abspath('home')\n"
            "from dagster import DagsterInstance, asset, materialize\n"
            f"made = [asset(name=f's{{i}}')(lambda: None) for i in range({stages})]\n"
            "assert materialize(made, instance=DagsterInstance.get()).success\n"
        )

    def command(self) -> list[str]:
        return [str(self.bin / "python"), "run.py"]


class Ours(Peer):
    """The engine of this project: N stages whose result is a record in a store, through Prefect or not."""

    name = "foresight"
    note = "store only, as when nothing is missing"
    prefect = False

    def install(self) -> None:
        """Nothing: it is this environment."""

    def write(self, folder: Path, stages: int) -> None:
        (folder / "run.py").write_text(OURS.format(stages=stages, prefect=self.prefect))

    def command(self) -> list[str]:
        return [sys.executable, "run.py"]


class OursInPrefect(Ours):
    name = "foresight in Prefect"
    note = "every stage a task of a flow run, at a server that is up"
    prefect = True


OURS = """
import dataclasses
from pathlib import Path
import store
from foresight import data
from tasks.house import House
from tasks.stages import directly, look_up, run

@dataclasses.dataclass(frozen=True, kw_only=True)
class Nothing:
    name: str
    needs: tuple = ()

    @property
    def recipe(self):
        return store.Recipe(operation="nothing", version=1, settings={{"name": self.name}})

    def look(self, house, given):
        return look_up(house, self.name, self.recipe)

    def run(self, house, given, progress):
        house.store.record(self.recipe)

house = House(store=store.open("store", create=True), source=data.open("synthetic", samples=4), runs=Path("runs"))
stages = [Nothing(name=f"s{{i}}") for i in range({stages})]
if {prefect}:
    from prefect import flow
    from tasks.stage import prefect_worker

    @flow(name="bench")
    def bench():
        run(stages, house, prefect_worker())

    bench()
else:
    run(stages, house, directly)
"""

PEERS: tuple[type[Peer], ...] = (Ours, OursInPrefect, Dvc, Snakemake, Dagster)

"""Our top-level names are ours: no other distribution's, no shadowed package, none forgotten in the build."""

from __future__ import annotations

import importlib
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("deployments", "flows", "foresight", "store", "tasks")


@pytest.mark.parametrize("name", OURS)
def test_a_top_level_package_is_the_one_of_this_checkout(name: str) -> None:
    found = importlib.import_module(name)
    assert Path(str(found.__file__)).resolve().parent == (ROOT / name).resolve()


def test_no_other_distribution_ships_our_names() -> None:
    shipped = packages_distributions()
    for name in OURS:
        assert set(shipped.get(name, [])) <= {"foresight-pipeline"}, (
            f"{name} is also shipped by another package"
        )


def test_every_package_on_disk_is_in_the_build() -> None:
    on_disk = {
        ".".join(p.parent.relative_to(ROOT).parts)
        for name in OURS
        for p in (ROOT / name).rglob("__init__.py")
    }
    with (ROOT / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    assert set(listed) == on_disk
    assert listed == sorted(listed)


def test_no_module_hides_a_top_level_package() -> None:
    for folder in ("flows", "tasks"):
        names = {p.stem for p in (ROOT / folder).glob("*.py")}
        assert not names & {*OURS, "prefect", "torch", "docker"}


def test_docker_is_no_package() -> None:
    assert not (ROOT / "docker" / "__init__.py").exists()

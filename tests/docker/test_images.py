"""The images and the compose file: linted, pinned, without secrets, and naming only what is there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("Dockerfile.*"))


def instructions(path: Path) -> list[str]:
    """Return the instructions of a Dockerfile, each on one line."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_a_linter_of_dockerfiles_finds_nothing(path: Path) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_an_image_runs_as_nobody_special_and_tells_its_health(path: Path) -> None:
    lines = instructions(path)
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 1000:1000"
    assert any(line.startswith("HEALTHCHECK") for line in lines)
    bases = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert bases
    assert all(re.search(r":[^:]*\d", base) for base in bases), f"a base without a version: {bases}"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_an_image_copies_every_package_and_only_what_the_build_can_see(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    top = {name.split(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    copied = {
        source
        for line in instructions(path)
        if line.startswith("COPY") and "--from" not in line
        for source in shlex.split(line)[1:-1]
    }
    assert top <= copied
    visible = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied <= visible
    assert all((ROOT / source).exists() for source in copied)


def test_the_gpu_image_has_flash_attention_and_faiss_for_the_gpu() -> None:
    text = (DOCKER / "Dockerfile.gpu").read_text()
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["gpu"]
    assert all(f'"{requirement}"' in text for requirement in extra)
    assert "faiss-cpu" not in text


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())  # type: ignore[no-any-return]


def test_every_service_names_only_services_volumes_and_files_that_exist(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"], name
        if "build" in service:
            assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        else:
            assert service["image"] in {"foresight:cpu"} or re.search(r":v?\d", service["image"]), name


def test_every_secret_comes_from_a_file_outside_version_control(compose: dict[str, Any]) -> None:
    wanted = set(re.findall(r"\$\{([A-Z_]+)", (DOCKER / "compose.yaml").read_text()))
    example = dict(
        line.split("=", 1)
        for line in (DOCKER / "example.env").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert wanted == set(example)
    secrets = {name for name in wanted if "PASSWORD" in name or "USER" in name}
    assert secrets
    assert all(example[name] == "" for name in secrets), "an example that someone will deploy"
    assert "docker/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_server_of_the_compose_file_is_the_version_that_is_pinned(compose: dict[str, Any]) -> None:
    (pinned,) = re.findall(r"^prefect==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert compose["services"]["server"]["image"].startswith(f"prefecthq/prefect:{pinned}-")

"""`foresight deploy`: pools of every kind at a real server, their jobs as a worker would make them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FORESIGHT = str(Path(sys.executable).parent / "foresight")
IMAGE = "registry.example/foresight:1"


def ask(url: str, body: Any = None) -> Any:
    request = urllib.request.Request(url, headers={"Content-Type": "application/json"})
    if body is not None:
        request.data = json.dumps(body).encode()
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def deploy(
    *words: str, api: str = "", folder: Path | None = None, home: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {"PREFECT_API_URL": api} if api else {}
    environment |= {"PREFECT_HOME": str(home)} if home else {}
    return subprocess.run(
        [FORESIGHT, "deploy", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def template(*words: str) -> dict[str, Any]:
    printed = deploy(*words, "--print")
    assert printed.returncode == 0, printed.stderr
    return json.loads(printed.stdout)  # type: ignore[no-any-return]


def job(found: dict[str, Any], **chosen: Any) -> dict[str, Any]:
    """Return the job a worker would start: the template's placeholders filled in by Prefect itself."""
    from prefect.utilities.templating import apply_values

    values = {k: v["default"] for k, v in found["variables"]["properties"].items() if "default" in v}
    return apply_values(found["job_configuration"], values | chosen)  # type: ignore[return-value]


def test_a_kubernetes_job_asks_for_its_gpu_shared_memory_and_secrets_by_name() -> None:
    found = template(
        "--type", "kubernetes", "--image", IMAGE, "--secrets", "store-keys", "--volume", "latents"
    )
    spec = job(found)["job_manifest"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == IMAGE
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert {m["mountPath"] for m in container["volumeMounts"]} == {"/dev/shm", "/data"}
    assert pod["volumes"][0]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert container["envFrom"] == [{"secretRef": {"name": "store-keys"}}]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert spec["activeDeadlineSeconds"] == 24 * 3600
    chosen = job(found, gpus=4, node_selector={"gpu": "h100"})["job_manifest"]["spec"]["template"]["spec"]
    assert chosen["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert chosen["nodeSelector"] == {"gpu": "h100"}


def test_a_kubernetes_job_without_a_gpu_asks_for_none() -> None:
    found = template("--type", "kubernetes", "--image", IMAGE, "--gpus", "0")
    pod = job(found)["job_manifest"]["spec"]["template"]["spec"]
    assert "nvidia.com/gpu" not in json.dumps(pod)
    assert "envFrom" not in pod["containers"][0]


def test_a_docker_container_gets_its_gpu_as_docker_itself_spells_it() -> None:
    from docker.types import DeviceRequest

    found = template("--type", "docker", "--image", IMAGE, "--secrets", "lab", "--volume", "latents:/data")
    made = job(found)
    assert made["image"] == IMAGE
    assert made["volumes"] == ["latents:/data"]
    assert made["env"]["AWS_SECRET_ACCESS_KEY"] == "{{ prefect.blocks.secret.lab-aws-secret-access-key }}"
    (request,) = made["container_create_kwargs"]["device_requests"]
    assert DeviceRequest(**{k.lower(): v for k, v in request.items()})["Capabilities"] == [["gpu"]]
    assert made["container_create_kwargs"]["shm_size"] == "8g"


def test_a_container_pool_without_an_image_and_a_deploy_without_a_server_are_refused() -> None:
    refused = deploy("--type", "docker")
    assert refused.returncode == 2
    assert "runs an image, but got none" in refused.stderr
    nowhere = deploy()
    assert nowhere.returncode == 2
    assert "PREFECT_API_URL is not set" in nowhere.stderr
    silent = deploy(api="http://127.0.0.1:9/api")
    assert silent.returncode == 2
    assert "no Prefect server answers at http://127.0.0.1:9/api" in silent.stderr


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A real Prefect server of its own."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)],
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    api = f"http://127.0.0.1:{port}/api"
    try:
        until = time.monotonic() + 180
        while True:
            try:
                ask(f"{api}/health")
                break
            except OSError:
                assert time.monotonic() < until
                assert process.poll() is None
                time.sleep(0.5)
        yield api, home
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
def test_deploying_again_brings_up_to_date_and_doubles_nothing(
    server: tuple[str, Path], tmp_path: Path
) -> None:
    api, home = server
    words = ("--pool", "h100", "--type", "kubernetes", "--image", IMAGE, "--store", "s3://lab/latents")
    for gpus in ("2", "8"):
        done = deploy(*words, "--gpus", gpus, api=api, folder=tmp_path, home=home)
        assert done.returncode == 0, done.stderr
    assert "q1/q1-h100" in done.stdout
    (pool,) = (p for p in ask(f"{api}/work_pools/filter", {}) if p["name"] == "h100")
    assert (pool["type"], pool["concurrency_limit"]) == ("kubernetes", 8)
    assert pool["base_job_template"]["variables"]["properties"]["image"]["default"] == IMAGE
    deployments = [d for d in ask(f"{api}/deployments/filter", {}) if d["work_pool_name"] == "h100"]
    names = [d["entrypoint"] for d in deployments]
    assert len(names) == len(set(names)) >= 2
    assert {d["parameters"]["settings"]["store"] for d in deployments} == {"s3://lab/latents"}
    automations = ask(f"{api}/automations/filter", {})
    assert [a["name"] for a in automations] == ["foresight: a run that fell silent has crashed"]
    other = deploy("--pool", "h100", "--type", "process", api=api, folder=tmp_path, home=home)
    assert other.returncode == 2
    assert "is a kubernetes pool and cannot become a process pool" in other.stderr

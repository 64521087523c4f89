"""Work pools by kind: the base job template of each, made from Prefect's own with what a GPU needs added.

One source for `foresight ui`, `foresight deploy` and the file that `foresight deploy --write` makes. A secret is
named, never held: Docker jobs take it from a Prefect secret block, Kubernetes jobs from a cluster secret.
"""

import copy
import importlib
from dataclasses import dataclass
from typing import Any, Literal

from tasks.house import WrongRequest

Kind = Literal["process", "docker", "kubernetes"]
KINDS: tuple[Kind, ...] = ("process", "docker", "kubernetes")

HEARTBEAT_S = 30
"""How often a run says that it lives. A run silent for three times as long has died; see `automations`."""

_WORKERS = {
    "process": ("prefect.workers.process", "ProcessWorker"),
    "docker": ("prefect_docker.worker", "DockerWorker"),
    "kubernetes": ("prefect_kubernetes.worker", "KubernetesWorker"),
}

SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "HF_TOKEN")
"""What an object store and a model hub may ask for."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A work pool to be registered."""

    name: str
    kind: Kind = "process"
    gpu: bool = False
    image: str = ""
    """Docker and Kubernetes: the image with this package in it."""
    at_once: int | None = None
    """Runs at one time in the whole pool: as many as there are GPUs, so that one GPU holds one extraction."""
    secrets: str = ""
    """Docker: prefix of the Prefect secret blocks; Kubernetes: name of the cluster secret. Empty: none."""
    volume: str = ""
    """Docker: `name:/path` of a volume; Kubernetes: a persistent volume claim mounted at /data. Empty: none."""
    deadline_h: float = 24.0
    """Kubernetes: a job that runs longer is stopped; the next run goes on from the rows it left."""

    def __post_init__(self) -> None:
        if self.kind != "process" and not self.image:
            raise WrongRequest(
                f"a {self.kind} pool runs an image, but got none; build docker/Dockerfile.gpu (or .cpu), push it, "
                "and name it with --image"
            )


def job_template(pool: Pool) -> dict[str, Any]:
    """Return the base job template of `pool`: Prefect's own for its kind, changed where this project needs it."""
    template: dict[str, Any] = copy.deepcopy(_default_template(pool.kind))
    variables = template["variables"]["properties"]
    variables["env"]["default"] = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S)}
    if pool.kind == "docker":
        _docker(pool, variables)
    elif pool.kind == "kubernetes":
        _kubernetes(pool, variables, template["job_configuration"]["job_manifest"]["spec"])
    return template


def _docker(pool: Pool, variables: dict[str, Any]) -> None:
    variables["image"]["default"] = pool.image
    variables["auto_remove"]["default"] = True
    if pool.volume:
        variables["volumes"]["default"] = [pool.volume]
    if pool.secrets:
        variables["env"]["default"] |= {
            name: f"{{{{ prefect.blocks.secret.{pool.secrets}-{name.lower().replace('_', '-')} }}}}"
            for name in SECRETS
        }
    extra: dict[str, Any] = {"init": True}
    if pool.gpu:
        # decoding and CUDA both use shared memory; Docker's 64 MiB are not enough
        extra |= {
            "device_requests": [{"Driver": "nvidia", "Count": 1, "Capabilities": [["gpu"]]}],
            "shm_size": "8g",
        }
    variables["container_create_kwargs"]["default"] = extra


def _kubernetes(pool: Pool, variables: dict[str, Any], job: dict[str, Any]) -> None:
    variables["image"]["default"] = pool.image
    variables["finished_job_ttl"]["default"] = 3600
    variables |= {
        "deadline_s": {
            "type": "integer",
            "title": "Deadline (s)",
            "default": int(pool.deadline_h * 3600),
            "description": "Seconds after which a job is stopped; what it stored stays.",
        },
        "shared_memory": {
            "type": "string",
            "title": "Shared memory",
            "default": "8Gi",
            "description": "Size of /dev/shm.",
        },
        "node_selector": {
            "type": "object",
            "title": "Node selector",
            "default": {},
            "description": "Labels a node must have, as in {'gpu': 'h100'}.",
        },
    }
    job["activeDeadlineSeconds"] = "{{ deadline_s }}"
    pod = job["template"]["spec"]
    pod["nodeSelector"] = "{{ node_selector }}"
    pod["securityContext"] = {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000}
    pod["volumes"] = [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "{{ shared_memory }}"}}]
    container = pod["containers"][0]
    container["volumeMounts"] = [{"name": "shm", "mountPath": "/dev/shm"}]
    if pool.volume:
        pod["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": pool.volume}})
        container["volumeMounts"].append({"name": "data", "mountPath": "/data"})
    if pool.secrets:
        container["envFrom"] = [{"secretRef": {"name": pool.secrets}}]
    if pool.gpu:
        variables["gpus"] = {
            "type": "integer",
            "title": "GPUs",
            "default": 1,
            "description": "GPUs of one job. More than one is for a model that does not fit on one.",
        }
        container["resources"]["limits"]["nvidia.com/gpu"] = "{{ gpus }}"
        pod["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def _default_template(kind: Kind) -> dict[str, Any]:
    module, name = _WORKERS[kind]
    try:
        worker = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise WrongRequest(
            f"a {kind} pool needs the package prefect-{kind}, which is not installed; "
            "run pip install -e '.[deploy]' in the checkout"
        ) from error
    template: dict[str, Any] = worker.get_default_base_job_template()
    return template

"""What a model is: equal wherever it lies, known without reading it where someone hashed it already."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from foresight import models
from foresight.models.fingerprint import (
    adapter_fingerprint,
    file_sha256,
    fingerprint,
    snapshot_sha256,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    ref = models.parse_ref("qwen2.5-vl-tiny@random3")
    models.family(ref.card).load(ref, None, device="cpu", dtype="float32", attention="sdpa").save(folder)
    return folder


@pytest.fixture
def snapshot(checkpoint: Path, tmp_path: Path) -> Path:
    """The checkpoint as a hub cache lays it out: large files are links to blobs named by their SHA-256."""
    folder = tmp_path / "models--a--b" / "snapshots" / ("c" * 40)
    blobs = tmp_path / "models--a--b" / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    for file in checkpoint.iterdir():
        large = file.suffix == ".safetensors"
        name = file_sha256(file) if large else "f" * 40  # small files go by another digest
        shutil.copy(file, blobs / f"{name}{'' if large else file.name}")
        (folder / file.name).symlink_to(blobs / f"{name}{'' if large else file.name}")
    return folder


def test_a_hub_snapshot_is_known_without_reading_a_byte_of_its_weights(
    checkpoint: Path, snapshot: Path
) -> None:
    blob = (snapshot / "model.safetensors").resolve()
    blob.write_bytes(b"")  # read, it would be another model
    assert fingerprint(snapshot, sha256=snapshot_sha256) == fingerprint(checkpoint)


def test_a_copy_of_a_snapshot_is_the_same_model(snapshot: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(snapshot, tmp_path / "copy", symlinks=False))
    assert not (copy / "model.safetensors").is_symlink()
    assert fingerprint(copy) == fingerprint(snapshot, sha256=snapshot_sha256)


def test_quantised_weights_are_another_model(checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    assert fingerprint(folder)["config"] != fingerprint(checkpoint)["config"]
    assert fingerprint(folder)["weights"] == fingerprint(checkpoint)["weights"]
    weights = {k: v.to(torch.float16) for k, v in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(folder)["weights"] != fingerprint(checkpoint)["weights"]


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "lora"
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(
        json.dumps(settings | {"base_model_name_or_path": "some/where"})
    )
    save_file({"a": torch.zeros(2, 3)}, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_is_its_weights_and_how_they_are_merged(adapter: Path, tmp_path: Path) -> None:
    before = adapter_fingerprint(adapter)
    copy = Path(shutil.copytree(adapter, tmp_path / "copy"))
    settings = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(
        json.dumps(settings | {"base_model_name_or_path": "else/where"})
    )
    assert adapter_fingerprint(copy) == before
    (copy / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": 8}))
    assert adapter_fingerprint(copy) != before
    save_file({"a": torch.ones(2, 3)}, adapter / "adapter_model.safetensors")
    assert adapter_fingerprint(adapter) != before

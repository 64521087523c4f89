"""What a model is: equal wherever it lies, known without reading it where someone hashed it already."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from foresight import models
from foresight.models.fingerprint import (
    adapter_fingerprint,
    file_sha256,
    fingerprint,
    memory_sha256,
    snapshot_sha256,
)

REF = models.parse_ref("qwen2.5-vl-tiny@random3")
FAMILY = models.family(REF.card)


def loaded(folder: Path | None = None, dtype: str = "float32") -> Any:
    ref = models.parse_ref(f"qwen2.5-vl-tiny@path:{folder}") if folder else REF
    return FAMILY.load(ref, folder, device="cpu", dtype=dtype, attention="sdpa")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    loaded().save(folder)
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


def test_a_model_in_memory_is_what_it_was_saved_as(checkpoint: Path) -> None:
    assert memory_sha256(loaded(checkpoint).model) == memory_sha256(loaded().model)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_changed_element_in_memory_is_another_model(dtype: str) -> None:
    model = loaded(dtype=dtype).model
    before = memory_sha256(model)
    assert memory_sha256(model) == before
    weight = model.model.visual.blocks[2].attn.proj.weight
    with torch.no_grad():
        weight[3, 5] += 1
    changed = memory_sha256(model)
    with torch.no_grad():
        weight[3, 5] -= 1
    assert changed != before


def test_another_type_or_another_layout_in_memory() -> None:
    assert memory_sha256(loaded(dtype="bfloat16").model) != memory_sha256(loaded().model)
    linear = torch.nn.Linear(3, 5)
    flipped = torch.nn.Linear(3, 5)
    flipped.weight = torch.nn.Parameter(linear.weight.detach().T.contiguous().T)  # same values, other strides
    flipped.bias = linear.bias
    assert memory_sha256(flipped) == memory_sha256(linear)


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

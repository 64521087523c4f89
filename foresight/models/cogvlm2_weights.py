"""The weights of a CogVLM2: read tensor by tensor, only those that a pass comes to, or drawn from a seed.

The model is built without memory; `fill` brings in what is still missing of the parts it is asked for. So a pass
that ends in the vision tower never holds the decoder, which is three quarters of the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foresight.models.card import ModelRef
from foresight.models.loading import WrongCheckpoint

if TYPE_CHECKING:
    import torch

    from foresight.models.architectures.cogvlm2 import CogVLM2

Source = Callable[[str, Sequence[int]], "torch.Tensor"]
"""Gives one tensor of the checkpoint by its key and shape."""


def parts(vision_layers: int, text_layers: int) -> list[str]:
    """Return the model's parts, as the beginnings of their keys, in the order a pass comes to them."""
    return [
        "model.vision.patch_embedding",
        *(f"model.vision.transformer.layers.{i}" for i in range(vision_layers)),
        "model.vision.conv",
        "model.vision.linear_proj",
        "model.vision.boi",
        "model.vision.eoi",
        "model.embed_tokens",
        *(f"model.layers.{i}" for i in range(text_layers)),
        "model.norm",
        "lm_head",
    ]


def build(vision: Mapping[str, Any], text: Mapping[str, Any], kernel: str) -> CogVLM2:
    """Return the model in evaluation mode, none of its weights in memory yet."""
    import torch

    from foresight.models.architectures.cogvlm2 import CogVLM2

    with torch.device("meta"):
        model = CogVLM2(vision=vision, text=text, kernel=kernel)
    return model.eval().requires_grad_(False)


def fill(model: CogVLM2, wanted: Sequence[str], source: Source, *, device: str, dtype: str) -> None:
    """Bring the weights of the `wanted` parts that are not in memory onto `device`, as `dtype`."""
    import torch

    beginnings = tuple(f"{part}." for part in wanted)
    missing = {
        name: tensor.shape
        for name, tensor in model.state_dict().items()
        if tensor.is_meta and (name.startswith(beginnings) or name in wanted)
    }
    found = {
        name: source(name, shape).to(device=device, dtype=getattr(torch, dtype))
        for name, shape in missing.items()
    }
    model.load_state_dict(found, strict=False, assign=True)


def from_files(ref: ModelRef, folder: Path, model: CogVLM2) -> Source:
    """Return the source that reads the safetensors in `folder`; their headers are read now, weights when asked.

    Raises `WrongCheckpoint` when the files lack a tensor of the model, hold another, or one of another shape.
    """
    from safetensors import safe_open

    indexes = sorted(folder.glob("*.safetensors.index.json"))
    mapped = [json.loads(index.read_text())["weight_map"].values() for index in indexes]
    names = sorted({name for files in mapped for name in files}) or [
        path.name for path in sorted(folder.glob("*.safetensors"))
    ]
    place: dict[str, Path] = {}
    shapes: dict[str, list[int]] = {}
    for name in names:
        with safe_open(folder / name, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                place[key], shapes[key] = folder / name, list(file.get_slice(key).get_shape())
    expected = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    if lacking := sorted(expected.keys() - place.keys()):
        raise WrongCheckpoint(
            f"{ref.card.name} has {len(expected)} tensors, but {folder.name} lacks {len(lacking)} of them, "
            f"{lacking[0]} first; copy the whole checkpoint again"
        )
    if unknown := sorted(place.keys() - expected.keys()):
        raise WrongCheckpoint(
            f"{ref.card.name} has no {unknown[0]}, but {folder.name} holds it and {len(unknown) - 1} more like it; "
            "it is another model, or adapters are still to be merged into it"
        )
    if wrong := [key for key in expected if expected[key] != shapes[key]]:
        raise WrongCheckpoint(
            f"{wrong[0]} of {ref.card.name} is {expected[wrong[0]]} by its configuration, but {folder.name} holds "
            f"{shapes[wrong[0]]}; its config.json and its weights are of two models: copy both again"
        )

    def read(key: str, shape: Sequence[int]) -> torch.Tensor:
        with safe_open(place[key], framework="pt") as file:
            return file.get_tensor(key)

    return read


def from_seed(seed: int, spread: float) -> Source:
    """Return the source that draws every tensor from `seed` and its own key.

    Normal with standard deviation `spread`; norms are 1 and 0, and rotary frequencies are what they always are.
    A tensor is the same whichever others are drawn.
    """
    import torch

    from foresight.models.architectures.cogvlm2 import rotary_frequencies

    def draw(key: str, shape: Sequence[int]) -> torch.Tensor:
        module, _, leaf = key.rpartition(".")
        if leaf == "inv_freq":
            return rotary_frequencies(2 * shape[0])
        if "norm" in module.rpartition(".")[2]:
            return torch.ones(*shape) if leaf == "weight" else torch.zeros(*shape)
        digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        return torch.empty(*shape).normal_(0.0, spread, generator=generator)

    return draw

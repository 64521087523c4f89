"""Other ways to get a model's latents into a file: by hand, and with the libraries people use for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from foresight.models.qwen2_5_vl import QwenVision
from foresight.nouns import Frames

Inputs = tuple[torch.Tensor, torch.Tensor]

NOT_HERE = {
    "thingsvision": "2.7 pins numpy < 2, transformers 4.40 and torchvision 0.15; put beside today's libraries without "
    "its pins, the TensorFlow that it imports (2.21) ends the process: its LLVM and torch's are two",
}
"""Peers that cannot stand beside this project's libraries."""


class Stop(Exception):
    """Ends a forward pass."""


def inputs_of(vlm: QwenVision, files: Sequence[Path], size: int) -> Inputs:
    """Return the vision tower's own inputs for image files, as a script would make them."""
    frames = []
    for file in files:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB").resize((size, size)), np.uint8)
        frames.append(Frames(pixels=pixels[None], times_s=np.zeros(1)))
    prepared = vlm.prepare(frames)
    return prepared["pixel_values"], prepared["image_grid_thw"]


def hooked(vlm: QwenVision, blocks: Sequence[int], inputs: Inputs, *, stop: bool) -> list[torch.Tensor]:
    """Return the outputs of `blocks` by plain forward hooks, over the whole tower or up to the deepest one."""
    tower, found = vlm.model.model.visual, []

    def hook(_module: Any, _args: Any, output: torch.Tensor) -> None:
        found.append(output.detach())
        if stop and len(found) == len(blocks):
            raise Stop

    handles = [tower.blocks[b].register_forward_hook(hook) for b in blocks]
    try:
        with torch.no_grad():
            tower(inputs[0], grid_thw=inputs[1])
    except Stop:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return found


def traced(vlm: QwenVision) -> Callable[[Sequence[int], Inputs], list[torch.Tensor]]:
    """Return a reader made with nnsight that stops after the deepest block. `ImportError` without nnsight."""
    from nnsight import NNsight

    wrapped = NNsight(vlm.model.model.visual)

    def read(blocks: Sequence[int], inputs: Inputs) -> list[torch.Tensor]:
        found = []
        with torch.no_grad(), wrapped.trace(inputs[0], grid_thw=inputs[1]) as tracer:
            for block in blocks:
                found.append(wrapped.blocks[block].output.save())
            tracer.stop()
        return found

    return read


def brain_score(vlm: QwenVision) -> Callable[[Sequence[int], Inputs], list[torch.Tensor]]:
    """Return a reader by brain-score's own extractor, which runs the whole tower. `ImportError` without it.

    Its pins (numpy < 2, scikit-learn < 1.6) keep it out of this project's environment; its extractor works with
    today's libraries from a folder of its own, made with `pip install --no-deps --target`.
    """
    from brainscore_vision.model_helpers.activations.pytorch import PytorchWrapper

    wrapper = PytorchWrapper(model=Square(vlm.model.model.visual), preprocessing=None, identifier="bench")

    def read(blocks: Sequence[int], inputs: Inputs) -> list[torch.Tensor]:
        images = list(inputs[0].unflatten(0, (len(inputs[1]), -1)))
        found = wrapper.get_activations(images, [f"tower.blocks.{b}" for b in blocks])
        return [torch.from_numpy(values) for values in found.values()]

    return read


class Square(torch.nn.Module):
    """A vision tower that is called with one tensor: the patches of square images, [image patch feature]."""

    def __init__(self, tower: torch.nn.Module):
        super().__init__()
        self.tower = tower

    def forward(self, patches: torch.Tensor) -> Any:
        side = math.isqrt(patches.shape[1])
        return self.tower(patches.flatten(0, 1), grid_thw=torch.tensor([[1, side, side]] * len(patches)))


def copied_whole(
    vlm: QwenVision, blocks: Sequence[int], batches: Sequence[Sequence[Path]], size: int, place: Path
) -> None:
    """Do what thingsvision does: the whole tower, a copy of each block's output, one .npy file a block at the end."""
    kept: list[list[np.ndarray]] = [[] for _ in blocks]
    for files in batches:
        for own, values in zip(
            kept, hooked(vlm, blocks, inputs_of(vlm, files, size), stop=False), strict=True
        ):
            own.append(values.clone().numpy())
    for block, own in zip(blocks, kept, strict=True):
        np.save(place.with_name(f"block-{block}.npy"), np.concatenate(own))


def into_memory_map(
    read: Callable[[Inputs], list[torch.Tensor]],
    vlm: QwenVision,
    batches: Sequence[Sequence[Path]],
    size: int,
    place: Path,
) -> None:
    """Read image files, run `read` over them and keep what it gives in one memory-mapped file, flushed.

    Tokens stay in the model's own window order: where they are from is not known afterwards.
    """
    mapped, done = None, 0
    for files in batches:
        values = torch.stack(read(inputs_of(vlm, files, size)), dim=1).numpy()
        if mapped is None:
            total = len(values) // len(files) * sum(map(len, batches))
            mapped = np.memmap(place, values.dtype, "w+", shape=(total, *values.shape[1:]))
        mapped[done : done + len(values)] = values
        done += len(values)
    if mapped is not None:
        mapped.flush()

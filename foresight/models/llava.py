"""What the LLaVA families share: points along tower, projector and language model, and prompts that end in an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foresight.models.card import Card, ModelRef, Point
from foresight.models.loading import WrongCheckpoint
from foresight.models.vision_language import layer_points, padded, save_parts

if TYPE_CHECKING:
    import torch


def tower_points(config: Mapping[str, Any], *, patch: str) -> list[Point]:
    """Return the points of the vision tower; `patch` is the module whose output the first block is given.

    The layer that the projector reads is what the plans call L1.
    """
    vision = config["vision"]
    depth, width = vision["num_hidden_layers"], vision["hidden_size"]
    read = (depth + 1 + config["model"]["vision_feature_layer"]) % (depth + 1)
    found = [
        Point(
            name="patch",
            path=f"model.vision_tower.{patch}",
            width=width,
            about="patch and position embeddings, as the first block is given them",
        )
    ]
    for layer in range(1, depth + 1):
        note = ", what the projector reads" if layer == read else ", not used by the model"
        found.append(
            Point(
                name=f"vit.{layer}",
                path=f"model.vision_tower.encoder.layers.{layer - 1}",
                width=width,
                about=f"vision tower after {layer} of {depth} blocks{note if layer >= read else ''}",
                plans=("L1",) if layer == read else (),
            )
        )
    return found


def language_points(config: Mapping[str, Any]) -> tuple[Point, ...]:
    """Return the points of the language model, at the image's positions.

    The plans' L3 to L5 are layers 8, 16 and 32 of 32: a quarter, half and all of them on any other.
    """
    layers = config["text"]["num_hidden_layers"]
    plans = {f"llm.{layers // 4}": "L3", f"llm.{layers // 2}": "L4", f"llm.{layers}": "L5"}
    return layer_points(config["text"], plans)


def prompts(
    tokenizer: Any, prefix: str, placeholder: int, counts: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask [image token] of one prompt an image: `prefix`, then `counts` placeholders each.

    As the families' processors write them, and no further: what follows an image changes nothing in it. Padded on
    the right.
    """
    start = list(tokenizer(prefix + tokenizer.convert_ids_to_tokens(placeholder))["input_ids"])
    start = start[: start.index(placeholder)]
    return padded([[*start, *[placeholder] * n] for n in counts], tokenizer)


def need_processor(ref: ModelRef, folder: Path) -> None:
    """Raise `WrongCheckpoint` for a folder without the image processor that the model was trained with."""
    if not (folder / "preprocessor_config.json").is_file():
        raise WrongCheckpoint(
            f"{ref.card.name} needs the image processor it was trained with, but {folder.name} has no "
            "preprocessor_config.json; copy the whole checkpoint again"
        )


class LoadedLlava:
    """A loaded model with what turns pixels and words into its inputs."""

    def __init__(self, card: Card, model: Any, tokenizer: Any, image_processor: Any):
        self.card, self.model, self.tokenizer = card, model, tokenizer
        self.image_processor = image_processor
        self.forwards = 0
        """Forward passes so far."""

    def save(self, folder: Path) -> None:
        """Write an ordinary checkpoint folder: safetensors, configuration, tokenizer and image processor.

        Raises `WrongCheckpoint` for a model of which only some layers were loaded.
        """
        save_parts(self.card, self.model, folder, self.tokenizer, self.image_processor)

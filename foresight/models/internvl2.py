"""InternVL2: the models the plans name, read with the InternVL classes of transformers and no code of their own.

Points, tiles and token order are those of `internvl`. Of the prompt only the first token of a text stands before
the image, and nothing between the frames of a clip (`internvl2_keys.SpecialTokens` says why), so its language layers
are comparable among these models, and with those of other models only with that in mind.

Architecture: Chen et al. (2024), arXiv:2404.16821; https://internvl.github.io/blog/2024-07-02-InternVL-2.0/.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foresight.models.card import Card, ModelRef
from foresight.models.internvl import (
    MODEL,
    VISION_300M,
    InternVision,
    draw_places,
    grid,
    points,
    tokens,
)
from foresight.models.internvl import PREPROCESSING as _PREPROCESSING
from foresight.models.internvl2_keys import MODEL_TYPE, SpecialTokens, read_config, read_weights
from foresight.models.internvl_tiny import build_image_processor
from foresight.models.loading import WrongCheckpoint
from foresight.models.vision_language import load_parts

__all__ = ["CARDS", "PREPROCESSING", "grid", "load", "points", "tokens"]

PREPROCESSING = _PREPROCESSING | {"clip": ["", ""], "normalised": "imagenet"}
"""Identity of what happens between frames and tokens; none of it is in the checkpoint's own files."""

_VISION_6B = {"num_hidden_layers": 45, "hidden_size": 3200, "num_attention_heads": 25, "intermediate_size": 12800,
              "image_size": [448, 448], "patch_size": [14, 14], "norm_type": "rms_norm",
              "use_qk_norm": True}  # fmt: skip

CARDS = (
    Card(
        name="internvl2-8b",
        family="internvl2",
        role="vlm",
        repo="OpenGVLab/InternVL2-8B",
        revision="6fb9ad6924f69424e57fab2ab061d707688f0296",
        licence="MIT; the language model inside has its own, Apache-2.0 with terms for the weights",
        parameters=8_075_365_376,
        memory_gib=15.0,
        dtype="bfloat16",
        size=(448, 448),
        config={
            "vision": VISION_300M,
            "text": {"num_hidden_layers": 32, "hidden_size": 4096},
            "model": MODEL,
        },
        default_points=("vit.12", "vit.24", "projected", "llm.8", "llm.16"),
        prompt_prefix="<s>",
    ),
    Card(
        name="internvl2-26b",
        family="internvl2",
        role="vlm",
        repo="OpenGVLab/InternVL2-26B",
        revision="46f37972e05604cc44a59f72334df220fa197a7b",
        licence="MIT; the language model inside has its own, Apache-2.0 with terms for the weights",
        parameters=25_514_186_112,
        memory_gib=47.5,
        dtype="bfloat16",
        size=(448, 448),
        config={"vision": _VISION_6B, "text": {"num_hidden_layers": 48, "hidden_size": 6144}, "model": MODEL},
        default_points=("vit.24", "vit.out", "projected", "llm.8", "llm.16"),
        prompt_prefix="<s>",
    ),
)


def load(
    ref: ModelRef,
    folder: Path | None,
    *,
    device: str,
    dtype: str,
    attention: str,
    points: Sequence[str] | None = None,
) -> InternVision:
    """Load the model named by `ref` from `folder`, in memory under the library's names.

    Random weights are drawn after the configuration in `folder`. With `points` only the layers that those need are
    read.
    """
    if folder is None:
        raise ValueError(f"{ref} takes its configuration from a checkpoint folder, but got none")

    model = load_parts(
        InternVL2,
        ref,
        folder,
        tiny_config=lambda: read_config(folder),
        device=device,
        dtype=dtype,
        attention=attention,
        points=points,
        check=lambda _: SpecialTokens.read(folder),  # before gigabytes of weights are
    )
    if ref.kind == "random":
        draw_places(model, int(ref.value))
    processor = build_image_processor(ref.card.config["vision"]["image_size"][0])
    return InternVL2Vision(ref.card, model, SpecialTokens.read(folder), processor, clip_text=("", ""))


class InternVL2Vision(InternVision):
    """A loaded InternVL2; its vocabulary was not opened, so it cannot be written out whole."""

    def save(self, folder: Path) -> None:
        raise ValueError(
            f"a checkpoint is saved with its vocabulary, which is not read for {self.card.name}; "
            f"copy the folder it came from instead of writing {folder.name}"
        )


class InternVL2Config:
    """How `load_model` reads a configuration of this layout."""

    model_type = MODEL_TYPE
    from_pretrained = staticmethod(read_config)


class InternVL2:
    """How `load_model` builds `InternVLForConditionalGeneration` out of a checkpoint of this layout."""

    config_class = InternVL2Config

    @staticmethod
    def _from_config(config: Any, **settings: Any) -> Any:
        from transformers import InternVLForConditionalGeneration

        return InternVLForConditionalGeneration._from_config(config, **settings)

    @staticmethod
    def from_pretrained(
        folder: Path, *, config: Any, use_safetensors: bool, **settings: Any
    ) -> tuple[Any, Any]:
        """Return the model and what the library says about its weights; only safetensors are read.

        Raises `WrongCheckpoint` for weights that the configuration has no place for.
        """
        from transformers import InternVLForConditionalGeneration

        weights = read_weights(folder, config)
        library: Any = (
            InternVLForConditionalGeneration  # its signature hides the pair it returns when told to
        )
        model, told = library.from_pretrained(None, config=config, state_dict=weights, **settings)
        if extra := sorted(told["unexpected_keys"]):
            raise WrongCheckpoint(
                f"{folder.name} has weights for {len(extra)} places that its configuration does not have, "
                f"{extra[0]} first; its config.json is of another model: copy both again"
            )
        return model, told

"""LLaVA-Interleave: cards, points, and tokens of a SigLIP tower that is read to its last layer.

One view an image: it is stretched to a square, and SigLIP has no class token, so that every token is a patch of one
grid. 27 patches of 14 px do not quite fill 384 px; the last 6 px of either side are seen by no token.

Every frame of a clip is an image of its own, with a prompt of its own, and time counts the frames.

Li et al. (2024), arXiv:2407.07895.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from foresight.models.card import Card, ModelRef, Point, resolve_points
from foresight.models.encoders import placed
from foresight.models.llava import LoadedLlava, language_points, need_processor, prompts, tower_points
from foresight.models.loading import WrongCheckpoint
from foresight.models.tiny import byte_tokenizer
from foresight.models.vision_language import load_parts, read_modules
from foresight.nouns import Frames, Tokens

PREPROCESSING = {
    "processor": "SiglipImageProcessor",
    "backend": "torchvision",
    "clips": "frame by frame",
    "order": "raster",
    "version": 1,
}
"""Identity of what happens between frames and tokens, beyond what the checkpoint's own files say."""

_MODEL = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}

_QWEN_0_5B = Card(
    name="llava-interleave-qwen-0.5b",
    family="llava_interleave",
    role="vlm",
    repo="llava-hf/llava-interleave-qwen-0.5b-hf",
    revision="08647831752d66cc51831ff4f2a476de6ba2af9c",
    licence="Tongyi Qianwen Research License (non-commercial)",
    parameters=864_031_264,
    memory_gib=1.6,
    dtype="bfloat16",
    size=(448, 448),
    config={
        "model": _MODEL,
        "vision": {"num_hidden_layers": 26, "hidden_size": 1152, "image_size": 384, "patch_size": 14},
        "text": {"model_type": "qwen2", "num_hidden_layers": 24, "hidden_size": 1024},
    },
    default_points=("vit.13", "vit.26", "projected", "llm.6", "llm.12", "llm.24"),
    prompt_prefix="<|im_start|>user ",
)
_QWEN_7B = replace(
    _QWEN_0_5B,
    name="llava-interleave-qwen-7b",
    repo="llava-hf/llava-interleave-qwen-7b-hf",
    revision="2a5460265f90fd2acdbab1308c9dc22a30f14b6d",
    parameters=8_141_100_576,
    memory_gib=15.2,
    config=dict(_QWEN_0_5B.config)
    | {"text": {"model_type": "qwen2", "num_hidden_layers": 32, "hidden_size": 4096}},
    default_points=("vit.13", "vit.26", "projected", "llm.8", "llm.16", "llm.32"),
)

CARDS = (
    _QWEN_0_5B,
    _QWEN_7B,
    Card(
        name="llava-interleave-tiny",
        family="llava_interleave",
        role="vlm",
        parameters=239_920,
        memory_gib=0.01,
        size=(64, 64),
        config={
            "model": _MODEL,
            # 5 patches of 8 px leave 4 px of 44 unseen, as 27 of 14 px leave 6 of 384
            "vision": {"num_hidden_layers": 3, "hidden_size": 48, "num_attention_heads": 4,
                       "intermediate_size": 96, "image_size": 44, "patch_size": 8},
            "text": {"num_hidden_layers": 4, "hidden_size": 64, "intermediate_size": 128,
                     "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.08},
        },
        default_points=("patch", "vit.3", "projected", "llm.2", "llm.4"),
        prompt_prefix="<|im_start|>user ",
    ),
)  # fmt: skip


def points(card: Card) -> tuple[Point, ...]:
    """Return the points in the order one forward pass reaches them, L1 to L5 of the plans among them."""
    projected = Point(
        name="projected",
        path="model.multi_modal_projector",
        width=card.config["text"]["hidden_size"],
        about="after the projector, as the language model is given it",
        plans=("L2",),
    )
    return (*tower_points(card.config, patch="embeddings"), projected, *language_points(card.config))


def grid(card: Card, point: Point, size: tuple[int, int], frames: int) -> tuple[int, int, int]:
    """Return the (time, row, col) counts of tokens: the same at every point and for every size."""
    vision = card.config["vision"]
    side = vision["image_size"] // vision["patch_size"]
    return frames, side, side


def load(
    ref: ModelRef,
    folder: Path | None,
    *,
    device: str,
    dtype: str,
    attention: str,
    points: Sequence[str] | None = None,
) -> LlavaInterleave:
    """Load the model named by `ref` from `folder`; without a folder its weights are drawn from `ref`'s seed.

    With `points` only the layers that those need are loaded. Raises `WrongCheckpoint` for files that are not the
    card's model, the size of its square included.
    """
    from transformers import AutoTokenizer, LlavaForConditionalGeneration, SiglipImageProcessor

    model = load_parts(
        LlavaForConditionalGeneration,
        ref,
        folder,
        tiny_config=lambda: build_config(ref.card),
        device=device,
        dtype=dtype,
        attention=attention,
        points=points,
    )
    side = ref.card.config["vision"]["image_size"]
    square = {"height": side, "width": side}
    if folder is None:
        return LlavaInterleave(ref.card, model, build_tokenizer(), SiglipImageProcessor(size=square))
    need_processor(ref, folder)
    processor = SiglipImageProcessor.from_pretrained(folder)
    if dict(processor.size) != square:
        raise WrongCheckpoint(
            f"{ref.card.name} declares squares of {side} px for its image processor, but the checkpoint has "
            f"{dict(processor.size)}; the tokens would be at other places: use its own card"
        )
    return LlavaInterleave(ref.card, model, AutoTokenizer.from_pretrained(folder), processor)


class LlavaInterleave(LoadedLlava):
    """A loaded LLaVA-Interleave that reads latents at any of its points in one forward pass."""

    def extract(self, batch: Sequence[Frames], asked: Sequence[str]) -> list[dict[str, Tokens]]:
        """Return one `{point: Tokens}` per entry of `batch`, all points from one forward pass.

        Sizes and lengths may differ within the batch. The pass ends after the deepest point asked for, and never
        enters the language model when only the vision side is.
        """
        wanted = resolve_points(points(self.card), asked, model=self.card.name)
        inputs = self.prepare(batch)
        seen = read_modules(self.model, inputs, wanted)
        self.forwards += 1
        # every image has as many tokens, so every prompt has them at the same positions
        first = int((inputs["input_ids"][0] == self.model.config.image_token_id).nonzero()[0])
        seen |= {p.name: seen[p.name][:, first:] for p in wanted if p.prompted}
        found, image = [], 0
        for frames in batch:
            mine = slice(image, image + len(frames.pixels))
            shape = grid(self.card, wanted[0], frames.size, len(frames.pixels))
            found.append({name: self._tokens(values[mine], shape, frames) for name, values in seen.items()})
            image = mine.stop
        return found

    def prepare(self, batch: Sequence[Frames]) -> dict[str, Any]:
        """Return the model's own inputs for the frames of `batch`, on its device: squares and prompts, one a frame."""
        import torch

        images = [torch.from_numpy(p.copy()).permute(2, 0, 1) for f in batch for p in f.pixels]
        pixels = self.image_processor(images, return_tensors="pt")["pixel_values"]
        _, rows, cols = grid(self.card, points(self.card)[0], batch[0].size, 1)
        placeholder = self.model.config.image_token_id
        ids, mask = prompts(self.tokenizer, self.card.prompt_prefix, placeholder, [rows * cols] * len(images))
        device = self.model.device
        return {
            "input_ids": ids.to(device),
            "attention_mask": mask.to(device),
            "pixel_values": pixels.to(device, self.model.dtype),
        }

    def _tokens(self, values: Any, shape: tuple[int, int, int], frames: Frames) -> Tokens:
        """Return the tokens of one sample's `values` [frame token feature]."""
        vision = self.card.config["vision"]
        # the square is the stretched image; patches count from its top left and need not fill it
        height, width = (n * vision["patch_size"] / vision["image_size"] for n in frames.size)
        return placed(
            values.unflatten(1, shape[1:]),
            times_s=frames.times_s,
            rows=(np.arange(shape[1]) + 0.5) * height,
            cols=(np.arange(shape[2]) + 0.5) * width,
            others=values[0, :0],
            other_kinds=(),
            other_times_s=(),
        )


SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>")


def build_tokenizer() -> Any:
    """Return a byte-level tokenizer with the family's special tokens; it needs no vocabulary files."""
    return byte_tokenizer(SPECIAL, pad="<|endoftext|>", end="<|im_end|>")


def build_config(card: Card) -> Any:
    """Return the transformers configuration of a tiny card."""
    from transformers import LlavaConfig

    tokenizer = build_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    return LlavaConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "vision_use_head": False,
            **card.config["vision"],
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 4096,
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "tie_word_embeddings": True,
            **card.config["text"],
        },
        image_token_index=ids["<image>"],
        **card.config["model"],
    )

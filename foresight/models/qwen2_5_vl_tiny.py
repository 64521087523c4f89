"""The tiny Qwen2.5-VL: the family's own classes, configured and tokenised without any file."""

from __future__ import annotations

from typing import Any

from foresight.models.card import Card
from foresight.models.tiny import byte_tokenizer


def build_image_processor(card: Card) -> Any:
    """Return the image processor of a tiny card: the same class, with its patch sizes."""
    from transformers import Qwen2VLImageProcessor

    vision = card.config["vision"]
    unit = vision["patch_size"] * vision["spatial_merge_size"]
    return Qwen2VLImageProcessor(
        patch_size=vision["patch_size"],
        merge_size=vision["spatial_merge_size"],
        temporal_patch_size=vision["temporal_patch_size"],
        size={"shortest_edge": unit * unit, "longest_edge": 16384 * unit},
    )


SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
           "<|image_pad|>", "<|video_pad|>")  # fmt: skip


def build_tokenizer() -> Any:
    """Return a byte-level tokenizer with the family's special tokens; it needs no vocabulary files."""
    return byte_tokenizer(SPECIAL, pad="<|endoftext|>", end="<|im_end|>")


def build_config(card: Card) -> Any:
    """Return the transformers configuration of a tiny card."""
    from transformers import Qwen2_5_VLConfig

    tokenizer = build_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    text = dict(card.config["text"])
    section = text.pop("mrope_section")
    return Qwen2_5_VLConfig(
        vision_config=card.config["vision"]
        | {"out_hidden_size": text["hidden_size"], "tokens_per_second": 2},
        text_config=text
        | {
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 4096,
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": section},
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )

"""The tiny InternVL: the family's own classes, configured and tokenised without any file."""

from __future__ import annotations

from typing import Any

from foresight.models.card import Card
from foresight.models.tiny import byte_tokenizer

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")


def build_tokenizer() -> Any:
    """Return a byte-level tokenizer with the family's special tokens; it needs no vocabulary files."""
    return byte_tokenizer(SPECIAL, pad="<|endoftext|>", end="<|im_end|>")


def build_image_processor(tile: int) -> Any:
    """Return the family's image processor for tiles of `tile` px: ImageNet's mean and deviation, bicubic."""
    from transformers import GotOcr2ImageProcessor
    from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    return GotOcr2ImageProcessor(
        size={"height": tile, "width": tile},
        image_mean=IMAGENET_DEFAULT_MEAN,
        image_std=IMAGENET_DEFAULT_STD,
    )


def build_config(card: Card) -> Any:
    """Return the transformers configuration of a tiny card."""
    from transformers import InternVLConfig

    tokenizer = build_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    return InternVLConfig(
        vision_config=dict(card.config["vision"]),
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 8192,
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "tie_word_embeddings": False,
            **card.config["text"],
        },
        image_token_id=ids["<IMG_CONTEXT>"],
        tie_word_embeddings=False,
        **card.config["model"],
    )

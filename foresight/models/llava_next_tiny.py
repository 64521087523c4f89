"""The tiny LLaVA-NeXT: the family's own classes, configured and tokenised without any file."""

from __future__ import annotations

from typing import Any

from foresight.models.card import Card
from foresight.models.tiny import byte_tokenizer

SPECIAL = ("<s>", "</s>", "<pad>", "<image>")


def build_tokenizer() -> Any:
    """Return a byte-level tokenizer with the family's special tokens; it needs no vocabulary files.

    Like the family's own it begins every text with `<s>`.
    """
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_tokenizer(SPECIAL, pad="<pad>", end="</s>")
    begin = tokenizer.convert_tokens_to_ids("<s>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", begin)]
    )
    return tokenizer


def build_image_processor(card: Card) -> Any:
    """Return the image processor of a card: the same class, with its tiles and canvases."""
    from transformers import LlavaNextImageProcessor

    tile = card.config["vision"]["image_size"]
    return LlavaNextImageProcessor(
        size={"shortest_edge": tile},
        crop_size={"height": tile, "width": tile},
        image_grid_pinpoints=card.config["model"]["image_grid_pinpoints"],
    )


def build_config(card: Card) -> Any:
    """Return the transformers configuration of a tiny card."""
    from transformers import LlavaNextConfig

    tokenizer = build_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    return LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", **card.config["vision"]},
        text_config={
            "model_type": "mistral",
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 4096,
            "sliding_window": None,
            "bos_token_id": ids["<s>"],
            "eos_token_id": ids["</s>"],
            "pad_token_id": ids["<pad>"],
            **card.config["text"],
        },
        image_token_index=ids["<image>"],
        **card.config["model"],
    )

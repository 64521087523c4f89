"""The tiny CogVLM2: the same modules, configured and tokenised without any file."""

from __future__ import annotations

from typing import Any

from foresight.models.card import Card
from foresight.models.tiny import byte_tokenizer

SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>")


def build_tokenizer() -> Any:
    """Return a byte-level tokenizer with the family's special tokens; it needs no vocabulary files."""
    return byte_tokenizer(SPECIAL, pad=SPECIAL[2], end=SPECIAL[1])


def build_config(card: Card) -> dict[str, Any]:
    """Return the config.json of a tiny card, laid out as the published one is."""
    begin, end, pad = build_tokenizer().convert_tokens_to_ids(list(SPECIAL))
    return {
        "architectures": ["CogVLMForCausalLM"],
        "vision_config": dict(card.config["vision"]),
        **card.config["text"],
        "bos_token_id": begin,
        "eos_token_id": end,
        "pad_token_id": pad,
    }

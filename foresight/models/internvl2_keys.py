"""InternVL2's own checkpoint layout, read as weights of the InternVL classes of transformers.

InternVL2 is published for code of its own, which is never run here. Its layers are those of the library under other
names, with two differences: the vision tower keeps query, key and value in one matrix, one after the other; the
language model, an InternLM2, keeps them in one matrix group by group, the queries of a group, then its key, then its
value. Taken apart they are the matrices of a Llama, so the InternVL classes with a Llama inside compute the same.

Layouts: Chen et al., `modeling_intern_vit.py`, `modeling_internvl_chat.py` and `modeling_internlm2.py` of InternVL.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foresight.models.internvl_tiles import LEAST, MOST
from foresight.models.loading import WrongCheckpoint

if TYPE_CHECKING:
    from torch import Tensor

MODEL_TYPE = "internvl_chat"

CONTEXT_ID = 92546
"""Token id of `<IMG_CONTEXT>` in InternLM2's vocabulary as InternVL2 extends it; held against the tokenizer's."""

_NEEDED = {"ps_version": "v2", "select_layer": -1, "downsample_ratio": 0.5, "use_thumbnail": True,
           "min_dynamic_patch": LEAST, "max_dynamic_patch": MOST}  # fmt: skip
"""What the library's classes do, so what a configuration must ask for."""

_OUTER = {
    r"vision_model\.embeddings\.class_embedding": "model.vision_tower.embeddings.cls_token",
    r"vision_model\.embeddings\.position_embedding": "model.vision_tower.embeddings.position_embeddings",
    r"vision_model\.embeddings\.patch_embedding\.(\w+)":
        r"model.vision_tower.embeddings.patch_embeddings.projection.\1",
    r"mlp1\.0\.(\w+)": r"model.multi_modal_projector.layer_norm.\1",
    r"mlp1\.1\.(\w+)": r"model.multi_modal_projector.linear_1.\1",
    r"mlp1\.3\.(\w+)": r"model.multi_modal_projector.linear_2.\1",
    r"language_model\.model\.tok_embeddings\.(\w+)": r"model.language_model.embed_tokens.\1",
    r"language_model\.model\.norm\.(\w+)": r"model.language_model.norm.\1",
    r"language_model\.output\.(\w+)": r"lm_head.\1",
}  # fmt: skip

_VISION = {"attn.proj": "attention.projection_layer", "attn.q_norm": "attention.q_norm",
           "attn.k_norm": "attention.k_norm", "norm1": "layernorm_before", "norm2": "layernorm_after",
           "ls1": "lambda_1", "ls2": "lambda_2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}  # fmt: skip

_TEXT = {"attention.wo": "self_attn.o_proj", "feed_forward.w1": "mlp.gate_proj", "feed_forward.w2": "mlp.down_proj",
         "feed_forward.w3": "mlp.up_proj", "attention_norm": "input_layernorm",
         "ffn_norm": "post_attention_layernorm"}  # fmt: skip

_LAYER = re.compile(
    r"(?P<tower>vision_model\.encoder|language_model\.model)\.layers\.(?P<number>\d+)\."
    r"(?P<part>.+?)(?P<kind>\.weight|\.bias)?"
)


def to_native(name: str, value: Tensor, *, heads: int, groups: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the library's (name, tensor) pairs that one tensor of InternVL2's layout holds.

    `heads` and `groups` count the language model's query heads and its key-value heads. Raises `KeyError` for a
    name that is not part of the layout.
    """
    if found := _LAYER.fullmatch(name):
        text = found["tower"] == "language_model.model"
        stem = f"model.language_model.layers.{found['number']}" if text else (
            f"model.vision_tower.encoder.layer.{found['number']}"
        )  # fmt: skip
        part, kind = found["part"], found["kind"] or ""
        if text and part == "attention.wqkv":
            split = _grouped(value, heads=heads, groups=groups)
            yield from ((f"{stem}.self_attn.{n}_proj{kind}", v) for n, v in zip("qkv", split, strict=True))
            return
        if not text and part == "attn.qkv":
            yield from (
                (f"{stem}.attention.{n}_proj{kind}", v) for n, v in zip("qkv", value.chunk(3), strict=True)
            )
            return
        known = _TEXT if text else _VISION
        if part in known:
            yield f"{stem}.{known[part]}{kind}", value
            return
    for pattern, native in _OUTER.items():
        if found := re.fullmatch(pattern, name):
            yield found.expand(native), value
            return
    raise KeyError(name)


def _grouped(value: Tensor, *, heads: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return query, key and value out of [group (queries of the group, key, value) feature, ...]."""
    together = value.unflatten(0, (groups, heads // groups + 2, -1))
    return (
        together[:, :-2].flatten(0, 2).contiguous(),
        together[:, -2].flatten(0, 1).contiguous(),
        together[:, -1].flatten(0, 1).contiguous(),
    )


def read_weights(folder: Path, config: Any) -> dict[str, Tensor]:
    """Return the weights of the checkpoint in `folder` under the library's names.

    Layers that `config` was shortened by are not read. Raises `WrongCheckpoint` for a tensor that has no place in
    the model.
    """
    from safetensors import safe_open

    text, whole = config.text_config, read_config(folder)
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (no mapping)
                if _taken_off(name, config, whole):
                    continue
                try:
                    found |= to_native(
                        name,
                        tensors.get_tensor(name),
                        heads=text.num_attention_heads,
                        groups=text.num_key_value_heads,
                    )
                except KeyError:
                    raise WrongCheckpoint(
                        f"an InternVL2 checkpoint holds vision_model, mlp1 and language_model weights, but {file.name} "
                        f"in {folder.name} also holds {name}; it is another model, or a part of it was replaced"
                    ) from None
    return found


def _taken_off(name: str, config: Any, whole: Any) -> bool:
    """Return whether a tensor is of a layer that `whole` has, and `config` has no longer."""
    if not (found := _LAYER.fullmatch(name)):
        return False
    part = "text_config" if found["tower"] == "language_model.model" else "vision_config"
    kept, all_ = (getattr(c, part).num_hidden_layers for c in (config, whole))
    return bool(kept <= int(found["number"]) < all_)


def read_config(folder: Path) -> Any:
    """Return the library's configuration for the checkpoint in `folder`.

    Raises `WrongCheckpoint` for settings that the library's classes do not have.
    """
    return to_native_config(json.loads((folder / "config.json").read_text()), name=folder.name)


def to_native_config(config: Mapping[str, Any], *, name: str) -> Any:
    """Return the transformers `InternVLConfig` with the numbers of an `internvl_chat` configuration."""
    from transformers import InternVLConfig, InternVLVisionConfig, LlamaConfig

    vision, text = config["vision_config"], config["llm_config"]
    side = vision["image_size"]
    _need(name, _NEEDED, config)
    _need(name, {"model_type": "internlm2"}, text)
    _need(name, {"force_image_size": side}, config)
    if vision["qk_normalization"]:
        _need(
            name, {"layer_norm_eps": 1e-6}, vision
        )  # the library's own norm of queries and keys has no other
    return InternVLConfig(
        # initializer_range stays the library's: 1e-10 in the 6B tower, which random weights would be drawn with
        vision_config=InternVLVisionConfig(
            attention_bias=vision["qkv_bias"],
            use_qk_norm=vision["qk_normalization"],
            **_some(vision, "hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act "
                            "image_size patch_size num_channels norm_type layer_norm_eps"),
        ),
        text_config=LlamaConfig(
            attention_bias=text["bias"],
            rope_parameters=_rope(text),
            tie_word_embeddings=False,
            **_some(text, "hidden_size num_hidden_layers num_attention_heads num_key_value_heads intermediate_size "
                          "hidden_act vocab_size max_position_embeddings rms_norm_eps bos_token_id eos_token_id "
                          "pad_token_id"),
        ),
        image_token_id=CONTEXT_ID,
        downsample_ratio=config["downsample_ratio"],
        vision_feature_layer=config["select_layer"],
        tie_word_embeddings=False,
    )  # fmt: skip


def _rope(text: Mapping[str, Any]) -> dict[str, Any]:
    scaling = text.get("rope_scaling") or {"type": "default"}
    return {
        "rope_type": scaling["type"],
        "rope_theta": float(text["rope_theta"]),
        **({"factor": scaling["factor"]} if "factor" in scaling else {}),
    }


def _some(config: Mapping[str, Any], names: str) -> dict[str, Any]:
    return {name: config[name] for name in names.split()}


def _need(name: str, needed: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    for key, value in needed.items():
        if config.get(key) != value:
            raise WrongCheckpoint(
                f"an InternVL2 checkpoint that can be read has {key} = {value!r}, but {name} has {config.get(key)!r}; "
                "it is another model of the family: use one that its own card names"
            )


class SpecialTokens:
    """The special tokens of InternVL2's tokenizer, by their ids in `tokenizer_config.json`.

    Its vocabulary is a SentencePiece model with code around it, which is not opened, so only text made of special
    tokens can be encoded: enough to put an image before the language model.
    """

    def __init__(self, ids: Mapping[str, int]):
        self.ids = dict(ids)
        self.pad_token_id = self.ids["</s>"]

    @classmethod
    def read(cls, folder: Path) -> SpecialTokens:
        """Read the tokenizer settings in `folder`. Raises `WrongCheckpoint` when a token we need has no id there."""
        path = folder / "tokenizer_config.json"
        entries = json.loads(path.read_text()).get("added_tokens_decoder", {}) if path.is_file() else {}
        ids = {entry["content"]: int(number) for number, entry in entries.items()}
        needed: Iterable[str] = ("<s>", "</s>", "<img>", "</img>", "<IMG_CONTEXT>")
        if missing := [token for token in needed if token not in ids]:
            raise WrongCheckpoint(
                f"tokenizer_config.json lists the ids of the special tokens, but in {folder.name} "
                f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not among them; copy that file again"
            )
        if ids["<IMG_CONTEXT>"] != CONTEXT_ID:
            raise WrongCheckpoint(
                f"<IMG_CONTEXT> is token {CONTEXT_ID} of InternVL2, but {ids['<IMG_CONTEXT>']} in {folder.name}; "
                "its tokenizer is of another model: copy the checkpoint again"
            )
        return cls(ids)

    def __call__(self, text: str) -> dict[str, list[int]]:
        """Return the ids of `text`. Raises `ValueError` when it is more than special tokens."""
        pattern = "|".join(sorted(map(re.escape, self.ids), key=len, reverse=True))
        if rest := re.sub(pattern, "", text):
            raise ValueError(
                f"before an image of InternVL2 stand special tokens alone, because its vocabulary needs code of its "
                f"own, but got {rest!r}; leave that text out"
            )
        return {"input_ids": [self.ids[token] for token in re.findall(pattern, text)]}

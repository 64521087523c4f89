"""InternVL2: its own layout read as the library's classes, weight by weight and output by output."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import linear
from transformers import InternVLForConditionalGeneration

from foresight import models
from foresight.models import internvl2_keys
from foresight.models.internvl import InternVision
from foresight.models.internvl2_keys import SpecialTokens, read_config, to_native, to_native_config
from foresight.models.loading import WrongCheckpoint
from tests.conftest import frames_of

SPECIAL = {"<unk>": 0, "<s>": 1, "</s>": 2, "<|im_end|>": 92542, "<|im_start|>": 92543, "<img>": 92544,
           "</img>": 92545, "<IMG_CONTEXT>": 92546}  # fmt: skip

TOWERS = {
    "internvl2-8b": {"qkv_bias": True, "qk_normalization": False, "norm_type": "layer_norm"},
    "internvl2-26b": {"qkv_bias": False, "qk_normalization": True, "norm_type": "rms_norm"},
}
"""How the towers of 300 M and of 6 B parameters differ besides their size."""


def published(
    name: str, *, vision: dict[str, Any], text: dict[str, Any], image: int, patch: int
) -> dict[str, Any]:
    """Return a configuration as the published checkpoints have it, with the given numbers."""
    return {
        "model_type": "internvl_chat", "architectures": ["InternVLChatModel"], "downsample_ratio": 0.5,
        "force_image_size": image, "max_dynamic_patch": 12, "min_dynamic_patch": 1, "ps_version": "v2",
        "select_layer": -1, "use_thumbnail": True, "dynamic_image_size": True, "template": "internlm2-chat",
        "vision_config": {"model_type": "intern_vit_6b", "image_size": image, "patch_size": patch, "num_channels": 3,
                          "hidden_act": "gelu", "layer_norm_eps": 1e-6, "initializer_range": 1e-10,
                          **TOWERS[name], **vision},
        "llm_config": {"model_type": "internlm2", "architectures": ["InternLM2ForCausalLM"], "bias": False,
                       "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 32768,
                       "rope_scaling": {"factor": 2.0, "type": "dynamic"}, "rope_theta": 1000000,
                       "vocab_size": 92553, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, **text},
    }  # fmt: skip


def tiny(name: str) -> dict[str, Any]:
    return published(
        name,
        vision={"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48},
        # three query heads share a key: groups of 3 + 1 + 1
        text={"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
              "intermediate_size": 20},
        image=64,
        patch=8,
    )  # fmt: skip


def card(name: str) -> models.Card:
    """Return the real card with the numbers of the tiny configuration."""
    real, config = models.get(name), tiny(name)
    vision = {k: config["vision_config"][k] for k in ("num_hidden_layers", "hidden_size", "norm_type")}
    vision |= {"image_size": [64, 64], "patch_size": [8, 8]}
    text = {k: config["llm_config"][k] for k in ("num_hidden_layers", "hidden_size")}
    return dataclasses.replace(real, config=dict(real.config) | {"vision": vision, "text": text})


def fused(native: dict[str, torch.Tensor], *, groups: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the library's weights under InternVL2's names, written down from its published modules."""
    outer = {
        "model.vision_tower.embeddings.cls_token": "vision_model.embeddings.class_embedding",
        "model.vision_tower.embeddings.position_embeddings": "vision_model.embeddings.position_embedding",
        "model.vision_tower.embeddings.patch_embeddings.projection": "vision_model.embeddings.patch_embedding",
        "model.multi_modal_projector.layer_norm": "mlp1.0",
        "model.multi_modal_projector.linear_1": "mlp1.1",
        "model.multi_modal_projector.linear_2": "mlp1.3",
        "model.language_model.embed_tokens": "language_model.model.tok_embeddings",
        "model.language_model.norm": "language_model.model.norm",
        "lm_head": "language_model.output",
    }
    inner = {
        "attention.projection_layer": "attn.proj", "attention.q_norm": "attn.q_norm",
        "attention.k_norm": "attn.k_norm", "layernorm_before": "norm1", "layernorm_after": "norm2",
        "lambda_1": "ls1", "lambda_2": "ls2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
        "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
        "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    for key, value in native.items():
        stem, kind = key.rsplit(".", 1) if key.endswith((".weight", ".bias")) else (key, "")
        tail = f".{kind}" if kind else ""
        if stem in outer:
            yield outer[stem] + tail, value
            continue
        vision = key.startswith("model.vision_tower")
        where = "vision_model.encoder.layers" if vision else "language_model.model.layers"
        number, part = stem.split(".layer." if vision else ".layers.")[1].split(".", 1)
        if part.endswith("q_proj"):
            q, k, v = (native[key.replace("q_proj", f"{n}_proj")] for n in "qkv")
            if vision:
                yield f"{where}.{number}.attn.qkv{tail}", torch.cat([q, k, v])
            else:
                grouped = zip(q.chunk(groups), k.chunk(groups), v.chunk(groups), strict=True)
                together = torch.cat([part for group in grouped for part in group])
                yield f"{where}.{number}.attention.wqkv{tail}", together
        elif not part.endswith(("k_proj", "v_proj")):
            yield f"{where}.{number}.{inner[part]}{tail}", value


@pytest.fixture(scope="module", params=sorted(TOWERS))
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Any]:
    """The name of a card, a checkpoint in InternVL2's layout, and the library's model it was written from."""
    name, folder = request.param, tmp_path_factory.mktemp("internvl2") / request.param
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(tiny(name)))
    added = {str(i): {"content": token} for token, i in SPECIAL.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    native = InternVLForConditionalGeneration._from_config(read_config(folder)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in native.parameters():  # norms and zeros too: no two weights may be exchanged unseen
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    weights = dict(fused(native.state_dict(), groups=2))
    first = sorted(weights)[: len(weights) // 2]
    for number, names in enumerate([first, sorted(set(weights) - set(first))], start=1):
        part = {n: weights[n].contiguous().clone() for n in names}
        save_file(part, folder / f"model-{number:05}-of-00002.safetensors", metadata={"format": "pt"})
    return name, folder, native


def load(
    name: str, folder: Path, *, kind: Any = "path", dtype: str = "float32", points: list[str] | None = None
) -> InternVision:
    ref = models.ModelRef(card=card(name), kind=kind, value="0" if kind == "random" else str(folder))
    return models.family(ref.card).load(
        ref, folder, device="cpu", dtype=dtype, attention="sdpa", points=points
    )


@pytest.mark.parametrize(
    ("asked", "blocks", "layers"), [(["vit.1"], 1, 0), (["projected"], 2, 0), (["llm.1"], 2, 1)]
)
def test_layers_that_no_point_needs_are_not_read_and_the_others_give_the_same_bits(
    checkpoint: tuple[str, Path, Any],
    monkeypatch: pytest.MonkeyPatch,
    asked: list[str],
    blocks: int,
    layers: int,
) -> None:
    name, folder, _ = checkpoint
    batch = [frames_of(70, 150), frames_of(64, 64, seed=1)]
    expected = load(name, folder).extract(batch, asked)
    plain, read = internvl2_keys.to_native, []

    def watched(key: str, value: torch.Tensor, **more: int) -> Any:
        read.append(key)
        return plain(key, value, **more)

    monkeypatch.setattr(internvl2_keys, "to_native", watched)
    some = load(name, folder, points=asked)
    assert {k.split(".")[3] for k in read if k.startswith("vision_model.encoder")} == {
        *map(str, range(blocks))
    }
    assert {k.split(".")[3] for k in read if k.startswith("language_model.model.layers")} == {
        *map(str, range(layers))
    }
    for mine, theirs in zip(some.extract(batch, asked), expected, strict=True):
        assert all(torch.equal(mine[p].values, theirs[p].values) for p in asked)


def test_a_checkpoint_in_its_own_layout_gives_the_librarys_weights_and_outputs_bit_by_bit(
    checkpoint: tuple[str, Path, Any],
) -> None:
    name, folder, native = checkpoint
    vlm = load(name, folder)
    ours, theirs = vlm.model.state_dict(), native.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    inputs = vlm.prepare([frames_of(70, 150), frames_of(64, 64, time=2, seed=1)])
    with torch.no_grad():
        assert torch.equal(vlm.model(**inputs).logits, native(**inputs).logits)
    points = [p.name for p in models.points(vlm.card)]
    reference = InternVision(vlm.card, native, vlm.tokenizer, vlm.image_processor, clip_text=vlm.clip_text)
    batch = [frames_of(70, 150), frames_of(64, 64, seed=1)]
    for a, b in zip(vlm.extract(batch, points), reference.extract(batch, points), strict=True):
        assert all(torch.equal(a[p].values, b[p].values) for p in points)


def test_fused_matrices_give_the_queries_keys_and_values_their_own_model_takes_from_them(
    checkpoint: tuple[str, Path, Any],
) -> None:
    name, folder, _ = checkpoint
    weights: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        weights |= load_file(file)
    model = load(name, folder).model.model
    x = torch.randn(5, 24, generator=torch.Generator().manual_seed(1))
    mixed = linear(x, weights["language_model.model.layers.1.attention.wqkv.weight"])
    # InternLM2: 'token (group slot feature)', the last two slots of a group being its key and its value
    slots = mixed.reshape(5, 2, 5, 4)
    attention = model.language_model.layers[1].self_attn
    torch.testing.assert_close(attention.q_proj(x).reshape(5, 2, 3, 4), slots[:, :, :3])
    torch.testing.assert_close(attention.k_proj(x).reshape(5, 2, 4), slots[:, :, 3])
    torch.testing.assert_close(attention.v_proj(x).reshape(5, 2, 4), slots[:, :, 4])
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(2))
    bias = weights.get("vision_model.encoder.layers.0.attn.qkv.bias")
    mixed = linear(x, weights["vision_model.encoder.layers.0.attn.qkv.weight"], bias).reshape(5, 3, 32)
    attention = model.vision_tower.encoder.layer[0].attention
    for n, projection in enumerate([attention.q_proj, attention.k_proj, attention.v_proj]):
        torch.testing.assert_close(projection(x), mixed[:, n])


def published_weights(name: str, config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes as the published checkpoint lists them."""
    vision, text = config["vision_config"], config["llm_config"]
    v, i, cells = vision["hidden_size"], vision["intermediate_size"], (448 // 14) ** 2
    yield "vision_model.embeddings.class_embedding", (1, 1, v)
    yield "vision_model.embeddings.position_embedding", (1, cells + 1, v)
    yield "vision_model.embeddings.patch_embedding.weight", (v, 3, 14, 14)
    yield "vision_model.embeddings.patch_embedding.bias", (v,)
    for layer in range(vision["num_hidden_layers"]):
        stem = f"vision_model.encoder.layers.{layer}"
        yield f"{stem}.attn.qkv.weight", (3 * v, v)
        yield from ((f"{stem}.{n}", (v,)) for n in ("ls1", "ls2", "attn.proj.bias", "mlp.fc2.bias"))
        yield from ((f"{stem}.{n}.weight", (v,)) for n in ("norm1", "norm2"))
        if TOWERS[name]["qk_normalization"]:
            yield from ((f"{stem}.attn.{n}.weight", (v,)) for n in ("q_norm", "k_norm"))
        else:
            yield f"{stem}.attn.qkv.bias", (3 * v,)
            yield from ((f"{stem}.{n}.bias", (v,)) for n in ("norm1", "norm2"))
        yield f"{stem}.attn.proj.weight", (v, v)
        yield f"{stem}.mlp.fc1.weight", (i, v)
        yield f"{stem}.mlp.fc1.bias", (i,)
        yield f"{stem}.mlp.fc2.weight", (v, i)
    t, m = text["hidden_size"], text["intermediate_size"]
    yield from (("mlp1.0.weight", (4 * v,)), ("mlp1.0.bias", (4 * v,)), ("mlp1.1.weight", (t, 4 * v)))
    yield from (("mlp1.1.bias", (t,)), ("mlp1.3.weight", (t, t)), ("mlp1.3.bias", (t,)))
    yield "language_model.model.tok_embeddings.weight", (92553, t)
    for layer in range(text["num_hidden_layers"]):
        stem = f"language_model.model.layers.{layer}"
        both = 1 + 2 * text["num_key_value_heads"] / text["num_attention_heads"]
        yield f"{stem}.attention.wqkv.weight", (int(t * both), t)
        yield f"{stem}.attention.wo.weight", (t, t)
        yield from ((f"{stem}.feed_forward.{n}.weight", (m, t)) for n in ("w1", "w3"))
        yield f"{stem}.feed_forward.w2.weight", (t, m)
        yield from ((f"{stem}.{n}.weight", (t,)) for n in ("attention_norm", "ffn_norm"))
    yield "language_model.model.norm.weight", (t,)
    yield "language_model.output.weight", (92553, t)


REAL = {
    "internvl2-8b": (
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
        {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
         "intermediate_size": 14336},
    ),
    "internvl2-26b": (
        {"hidden_size": 3200, "num_hidden_layers": 45, "num_attention_heads": 25, "intermediate_size": 12800},
        {"hidden_size": 6144, "num_hidden_layers": 48, "num_attention_heads": 48, "num_key_value_heads": 8,
         "intermediate_size": 16384},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(REAL))
def test_the_published_names_and_shapes_fill_the_librarys_model_exactly(name: str) -> None:
    vision, text = REAL[name]
    config = published(name, vision=vision, text=text, image=448, patch=14)
    with torch.device("meta"):
        native = InternVLForConditionalGeneration(to_native_config(config, name=name)).state_dict()
        found: dict[str, torch.Tensor] = {}
        for key, shape in published_weights(name, config):
            pairs = to_native(
                key,
                torch.empty(shape),
                heads=text["num_attention_heads"],
                groups=text["num_key_value_heads"],
            )
            for target, value in pairs:
                assert target not in found
                found[target] = value
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in native.items()}
    parameters = sum(v.numel() for v in native.values())
    assert parameters == models.get(name).parameters
    if name == "internvl2-8b":
        assert 2 * parameters == 16_150_730_752  # `total_size` of the published index, in bytes of bfloat16


def changed(checkpoint: Path, place: Path, **weights: torch.Tensor | None) -> Path:
    """Copy a checkpoint with weights added (a tensor) or left out (None)."""
    place.mkdir(exist_ok=True)
    for file in checkpoint.iterdir():
        if file.suffix == ".json":
            (place / file.name).write_bytes(file.read_bytes())
            continue
        kept = {k: v for k, v in load_file(file).items() if k not in weights}
        if "00001" in file.name:
            kept |= {k: v for k, v in weights.items() if v is not None}
        save_file(kept, place / file.name, metadata={"format": "pt"})
    return place


def test_a_weight_without_a_place_is_refused(checkpoint: tuple[str, Path, Any], tmp_path: Path) -> None:
    name, folder, _ = checkpoint
    for key in ("vision_model.encoder.layers.0.attn.rel_pos", "language_model.model.layers.0.attention.wqkv.lora_A",
                "qllama.norm.weight", "mlp1.2.weight"):  # fmt: skip
        other = changed(folder, tmp_path / "copy", **{key: torch.zeros(3)})
        with pytest.raises(WrongCheckpoint, match=f"also holds {key}; it is another model"):
            load(name, other)
    deeper = changed(folder, tmp_path / "copy", **{"vision_model.encoder.layers.2.ls1": torch.zeros(32)})
    with pytest.raises(WrongCheckpoint, match="weights for 1 places that its configuration does not have"):
        load(name, deeper)


def test_a_missing_weight_and_one_of_another_shape_are_refused(
    checkpoint: tuple[str, Path, Any], tmp_path: Path
) -> None:
    name, folder, _ = checkpoint
    key = "language_model.model.layers.0.attention.wqkv.weight"
    with pytest.raises(WrongCheckpoint, match="lacks 3 of them"):
        load(name, changed(folder, tmp_path / "copy", **{key: None}))
    with pytest.raises(WrongCheckpoint, match=r"lm_head.weight of .* is \[92553, 24\] .* holds \[7, 24\]"):
        load(name, changed(folder, tmp_path / "copy", **{"language_model.output.weight": torch.zeros(7, 24)}))


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("", "ps_version", "v1"),
        ("", "select_layer", -4),
        ("", "use_thumbnail", False),
        ("", "max_dynamic_patch", 6),
        ("", "force_image_size", 224),
        ("llm_config", "model_type", "phi3"),
    ],
)
def test_a_setting_the_librarys_classes_do_not_have_is_refused(part: str, key: str, value: Any) -> None:
    config = tiny("internvl2-8b")
    (config[part] if part else config)[key] = value
    with pytest.raises(WrongCheckpoint, match=f"that can be read has {key} = .*, but here has {value!r}"):
        to_native_config(config, name="here")


def test_a_checkpoint_of_another_layout_or_depth_is_refused(
    checkpoint: tuple[str, Path, Any], tmp_path: Path
) -> None:
    name, folder, _ = checkpoint
    ref = models.parse_ref("internvl-tiny")
    models.family(ref.card).load(ref, None, device="cpu", dtype="float32", attention="sdpa").save(tmp_path)
    with pytest.raises(WrongCheckpoint, match=r"is a internvl_chat, but the checkpoint in .* is a internvl;"):
        load(name, tmp_path)
    real = models.parse_ref(f"{name}@path:{folder}")
    with pytest.raises(WrongCheckpoint, match="declares vision num_hidden_layers"):
        models.family(real.card).load(real, folder, device="cpu", dtype="float32", attention="sdpa")


def test_half_precision_and_random_weights_are_made_from_the_same_folder(
    checkpoint: tuple[str, Path, Any],
) -> None:
    name, folder, native = checkpoint
    half = load(name, folder, dtype="bfloat16")
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}
    random, again = (load(name, folder, kind="random") for _ in range(2))
    key = "model.vision_tower.encoder.layer.0.attention.q_proj.weight"
    drawn, same = (m.model.state_dict()[key] for m in (random, again))
    assert torch.equal(drawn, same)
    assert float(drawn.std()) > 0.01  # not the 1e-10 of the tower's configuration
    assert not torch.equal(drawn, native.state_dict()[key])
    assert bool(random.extract([frames_of(64, 64)], ["vit.out"])[0]["vit.out"].values.isfinite().all())


def test_the_image_stands_behind_the_first_token_of_a_text_and_frames_behind_each_other(
    checkpoint: tuple[str, Path, Any],
) -> None:
    name, folder, _ = checkpoint
    inputs = load(name, folder).prepare([frames_of(64, 64), frames_of(64, 64, time=2)])
    image = [92544, *[92546] * 16, 92545]
    assert inputs["input_ids"].tolist() == [[1, *image, *[2] * 18], [1, *image, *image]]
    assert inputs["attention_mask"].sum(dim=1).tolist() == [19, 37]


def test_text_beyond_special_tokens_and_other_tokenizers_are_refused(tmp_path: Path) -> None:
    tokens = SpecialTokens(SPECIAL)
    assert tokens("<s><|im_start|><img>") == {"input_ids": [1, 92543, 92544]}
    with pytest.raises(ValueError, match=r"special tokens alone.*but got 'user'"):
        tokens("<s>user<img>")
    with pytest.raises(WrongCheckpoint, match="<s>, </s>, <img>, </img>, <IMG_CONTEXT> are not among them"):
        SpecialTokens.read(tmp_path)
    added = {str(i + 1): {"content": token} for token, i in SPECIAL.items()}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    with pytest.raises(WrongCheckpoint, match="is token 92546 of InternVL2, but 92547"):
        SpecialTokens.read(tmp_path)


def test_real_cards_have_the_plans_points_where_the_plans_put_them() -> None:
    for name, depth, vision, text in [("internvl2-8b", 24, 1024, 4096), ("internvl2-26b", 45, 3200, 6144)]:
        plans = {label: p for p in models.points(models.get(name)) for label in p.plans}
        assert {label: p.name for label, p in plans.items()} == {
            "I1": "vit.24", "I2": "vit.out", "I3.in": "shuffled", "I3": "projected", "I4": "llm.8", "I5": "llm.16",
        }  # fmt: skip
        assert [plans[i].width for i in ("I1", "I3.in", "I3")] == [vision, 4 * vision, text]
        assert sum(p.name.startswith("vit.") for p in models.points(models.get(name))) == depth + 1

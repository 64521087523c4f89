"""LLaVA-Interleave: every token at its place in the stretched image, values of the plain forward, nothing leaking."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from foresight import models
from foresight.models.llava_interleave import LlavaInterleave
from foresight.nouns import Frames
from tests.conftest import frames_of
from tests.foresight.models.values import TOLERANCE, ramp, relative

CARD = models.get("llava-interleave-tiny")
FAMILY = models.family(CARD)
POINTS = [p.name for p in models.points(CARD)]
SIZES = [(64, 64), (30, 57), (101, 33), (44, 44)]


def loaded() -> LlavaInterleave:
    ref = models.parse_ref("llava-interleave-tiny")
    return FAMILY.load(ref, None, device="cpu", dtype="float32", attention="sdpa")


@pytest.fixture(scope="module")
def vlm() -> LlavaInterleave:
    return loaded()


# --- planted places ---------------------------------------------------------------------------------------------

CONSTANT = 100.0
"""What every patch carries beside its colour: a norm changes both alike, so colour is read as their ratio."""


@pytest.fixture(scope="module")
def see_through() -> LlavaInterleave:
    """The model with weights by which every block hands on what it is given: each token tells its mean colour."""
    model = loaded()
    core = model.model.model
    embeddings, projector = core.vision_tower.embeddings, core.multi_modal_projector
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.zero_()
        for colour in range(3):
            embeddings.patch_embedding.weight[colour, colour] = 1 / 64
        embeddings.position_embedding.weight[:, 3] = CONSTANT
        projector.linear_1.weight.copy_(torch.eye(64, 48))
        projector.linear_1.bias.fill_(20)  # so far up that the activation between the two changes nothing
        projector.linear_2.weight.copy_(torch.eye(64))
        projector.linear_2.bias.fill_(-20)
        core.language_model.norm.weight.fill_(1)
    return model


def test_every_token_carries_the_place_frame_and_sample_it_claims_at_every_point(
    see_through: LlavaInterleave,
) -> None:
    batch = [ramp(*size, sample=i, time=1 + 2 * (i % 2)) for i, size in enumerate(SIZES)]
    for sample, (frames, tokens) in enumerate(zip(batch, see_through.extract(batch, ["all"]), strict=True)):
        assert set(tokens) == set(POINTS)
        for found in tokens.values():
            colour = 255 * ((found.values[:, :3] / found.values[:, 3:4] * CONSTANT).numpy() * 0.5 + 0.5)
            # a tenth of a cell: ramps of eight bits, rounded twice; half a cell too far is caught
            for axis, (claimed, side) in enumerate(
                zip((found.col, found.row), frames.size[::-1], strict=True)
            ):
                assert np.abs(colour[:, axis] * side / 255 - claimed).max() < 0.1 * side * 8 / 44
            frame = np.round(found.time_s / 0.5)
            assert np.abs(colour[:, 2] - (20 + 8 * sample + 60 * frame)).max() < 1


def test_the_last_pixels_of_the_square_are_seen_by_no_token(vlm: LlavaInterleave) -> None:
    frames = frames_of(44, 44)
    for start, end, seen in ((40, 44, False), (36, 40, True)):
        pixels = frames.pixels.copy()
        pixels[:, :, start:end] = 255 - pixels[:, :, start:end]
        changed = Frames(pixels=pixels, times_s=frames.times_s)
        before, after = (vlm.extract([f], ["projected"])[0]["projected"] for f in (frames, changed))
        assert torch.equal(before.values, after.values) is not seen
    assert before.col.max() == 36


# --- against the plain forward ----------------------------------------------------------------------------------


def test_extraction_equals_the_plain_forward_at_every_point(vlm: LlavaInterleave) -> None:
    batch = [frames_of(*size, seed=i) for i, size in enumerate(SIZES)]
    inputs = vlm.prepare(batch)
    core = vlm.model.model
    with torch.no_grad():
        plain = core(**inputs, output_hidden_states=True, use_cache=False)
        tower = core.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states
        features = core.get_image_features(inputs["pixel_values"]).pooler_output
    for image, tokens in enumerate(vlm.extract(batch, ["all"])):
        mine = inputs["input_ids"][image] == vlm.model.config.image_token_id
        expected = {"projected": features[image], "llm.final": plain.last_hidden_state[image][mine]}
        expected |= {
            name: tower[layer][image] for layer, name in enumerate(["patch", "vit.1", "vit.2", "vit.3"])
        }
        expected |= {f"llm.{k}": plain.hidden_states[k][image][mine] for k in (1, 2, 3)}
        for name, values in expected.items():
            assert relative(tokens[name].values, values) < TOLERANCE
        last = core.language_model.norm(tokens["llm.4"].values).detach()
        assert relative(last, tokens["llm.final"].values) < TOLERANCE


def test_the_models_inputs_are_its_own_processors(vlm: LlavaInterleave) -> None:
    batch = [frames_of(*size, seed=i) for i, size in enumerate(SIZES)]
    own = LlavaProcessor(
        vlm.image_processor, vlm.tokenizer, patch_size=8, vision_feature_select_strategy="full"
    )
    images = [torch.from_numpy(f.pixels[0]).permute(2, 0, 1) for f in batch]
    expected = own(images=images, text=[vlm.card.prompt_prefix + "<image>"] * len(batch), return_tensors="pt")
    inputs = vlm.prepare(batch)
    for name in ("input_ids", "attention_mask", "pixel_values"):
        assert torch.equal(inputs[name], expected[name])


def test_each_frame_is_an_image_of_its_own_and_neighbours_do_not_change_it(vlm: LlavaInterleave) -> None:
    clip = frames_of(37, 91, time=3)
    crowd = vlm.extract([frames_of(64, 64, seed=5), clip, frames_of(30, 57, seed=6)], ["all"])[1]
    for t in range(3):
        still = Frames(pixels=clip.pixels[t : t + 1], times_s=clip.times_s[t : t + 1])
        for name, alone in vlm.extract([still], ["all"])[0].items():
            here = slice(25 * t, 25 * (t + 1))
            assert relative(crowd[name].values[here], alone.values) < TOLERANCE
            assert crowd[name].time_s[here].tolist() == [clip.times_s[t]] * 25
            assert crowd[name].row[here].tolist() == alone.row.tolist()


# --- cards and checkpoints --------------------------------------------------------------------------------------

VISION: dict[str, Any] = {"model_type": "siglip_vision_model", "hidden_size": 1152, "image_size": 384,
                          "intermediate_size": 4304, "num_attention_heads": 16, "num_hidden_layers": 26,
                          "patch_size": 14, "vision_use_head": False}  # fmt: skip
TEXT: dict[str, dict[str, Any]] = {
    "llava-interleave-qwen-0.5b": {"model_type": "qwen2", "hidden_size": 1024, "intermediate_size": 2816,
                                   "num_attention_heads": 16, "num_hidden_layers": 24,
                                   "num_key_value_heads": 16, "tie_word_embeddings": True,
                                   "vocab_size": 152000},
    "llava-interleave-qwen-7b": {"model_type": "qwen2", "intermediate_size": 11008, "vocab_size": 152000},
}  # fmt: skip


@pytest.mark.parametrize("name", TEXT)
def test_real_cards_have_the_published_architecture(name: str) -> None:
    card = models.get(name)
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(LlavaConfig(vision_config=VISION, text_config=TEXT[name]))
    model.tie_weights()
    count = sum(p.numel() for p in model.parameters())
    assert card.parameters == count
    assert card.memory_gib == round(2 * count / 2**30, 1)
    modules = dict(model.named_modules())
    assert all(p.path in modules for p in models.points(card))
    plans = {plan: p.name for p in models.points(card) for plan in p.plans}
    layers = card.config["text"]["num_hidden_layers"]
    assert plans == {"L1": "vit.26", "L2": "projected", "L3": f"llm.{layers // 4}",
                     "L4": f"llm.{layers // 2}", "L5": f"llm.{layers}"}  # fmt: skip
    assert FAMILY.grid(card, models.points(card)[0], (448, 448), 1) == (1, 27, 27)
    assert str(models.parse_ref(name)) == f"{name}@{card.revision}"


def read(folder: Path, card: models.Card = CARD) -> LlavaInterleave:
    ref = models.ModelRef(card=card, kind="path", value=str(folder))
    return models.family(card).load(ref, folder, device="cpu", dtype="float32", attention="sdpa")


def test_the_checkpoint_of_another_model_is_refused(vlm: LlavaInterleave, tmp_path: Path) -> None:
    vlm.save(tmp_path)
    other = dict(CARD.config) | {"model": {**CARD.config["model"], "vision_feature_layer": -2}}
    with pytest.raises(ValueError, match="declares vision_feature_layer = -2, but the checkpoint has -1"):
        read(tmp_path, dataclasses.replace(CARD, config=other))
    with pytest.raises(ValueError, match=r"is a llava_next, but the checkpoint in .* is a llava;"):
        read(tmp_path, models.get("llava-next-tiny"))

    processor = tmp_path / "preprocessor_config.json"
    settings = json.loads(processor.read_text())
    processor.write_text(json.dumps(settings | {"size": {"height": 64, "width": 64}}))
    with pytest.raises(ValueError, match="declares squares of 44 px"):
        read(tmp_path)
    processor.unlink()
    with pytest.raises(ValueError, match=r"no preprocessor_config\.json; copy the whole checkpoint"):
        read(tmp_path)

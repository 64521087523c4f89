"""CLIP and SigLIP towers: places kept true through the processor's crop or stretch, values of the plain forward."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from foresight import models
from foresight.models.encoders import FrameEncoder
from foresight.models.loading import WrongCheckpoint
from foresight.nouns import Frames
from tests.conftest import frames_of
from tests.foresight.models.encoders_planted import (
    assert_kinds,
    assert_the_place_responds,
    drawn,
)
from tests.foresight.models.values import TOLERANCE, relative

CLIP, SIGLIP = "clip-tiny", "siglip-tiny"
LOAD = {"device": "cpu", "dtype": "float32", "attention": "sdpa"}


@pytest.fixture(scope="module", params=[CLIP, SIGLIP])
def encoder(request: pytest.FixtureRequest) -> FrameEncoder:
    return drawn(request.param)


def names(encoder: FrameEncoder) -> list[str]:
    return [p.name for p in models.points(encoder.card)]


def seen_by_hand(encoder: FrameEncoder, frames: Frames) -> torch.Tensor:
    """Return the model's pixels by the published rule: resize the short side and crop, or stretch; normalise."""
    pixels = torch.from_numpy(frames.pixels.copy()).permute(0, 3, 1, 2)
    height, width = frames.size
    if encoder.card.name == CLIP:
        size = [int(64 * height / min(frames.size)), int(64 * width / min(frames.size))]
        mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    else:
        size, mean, std = [64, 64], [0.5] * 3, [0.5] * 3
    if size != [height, width]:
        pixels = tv.resize(pixels, size, interpolation=tv.InterpolationMode.BICUBIC, antialias=True)
    top, left = (size[0] - 64) // 2, (size[1] - 64) // 2
    pixels = pixels[..., top : top + 64, left : left + 64]
    return (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def test_the_patch_that_claims_a_place_is_the_one_that_responds_to_it(encoder: FrameEncoder) -> None:
    batch = [
        frames_of(64, 64),
        frames_of(61, 131, seed=1),
        frames_of(90, 70, time=2, seed=2),
        frames_of(64, 100, seed=3),
    ]
    assert_the_place_responds(encoder, batch, names(encoder))


@pytest.mark.parametrize("size", [(64, 64), (61, 131), (90, 70)])
def test_values_are_those_of_the_plain_forward_with_patches_first(
    encoder: FrameEncoder, size: tuple[int, int]
) -> None:
    frames = frames_of(*size, time=2)
    ours = encoder.extract([frames], ["all"])[0]
    with torch.no_grad():
        plain = encoder.model(seen_by_hand(encoder, frames), output_hidden_states=True)
    states = [*plain.hidden_states]
    if encoder.card.name == SIGLIP:
        states.append(plain.last_hidden_state)
    first = 1 if encoder.card.name == CLIP else 0
    for point, state in zip(names(encoder), states, strict=True):
        width = state.shape[-1]
        expected = torch.cat([state[:, first:].reshape(-1, width), state[:, :first].reshape(-1, width)])
        assert ours[point].grid == (2, 8, 8)
        assert relative(ours[point].values, expected) < TOLERANCE


def test_clip_cuts_the_middle_out_and_its_places_say_so() -> None:
    tokens = drawn(CLIP).extract([frames_of(32, 80)], ["vit.1"])[0]["vit.1"]
    # 32 x 80 becomes 64 x 160; columns 48 to 112 of that are 24 to 56 of the frame
    np.testing.assert_allclose(tokens.col[:8], 24 + (np.arange(8) + 0.5) * 4, rtol=1e-6)
    np.testing.assert_allclose(tokens.row[:64:8], (np.arange(8) + 0.5) * 4, rtol=1e-6)


def test_siglip_stretches_so_that_every_part_of_the_frame_has_a_patch() -> None:
    tokens = drawn(SIGLIP).extract([frames_of(32, 80)], ["vit.1"])[0]["vit.1"]
    np.testing.assert_allclose(tokens.col[:8], (np.arange(8) + 0.5) * 10, rtol=1e-6)
    np.testing.assert_allclose(tokens.row[::8], (np.arange(8) + 0.5) * 4, rtol=1e-6)


def test_what_clip_cuts_away_changes_nothing() -> None:
    encoder, frames = drawn(CLIP), frames_of(32, 80)
    pixels = frames.pixels.copy()
    pixels[:, :, :20] = 255 - pixels[:, :, :20]  # bicubic reaches 2 px beyond column 24
    other = Frames(pixels=pixels, times_s=frames.times_s)
    a, b = (encoder.extract([f], ["vit.4"])[0]["vit.4"] for f in (frames, other))
    assert torch.equal(a.values, b.values)


def test_only_clip_has_a_class_token_and_it_follows_the_patches(encoder: FrameEncoder) -> None:
    leading = ["class"] if encoder.card.name == CLIP else []
    for tokens in encoder.extract([frames_of(64, 64, time=3)], ["all"])[0].values():
        assert_kinds(tokens, leading, [0.0, 0.25, 0.5])


def test_sizes_stills_and_clips_share_one_pass(encoder: FrameEncoder) -> None:
    batch = [frames_of(64, 64), frames_of(90, 70, time=3, seed=1), frames_of(61, 131, seed=2)]
    passes = encoder.forwards
    encoder.extract(batch, ["all"])
    assert encoder.forwards == passes + 1


@pytest.mark.parametrize("name", [CLIP, SIGLIP])
def test_the_tower_is_read_out_of_a_whole_checkpoint_without_a_word_about_its_text_half(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    card = models.get(name)
    vision = {k: v for k, v in card.config.items() if k != "kind"}
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
            "vocab_size": 50, "max_position_embeddings": 8}  # fmt: skip
    config_class, model_class = (CLIPConfig, CLIPModel) if name == CLIP else (SiglipConfig, SiglipModel)
    whole = model_class(config_class(text_config=text, vision_config=vision)).eval()
    whole.save_pretrained(tmp_path)
    capfd.readouterr()
    ref = models.parse_ref(f"{name}@path:{tmp_path}")
    tower = models.family(card).load(ref, tmp_path, **LOAD)
    assert "text_model" not in "".join(capfd.readouterr())
    with torch.no_grad():
        plain = whole.vision_model(seen_by_hand(tower, frames_of(61, 131)), output_hidden_states=True)
    first = 1 if name == CLIP else 0
    ours = tower.extract([frames_of(61, 131)], ["vit.3"])[0]["vit.3"]
    assert relative(ours.values[:64], plain.hidden_states[3][0, first:]) < TOLERANCE
    twin = ref.random_twin()
    drawn_after_it = models.family(card).load(twin, tmp_path, **LOAD)
    assert drawn_after_it.extract([frames_of(64, 64)], ["vit.3"])[0]["vit.3"].grid == (1, 8, 8)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    drawn(SIGLIP).save(tmp_path)
    with pytest.raises(WrongCheckpoint, match=r"is a clip_vision_model, but .* is a siglip_vision_model"):
        models.family(models.get(CLIP)).load(models.parse_ref(f"{CLIP}@path:{tmp_path}"), tmp_path, **LOAD)
    config = json.loads((tmp_path / "config.json").read_text()) | {"num_hidden_layers": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WrongCheckpoint, match="num_hidden_layers = 4, but the checkpoint has 3"):
        models.family(models.get(SIGLIP)).load(
            models.parse_ref(f"{SIGLIP}@path:{tmp_path}"), tmp_path, **LOAD
        )


@pytest.mark.parametrize(
    "card", [c for c in models.cards().values() if c.family == "clip"], ids=lambda c: c.name
)
def test_cards_count_the_parameters_of_their_classes(card: models.Card) -> None:
    vision = {k: v for k, v in card.config.items() if k != "kind"}
    clip = card.config["kind"] == "clip"
    with torch.device("meta"):
        model = (
            CLIPVisionModel(CLIPVisionConfig(**vision))
            if clip
            else SiglipVisionModel(SiglipVisionConfig(**vision))
        )
    assert sum(p.numel() for p in model.parameters()) == card.parameters
    modules = dict(model.named_modules())
    assert all(point.path in modules for point in models.points(card))


def test_published_token_counts() -> None:
    for name, counted in [("clip-l14-336", 577), ("siglip-so400m-384", 729)]:
        card = models.get(name)
        assert models.token_count(card, models.points(card)[1], card.size, 1) == counted

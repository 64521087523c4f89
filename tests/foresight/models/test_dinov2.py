"""DINOv2 with and without registers: every patch at its place, values of the plain forward."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from foresight import models
from foresight.models.encoders import FrameEncoder
from foresight.models.loading import WrongCheckpoint
from foresight.nouns import Frames
from tests.conftest import frames_of
from tests.foresight.models.encoders_planted import (
    assert_kinds,
    assert_the_place_responds,
    drawn,
    layer_calls,
)
from tests.foresight.models.values import TOLERANCE, relative

POINTS = ["patch", "vit.1", "vit.2", "vit.3", "vit.4", "vit.final"]
PLAIN, REGISTERS = "dinov2-tiny", "dinov2-reg-tiny"


@pytest.fixture(scope="module", params=[PLAIN, REGISTERS])
def encoder(request: pytest.FixtureRequest) -> FrameEncoder:
    return drawn(request.param)


def reference(encoder: FrameEncoder, frames: Frames, size: tuple[int, int]) -> list[torch.Tensor]:
    """Return the class's own hidden states, and what follows the norm, for frames resized by hand."""
    pixels = torch.from_numpy(frames.pixels.copy()).permute(0, 3, 1, 2)
    if frames.size != size:
        pixels = tv.resize(pixels, list(size), interpolation=tv.InterpolationMode.BICUBIC, antialias=True)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        plain = encoder.model(pixel_values=(pixels / 255 - mean) / std, output_hidden_states=True)
    return [*plain.hidden_states, plain.last_hidden_state]


def test_the_patch_that_claims_a_place_is_the_one_that_responds_to_it(encoder: FrameEncoder) -> None:
    batch = [
        frames_of(64, 64),
        frames_of(61, 131, seed=1),
        frames_of(50, 70, time=3, seed=2),
        frames_of(32, 48, seed=3),
    ]
    assert_the_place_responds(encoder, batch, POINTS)


@pytest.mark.parametrize(
    ("size", "seen"), [((64, 64), (64, 64)), ((61, 131), (64, 128)), ((50, 70), (48, 72)), ((3, 20), (8, 16))]
)
def test_values_are_those_of_the_plain_forward_with_patches_first(
    encoder: FrameEncoder, size: tuple[int, int], seen: tuple[int, int]
) -> None:
    frames = frames_of(*size, time=2)
    ours = encoder.extract([frames], ["all"])[0]
    first = 5 if encoder.card.name == REGISTERS else 1
    for point, states in zip(POINTS, reference(encoder, frames, seen), strict=True):
        width = states.shape[-1]
        expected = torch.cat([states[:, first:].reshape(-1, width), states[:, :first].reshape(-1, width)])
        assert ours[point].grid == (2, seen[0] // 8, seen[1] // 8)
        assert relative(ours[point].values, expected) < TOLERANCE


def test_places_go_back_through_the_stretch_and_are_not_rounded(encoder: FrameEncoder) -> None:
    tokens = encoder.extract([frames_of(61, 131)], ["vit.1"])[0]["vit.1"]
    rows, cols = (a[: 8 * 16].reshape(8, 16) for a in (tokens.row, tokens.col))
    np.testing.assert_allclose(rows[:, 0], (np.arange(8) + 0.5) * 61 / 8, rtol=1e-6)
    np.testing.assert_allclose(cols[0], (np.arange(16) + 0.5) * 131 / 16, rtol=1e-6)


def test_class_and_register_tokens_follow_the_patches_frame_by_frame(encoder: FrameEncoder) -> None:
    leading = ["class", *["register"] * (4 if encoder.card.name == REGISTERS else 0)]
    clip = frames_of(64, 48, time=3)
    for tokens in encoder.extract([clip], POINTS)[0].values():
        assert_kinds(tokens, leading, [0.0, 0.25, 0.5])


def test_a_clip_is_its_frames_one_by_one(encoder: FrameEncoder) -> None:
    clip = frames_of(64, 48, time=3)
    together = encoder.extract([clip], ["vit.4"])[0]["vit.4"]
    for t in range(3):
        still = Frames(pixels=clip.pixels[t : t + 1], times_s=np.zeros(1))
        alone = encoder.extract([still], ["vit.4"])[0]["vit.4"]
        assert relative(together.values[t * 48 : (t + 1) * 48], alone.values[:48]) < TOLERANCE


def test_one_pass_a_size_that_ends_after_the_deepest_point(encoder: FrameEncoder) -> None:
    layers, batch = encoder.model.encoder.layer, [frames_of(64, 64), frames_of(64, 64, time=2, seed=1)]
    passes = encoder.forwards
    assert layer_calls(encoder, layers, batch, ["vit.2", "patch"]) == 2
    assert encoder.forwards == passes + 1
    assert layer_calls(encoder, layers, batch, ["vit.final"]) == 4
    assert layer_calls(encoder, layers, [*batch, frames_of(48, 64)], ["vit.1"]) == 2


def test_planned_grids_and_counts_are_those_that_come_out(encoder: FrameEncoder) -> None:
    family = models.family(encoder.card)
    for frames in (frames_of(64, 64), frames_of(61, 131), frames_of(3, 20, time=2)):
        found = encoder.extract([frames], ["all"])[0]
        for point in models.points(encoder.card):
            tokens, asked = found[point.name], (encoder.card, point, frames.size, len(frames.pixels))
            assert family.grid(*asked) == tokens.grid
            assert models.token_count(*asked) == len(tokens.values)
            assert tokens.values.shape[1] == point.width


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    drawn(PLAIN).save(tmp_path)
    load = models.family(models.get(PLAIN)).load
    options = {"device": "cpu", "dtype": "float32", "attention": "sdpa"}
    registers = models.parse_ref(f"{REGISTERS}@path:{tmp_path}")
    with pytest.raises(WrongCheckpoint, match=r"is a dinov2_with_registers, but .* is a dinov2;"):
        load(registers, tmp_path, **options)
    card = models.get(PLAIN)
    deeper = dataclasses.replace(card, config=dict(card.config) | {"num_hidden_layers": 6})
    with pytest.raises(WrongCheckpoint, match="declares num_hidden_layers = 6, but the checkpoint has 4"):
        load(models.ModelRef(card=deeper, kind="path", value=str(tmp_path)), tmp_path, **options)


@pytest.mark.parametrize(
    "card", [c for c in models.cards().values() if c.family == "dinov2"], ids=lambda c: c.name
)
def test_cards_count_the_parameters_of_their_classes(card: models.Card) -> None:
    registers = "num_register_tokens" in card.config
    config = (Dinov2WithRegistersConfig if registers else Dinov2Config)(**card.config)
    with torch.device("meta"):
        model = (Dinov2WithRegistersModel if registers else Dinov2Model)(config)
    assert sum(p.numel() for p in model.parameters()) == card.parameters
    modules = dict(model.named_modules())
    assert all(point.path in modules for point in models.points(card))


def test_a_card_without_a_pinned_commit_asks_for_one() -> None:
    with pytest.raises(ValueError, match=r"a commit of 40 hex digits.* but got 'none'.*pin it"):
        models.parse_ref("dinov2-reg-base")
    assert models.parse_ref("dinov2-base").kind == "hub"
    assert models.parse_ref("dinov2-tiny").kind == "random"


def test_the_base_model_has_the_published_grid() -> None:
    card = models.get("dinov2-base")
    point = models.resolve_points(models.points(card), ["vit.12"], model=card.name)[0]
    assert models.family(card).grid(card, point, (224, 224), 1) == (1, 16, 16)
    assert models.token_count(card, point, (224, 224), 1) == 257
    assert point.width == 768

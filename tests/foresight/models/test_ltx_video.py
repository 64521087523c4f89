"""LTX-Video's autoencoder: places, normalised latents equal to diffusers' own, and refused lengths."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from foresight import models
from foresight.models import ltx_video
from foresight.models.ltx_video import LtxVideo
from foresight.nouns import Frames
from tests.conftest import frames_of


@pytest.fixture(scope="module")
def decoder() -> LtxVideo:
    ref = models.parse_ref("ltx-video-tiny@random0")
    loaded = ltx_video.load(ref, None, device="cpu", dtype="float32", attention="sdpa")
    generator = torch.Generator().manual_seed(1)
    loaded.vae.latents_mean.copy_(torch.randn(16, generator=generator))
    loaded.vae.latents_std.copy_(torch.rand(16, generator=generator) + 0.5)
    return loaded


def test_latents_equal_the_plain_encode_normalised(decoder: LtxVideo) -> None:
    batch = [frames_of(64, 64, seed=s) for s in range(3)]
    ours = decoder.extract(batch, ["latent"])
    pixels = torch.stack([torch.from_numpy(f.pixels).permute(3, 0, 1, 2) for f in batch]) / 127.5 - 1
    with torch.no_grad():
        z = decoder.vae.encode(pixels).latent_dist.mode()
    scale = decoder.vae.config.scaling_factor
    mean, std = (v.view(1, -1, 1, 1, 1) for v in (decoder.vae.latents_mean, decoder.vae.latents_std))
    expected = (z - mean) * scale / std
    for tokens, one in zip(ours, expected, strict=True):
        found = tokens["latent"]
        assert found.grid == (1, 8, 8)
        for token in (0, 9, 37, 63):
            row, col = int(found.row[token] // 8), int(found.col[token] // 8)
            # [feature time row col] read at the token's own place: no transposed axes can pass
            assert torch.allclose(found.values[token], one[:, 0, row, col], rtol=1e-5, atol=1e-6)


def test_a_change_in_one_corner_stays_near_that_corner(decoder: LtxVideo) -> None:
    frames = frames_of(128, 64)
    changed = frames.pixels.copy()
    changed[:, :8, -8:] = 255 - changed[:, :8, -8:]
    pair = [frames, Frames(pixels=changed, times_s=frames.times_s)]
    before, after = (t["latent"] for t in decoder.extract(pair, ["latent"]))
    moved = (before.values - after.values).norm(dim=1)
    most = int(moved.argmax())
    assert before.row[most] < 24
    assert before.col[most] > 40


def test_decoding_undoes_the_normalisation(decoder: LtxVideo) -> None:
    frames = frames_of(64, 64)
    tokens = decoder.extract([frames], ["latent"])[0]["latent"]
    decoded = decoder.decode([tokens])[0]
    with torch.no_grad():
        z = decoder.vae.encode(decoder.prepare([frames])).latent_dist.mode()
        plain = ((decoder.vae.decode(z).sample.clamp(-1, 1) + 1) / 2)[0].permute(1, 2, 3, 0).numpy()
    assert decoded.shape == (1, 64, 64, 3)
    np.testing.assert_allclose(decoded, plain, atol=1e-4)


def test_the_time_of_a_latent_frame_is_that_of_the_frames_it_stands_for(decoder: LtxVideo) -> None:
    tokens = decoder.extract([frames_of(64, 64, time=5, step_s=0.1)], ["latent"])[0]["latent"]
    assert tokens.grid == (3, 8, 8)
    np.testing.assert_allclose(sorted(set(tokens.time_s.tolist())), [0.0, 0.15, 0.35], atol=1e-6)


def test_lengths_and_sizes_the_encoder_would_cut_or_pad_are_refused(decoder: LtxVideo) -> None:
    real = models.get("ltx-video-vae")
    point = models.points(real)[0]
    with pytest.raises(ValueError, match=r"8k\+1 frames, but got 8; ask for --frames 1 or 9"):
        ltx_video.grid(real, point, (256, 256), 8)
    with pytest.raises(ValueError, match="multiples of 32 px, but got 250 x 256"):
        ltx_video.grid(real, point, (250, 256), 9)
    assert ltx_video.grid(real, point, (256, 384), 17) == (3, 8, 12)
    with pytest.raises(ValueError, match=r"2k\+1 frames, but got 4"):
        decoder.extract([frames_of(64, 64, time=4)], ["latent"])


def test_clips_of_eight_frames_a_latent_are_causal() -> None:
    card = models.get("ltx-video-tiny")
    config = dict(card.config) | {
        "patch_size": 1,
        "block_out_channels": [8, 8, 8],
        "decoder_block_out_channels": [8, 8, 8],
        "down_block_types": ["LTXVideoDownBlock3D"] * 3,
        "layers_per_block": [1] * 4,
        "decoder_layers_per_block": [1] * 4,
        "spatio_temporal_scaling": [True] * 3,
        "decoder_spatio_temporal_scaling": [True] * 3,
        "decoder_inject_noise": [False] * 4,
        "downsample_type": ["conv"] * 3,
        "upsample_residual": [False] * 3,
        "upsample_factor": [1] * 3,
    }
    card = dataclasses.replace(card, config=config)
    torch.manual_seed(0)
    model = LtxVideo(card, ltx_video.build(card).eval())
    clip = frames_of(64, 64, time=17)
    later = clip.pixels.copy()
    later[1:] = 255 - later[1:]
    pair = [clip, Frames(pixels=later, times_s=clip.times_s)]
    before, after = (t["latent"] for t in model.extract(pair, ["latent"]))
    assert before.grid == (3, 8, 8)
    moved = (before.values - after.values).norm(dim=1).view(3, 64).amax(dim=1)
    assert float(moved[0]) < 1e-4  # latent frame 0 sees frame 0 alone
    assert float(moved[1]) > 1e-2


def test_frames_of_several_shapes_are_refused(decoder: LtxVideo) -> None:
    with pytest.raises(ValueError, match="one shape"):
        decoder.extract([frames_of(64, 64), frames_of(64, 128)], ["latent"])

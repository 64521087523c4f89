"""LTX-Video's autoencoder: statistics, causality, refused lengths, and decoding at a noise level."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from foresight import models
from foresight.models import ltx_video
from foresight.models.causal_vae import VideoAutoencoder
from foresight.nouns import Frames
from tests.conftest import frames_of


@pytest.fixture(scope="module")
def decoder() -> VideoAutoencoder:
    ref = models.parse_ref("ltx-video-tiny@random0")
    loaded = ltx_video.load(ref, None, device="cpu", dtype="float32", attention="sdpa")
    generator = torch.Generator().manual_seed(1)
    loaded.vae.latents_mean.copy_(torch.randn(16, generator=generator))
    loaded.vae.latents_std.copy_(torch.rand(16, generator=generator) + 0.5)
    return loaded


def test_latents_equal_the_plain_encode_normalised(decoder: VideoAutoencoder) -> None:
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


def test_a_change_in_one_corner_stays_near_that_corner(decoder: VideoAutoencoder) -> None:
    frames = frames_of(128, 64)
    changed = frames.pixels.copy()
    changed[:, :8, -8:] = 255 - changed[:, :8, -8:]
    pair = [frames, Frames(pixels=changed, times_s=frames.times_s)]
    before, after = (t["latent"] for t in decoder.extract(pair, ["latent"]))
    moved = (before.values - after.values).norm(dim=1)
    most = int(moved.argmax())
    assert before.row[most] < 24
    assert before.col[most] > 40


def test_decoding_undoes_the_normalisation(decoder: VideoAutoencoder) -> None:
    frames = frames_of(64, 64)
    tokens = decoder.extract([frames], ["latent"])[0]["latent"]
    decoded = decoder.decode([tokens])[0]
    with torch.no_grad():
        z = decoder.vae.encode(decoder.prepare([frames])).latent_dist.mode()
        plain = ((decoder.vae.decode(z).sample.clamp(-1, 1) + 1) / 2)[0].permute(1, 2, 3, 0).numpy()
    assert decoded.shape == (1, 64, 64, 3)
    np.testing.assert_allclose(decoded, plain, atol=1e-4)


def test_the_time_of_a_latent_frame_is_that_of_the_frames_it_stands_for(decoder: VideoAutoencoder) -> None:
    tokens = decoder.extract([frames_of(64, 64, time=5, step_s=0.1)], ["latent"])[0]["latent"]
    assert tokens.grid == (3, 8, 8)
    np.testing.assert_allclose(sorted(set(tokens.time_s.tolist())), [0.0, 0.15, 0.35], atol=1e-6)


def test_lengths_and_sizes_the_encoder_would_cut_or_pad_are_refused(decoder: VideoAutoencoder) -> None:
    real = models.get("ltx-video-vae")
    point = models.points(real)[0]
    with pytest.raises(ValueError, match=r"8k\+1 frames, but got 8; ask for --frames 1 or 9"):
        ltx_video.grid(real, point, (256, 256), 8)
    with pytest.raises(ValueError, match="multiples of 32 px, but got 250 x 256"):
        ltx_video.grid(real, point, (250, 256), 9)
    assert ltx_video.grid(real, point, (256, 384), 17) == (3, 8, 12)


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
    ref = models.ModelRef(card=card, kind="random", value="0")
    model = ltx_video.load(ref, None, device="cpu", dtype="float32", attention="sdpa")
    clip = frames_of(64, 64, time=17)
    later = clip.pixels.copy()
    later[1:] = 255 - later[1:]
    pair = [clip, Frames(pixels=later, times_s=clip.times_s)]
    before, after = (t["latent"] for t in model.extract(pair, ["latent"]))
    assert before.grid == (3, 8, 8)
    moved = (before.values - after.values).norm(dim=1).view(3, 64).amax(dim=1)
    assert float(moved[0]) < 1e-4  # latent frame 0 sees frame 0 alone
    assert float(moved[1]) > 1e-2


@pytest.fixture(scope="module")
def conditioned() -> VideoAutoencoder:
    """A decoder that is told a noise level and adds noise inside, as strong as trained ones may."""
    ref = models.parse_ref("ltx-video-0.9.5-tiny")
    loaded = ltx_video.load(ref, None, device="cpu", dtype="float32", attention="sdpa")
    for name, weight in loaded.vae.decoder.named_parameters():
        if "per_channel_scale" in name:  # zero before training
            weight.fill_(0.3)
    generator = torch.Generator().manual_seed(1)
    loaded.vae.latents_mean.copy_(torch.randn(16, generator=generator))
    loaded.vae.latents_std.copy_(torch.rand(16, generator=generator) + 0.5)
    return loaded


def latents(samples: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(samples, 16, 3, 2, 3, generator=torch.Generator().manual_seed(seed))


def test_decoding_at_a_noise_level_is_what_the_pipeline_does(conditioned: VideoAutoencoder) -> None:
    z = latents()
    vae = conditioned.vae
    raw = z * vae.latents_std.view(1, -1, 1, 1, 1) + vae.latents_mean.view(1, -1, 1, 1, 1)
    noise = torch.randn(1, 16, 3, 2, 3, generator=torch.Generator().manual_seed(7))
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(7)
        expected = vae.decode(0.9 * raw + 0.1 * noise, torch.tensor([0.3, 0.3])).sample
        found = conditioned.decode_latents(z, timestep=0.3, noise_scale=0.1, seed=7)
        usual = conditioned.decode_latents(z)
        named = conditioned.decode_latents(z, timestep=0.05, noise_scale=0.025, seed=0)
    assert torch.equal(found, expected)
    assert torch.equal(usual, named)


def test_a_seed_decides_the_noise_and_the_global_generator_is_left_alone(
    conditioned: VideoAutoencoder,
) -> None:
    z = latents()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with torch.no_grad():
        first, second, other = (conditioned.decode_latents(z, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, second)
    assert float((first - other).norm() / first.norm()) > 1e-2


def test_level_and_noise_both_change_the_pixels_and_a_neighbour_does_not(
    conditioned: VideoAutoencoder,
) -> None:
    z = latents()
    with torch.no_grad():
        usual = conditioned.decode_latents(z)
        level = conditioned.decode_latents(z, timestep=0.5)
        noise = conditioned.decode_latents(z, noise_scale=0.5)
        alone = conditioned.decode_latents(z[1:])
    assert float((level - usual).norm() / usual.norm()) > 1e-2
    assert float((noise - usual).norm() / usual.norm()) > 1e-2
    torch.testing.assert_close(alone, usual[1:], atol=1e-5, rtol=0)


def test_gradients_through_a_noisy_decoder_are_those_of_what_was_decoded(
    conditioned: VideoAutoencoder,
) -> None:
    lean = VideoAutoencoder(conditioned.card, copy.deepcopy(conditioned.vae), conditioned.scale)
    lean.checkpoint_gradients()
    gradients = []
    for model in (conditioned, lean):
        z = latents().requires_grad_()
        pixels = model.decode_latents(z, seed=5)
        torch.manual_seed(99)  # what is computed again for the backward pass draws the noise it drew before
        pixels.square().mean().backward()
        gradients.append(z.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-9)


def test_a_noise_level_is_refused_where_nothing_reads_it_or_it_is_none(
    decoder: VideoAutoencoder, conditioned: VideoAutoencoder
) -> None:
    with pytest.raises(ValueError, match=r"decodes without a noise level, but got timestep=0\.05"):
        decoder.decode_latents(latents(), timestep=0.05)
    with pytest.raises(ValueError, match=r"timestep is a share of noise in \[0, 1\], but got 50"):
        conditioned.decode_latents(latents(), timestep=50)
    with pytest.raises(ValueError, match=r"noise_scale is a share of noise in \[0, 1\], but got -0.1"):
        conditioned.decode_latents(latents(), noise_scale=-0.1)


def test_what_a_cell_stands_for_follows_how_each_version_scales() -> None:
    for name, time, space in [
        ("ltx-video-vae", 8, 32),
        ("ltx-video-0.9.1-vae", 8, 32),
        ("ltx-video-0.9.5-vae", 8, 32),
        ("ltx-video-tiny", 2, 8),
        ("ltx-video-0.9.5-tiny", 4, 16),
    ]:
        found = ltx_video.compression(models.get(name))
        assert (found.time, found.space, found.step) == (time, space, time)


def test_cards_without_a_commit_say_that_one_is_to_be_pinned() -> None:
    for name in ("ltx-video-0.9.1-vae", "ltx-video-0.9.5-vae"):
        with pytest.raises(ValueError, match="pin it"):
            models.parse_ref(name)
        assert models.parse_ref(f"{name}@{'a' * 40}").value == "a" * 40

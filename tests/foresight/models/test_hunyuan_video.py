"""HunyuanVideo's autoencoder: lengths that would be cut, and long clips in blended stretches."""

from __future__ import annotations

import pytest
import torch

from foresight import models
from foresight.models import hunyuan_video
from foresight.models.causal_vae import VideoAutoencoder
from foresight.nouns import Frames
from tests.conftest import frames_of


@pytest.fixture(scope="module")
def decoder() -> VideoAutoencoder:
    ref = models.parse_ref("hunyuan-video-tiny")
    return hunyuan_video.load(ref, None, device="cpu", dtype="float32", attention="sdpa")


def test_eight_frames_would_come_back_as_five(decoder: VideoAutoencoder) -> None:
    with torch.no_grad():
        z = decoder.vae.encode(torch.zeros(1, 3, 8, 32, 32)).latent_dist.mode()
        assert decoder.vae.decode(z).sample.shape[2] == 5
    with pytest.raises(ValueError, match=r"4k\+1 frames, but got 8; ask for --frames 5 or 9"):
        decoder.encode([frames_of(32, 32, time=8)])


def test_frames_beyond_a_stretch_do_not_change_the_latents_before_it(decoder: VideoAutoencoder) -> None:
    clip = frames_of(16, 16, time=33)
    later = clip.pixels.copy()
    later[29:] = 255 - later[29:]
    before, after = decoder.encode([clip]), decoder.encode([Frames(pixels=later, times_s=clip.times_s)])
    moved = (before - after).abs().amax(dim=(0, 1, 3, 4))
    assert before.shape[2] == 9
    assert float(moved[:4].max()) == 0
    assert int(moved.argmax()) == 8


def test_a_long_clip_comes_back_whole(decoder: VideoAutoencoder) -> None:
    tokens = decoder.extract([frames_of(16, 24, time=33)], ["latent"])[0]["latent"]
    assert tokens.grid == (9, 2, 3)
    assert decoder.decode([tokens]).shape == (1, 33, 16, 24, 3)

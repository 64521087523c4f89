"""CogVideoX's autoencoder: chunks that keep to themselves, and the lengths that do not come back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX

from foresight import models
from foresight.models import cogvideox
from foresight.models.causal_vae import VideoAutoencoder, built_from
from foresight.nouns import Frames
from tests.conftest import frames_of


@pytest.fixture(scope="module")
def decoder() -> VideoAutoencoder:
    ref = models.parse_ref("cogvideox-tiny")
    return cogvideox.load(ref, None, device="cpu", dtype="float32", attention="sdpa")


def test_five_frames_would_come_back_as_eight(decoder: VideoAutoencoder) -> None:
    with torch.no_grad():
        z = decoder.vae.encode(torch.zeros(1, 3, 5, 32, 32)).latent_dist.mode()
        assert decoder.vae.decode(z).sample.shape[2] == 8
    with pytest.raises(ValueError, match=r"8k\+1 frames, but got 5; ask for --frames 1 or 9"):
        decoder.encode([frames_of(32, 32, time=5)])
    with pytest.raises(ValueError, match=r"decodes 2k\+1 latent frames, but got 2; encode clips of 8k\+1"):
        decoder.decode_latents(z)


def test_later_chunks_do_not_change_earlier_ones(decoder: VideoAutoencoder) -> None:
    clip = frames_of(32, 32, time=17)
    later = clip.pixels.copy()
    later[9:] = 255 - later[9:]
    before, after = decoder.encode([clip]), decoder.encode([Frames(pixels=later, times_s=clip.times_s)])
    moved = (before - after).abs().amax(dim=(0, 1, 3, 4))
    assert float(moved[:3].max()) == 0  # the first nine frames
    assert float(moved[3:].min()) > 1e-2


def test_a_model_that_divides_by_its_factor_is_not_this_one(tmp_path: Path) -> None:
    ref = models.parse_ref("cogvideox-tiny")
    config = built_from(dict(ref.card.config) | {"invert_scale_latents": True})
    AutoencoderKLCogVideoX(**config).save_pretrained(tmp_path)
    wrong = models.ModelRef(card=ref.card, kind="path", value=str(tmp_path))
    with pytest.raises(
        ValueError, match="declares invert_scale_latents = False, but the checkpoint has True"
    ):
        cogvideox.load(wrong, tmp_path, device="cpu", dtype="float32", attention="sdpa")

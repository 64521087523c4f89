"""HunyuanVideo's autoencoder: its latents as tokens, and back to pixels.

Architecture: Kong et al. (2024), arXiv:2412.03603. Four frames make a latent frame, and the first stands alone: a
clip has 4 k + 1 frames; the library decodes any other length to fewer frames than it was given.

Convolutions are causal and the attention in the middle sees no later frame, but group norms share their statistics
over all frames and pixels. Beyond 16 frames the encoder works on overlapping stretches of 17 frames, 12 apart, and
blends them, as its pipeline does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foresight.models import causal_vae
from foresight.models.card import Card, ModelRef, Point
from foresight.models.causal_vae import Compression, VideoAutoencoder

PREPROCESSING = causal_vae.PREPROCESSING | {
    "frames": "beyond 16: stretches of 17, 12 apart, blended",
    "attention": "sdpa",
}
"""Identity of what happens between frames and tokens, beyond what the checkpoint's own files say."""

DECODES = True
"""Its tokens can be turned back into pixels."""

CARDS = (
    Card(
        name="hunyuan-video-vae",
        family="hunyuan_video",
        role="decoder",
        repo="hunyuanvideo-community/HunyuanVideo",
        revision="e8c2aaa66fe3742a32c11a6766aecbf07c56e773",
        subfolder="vae",
        licence="Tencent Hunyuan Community License",
        parameters=246_478_803,
        memory_gib=0.5,
        dtype="bfloat16",
        size=(256, 256),
        config={
            "latent_channels": 16,
            "block_out_channels": [128, 256, 512, 512],
            "spatial_compression_ratio": 8,
            "temporal_compression_ratio": 4,
            "scaling_factor": 0.476986,
        },
        default_points=("latent",),
    ),
    Card(
        name="hunyuan-video-tiny",
        family="hunyuan_video",
        role="decoder",
        parameters=73_979,
        memory_gib=0.01,
        size=(64, 64),
        config={
            "latent_channels": 8,
            "block_out_channels": [8, 8, 8, 8],
            "down_block_types": ["HunyuanVideoDownBlock3D"] * 4,
            "up_block_types": ["HunyuanVideoUpBlock3D"] * 4,
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "spatial_compression_ratio": 8,
            "temporal_compression_ratio": 4,
            "scaling_factor": 0.476986,
        },
        default_points=("latent",),
    ),
)


def points(card: Card) -> tuple[Point, ...]:
    """Return the one point: the latents in the diffusion model's units."""
    return (causal_vae.latent_point(card),)


def compression(card: Card) -> Compression:
    """Return what one latent cell stands for."""
    time = int(card.config["temporal_compression_ratio"])
    return Compression(time=time, space=int(card.config["spatial_compression_ratio"]), step=time)


def grid(card: Card, point: Point, size: tuple[int, int], frames: int) -> tuple[int, int, int]:
    """Return the (time, row, col) counts of latent cells; `ValueError` for what would be cut or padded."""
    return causal_vae.cells(card, compression(card), size, frames)


def load(ref: ModelRef, folder: Path | None, *, device: str, dtype: str, attention: str) -> VideoAutoencoder:
    """Load the autoencoder named by `ref` from `folder`; without a folder its weights are drawn at random.

    `attention` is not used: the one attention layer, in the middle, runs torch's own kernel.
    """
    from diffusers import AutoencoderKLHunyuanVideo

    vae: Any = causal_vae.load_part(
        AutoencoderKLHunyuanVideo, ref, folder, declared=ref.card.config, device=device, dtype=dtype
    )
    return VideoAutoencoder(ref.card, vae, compression(ref.card))

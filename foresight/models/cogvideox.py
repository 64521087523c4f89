"""CogVideoX's autoencoder: its latents as tokens, and back to pixels.

Architecture: Yang et al. (2024), arXiv:2408.06072. Four frames make a latent frame, and the first stands alone. An
even number of latent frames is decoded to other lengths than were encoded, so clips have 8 k + 1 frames.

Convolutions are causal. Group norms are not: the encoder works on 9 frames, then on 8 at a time, and each such
chunk shares its statistics over all frames and pixels. A later chunk never changes an earlier one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foresight.models import causal_vae
from foresight.models.card import Card, ModelRef, Point
from foresight.models.causal_vae import Compression, VideoAutoencoder

PREPROCESSING = causal_vae.PREPROCESSING | {"frames": "chunks of 8, the first of 9"}
"""Identity of what happens between frames and tokens, beyond what the checkpoint's own files say."""

DECODES = True
"""Its tokens can be turned back into pixels."""

CARDS = (
    Card(
        name="cogvideox-2b-vae",
        family="cogvideox",
        role="decoder",
        repo="THUDM/CogVideoX-2b",
        revision="1137dacfc2c9c012bed6a0793f4ecf2ca8e7ba01",
        subfolder="vae",
        licence="Apache-2.0",
        parameters=215_583_907,
        memory_gib=0.4,
        dtype="bfloat16",
        size=(256, 256),
        config={
            "latent_channels": 16,
            "block_out_channels": [128, 256, 256, 512],
            "temporal_compression_ratio": 4,
            # CogVideoX-2b divides by its own latents' spread; 5b has another factor
            "scaling_factor": 1.15258426,
            "invert_scale_latents": False,
        },
        default_points=("latent",),
    ),
    Card(
        name="cogvideox-tiny",
        family="cogvideox",
        role="decoder",
        parameters=184_139,
        memory_gib=0.01,
        size=(64, 64),
        config={
            "latent_channels": 8,
            "block_out_channels": [8, 8, 16, 16],
            "down_block_types": ["CogVideoXDownBlock3D"] * 4,
            "up_block_types": ["CogVideoXUpBlock3D"] * 4,
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "temporal_compression_ratio": 4,
            "scaling_factor": 1.15258426,
            "invert_scale_latents": False,
        },
        default_points=("latent",),
    ),
)


def points(card: Card) -> tuple[Point, ...]:
    """Return the one point: the latents in the diffusion model's units."""
    return (causal_vae.latent_point(card),)


def compression(card: Card) -> Compression:
    """Return what one latent cell stands for; two latent frames are the fewest that decode again."""
    time = int(card.config["temporal_compression_ratio"])
    return Compression(time=time, space=2 ** (len(card.config["block_out_channels"]) - 1), step=2 * time)


def grid(card: Card, point: Point, size: tuple[int, int], frames: int) -> tuple[int, int, int]:
    """Return the (time, row, col) counts of latent cells; `ValueError` for what would be cut or padded."""
    return causal_vae.cells(card, compression(card), size, frames)


def load(ref: ModelRef, folder: Path | None, *, device: str, dtype: str, attention: str) -> VideoAutoencoder:
    """Load the autoencoder named by `ref` from `folder`; without a folder its weights are drawn at random.

    `attention` is not used: the autoencoder has none.
    """
    from diffusers import AutoencoderKLCogVideoX

    vae: Any = causal_vae.load_part(
        AutoencoderKLCogVideoX, ref, folder, declared=ref.card.config, device=device, dtype=dtype
    )
    return VideoAutoencoder(ref.card, vae, compression(ref.card))

"""LTX-Video's autoencoder: its normalised latents as tokens, and back to pixels.

Architecture: HaCohen et al. (2024), arXiv:2501.00103. The encoder is causal in time: latent frame 0 sees
frame 0 alone, latent frame j sees frames up to 8 j, so a clip has 8 k + 1 frames. Older checkpoints encode any
other length silently wrong, so lengths and sizes are checked here. From 0.9.1 on the decoder is told a noise level.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foresight.models import causal_vae
from foresight.models.card import Card, ModelRef, Point
from foresight.models.causal_vae import Compression, VideoAutoencoder

PREPROCESSING = causal_vae.PREPROCESSING
"""Identity of what happens between frames and tokens, beyond what the checkpoint's own files say."""

DECODES = True
"""Its tokens can be turned back into pixels."""

CARDS = (
    Card(
        name="ltx-video-vae",
        family="ltx_video",
        role="decoder",
        repo="Lightricks/LTX-Video",
        revision="8984fa25007f376c1a299016d0957a37a2f797bb",
        subfolder="vae",
        licence="LTX-Video Open Weights License",
        parameters=419_193_649,
        memory_gib=0.8,
        dtype="bfloat16",
        size=(256, 256),
        config={
            "latent_channels": 128,
            "patch_size": 4,
            "patch_size_t": 1,
            "spatio_temporal_scaling": [True, True, True, False],
            "timestep_conditioning": False,
        },
        default_points=("latent",),
    ),
    Card(
        name="ltx-video-0.9.1-vae",
        family="ltx_video",
        role="decoder",
        repo="a-r-r-o-w/LTX-Video-0.9.1-diffusers",
        subfolder="vae",
        licence="LTX-Video Open Weights License",
        parameters=934_991_538,
        memory_gib=1.7,
        dtype="bfloat16",
        size=(256, 256),
        config={
            "latent_channels": 128,
            "patch_size": 4,
            "patch_size_t": 1,
            "spatio_temporal_scaling": [True, True, True, False],
            "timestep_conditioning": True,
        },
        default_points=("latent",),
    ),
    Card(
        name="ltx-video-0.9.5-vae",
        family="ltx_video",
        role="decoder",
        repo="Lightricks/LTX-Video-0.9.5",
        subfolder="vae",
        licence="LTX-Video Open Weights License",
        parameters=1_246_913_522,
        memory_gib=2.3,
        dtype="bfloat16",
        size=(256, 256),
        config={
            "latent_channels": 128,
            "patch_size": 4,
            "patch_size_t": 1,
            "spatio_temporal_scaling": [True, True, True, True],
            "downsample_type": ["spatial", "temporal", "spatiotemporal", "spatiotemporal"],
            "timestep_conditioning": True,
        },
        default_points=("latent",),
    ),
    Card(
        name="ltx-video-tiny",
        family="ltx_video",
        role="decoder",
        parameters=1_160_017,
        memory_gib=0.01,
        size=(64, 64),
        config={
            "latent_channels": 16,
            "patch_size": 4,
            "patch_size_t": 1,
            "block_out_channels": [32, 48],
            "down_block_types": ["LTXVideoDownBlock3D"] * 2,
            "decoder_block_out_channels": [32, 48],
            "layers_per_block": [1, 1, 1],
            "decoder_layers_per_block": [1, 1, 1],
            "spatio_temporal_scaling": [True, False],
            "decoder_spatio_temporal_scaling": [True, False],
            "decoder_inject_noise": [False] * 3,
            "downsample_type": ["conv"] * 2,
            "upsample_residual": [False] * 2,
            "upsample_factor": [1] * 2,
        },
        default_points=("latent",),
        training={"task": "autoencode", "data": "synthetic", "images": 2000, "steps": 700, "batch": 16,
                  "learning_rate": 4e-3, "kl_weight": 1e-4, "foreground_weight": 4.0},
    ),
    Card(
        name="ltx-video-0.9.5-tiny",
        family="ltx_video",
        role="decoder",
        parameters=505_418,
        memory_gib=0.01,
        size=(64, 64),
        config={
            # downsampling as in 0.9.5, noise inside the decoder as in 0.9.1, both told a noise level
            "latent_channels": 16,
            "patch_size": 4,
            "patch_size_t": 1,
            "block_out_channels": [16, 16, 32, 32],
            "down_block_types": ["LTXVideo095DownBlock3D"] * 3,
            "decoder_block_out_channels": [16, 32],
            "layers_per_block": [1, 1, 1, 1],
            "decoder_layers_per_block": [1, 1, 1],
            "spatio_temporal_scaling": [True, True, True],
            "decoder_spatio_temporal_scaling": [True, True],
            "decoder_inject_noise": [False, True, True],
            "downsample_type": ["spatial", "temporal", "spatiotemporal"],
            "upsample_residual": [True, True],
            "upsample_factor": [2, 2],
            "timestep_conditioning": True,
            "spatial_compression_ratio": 16,
            "temporal_compression_ratio": 4,
        },
        default_points=("latent",),
    ),
)  # fmt: skip


def points(card: Card) -> tuple[Point, ...]:
    """Return the one point: the latents in the diffusion model's units."""
    return (causal_vae.latent_point(card),)


def compression(card: Card) -> Compression:
    """Return what one latent cell stands for.

    Up to 0.9.1 a block that scales halves time and sides; from 0.9.5 on it halves what its `downsample_type` says.
    """
    config = card.config
    scaling = config["spatio_temporal_scaling"]
    kinds = config.get("downsample_type", ["conv"] * len(scaling))
    halved = [kind for kind, scales in zip(kinds, scaling, strict=True) if scales]
    time = config["patch_size_t"] * 2 ** sum(kind != "spatial" for kind in halved)
    return Compression(
        time=time, space=config["patch_size"] * 2 ** sum(kind != "temporal" for kind in halved), step=time
    )


def grid(card: Card, point: Point, size: tuple[int, int], frames: int) -> tuple[int, int, int]:
    """Return the (time, row, col) counts of latent cells; `ValueError` for what would be cut or padded."""
    return causal_vae.cells(card, compression(card), size, frames)


def load(ref: ModelRef, folder: Path | None, *, device: str, dtype: str, attention: str) -> VideoAutoencoder:
    """Load the autoencoder named by `ref` from `folder`; without a folder its weights are drawn at random.

    `attention` is not used: the autoencoder has none.
    """
    from diffusers import AutoencoderKLLTXVideo

    vae: Any = causal_vae.load_part(
        AutoencoderKLLTXVideo, ref, folder, declared=ref.card.config, device=device, dtype=dtype
    )
    return VideoAutoencoder(ref.card, vae, compression(ref.card))

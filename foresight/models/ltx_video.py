"""LTX-Video's autoencoder: its normalised latents as tokens, and back to pixels.

Architecture: HaCohen et al. (2024), arXiv:2501.00103. The encoder is causal in time: latent frame 0 sees
frame 0 alone, latent frame j sees frames up to 8 j, so a clip has 8 k + 1 frames. Older checkpoints encode any
other length silently wrong, so lengths and sizes are checked here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foresight.models.card import Card, ModelRef, Point, resolve_points
from foresight.models.device import without_bars
from foresight.nouns import Frames, Tokens

if TYPE_CHECKING:
    import torch

PREPROCESSING = {"latent": "normalised mode of the posterior", "order": "raster", "version": 1}
"""Identity of what happens between frames and tokens, beyond what the checkpoint's own files say."""

CARDS = (
    Card(
        name="ltx-video-vae",
        family="ltx_video",
        role="decoder",
        repo="Lightricks/LTX-Video",
        revision="8984fa25007f376c1a299016d0957a37a2f797bb",
        subfolder="vae",
        licence="LTX-Video Open Weights License",
        parameters=419_000_000,
        memory_gib=0.8,
        dtype="bfloat16",
        size=(256, 256),
        config={
            "latent_channels": 128,
            "patch_size": 4,
            "patch_size_t": 1,
            "spatio_temporal_scaling": [True, True, True, False],
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
)  # fmt: skip


def points(card: Card) -> tuple[Point, ...]:
    """Return the one point of an autoencoder: its latent, in the space the diffusion model works in."""
    return (
        Point(
            name="latent",
            path="encoder",
            width=card.config["latent_channels"],
            about="mode of the posterior, normalised per channel: (z - mean) * scaling / std",
        ),
    )


def compression(card: Card) -> tuple[int, int]:
    """Return how many frames, and how many pixels along a side, one latent cell stands for."""
    halvings = 2 ** sum(card.config["spatio_temporal_scaling"])
    return card.config["patch_size_t"] * halvings, card.config["patch_size"] * halvings


def grid(card: Card, point: Point, size: tuple[int, int], frames: int) -> tuple[int, int, int]:
    """Return the (time, row, col) counts of latent cells for `frames` frames of `size` (height, width) px.

    Raises `ValueError` for a length or size the autoencoder would cut or pad silently.
    """
    time, space = compression(card)
    if (frames - 1) % time:
        low = (frames - 1) // time * time + 1
        raise ValueError(
            f"{card.name} encodes {time}k+1 frames, but got {frames}; ask for --frames {low} or {low + time}"
        )
    if size[0] % space or size[1] % space:
        raise ValueError(
            f"{card.name} encodes sides that are multiples of {space} px, but got {size[0]} x {size[1]}"
        )
    return (frames - 1) // time + 1, size[0] // space, size[1] // space


def load(ref: ModelRef, folder: Path | None, *, device: str, dtype: str, attention: str) -> LtxVideo:
    """Load the autoencoder named by `ref` from `folder`; without a folder its weights are drawn at random.

    `attention` is not used: the autoencoder has none.
    """
    import torch
    from diffusers import AutoencoderKLLTXVideo

    if ref.kind == "random":
        with torch.random.fork_rng():
            torch.manual_seed(int(ref.value))
            if folder:
                vae = AutoencoderKLLTXVideo.from_config(AutoencoderKLLTXVideo.load_config(folder))
            else:
                vae = build(ref.card)
            vae = vae.to(getattr(torch, dtype))
    else:
        if folder is None:
            raise ValueError(f"{ref} is loaded from a checkpoint folder, but got none")
        with without_bars():
            vae = AutoencoderKLLTXVideo.from_pretrained(
                folder, use_safetensors=True, torch_dtype=getattr(torch, dtype)
            )
    for key, declared in ref.card.config.items():
        found = vae.config[key]
        if (list(found) if isinstance(found, tuple | list) else found) != declared:
            raise ValueError(
                f"{ref.card.name} declares {key} = {declared}, but the checkpoint has {found}; "
                "it is another model: use its own card"
            )
    return LtxVideo(ref.card, vae.eval().to(device))


def build(card: Card) -> Any:
    """Return the autoencoder of a tiny card with fresh weights from the global generator."""
    from diffusers import AutoencoderKLLTXVideo

    return AutoencoderKLLTXVideo(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in card.config.items()}
    )


class LtxVideo:
    """A loaded LTX-Video autoencoder."""

    def __init__(self, card: Card, vae: Any):
        self.card, self.vae = card, vae
        self.forwards = 0
        """Forward passes of the encoder so far."""

    def extract(self, batch: Sequence[Frames], asked: Sequence[str]) -> list[dict[str, Tokens]]:
        """Return one `{"latent": Tokens}` per entry of `batch`; every entry has the same size and length."""
        import torch

        resolve_points(points(self.card), asked, model=self.card.name)
        shapes = {f.pixels.shape for f in batch}
        if len(shapes) > 1:
            raise ValueError(f"frames of one batch have one shape, but got {sorted(shapes)}; fit them first")
        counts = grid(self.card, points(self.card)[0], batch[0].size, len(batch[0].pixels))
        with torch.no_grad():
            z = self.normalise(self.vae.encode(self.prepare(batch)).latent_dist.mode())
        self.forwards += 1
        if tuple(z.shape[2:]) != counts:
            raise RuntimeError(
                f"{self.card.name} should give {counts} latent cells, but gave {tuple(z.shape[2:])}"
            )
        # [sample feature time row col] -> [sample token feature], raster
        flat = z.flatten(2).transpose(1, 2).contiguous().cpu()
        places = _places(counts, batch[0])
        return [
            {"latent": Tokens(values=values, grid=counts, **places(frames))}
            for values, frames in zip(flat, batch, strict=True)
        ]

    def prepare(self, batch: Sequence[Frames]) -> torch.Tensor:
        """Return pixels as the encoder takes them: [sample 3 time row col] in [-1, 1]."""
        import torch

        pixels = torch.from_numpy(np.stack([f.pixels for f in batch])).permute(0, 4, 1, 2, 3)
        return (pixels.to(torch.float32) / 127.5 - 1).to(device=self.vae.device, dtype=self.vae.dtype)

    def normalise(self, z: torch.Tensor) -> torch.Tensor:
        """Return raw latents [sample feature time row col] in the diffusion model's units."""
        mean, std = self._statistics(z)
        return (z - mean) * self.vae.config.scaling_factor / std

    def denormalise(self, z: torch.Tensor) -> torch.Tensor:
        """Undo `normalise`: the decoder takes raw latents."""
        mean, std = self._statistics(z)
        return z * std / self.vae.config.scaling_factor + mean

    def decode(self, tokens: Sequence[Tokens]) -> np.ndarray:
        """Return the pixels of normalised latent `tokens`: [sample time row col 3] in [0, 1], clamped.

        Only for checkpoints that are not timestep-conditioned; the others need a noise level.
        """
        import torch

        if self.vae.config.timestep_conditioning:
            raise ValueError(f"{self.card.name} decodes at a noise level; a plain decode is undefined for it")
        z = torch.stack([torch.as_tensor(np.asarray(t.values, dtype=np.float32)) for t in tokens])
        z = z.transpose(1, 2).unflatten(2, tokens[0].grid)
        with torch.no_grad():
            raw = self.denormalise(z.to(device=self.vae.device, dtype=self.vae.dtype))
            pixels = self.vae.decode(raw).sample
        return ((pixels.float().clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 4, 1).cpu().numpy()

    def _statistics(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (1, -1, 1, 1, 1)
        return (
            self.vae.latents_mean.to(z).view(shape),
            self.vae.latents_std.to(z).view(shape),
        )


def _places(counts: tuple[int, int, int], first: Frames) -> Any:
    """Return a function from frames to the coordinates of their tokens."""
    t, h, w = counts
    height, width = first.size
    time, row, col = (a.reshape(-1) for a in np.meshgrid(*(np.arange(n) for n in counts), indexing="ij"))
    n = t * h * w
    fixed: Mapping[str, np.ndarray] = {
        "row": ((row + 0.5) * height / h).astype(np.float32),
        "col": ((col + 0.5) * width / w).astype(np.float32),
        "kind": np.zeros(n, np.uint8),
        "tile": np.zeros(n, np.int32),
    }

    def places(frames: Frames) -> dict[str, np.ndarray]:
        times = np.asarray(frames.times_s, dtype=np.float64)
        stride = (len(times) - 1) // max(t - 1, 1)
        # latent frame 0 is frame 0 alone; latent frame j stands for the `stride` frames that end at stride * j
        clock = np.array(
            [times[0], *(times[(j - 1) * stride + 1 : j * stride + 1].mean() for j in range(1, t))]
        )
        return {"time_s": clock[time].astype(np.float32), **fixed}

    return places

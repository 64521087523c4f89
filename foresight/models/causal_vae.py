"""Video autoencoders whose first latent frame is the first frame alone: LTX-Video, CogVideoX, HunyuanVideo.

Each takes `[sample 3 time row col]` in [-1, 1] and gives `[sample feature time row col]`. The later latent frames
stand for several frames each, so only certain lengths fit. The libraries cut or pad any other length, and sides
that do not divide, without a word; here both are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foresight.models.card import Card, ModelRef, Point, resolve_points
from foresight.models.device import resolve_device, without_bars
from foresight.models.loading import WrongCheckpoint, load_diffuser
from foresight.nouns import Frames, Tokens

if TYPE_CHECKING:
    import torch

PREPROCESSING = {"latent": "normalised mode of the posterior", "order": "raster", "version": 1}
"""Identity of what happens between frames and tokens, beyond what the checkpoint's own files say."""

DECODE_TIMESTEP = 0.05
"""Noise level a timestep-conditioned decoder is told, in [0, 1]."""
DECODE_NOISE_SCALE = 0.025
"""Share of noise mixed into raw latents before a timestep-conditioned decoder sees them."""


@dataclass(frozen=True, kw_only=True)
class Compression:
    """What one latent cell stands for."""

    time: int
    """Frames of every latent frame but the first, which is frame 0 alone."""
    space: int
    """Pixels along a side."""
    step: int
    """Clips have `step` k + 1 frames: `time`, or a multiple where fewer latent frames cannot be decoded again."""


def latent_point(card: Card) -> Point:
    """Return the one point an autoencoder has."""
    return Point(
        name="latent",
        path="encoder",
        width=card.config["latent_channels"],
        about="mode of the posterior, normalised as its diffusion model takes it",
    )


def cells(card: Card, scale: Compression, size: tuple[int, int], frames: int) -> tuple[int, int, int]:
    """Return the (time, row, col) counts of latent cells for `frames` frames of `size` (height, width) px.

    Raises `ValueError` for a length or size the autoencoder would cut or pad silently.
    """
    if frames < 1 or (frames - 1) % scale.step:
        low = max(frames - 1, 0) // scale.step * scale.step + 1
        raise ValueError(
            f"{card.name} encodes {scale.step}k+1 frames, but got {frames}; "
            f"ask for --frames {low} or {low + scale.step}"
        )
    if min(size) < 1 or size[0] % scale.space or size[1] % scale.space:
        raise ValueError(
            f"{card.name} encodes sides that are multiples of {scale.space} px, but got {size[0]} x {size[1]}"
        )
    return (frames - 1) // scale.time + 1, size[0] // scale.space, size[1] // scale.space


def load_part(
    model_class: Any,
    ref: ModelRef,
    folder: Path | None,
    *,
    declared: Mapping[str, Any],
    device: str,
    dtype: str,
) -> Any:
    """Return the diffusers model named by `ref`, frozen and in evaluation mode, on `device`.

    Weights come from the safetensors in `folder`. For random weights they are drawn from the seed of `ref`, after
    the configuration in `folder`, or after `declared` without one. `declared` are the numbers of its card.

    Raises `WrongCheckpoint` for another class, other numbers, and files that are missing, torn or pickled.
    """
    model = load_diffuser(model_class, ref, folder, config=built_from(declared), dtype=dtype)
    for key, value in declared.items():
        if _plain(model.config[key]) != _plain(value):
            raise WrongCheckpoint(
                f"{ref.card.name} declares {key} = {value}, but the checkpoint has {model.config[key]}; "
                "it is another model: use its own card"
            )
    return model.requires_grad_(False).to(resolve_device("auto") if device == "auto" else device)


def built_from(declared: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card's numbers as a configuration: diffusers takes tuples where a card holds lists."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in declared.items()}


class VideoAutoencoder:
    """A loaded autoencoder: frames to tokens at its one point, `latent`, and tokens to pixels."""

    def __init__(self, card: Card, vae: Any, scale: Compression):
        self.card, self.vae, self.scale = card, vae, scale
        self.conditioned = bool(vae.config.get("timestep_conditioning", False))
        """True when the decoder is told a noise level."""
        self.forwards = 0
        """Forward passes of the encoder so far."""

    def extract(self, batch: Sequence[Frames], asked: Sequence[str]) -> list[dict[str, Tokens]]:
        """Return one `{"latent": Tokens}` per entry of `batch`; frames of one shape share a forward pass."""
        resolve_points([latent_point(self.card)], asked, model=self.card.name)
        return [{"latent": tokens} for tokens in by_shape(batch, self._tokens)]

    def encode(self, batch: Sequence[Frames]) -> torch.Tensor:
        """Return normalised latents [sample feature time row col] of frames of one shape. No gradient."""
        import torch

        counts = cells(self.card, self.scale, batch[0].size, len(batch[0].pixels))
        with torch.no_grad():
            z = self.normalise(self.vae.encode(self.prepare(batch)).latent_dist.mode())
        self.forwards += 1
        if tuple(z.shape[2:]) != counts:
            raise RuntimeError(
                f"{self.card.name} should give {counts} latent cells, but gave {tuple(z.shape[2:])}"
            )
        return z

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

    def decode(
        self,
        tokens: Sequence[Tokens],
        *,
        timestep: float | None = None,
        noise_scale: float | None = None,
        seed: int = 0,
        at_once: int = 4,
    ) -> np.ndarray:
        """Return the pixels of normalised latent `tokens`: [sample time row col 3] in [0, 1], clamped.

        The tokens of all samples fill one grid. The decoder holds `at_once` samples at a time, which changes
        nothing but the memory it takes; `timestep`, `noise_scale` and `seed` as for `decode_latents`.
        """
        import torch

        if len(grids := {t.grid for t in tokens}) != 1:
            raise ValueError(
                f"tokens are decoded together when they fill one grid, but got {sorted(grids)}; "
                "decode each grid on its own"
            )
        parts = []
        for first in range(0, len(tokens), at_once):
            values = [_float32(t.values) for t in tokens[first : first + at_once]]
            z = torch.stack(values).transpose(1, 2).unflatten(2, tokens[0].grid)
            with torch.no_grad():
                pixels = self.decode_latents(z, timestep=timestep, noise_scale=noise_scale, seed=seed)
            parts.append(((pixels.float().clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 4, 1).cpu().numpy())
        return np.concatenate(parts)

    def decode_latents(
        self,
        z: torch.Tensor,
        *,
        timestep: float | None = None,
        noise_scale: float | None = None,
        seed: int = 0,
    ) -> torch.Tensor:
        """Return pixels [sample 3 time row col], about [-1, 1] and not clamped; gradients flow back to `z`.

        `z` is [sample feature time row col], normalised. Only a timestep-conditioned decoder takes a noise level:
        it is told `timestep` (0.05), and `noise_scale` (0.025) of noise is mixed into the raw latents first, as
        LTX-Video's own pipeline does. Both are in [0, 1]. The noise follows from `seed` and the latents' shape,
        and is the same for every sample, so no sample depends on its neighbours. The global random state stays as
        it was. Noise that a decoder adds inside is drawn on its own device: equal seeds agree on one kind of device.

        Raises `ValueError` for latents that do not decode to whole frames, or a noise level nothing reads.
        """
        import torch

        if (z.shape[2] - 1) * self.scale.time % self.scale.step:
            every = self.scale.step // self.scale.time
            raise ValueError(
                f"{self.card.name} decodes {every}k+1 latent frames, but got {z.shape[2]}; "
                f"encode clips of {self.scale.step}k+1 frames"
            )
        raw = self.denormalise(z.to(device=self.vae.device, dtype=self.vae.dtype))
        told = {}
        if self.conditioned:
            level = _share(DECODE_TIMESTEP if timestep is None else timestep, "timestep")
            share = _share(DECODE_NOISE_SCALE if noise_scale is None else noise_scale, "noise_scale")
            raw = (1 - share) * raw + share * noise_like(raw, seed)
            told["temb"] = torch.full((len(raw),), level, device=raw.device, dtype=raw.dtype)
        elif timestep is not None or noise_scale is not None:
            raise ValueError(
                f"{self.card.name} decodes without a noise level, but got timestep={timestep} and "
                f"noise_scale={noise_scale}; leave both out"
            )
        with _seeded(seed, raw.device, when=any(self.vae.config.get("decoder_inject_noise", ()))):
            pixels: torch.Tensor = self.vae.decode(raw, **told).sample
        if (found := cells(self.card, self.scale, *_frames(pixels))) != tuple(z.shape[2:]):
            raise RuntimeError(
                f"{self.card.name} should decode {tuple(z.shape[2:])} latent cells, but decoded {found}"
            )
        return pixels

    def checkpoint_gradients(self) -> None:
        """From now on keep only the inputs of the decoder's blocks for the backward pass, and compute the rest again.

        Training through `decode_latents` takes less memory and about a third more time; values stay the same.
        """
        self.vae.enable_gradient_checkpointing()

    def save(self, folder: Path) -> None:
        """Write an ordinary checkpoint folder: safetensors and configuration."""
        with without_bars():
            self.vae.save_pretrained(folder, safe_serialization=True)

    def _tokens(self, batch: Sequence[Frames]) -> list[Tokens]:
        return tokens_of(self.encode(batch), batch, self.scale)

    def _statistics(self, z: torch.Tensor) -> tuple[Any, Any]:
        # LTX-Video keeps its statistics in buffers; the others have a scaling factor alone
        buffers = dict(self.vae.named_buffers(recurse=False))
        if "latents_mean" not in buffers:
            return 0.0, 1.0
        shape = (1, -1, 1, 1, 1)
        return buffers["latents_mean"].to(z).view(shape), buffers["latents_std"].to(z).view(shape)


def by_shape(batch: Sequence[Frames], read: Callable[[Sequence[Frames]], Sequence[Any]]) -> list[Any]:
    """Return what `read` gives for each entry of `batch`, in order; `read` gets frames of one shape at a time."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, frames in enumerate(batch):
        groups.setdefault(frames.pixels.shape, []).append(index)
    found: dict[int, Any] = {}
    for indices in groups.values():
        found |= dict(zip(indices, read([batch[i] for i in indices]), strict=True))
    return [found[i] for i in range(len(batch))]


def tokens_of(z: torch.Tensor, batch: Sequence[Frames], scale: Compression) -> list[Tokens]:
    """Return the tokens of features [sample feature time row col] that lie on the latent grid of `batch`.

    `row` and `col` are the centres of cells `scale.space` px wide; `tile` is 0. The time of latent frame 0 is that
    of frame 0, and of a later one the mean over the `scale.time` frames it stands for.
    """
    # [sample feature time row col] -> [sample token feature], raster
    flat = z.flatten(2).transpose(1, 2).contiguous().cpu()
    t, h, w = counts = (int(z.shape[2]), int(z.shape[3]), int(z.shape[4]))
    time, row, col = (a.reshape(-1) for a in np.meshgrid(*(np.arange(n) for n in counts), indexing="ij"))
    found = []
    for values, frames in zip(flat, batch, strict=True):
        times = np.asarray(frames.times_s, dtype=np.float64)
        later = times[1:].reshape(t - 1, scale.time).mean(axis=1)
        found.append(
            Tokens(
                values=values,
                time_s=np.concatenate([times[:1], later])[time].astype(np.float32),
                row=((row + 0.5) * scale.space).astype(np.float32),
                col=((col + 0.5) * scale.space).astype(np.float32),
                kind=np.zeros(t * h * w, np.uint8),
                tile=np.zeros(t * h * w, np.int32),
                grid=counts,
            )
        )
    return found


def noise_like(z: torch.Tensor, seed: int) -> torch.Tensor:
    """Return standard normal noise [1 feature time row col] for latents `z`, equal on every device and batch."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.randn((1, *z.shape[1:]), generator=generator).to(device=z.device, dtype=z.dtype)


@contextmanager
def _seeded(seed: int, device: torch.device, *, when: bool) -> Iterator[None]:
    """Seed the global random state inside, and put it back as it was."""
    import torch

    if not when:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _frames(pixels: torch.Tensor) -> tuple[tuple[int, int], int]:
    """Return the size and the number of frames of pixels [sample 3 time row col]."""
    return (int(pixels.shape[3]), int(pixels.shape[4])), int(pixels.shape[2])


def _share(value: float, name: str) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a share of noise in [0, 1], but got {value}")
    return value


def _float32(values: Any) -> torch.Tensor:
    import torch

    if isinstance(values, torch.Tensor):
        return values.float()
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value

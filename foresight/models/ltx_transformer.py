"""LTX-Video's diffusion transformer: its layers on noised latents, as tokens on the autoencoder's own grid.

A point is a layer at a noise level: `dit.14@0.25` is the output after 14 blocks when a quarter of the latent is
noise. The level is part of the point's name, so latents of two levels never meet in the store. Noised latents are
`(1 - level) latent + level noise`, and the model is told the timestep `1000 level`, as in its flow matching.

What is held fixed is identity too: the noise (from one seed and the latents' shape, so it is the same for every
sample) and the text (a single zero vector in place of an embedded prompt; the text encoder is not loaded).

Architecture: HaCohen et al. (2024), arXiv:2501.00103. Reading a diffusion model at a noise level: Tang et al.
(2023), arXiv:2306.03881.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foresight.models import causal_vae, ltx_video
from foresight.models.card import Card, ModelRef, Point, resolve_points
from foresight.models.causal_vae import VideoAutoencoder
from foresight.models.checkpoint import find_checkpoint
from foresight.models.device import without_bars
from foresight.models.loading import WrongCheckpoint
from foresight.nouns import Frames, Tokens

if TYPE_CHECKING:
    import torch

NOISE_SEED = 0
STILL_STEP_S = 1 / 25
"""Seconds between frames of a still, for the clock of the rotary embedding; a still is at second 0 anyway."""

_OF_NAME = {card.name: card for card in ltx_video.CARDS}
_AUTOENCODER, _TINY_AUTOENCODER = _OF_NAME["ltx-video-vae"], _OF_NAME["ltx-video-tiny"]

PREPROCESSING = causal_vae.PREPROCESSING | {
    "autoencoder": f"{_AUTOENCODER.name}@{_AUTOENCODER.revision}",
    "noise_seed": NOISE_SEED,
    "text": "one zero vector",
    "clock": "seconds",
    "attention": "sdpa",
}
"""Identity of what happens between frames and tokens, beyond what the checkpoint's own files say."""

CARDS = (
    Card(
        name="ltx-video-transformer",
        family="ltx_transformer",
        role="decoder",
        repo=_AUTOENCODER.repo,
        revision=_AUTOENCODER.revision,
        subfolder="transformer",
        licence=_AUTOENCODER.licence,
        parameters=2_342_579_121,  # 1_923_385_472, and the autoencoder
        memory_gib=4.4,
        dtype="bfloat16",
        size=(256, 256),
        config={
            "transformer": {"num_layers": 28, "num_attention_heads": 32, "attention_head_dim": 64,
                            "in_channels": 128, "patch_size": 1, "patch_size_t": 1},
            "noise_levels": [0.05, 0.25, 0.5],
        },
        default_points=("dit.7@0.25", "dit.14@0.25", "dit.21@0.25"),
    ),
    Card(
        name="ltx-video-transformer-tiny",
        family="ltx_transformer",
        role="decoder",
        parameters=1_482_145,  # 322_128, and the autoencoder
        memory_gib=0.01,
        size=(64, 64),
        config={
            "transformer": {"num_layers": 4, "num_attention_heads": 4, "attention_head_dim": 16, "in_channels": 16,
                            "out_channels": 16, "patch_size": 1, "patch_size_t": 1, "cross_attention_dim": 64,
                            "caption_channels": 32},
            "noise_levels": [0.05, 0.25, 0.5],
            "autoencoder": dict(_TINY_AUTOENCODER.config),
        },
        default_points=("dit.2@0.25", "dit.4@0.25"),
    ),
)  # fmt: skip


def points(card: Card) -> tuple[Point, ...]:
    """Return every layer at every noise level; each level is a forward pass of its own."""
    numbers = card.config["transformer"]
    layers = numbers["num_layers"]
    return tuple(
        Point(
            name=f"dit.{layer}@{level}",
            path=f"transformer_blocks.{layer - 1}",
            width=numbers["num_attention_heads"] * numbers["attention_head_dim"],
            about=f"diffusion transformer after {layer} of {layers} blocks, {level:.0%} noise, no text",
        )
        for level in card.config["noise_levels"]
        for layer in range(1, layers + 1)
    )


def grid(card: Card, point: Point, size: tuple[int, int], frames: int) -> tuple[int, int, int]:
    """Return the (time, row, col) counts of tokens: one per latent cell of the autoencoder."""
    return causal_vae.cells(card, ltx_video.compression(_autoencoder_card(card)), size, frames)


def load(ref: ModelRef, folder: Path | None, *, device: str, dtype: str, attention: str) -> LtxTransformer:
    """Load the transformer named by `ref` from `folder`; without a folder its weights are drawn at random.

    Its autoencoder is never drawn with it, so a random twin reads the same latents: for the real card it is the
    pinned checkpoint of `ltx-video-vae`, whatever the revision of the transformer, and it has to be on this machine
    or to be fetched; for a tiny one `autoencoder.safetensors` in the folder, or without a folder what
    `ltx-video-tiny` draws from seed 0.

    `attention` is not used: every layer runs torch's own kernel.
    """
    from diffusers import LTXVideoTransformer3DModel

    numbers = ref.card.config["transformer"]
    transformer = causal_vae.load_part(
        LTXVideoTransformer3DModel, ref, folder, declared=numbers, device=device, dtype=dtype
    )
    autoencoder = _load_autoencoder(ref, folder, device=device, dtype=dtype)
    return LtxTransformer(ref.card, transformer, autoencoder)


class LtxTransformer:
    """A loaded diffusion transformer with the autoencoder whose latents it reads."""

    def __init__(self, card: Card, transformer: Any, autoencoder: VideoAutoencoder):
        self.card, self.transformer, self.autoencoder = card, transformer, autoencoder
        self.forwards = 0
        """Forward passes of the transformer so far."""

    def extract(self, batch: Sequence[Frames], asked: Sequence[str]) -> list[dict[str, Tokens]]:
        """Return one `{point: Tokens}` per entry of `batch`.

        Frames of one shape share their passes: one through the encoder, and one through the transformer for each
        noise level asked for, which ends after the deepest layer asked for at that level.
        """
        wanted = resolve_points(points(self.card), asked, model=self.card.name)
        return causal_vae.by_shape(batch, lambda part: self._extract(part, wanted))

    def prepare(self, batch: Sequence[Frames], level: float) -> dict[str, Any]:
        """Return the transformer's own inputs for frames of one shape at one noise level."""
        return self._inputs(self.autoencoder.encode(batch), batch, level)

    def save(self, folder: Path) -> None:
        """Write the transformer as an ordinary checkpoint folder, and for a tiny card its autoencoder beside it."""
        from safetensors.torch import save_file

        with without_bars():
            self.transformer.save_pretrained(folder, safe_serialization=True)
        if self.card.tiny:
            save_file(self.autoencoder.vae.state_dict(), folder / _BESIDE, metadata={"format": "pt"})

    def _extract(self, batch: Sequence[Frames], wanted: Sequence[Point]) -> list[dict[str, Tokens]]:
        import torch

        from foresight.models.tap import record

        grid(self.card, wanted[0], batch[0].size, len(batch[0].pixels))
        z = self.autoencoder.encode(batch)
        found: list[dict[str, Tokens]] = [{} for _ in batch]
        for level in self.card.config["noise_levels"]:
            paths = {p.name: p.path for p in wanted if p.name.endswith(f"@{level}")}
            if not paths:
                continue
            inputs = self._inputs(z, batch, level)
            with torch.no_grad():
                seen = record(self.transformer, paths, lambda inputs=inputs: self.transformer(**inputs))  # type: ignore[misc]
            self.forwards += 1
            for name in paths:
                cells = seen[name].transpose(1, 2).unflatten(2, z.shape[2:])
                for one, tokens in zip(
                    found, causal_vae.tokens_of(cells, batch, self.autoencoder.scale), strict=True
                ):
                    one[name] = tokens
        return found

    def _inputs(self, z: torch.Tensor, batch: Sequence[Frames], level: float) -> dict[str, Any]:
        """Return the inputs for normalised latents `z` of `batch`: noised tokens, timestep, places and no text."""
        import torch

        noised = (1 - level) * z + level * causal_vae.noise_like(z, NOISE_SEED)
        n, device = len(z), z.device
        text = self.transformer.config.caption_channels
        return {
            "hidden_states": noised.flatten(2).transpose(1, 2).to(self.transformer.dtype),
            "encoder_hidden_states": torch.zeros(n, 1, text, device=device, dtype=self.transformer.dtype),
            "encoder_attention_mask": torch.ones(n, 1, device=device),
            "timestep": torch.full((n,), 1000 * level, device=device),
            "video_coords": self._coordinates(z, batch),
            "return_dict": False,
        }

    def _coordinates(self, z: torch.Tensor, batch: Sequence[Frames]) -> torch.Tensor:
        """Return where each token starts, [sample 3 token]: seconds, and rows and columns in pixels.

        As LTX-Video's pipeline counts them, with each clip's own frame rate.
        """
        import torch

        scale = self.autoencoder.scale
        steps = [_step_s(f) * scale.time for f in batch]
        index = torch.stack(
            torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in z.shape[2:]), indexing="ij")
        ).flatten(1)
        units = torch.tensor([[step, scale.space, scale.space] for step in steps])
        return (units[:, :, None] * index).to(z.device)


_BESIDE = "autoencoder.safetensors"


def _autoencoder_card(card: Card) -> Card:
    return _TINY_AUTOENCODER if card.tiny else _AUTOENCODER


def _load_autoencoder(ref: ModelRef, folder: Path | None, *, device: str, dtype: str) -> VideoAutoencoder:
    card = _autoencoder_card(ref.card)
    if not card.tiny:
        own = ModelRef(card=card, kind="hub", value=card.revision or "")
        return ltx_video.load(
            own, find_checkpoint(own, download=True), device=device, dtype=dtype, attention="sdpa"
        )
    drawn = ModelRef(card=card, kind="random", value="0")
    loaded = ltx_video.load(drawn, None, device=device, dtype=dtype, attention="sdpa")
    if folder is not None:
        from safetensors.torch import load_file

        if not (folder / _BESIDE).is_file():
            raise WrongCheckpoint(
                f"{ref.card.name} reads the latents of an autoencoder of its own, but {folder.name} has no {_BESIDE}; "
                "save the model again with its `save`"
            )
        loaded.vae.load_state_dict(load_file(folder / _BESIDE))
    return loaded


def _step_s(frames: Frames) -> float:
    """Return the mean seconds between frames."""
    times = frames.times_s
    return float(times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else STILL_STEP_S

"""Video autoencoders: every latent cell at its place and time, decoding, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLHunyuanVideo, AutoencoderKLLTXVideo
from safetensors.torch import load_file, save_file

from foresight import models
from foresight.models.causal_vae import VideoAutoencoder
from foresight.nouns import Frames
from tests.conftest import frames_of
from tests.foresight.models.values import relative

CARDS = ("ltx-video-tiny@random0", "ltx-video-0.9.5-tiny", "cogvideox-tiny", "hunyuan-video-tiny")

# one sample or several in a convolution is another split of the same float32 sums, and group norms sum over whole
# chunks: 1.2e-5 was the most seen, and a token out of place differs by about 1
TOLERANCE = 5e-5


@pytest.fixture(scope="module", params=CARDS)
def decoder(request: pytest.FixtureRequest) -> VideoAutoencoder:
    return loaded(request.param)


def loaded(name: str, folder: Path | None = None) -> VideoAutoencoder:
    ref = models.parse_ref(name)
    found: VideoAutoencoder = models.family(ref.card).load(
        ref, folder, device="cpu", dtype="float32", attention="sdpa"
    )
    return found


def grey(height: int, width: int, time: int = 1) -> Frames:
    return Frames(pixels=np.full((time, height, width, 3), 96, np.uint8), times_s=np.arange(time) * 0.25)


def with_cell(frames: Frames, times: range, row: int, col: int, px: int) -> Frames:
    """Return `frames` with the pixels of one latent cell lit in some frames."""
    pixels = frames.pixels.copy()
    pixels[times.start : times.stop, row * px : (row + 1) * px, col * px : (col + 1) * px] = (255, 32, 200)
    return Frames(pixels=pixels, times_s=frames.times_s)


@pytest.fixture(scope="module", params=CARDS)
def centred(request: pytest.FixtureRequest) -> VideoAutoencoder:
    """The encoder without the taps that look sideways or back: a token hears little but its own cell."""
    found = loaded(request.param)
    for module in found.vae.encoder.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d) and module.kernel_size[-1] > 1:
            flat = isinstance(module, torch.nn.Conv2d)
            for axis, (taps, stride) in enumerate(zip(module.kernel_size, module.stride, strict=True)):
                # flat ones are padded behind, the others on both sides, in time before: the last tap is the frame
                in_time = axis == 0 and not flat
                first = (0 if flat else 1) if stride == 2 else taps - 1 if in_time else taps // 2
                keep = torch.zeros(taps)
                keep[first : first + stride] = 1
                module.weight.mul_(keep.view(-1, *[1] * (len(module.kernel_size) - 1 - axis)))
    return found


def test_a_lit_cell_changes_most_the_token_that_claims_its_place(centred: VideoAutoencoder) -> None:
    px = centred.scale.space
    for height, width in [(64, 96), (96, 48)]:
        plain = grey(height, width)
        spots = [(r, c) for r in range(height // px) for c in range(width // px)]
        lit = [with_cell(plain, range(1), row, col, px) for row, col in spots]
        before = centred.extract([plain], ["latent"])[0]["latent"]
        for (row, col), found in zip(spots, centred.extract(lit, ["latent"]), strict=True):
            most = int((found["latent"].values - before.values).norm(dim=1).argmax())
            assert (before.row[most], before.col[most]) == ((row + 0.5) * px, (col + 0.5) * px)


def test_a_lit_cell_of_a_clip_changes_most_the_token_of_its_time(centred: VideoAutoencoder) -> None:
    scale = centred.scale
    plain = grey(64, 64, time=2 * scale.step + 1)
    before = centred.extract([plain], ["latent"])[0]["latent"]
    for j in range(before.grid[0]):
        mine = range(1) if j == 0 else range((j - 1) * scale.time + 1, j * scale.time + 1)
        lit = with_cell(plain, mine, 1, 2, scale.space)
        after = centred.extract([lit], ["latent"])[0]["latent"]
        most = int((after.values - before.values).norm(dim=1).argmax())
        assert before.time_s[most] == pytest.approx(plain.times_s[mine.start : mine.stop].mean())
        assert (before.row[most], before.col[most]) == (1.5 * scale.space, 2.5 * scale.space)


def test_latents_equal_the_plain_encode_normalised(decoder: VideoAutoencoder) -> None:
    batch = [frames_of(64, 96, time=decoder.scale.step + 1, seed=s) for s in range(2)]
    pixels = torch.stack([torch.from_numpy(f.pixels).permute(3, 0, 1, 2) for f in batch]) / 127.5 - 1
    with torch.no_grad():
        z = decoder.vae.encode(pixels).latent_dist.mode() * decoder.vae.config.scaling_factor
    px = decoder.scale.space
    for found, one in zip(decoder.extract(batch, ["latent"]), z, strict=True):
        tokens = found["latent"]
        assert tokens.grid == tuple(one.shape[1:])
        times = sorted(set(tokens.time_s.tolist()))
        for token in range(0, len(tokens.values), 7):
            # [feature time row col] read at the token's own place: no transposed axes can pass
            time, row, col = (
                times.index(tokens.time_s[token]),
                tokens.row[token] // px,
                tokens.col[token] // px,
            )
            assert relative(tokens.values[token], one[:, time, int(row), int(col)]) < TOLERANCE


def test_normalising_undoes_denormalising(decoder: VideoAutoencoder) -> None:
    z = torch.randn(2, decoder.card.config["latent_channels"], 3, 4, 5)
    assert relative(decoder.normalise(decoder.denormalise(z)), z) < TOLERANCE


def test_what_is_encoded_decodes_to_the_frames_it_had(decoder: VideoAutoencoder) -> None:
    for time in (1, decoder.scale.step + 1, 2 * decoder.scale.step + 1):
        tokens = decoder.extract([frames_of(64, 32, time=time, seed=s) for s in range(2)], ["latent"])
        pixels = decoder.decode([t["latent"] for t in tokens])
        assert pixels.shape == (2, time, 64, 32, 3)
        assert pixels.min() >= 0 <= pixels.max() <= 1
        assert np.ptp(pixels) > 0.01


def test_neighbours_change_neither_latents_nor_pixels(decoder: VideoAutoencoder) -> None:
    batch = [
        frames_of(64, 64),
        frames_of(64, 32, seed=1),
        frames_of(64, 64, seed=2),
        frames_of(64, 64, time=decoder.scale.step + 1, seed=3),
    ]
    passes = decoder.forwards
    crowded = [t["latent"] for t in decoder.extract(batch, ["latent"])]
    assert decoder.forwards == passes + 3  # one for each shape
    for frames, tokens in zip(batch, crowded, strict=True):
        alone = decoder.extract([frames], ["latent"])[0]["latent"]
        assert tokens.grid == alone.grid
        assert relative(tokens.values, alone.values) < TOLERANCE
    pair = decoder.decode([crowded[0], crowded[2]])
    for at_once in (1, 2):
        np.testing.assert_allclose(
            pair, decoder.decode([crowded[0], crowded[2]], at_once=at_once), atol=TOLERANCE
        )
    np.testing.assert_allclose(pair[1:], decoder.decode([crowded[2]]), atol=TOLERANCE)


def test_tokens_read_back_from_a_store_decode_as_they_were(decoder: VideoAutoencoder) -> None:
    tokens = decoder.extract([frames_of(64, 64)], ["latent"])[0]["latent"]
    half = tokens.values.to(torch.bfloat16)
    stored = dataclasses.replace(tokens, values=half.view(torch.uint16).numpy().view(ml_dtypes.bfloat16))
    fresh = dataclasses.replace(tokens, values=half)
    np.testing.assert_array_equal(decoder.decode([stored]), decoder.decode([fresh]))


def test_tokens_of_two_grids_are_not_decoded_together(decoder: VideoAutoencoder) -> None:
    tokens = decoder.extract([frames_of(64, 64), frames_of(64, 32)], ["latent"])
    with pytest.raises(ValueError, match="fill one grid, but got"):
        decoder.decode([t["latent"] for t in tokens])


def test_the_planned_grid_is_the_one_that_comes_out(decoder: VideoAutoencoder) -> None:
    family, card = models.family(decoder.card), decoder.card
    (point,) = models.points(card)
    step = decoder.scale.step
    for size, frames in [((64, 64), 1), ((32, 80), step + 1), ((48, 16), 2 * step + 1)]:
        tokens = decoder.extract([frames_of(*size, time=frames)], ["latent"])[0]["latent"]
        assert family.grid(card, point, size, frames) == tokens.grid
        assert models.token_count(card, point, size, frames) == math.prod(tokens.grid) == len(tokens.values)
        assert tokens.values.shape[1] == point.width


def test_lengths_and_sides_that_would_be_cut_or_padded_are_refused(decoder: VideoAutoencoder) -> None:
    step, px = decoder.scale.step, decoder.scale.space
    with pytest.raises(
        ValueError, match=rf"{step}k\+1 frames, but got {step}; ask for --frames 1 or {step + 1}"
    ):
        decoder.extract([frames_of(64, 64, time=step)], ["latent"])
    with pytest.raises(ValueError, match=f"multiples of {px} px, but got 64 x {3 * px - 2}"):
        decoder.extract([frames_of(64, 3 * px - 2)], ["latent"])


def test_gradients_reach_the_latents_and_no_weight(decoder: VideoAutoencoder) -> None:
    z = torch.randn(2, decoder.card.config["latent_channels"], 1, 2, 3, requires_grad=True)
    pixels = decoder.decode_latents(z)
    pixels.square().mean().backward()
    assert z.grad is not None
    assert bool(z.grad.flatten(1).norm(dim=1).gt(0).all())
    assert bool(z.grad.isfinite().all())
    assert not any(p.requires_grad for p in decoder.vae.parameters())


@pytest.mark.parametrize("name", CARDS)
def test_checkpointed_gradients_are_the_same_gradients(name: str) -> None:
    plain, lean = loaded(name), loaded(name)
    lean.checkpoint_gradients()
    z = torch.randn(
        1, plain.card.config["latent_channels"], 1, 4, 4, generator=torch.Generator().manual_seed(0)
    )
    kept, found = [], []
    for model in (plain, lean):
        here = z.clone().requires_grad_()
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t
        ):
            pixels = model.decode_latents(here)
        pixels.square().mean().backward()
        kept.append(sum(saved))
        found.append((pixels.detach(), here.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert relative(found[1][1], found[0][1]) < TOLERANCE
    assert kept[1] < kept[0] / 2


def test_half_precision_gives_half_precision_latents(decoder: VideoAutoencoder) -> None:
    ref = models.ModelRef(card=decoder.card, kind="random", value="0")
    half = models.family(decoder.card).load(ref, None, device="cpu", dtype="bfloat16", attention="sdpa")
    tokens = half.extract([frames_of(64, 64)], ["latent"])[0]["latent"]
    assert tokens.values.dtype == torch.bfloat16
    assert half.decode([tokens]).dtype == np.float32


def test_random_weights_follow_from_their_seed() -> None:
    first, same, other = (loaded(f"cogvideox-tiny@random{s}") for s in (0, 0, 1))
    batch = [frames_of(64, 64)]
    a, b, c = (m.extract(batch, ["latent"])[0]["latent"].values for m in (first, same, other))
    assert torch.equal(a, b)
    assert relative(c, a) > 0.1


class TestRefused:
    """Folders that are not the checkpoint the card names."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        loaded("hunyuan-video-tiny").save(tmp_path)
        return tmp_path

    def test_another_class(self, folder: Path) -> None:
        with pytest.raises(
            ValueError, match=r"is a AutoencoderKLCogVideoX, but .* is a AutoencoderKLHunyuanVideo"
        ):
            loaded(f"cogvideox-tiny@path:{folder}", folder)

    def test_a_model_of_another_library(self, folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
        with pytest.raises(ValueError, match="is a model of another library; give its own card"):
            loaded(f"hunyuan-video-tiny@path:{folder}", folder)

    def test_another_number(self, folder: Path) -> None:
        card = models.get("hunyuan-video-tiny")
        other = dataclasses.replace(card, config=dict(card.config) | {"scaling_factor": 1.5})
        ref = models.ModelRef(card=other, kind="path", value=str(folder))
        with pytest.raises(
            ValueError, match=r"declares scaling_factor = 1.5, but the checkpoint has 0.476986"
        ):
            models.family(card).load(ref, folder, device="cpu", dtype="float32", attention="sdpa")

    def test_a_weight_that_is_not_there(self, folder: Path) -> None:
        file = folder / "diffusion_pytorch_model.safetensors"
        weights = load_file(file)
        del weights["quant_conv.bias"]
        save_file(weights, file, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=r"lacks 1 of them, quant_conv\.bias first"):
            loaded(f"hunyuan-video-tiny@path:{folder}", folder)

    def test_a_shard_that_is_not_there(self, folder: Path) -> None:
        (folder / "diffusion_pytorch_model.safetensors").unlink()
        index = {"weight_map": {"quant_conv.bias": "diffusion_pytorch_model-00001-of-00001.safetensors"}}
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match=r"00001-of-00001\.safetensors is not in"):
            loaded(f"hunyuan-video-tiny@path:{folder}", folder)

    def test_pickles(self, folder: Path) -> None:
        file = folder / "diffusion_pytorch_model.safetensors"
        file.rename(folder / "diffusion_pytorch_model.bin")
        with pytest.raises(ValueError, match="can run code when opened"):
            loaded(f"hunyuan-video-tiny@path:{folder}", folder)


@pytest.mark.parametrize(
    ("name", "vae_class", "config"),
    [
        ("ltx-video-vae", AutoencoderKLLTXVideo, {}),
        (
            "ltx-video-0.9.1-vae",
            AutoencoderKLLTXVideo,
            {"decoder_block_out_channels": (256, 512, 1024), "decoder_layers_per_block": (5, 6, 7, 8),
             "decoder_spatio_temporal_scaling": (True,) * 3, "decoder_inject_noise": (False, True, True, True),
             "upsample_residual": (True,) * 3, "upsample_factor": (2,) * 3, "timestep_conditioning": True},
        ),
        (
            "ltx-video-0.9.5-vae",
            AutoencoderKLLTXVideo,
            {"block_out_channels": (128, 256, 512, 1024, 2048), "layers_per_block": (4, 6, 6, 2, 2),
             "down_block_types": ("LTXVideo095DownBlock3D",) * 4, "spatio_temporal_scaling": (True,) * 4,
             "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
             "decoder_block_out_channels": (256, 512, 1024), "decoder_layers_per_block": (5,) * 4,
             "decoder_spatio_temporal_scaling": (True,) * 3, "decoder_inject_noise": (False,) * 4,
             "upsample_residual": (True,) * 3, "upsample_factor": (2,) * 3, "timestep_conditioning": True},
        ),
        ("cogvideox-2b-vae", AutoencoderKLCogVideoX, {}),
        ("hunyuan-video-vae", AutoencoderKLHunyuanVideo, {}),
    ],
)  # fmt: skip
def test_real_cards_have_the_published_architecture(
    name: str, vae_class: type, config: dict[str, object]
) -> None:
    card = models.get(name)
    with torch.device("meta"):
        vae = vae_class(**config)
    assert sum(p.numel() for p in vae.parameters()) == card.parameters
    assert card.memory_gib == pytest.approx(card.parameters * 2 / 2**30, abs=0.1)
    for key, value in card.config.items():
        found = vae.config[key]
        assert (list(found) if isinstance(found, tuple) else found) == value
    (point,) = models.points(card)
    time, side = {"ltx": (8, 32), "cog": (4, 8), "hun": (4, 8)}[name[:3]]
    assert models.family(card).grid(card, point, (256, 384), 17) == (16 // time + 1, 256 // side, 384 // side)

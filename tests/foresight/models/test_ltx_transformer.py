"""LTX-Video's diffusion transformer: layers at noise levels, equal to the plain forward, on the latent grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import LTXPipeline, LTXVideoTransformer3DModel

from foresight import models
from foresight.models import ltx_transformer
from foresight.models.checkpoint import MissingCheckpoint
from foresight.models.ltx_transformer import LtxTransformer
from foresight.nouns import Frames
from tests.conftest import frames_of
from tests.foresight.models.values import relative

CARD = models.get("ltx-video-transformer-tiny")
POINTS = [p.name for p in models.points(CARD)]

# the rotary places and the convolutions in the encoder: the same float32 sums in another order
TOLERANCE = 5e-5


def loaded(name: str, folder: Path | None = None) -> LtxTransformer:
    ref = models.parse_ref(name)
    return ltx_transformer.load(ref, folder, device="cpu", dtype="float32", attention="sdpa")


@pytest.fixture(scope="module")
def model() -> LtxTransformer:
    return loaded("ltx-video-transformer-tiny")


@pytest.mark.parametrize("time", [1, 5])
def test_every_layer_at_every_level_equals_the_plain_forward(model: LtxTransformer, time: int) -> None:
    clips = [frames_of(64, 96, time=time, step_s=0.04, seed=s) for s in range(2)]
    ours = model.extract(clips, ["all"])
    z = model.autoencoder.encode(clips)
    noise = torch.randn(1, *z.shape[1:], generator=torch.Generator().manual_seed(0))
    for level in (0.05, 0.25, 0.5):
        outputs: list[torch.Tensor] = []
        blocks = model.transformer.transformer_blocks
        handles = [
            b.register_forward_hook(lambda _m, _a, o, outputs=outputs: outputs.append(o)) for b in blocks
        ]
        try:
            # the pipeline's own packing, and its own count of places from a frame rate
            packed = LTXPipeline._pack_latents((1 - level) * z + level * noise, 1, 1)
            with torch.no_grad():
                model.transformer(
                    hidden_states=packed,
                    encoder_hidden_states=torch.zeros(2, 1, 32),
                    encoder_attention_mask=torch.ones(2, 1),
                    timestep=torch.tensor([1000 * level] * 2),
                    num_frames=z.shape[2],
                    height=z.shape[3],
                    width=z.shape[4],
                    rope_interpolation_scale=(2 / 25, 8, 8),
                )
        finally:
            for handle in handles:
                handle.remove()
        assert len(outputs) == 4
        for layer, output in enumerate(outputs, start=1):
            for one, tokens in zip(output, ours, strict=True):
                assert relative(tokens[f"dit.{layer}@{level}"].values, one) < TOLERANCE


@pytest.mark.parametrize("point", POINTS)
def test_a_changed_latent_changes_most_the_token_at_its_place(model: LtxTransformer, point: str) -> None:
    clips = [frames_of(32, 48, time=5), frames_of(64, 40, time=3, seed=1)]
    scale = model.autoencoder.scale
    for clip in clips:
        before = model.extract([clip], [point])[0][point]
        latents = model.autoencoder.extract([clip], ["latent"])[0]["latent"]
        pixels = clip.pixels.copy()
        pixels[1 : 1 + scale.time, 8:16, 24:32] = 255 - pixels[1 : 1 + scale.time, 8:16, 24:32]
        changed = Frames(pixels=pixels, times_s=clip.times_s)
        after = model.extract([changed], [point])[0][point]
        moved = model.autoencoder.extract([changed], ["latent"])[0]["latent"].values - latents.values
        most, source = (
            int((after.values - before.values).norm(dim=1).argmax()),
            int(moved.norm(dim=1).argmax()),
        )
        assert before.grid == latents.grid
        for axis in ("time_s", "row", "col"):
            np.testing.assert_array_equal(getattr(before, axis), getattr(latents, axis))
        assert most == source
        assert abs(before.row[most] - 12) <= 8
        assert abs(before.col[most] - 28) <= 8


def test_each_clip_keeps_its_own_clock_in_a_batch(model: LtxTransformer) -> None:
    slow, fast = frames_of(32, 32, time=5, step_s=0.5), frames_of(32, 32, time=5, step_s=0.02)
    together = model.extract([slow, fast], ["dit.4@0.25"])
    for tokens, clip in zip(together, (slow, fast), strict=True):
        alone = model.extract([clip], ["dit.4@0.25"])[0]["dit.4@0.25"]
        assert relative(tokens["dit.4@0.25"].values, alone.values) < TOLERANCE
    assert relative(together[0]["dit.4@0.25"].values, together[1]["dit.4@0.25"].values) > 1e-4


def test_one_pass_for_each_level_asked_for_ends_after_its_deepest_layer(model: LtxTransformer) -> None:
    whole = model.extract([frames_of(32, 32)], ["all"])[0]
    ran: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
        for layer, block in enumerate(model.transformer.transformer_blocks, start=1)
    ]
    try:
        passes, encoded = model.forwards, model.autoencoder.forwards
        part = model.extract([frames_of(32, 32)], ["dit.2@0.5", "dit.1@0.25", "dit.1@0.5"])[0]
    finally:
        for handle in handles:
            handle.remove()
    assert ran == [1, 1, 2]
    assert (model.forwards - passes, model.autoencoder.forwards - encoded) == (2, 1)
    assert set(part) == {"dit.1@0.25", "dit.1@0.5", "dit.2@0.5"}
    for name, tokens in part.items():
        assert torch.equal(tokens.values, whole[name].values)


def test_levels_give_other_latents_and_the_same_every_time(model: LtxTransformer) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = (model.extract([frames_of(32, 32)], ["all"])[0] for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[p].values, second[p].values) for p in POINTS)
    assert relative(first["dit.2@0.5"].values, first["dit.2@0.05"].values) > 0.1


def test_a_length_that_its_autoencoder_would_cut_is_refused(model: LtxTransformer) -> None:
    with pytest.raises(ValueError, match=r"ltx-video-transformer-tiny encodes 2k\+1 frames, but got 4"):
        model.extract([frames_of(64, 64, time=4)], ["all"])


def test_a_saved_checkpoint_brings_its_autoencoder_along(model: LtxTransformer, tmp_path: Path) -> None:
    mine = loaded("ltx-video-transformer-tiny@random3")
    mine.autoencoder.vae.latents_std.fill_(0.5)
    mine.save(tmp_path)
    again = loaded(f"ltx-video-transformer-tiny@path:{tmp_path}", tmp_path)
    before, after = (m.extract([frames_of(64, 64)], ["all"])[0] for m in (mine, again))
    for point in POINTS:  # equal weights at another alignment in memory: 1e-7
        assert relative(after[point].values, before[point].values) < TOLERANCE
    (tmp_path / "autoencoder.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no autoencoder\.safetensors; save the model again"):
        loaded(f"ltx-video-transformer-tiny@path:{tmp_path}", tmp_path)


def test_a_random_twin_reads_the_same_latents(model: LtxTransformer) -> None:
    twin = loaded("ltx-video-transformer-tiny@random1")
    batch = [frames_of(64, 64)]
    assert torch.equal(model.autoencoder.encode(batch), twin.autoencoder.encode(batch))
    one, other = (m.extract(batch, ["dit.2@0.25"])[0]["dit.2@0.25"].values for m in (model, twin))
    assert relative(one, other) > 0.1


def test_a_checkpoint_of_another_class_is_refused(model: LtxTransformer, tmp_path: Path) -> None:
    model.autoencoder.save(tmp_path)
    with pytest.raises(
        ValueError, match=r"is a LTXVideoTransformer3DModel, but .* is a AutoencoderKLLTXVideo"
    ):
        loaded(f"ltx-video-transformer-tiny@path:{tmp_path}", tmp_path)


def test_the_real_transformer_reads_latents_of_the_pinned_autoencoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = models.get("ltx-video-transformer")
    assert (
        ltx_transformer.PREPROCESSING["autoencoder"]
        == f"ltx-video-vae@{models.get('ltx-video-vae').revision}"
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        MissingCheckpoint, match="ltx-video-vae needs Lightricks/LTX-Video at commit 8984fa25007f"
    ):
        ltx_transformer._load_autoencoder(
            models.parse_ref(card.name), tmp_path, device="cpu", dtype="float32"
        )


def test_the_real_card_has_the_published_architecture() -> None:
    real = models.get("ltx-video-transformer")
    with torch.device("meta"):
        transformer = LTXVideoTransformer3DModel()
    assert (
        sum(p.numel() for p in transformer.parameters()) + models.get("ltx-video-vae").parameters
        == real.parameters
    )
    assert all(transformer.config[k] == v for k, v in real.config["transformer"].items())
    by_name = {p.name: p for p in models.points(real)}
    assert len(by_name) == 3 * 28
    assert by_name["dit.14@0.25"].width == 2048
    assert ltx_transformer.grid(real, by_name["dit.28@0.5"], (256, 384), 17) == (3, 8, 12)

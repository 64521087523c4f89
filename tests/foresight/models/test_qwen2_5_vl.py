"""Qwen2.5-VL: every token at its place, values of the plain forward, nothing leaking between neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize
from transformers.vision_utils import get_vision_window_index

from foresight import models
from foresight.models.qwen2_5_vl import QwenVision
from foresight.models.qwen2_5_vl_order import resized, token_orders
from foresight.nouns import Frames
from tests.conftest import frames_of
from tests.foresight.models.values import TOLERANCE, relative

POINTS = [p.name for p in models.points(models.get("qwen2.5-vl-tiny"))]


@pytest.fixture(scope="module")
def vlm() -> QwenVision:
    ref = models.parse_ref("qwen2.5-vl-tiny@random0")
    return models.family(ref.card).load(ref, None, device="cpu", dtype="float32", attention="sdpa")


def with_patch(frames: Frames, row: int, col: int, patch: int = 8) -> Frames:
    """Return `frames` with one patch inverted."""
    pixels = frames.pixels.copy()
    here = (slice(None), slice(row * patch, (row + 1) * patch), slice(col * patch, (col + 1) * patch))
    pixels[here] = 255 - pixels[here]
    return Frames(pixels=pixels, times_s=frames.times_s)


@pytest.mark.parametrize("point", POINTS)
def test_a_planted_patch_changes_most_the_token_at_its_place_for_several_sizes_in_one_batch(
    vlm: QwenVision, point: str
) -> None:
    batch = [
        frames_of(64, 64),
        frames_of(96, 64, seed=1),
        frames_of(48, 112, seed=2),
        frames_of(32, 32, seed=3),
    ]
    before = vlm.extract(batch, [point])
    for image, frames in enumerate(batch):
        height, width = frames.size
        for row, col in [(0, 0), (1, 2), (3, 1), (height // 8 - 1, width // 8 - 1)]:
            changed = [*batch]
            changed[image] = with_patch(frames, row, col)
            after = vlm.extract(changed, [point])
            for other, (a, b) in enumerate(zip(before, after, strict=True)):
                moved = (a[point].values - b[point].values).norm(dim=1)
                if other != image:
                    assert float(moved.max()) < 1e-4  # another image of the batch: rounding at most
                    continue
                tokens, most = a[point], int(moved.argmax())
                cell = height / tokens.grid[1], width / tokens.grid[2]
                assert abs(tokens.row[most] - (row + 0.5) * 8) <= cell[0] / 2
                assert abs(tokens.col[most] - (col + 0.5) * 8) <= cell[1] / 2


def test_taking_window_order_for_raster_would_be_caught(vlm: QwenVision) -> None:
    grids = torch.tensor([[1, 8, 8]])
    orders = token_orders(grids, vlm.model.config.vision_config)
    window, _ = orders["window"]
    misplaced = (window[:, 1:] != orders["block"][0][:, 1:]).any(axis=1).mean()
    raster = np.stack(np.unravel_index(np.arange(64), (1, 8, 8)), axis=1)
    assert misplaced > 0.2
    assert (window[:, 1:] != raster).any(axis=1).mean() > 0.5


def test_extraction_equals_the_plain_forward_at_every_point(vlm: QwenVision) -> None:
    batch = [frames_of(64, 64), frames_of(96, 64, seed=1), frames_of(48, 112, seed=2)]
    ours = vlm.extract(batch, POINTS)
    inputs = vlm.prepare(batch)
    with torch.no_grad():
        plain = vlm.model.model(**inputs, output_hidden_states=True, use_cache=False)
        tower = vlm.model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
        features = vlm.model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
    merged = features.pooler_output
    for image, tokens in enumerate(ours):
        # the processor's own outputs are raster here: the reference needs no un-permuting of ours
        assert relative(tokens["merged"].values, merged[image]) < TOLERANCE
        mine = inputs["mm_token_type_ids"][image].bool()
        for layer in range(1, 4):
            assert (
                relative(tokens[f"llm.{layer}"].values, plain.hidden_states[layer][image][mine]) < TOLERANCE
            )
        assert relative(tokens["llm.final"].values, plain.last_hidden_state[image][mine]) < TOLERANCE
    together = torch.cat([t["vit.4"].values for t in ours]).sort(dim=0).values
    assert relative(together, tower.last_hidden_state.sort(dim=0).values) < TOLERANCE


def raster_of(grids: torch.Tensor, *, windows: bool) -> list[torch.Tensor]:
    """Return for every entry which patches of the tower, in raster order, are its own.

    The processor lays 2 x 2 patches that become one token side by side; blocks see those fours window by window.
    """
    places = []
    for entry, (t, h, w) in enumerate(grids.tolist()):
        fours = [(0, 0), (0, 1), (1, 0), (1, 1)]
        for time in range(t):
            corners = [(row, col) for row in range(0, h, 2) for col in range(0, w, 2)]
            places += [(entry, time, row + dy, col + dx) for row, col in corners for dy, dx in fours]
    order = torch.arange(len(places))
    if windows:
        window, _ = get_vision_window_index(grids, spatial_merge_size=2, window_size=32, patch_size=8)
        order = order.view(-1, 4)[window].flatten()
    seen = [places[i] for i in order]
    found = torch.tensor(sorted(range(len(seen)), key=seen.__getitem__))
    return list(found.split(grids.prod(-1).tolist()))


@pytest.mark.parametrize("time", [1, 5])
def test_every_layer_of_stills_and_clips_of_odd_sizes_equals_the_plain_forward_place_by_place(
    vlm: QwenVision, time: int
) -> None:
    sizes = [(61, 90), (96, 37), (80, 112)]
    batch = [frames_of(*s, time=time + 2 * i * (time > 1), seed=i) for i, s in enumerate(sizes)]
    ours = vlm.extract(batch, POINTS)
    inputs = vlm.prepare(batch)
    media = "image" if time == 1 else "video"
    pixels, grids = (
        inputs["pixel_values" if time == 1 else "pixel_values_videos"],
        inputs[f"{media}_grid_thw"],
    )
    core, outputs = vlm.model.model, {}
    assert (core.config.vision_config.window_size, core.config.vision_config.patch_size) == (32, 8)
    modules = {"patch": core.visual.patch_embed} | {
        f"vit.{k}": block for k, block in enumerate(core.visual.blocks, start=1)
    }
    handles = [
        m.register_forward_hook(lambda _, __, out, n=n: outputs.__setitem__(n, out))
        for n, m in modules.items()
    ]
    try:
        with torch.no_grad():
            core.visual(pixels, grid_thw=grids)
            plain = core(**inputs, output_hidden_states=True, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    for name, output in outputs.items():
        for mine, tokens in zip(raster_of(grids, windows=name != "patch"), ours, strict=True):
            assert relative(tokens[name].values, output[mine]) < TOLERANCE
    for entry, tokens in enumerate(ours):
        visual = inputs["mm_token_type_ids"][entry].bool()
        for layer in range(1, 4):
            assert (
                relative(tokens[f"llm.{layer}"].values, plain.hidden_states[layer][entry][visual]) < TOLERANCE
            )
        assert relative(tokens["llm.final"].values, plain.last_hidden_state[entry][visual]) < TOLERANCE


def test_a_clip_keeps_the_time_of_its_tokens_and_its_patches_their_place(vlm: QwenVision) -> None:
    clip = frames_of(64, 64, time=5, step_s=0.5)
    tokens = vlm.extract([clip, clip], ["vit.2", "llm.2"])[0]
    assert tokens["vit.2"].grid == (3, 8, 8)
    assert tokens["llm.2"].grid == (3, 4, 4)
    # two frames are one temporal patch; the odd last frame is repeated
    assert sorted(set(tokens["llm.2"].time_s.tolist())) == [0.25, 1.25, 2.0]
    changed = clip.pixels.copy()
    changed[2:4, 8:16, 40:48] = 255 - changed[2:4, 8:16, 40:48]
    after = vlm.extract([Frames(pixels=changed, times_s=clip.times_s), clip], ["vit.2"])[0]["vit.2"]
    most = int((after.values - tokens["vit.2"].values).norm(dim=1).argmax())
    assert (after.time_s[most], after.row[most], after.col[most]) == (1.25, 12.0, 44.0)


def test_stills_and_clips_are_not_mixed_in_a_batch(vlm: QwenVision) -> None:
    with pytest.raises(ValueError, match="stills or clips, but got both"):
        vlm.extract([frames_of(64, 64), frames_of(64, 64, time=4)], ["vit.1"])


@pytest.mark.parametrize(
    "size", [(64, 64), (480, 640), (224, 224), (128, 128), (1080, 1920), (30, 50), (4000, 3000)]
)
def test_planned_sizes_are_the_processors(size: tuple[int, int]) -> None:
    assert resized(size, unit=28, least=56 * 56) == smart_resize(*size, factor=28, max_pixels=28 * 28 * 1280)


def test_real_cards_have_the_published_architecture() -> None:
    card = models.get("qwen2.5-vl-7b")
    by_name = {p.name: p for p in models.points(card)}
    assert by_name["vit.32"].width == 1280  # the plans say 1536, which is a number of patches
    assert by_name["merged"].width == by_name["llm.14"].width == 3584
    assert "llm.29" not in by_name
    assert models.family(card).grid(card, by_name["merged"], (448, 672), 1) == (1, 16, 24)


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    import dataclasses

    ref = models.parse_ref("qwen2.5-vl-tiny@random0")
    models.family(ref.card).load(ref, None, device="cpu", dtype="float32", attention="sdpa").save(tmp_path)
    vision = dict(ref.card.config["vision"]) | {"depth": 9}
    other = dataclasses.replace(ref.card, config=dict(ref.card.config) | {"vision": vision})
    wrong = models.ModelRef(card=other, kind="path", value=str(tmp_path))
    with pytest.raises(ValueError, match="declares vision depth = 9, but the checkpoint has 4"):
        models.family(other).load(wrong, tmp_path, device="cpu", dtype="float32", attention="sdpa")

"""InternVL: every token at its place on canvas and thumbnail, values of the plain forward, nothing leaking."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import InternVLProcessor, InternVLVideoProcessor, PreTrainedTokenizerFast
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

from foresight import models
from foresight.models.internvl import InternVision
from foresight.models.internvl_tiles import canvas_shape
from foresight.models.loading import WrongCheckpoint
from foresight.nouns import KINDS, Frames, Tokens
from tests.conftest import frames_of
from tests.foresight.models.values import TOLERANCE, relative

CARD = models.get("internvl-tiny")
POINTS = [p.name for p in models.points(CARD)]
VISION = [p for p in POINTS if not p.startswith("llm.")]
TOWER = [p for p in POINTS if p.startswith("vit.")]


def load(text: str, folder: Path | None = None) -> InternVision:
    ref = models.parse_ref(text)
    return models.family(ref.card).load(ref, folder, device="cpu", dtype="float32", attention="sdpa")


@pytest.fixture(scope="module")
def vlm() -> InternVision:
    return load("internvl-tiny")


# pixels are whole levels of 255; one cell is 10 levels or more from the next
HALF_A_LEVEL = 0.51


def ramps(height: int, width: int, time: int = 1) -> Frames:
    """Return frames whose red says the row, whose green the column and whose blue the frame."""
    row, col = (np.arange(n, dtype=np.float64) + 0.5 for n in (height, width))
    pixels = np.zeros((time, height, width, 3))
    pixels[..., 0] = (row * 240 / height)[:, None]
    pixels[..., 1] = col * 240 / width
    pixels[..., 2] = (np.arange(time) * 20)[:, None, None]
    return Frames(pixels=np.rint(pixels).astype(np.uint8), times_s=np.arange(time) * 0.5)


@pytest.fixture(scope="module")
def reader() -> InternVision:
    """A tower whose every token is the mean colour of its own cell: blocks add nothing, the rest passes it on."""
    vlm = load("internvl-tiny@random1")
    tower = vlm.model.model.vision_tower
    with torch.no_grad():
        tower.embeddings.position_embeddings.zero_()
        tower.embeddings.cls_token.zero_()
        convolution = tower.embeddings.patch_embeddings.projection
        convolution.weight.zero_()
        convolution.bias.zero_()
        for channel in range(3):
            convolution.weight[channel, channel] = 1 / 64
        for layer in tower.encoder.layer:
            layer.lambda_1.zero_()
            layer.lambda_2.zero_()
    return vlm


def colours(tokens: Tokens, processor: Any) -> np.ndarray:
    """Return the [token 3] mean colour each token of `reader` was made of, 0 to 255."""
    values = tokens.values.reshape(len(tokens.values), -1, 64)[:, :, :3].mean(dim=1).numpy()
    return (values * np.array(processor.image_std) + np.array(processor.image_mean)) * 255


@pytest.mark.parametrize("point", ["patch", *TOWER, "shuffled"])
def test_every_token_carries_the_colour_of_the_place_and_time_it_claims(
    reader: InternVision, point: str
) -> None:
    batch = [
        ramps(64, 64), ramps(64, 128), ramps(75, 211), ramps(130, 131), ramps(31, 17), ramps(90, 70, time=4),
    ]  # fmt: skip
    for frames, got in zip(batch, reader.extract(batch, [point]), strict=True):
        tokens, (height, width) = got[point], frames.size
        patches = tokens.kind == KINDS.index("patch")
        seen = colours(tokens, reader.image_processor)[patches]
        assert np.abs(seen[:, 0] - tokens.row[patches] * 240 / height).max() < HALF_A_LEVEL
        assert np.abs(seen[:, 1] - tokens.col[patches] * 240 / width).max() < HALF_A_LEVEL
        assert np.abs(seen[:, 2] - tokens.time_s[patches] / 0.5 * 20).max() < HALF_A_LEVEL
        assert len(tokens.values) == models.token_count(CARD, by_name(point), frames.size, len(frames.pixels))


def by_name(point: str) -> models.Point:
    return {p.name: p for p in models.points(CARD)}[point]


def test_grid_tokens_are_in_raster_order_then_the_thumbnail_then_class_tokens(vlm: InternVision) -> None:
    tokens = vlm.extract([frames_of(64, 128)], ["vit.1"])[0]["vit.1"]
    assert tokens.grid == (1, 8, 16)
    raster = np.indices((8, 16)).reshape(2, -1) * 8 + 4.0
    np.testing.assert_allclose([tokens.row[:128], tokens.col[:128]], raster)
    small = np.indices((8, 8)).reshape(2, -1) + 0.5
    np.testing.assert_allclose([tokens.row[128:192], tokens.col[128:192]], [small[0] * 8, small[1] * 16])
    assert set(tokens.kind[:192]) == {KINDS.index("patch")}
    assert [KINDS[k] for k in tokens.kind[192:]] == ["class"] * 3
    assert np.isnan(tokens.row[192:]).all()
    assert np.isnan(tokens.col[192:]).all()
    assert tokens.tile[:128].reshape(8, 16)[:, [0, 7, 8, 15]].tolist() == [[0, 0, 1, 1]] * 8
    assert set(tokens.tile[128:192]) == {2}
    assert tokens.tile[192:].tolist() == [0, 1, 2]


def inverted(frames: Frames, row: int, col: int, *, time: int = 0, patch: int = 8) -> Frames:
    """Return `frames` with one cell of one frame inverted."""
    pixels = frames.pixels.copy()
    here = (time, slice(row * patch, (row + 1) * patch), slice(col * patch, (col + 1) * patch))
    pixels[here] = 255 - pixels[here]
    return Frames(pixels=pixels, times_s=frames.times_s)


@pytest.mark.parametrize("point", POINTS)
def test_a_planted_patch_changes_most_the_token_at_its_place_and_no_other_sample(
    vlm: InternVision, point: str
) -> None:
    # canvases of the images' own sizes, so that a cell of pixels is a patch
    batch = [frames_of(64, 64), frames_of(128, 64, seed=1), frames_of(64, 192, seed=2)]
    before = vlm.extract(batch, [point])
    for image, frames in enumerate(batch):
        height, width = frames.size
        for row, col in [(0, 0), (3, 5), (height // 8 - 1, width // 8 - 1)]:
            changed = [*batch]
            changed[image] = inverted(frames, row, col)
            for other, (a, b) in enumerate(zip(before, vlm.extract(changed, [point]), strict=True)):
                tokens, moved = a[point], (a[point].values - b[point].values).norm(dim=1).numpy()
                if other != image:
                    assert moved.max() < 1e-4  # another image of the batch: rounding at most
                    continue
                cells = int(np.prod(tokens.grid))
                most = int(moved[:cells].argmax())
                half = height / tokens.grid[1] / 2, width / tokens.grid[2] / 2
                assert abs(tokens.row[most] - (row + 0.5) * 8) <= half[0]
                assert abs(tokens.col[most] - (col + 0.5) * 8) <= half[1]
                assert tokens.tile[most] == row // 8 * (width // 64) + col // 8
                if point in VISION:  # tiles do not see each other before the language model
                    elsewhere = (tokens.tile != tokens.tile[most]) & (tokens.tile != tokens.tile.max())
                    assert moved[elsewhere].max(initial=0) < 1e-4


@pytest.mark.parametrize("point", POINTS)
def test_a_patch_planted_in_one_frame_of_a_clip_changes_most_the_token_of_that_time(
    vlm: InternVision, point: str
) -> None:
    clip = frames_of(64, 64, time=3, step_s=0.5)
    before, still = vlm.extract([clip, frames_of(64, 64, seed=4)], [point])
    after, same = vlm.extract([inverted(clip, 2, 6, time=1), frames_of(64, 64, seed=4)], [point])
    tokens, moved = before[point], (before[point].values - after[point].values).norm(dim=1)
    most = int(moved[: int(np.prod(tokens.grid))].argmax())
    half = 32 / tokens.grid[1]
    assert (tokens.grid[0], tokens.time_s[most]) == (3, 0.5)
    assert abs(tokens.row[most] - 20) <= half
    assert abs(tokens.col[most] - 52) <= half
    assert float(moved[torch.from_numpy(tokens.time_s == 0.0)].max()) < 1e-4
    assert relative(same[point].values, still[point].values) < TOLERANCE
    assert set(tokens.tile) == {0}


def stitched(tiles: torch.Tensor, rows: int, cols: int) -> torch.Tensor:
    """Put [tile cell feature] together to [cell feature] of the canvas, the thumbnail (if any) behind it."""
    side, canvas = int(tiles.shape[1] ** 0.5), tiles[: rows * cols]
    whole = canvas.reshape(rows, cols, side, side, -1).permute(0, 2, 1, 3, 4).flatten(0, 3)
    return torch.cat([whole, *tiles[rows * cols :]])


def test_extraction_equals_the_plain_forward_at_every_point(vlm: InternVision) -> None:
    batch = [frames_of(64, 64), frames_of(70, 150, seed=1), frames_of(64, 64, time=2, seed=2)]
    shapes = [(1, 1), (1, 2), (2, 1)]  # of a clip: frames under each other
    ours = vlm.extract(batch, POINTS)
    inputs = vlm.prepare(batch)
    with torch.no_grad():
        plain = vlm.model.model(**inputs, output_hidden_states=True, use_cache=False)
        tower = vlm.model.model.vision_tower(inputs["pixel_values"], output_hidden_states=True)
        embedded = vlm.model.model.vision_tower.embeddings.patch_embeddings(inputs["pixel_values"])
    assert plain.image_hidden_states is not None
    ends = [1, 4, 6]
    for image, (got, (rows, cols)) in enumerate(zip(ours, shapes, strict=True)):
        mine = slice([0, *ends][image], ends[image])

        def same(point: str, tiles: torch.Tensor, got: Any = got, rows: int = rows, cols: int = cols) -> None:
            expected = stitched(tiles, rows, cols)
            assert relative(got[point].values[: len(expected)], expected) < TOLERANCE

        same("patch", embedded[mine])
        for layer in range(1, 5):
            same(f"vit.{layer}", tower.hidden_states[layer][mine, 1:])
            assert torch.equal(
                got[f"vit.{layer}"].values[-len(embedded[mine]) :], tower.hidden_states[layer][mine, 0]
            )
        same("vit.out", tower.last_hidden_state[mine, 1:])
        same("projected", plain.image_hidden_states[mine])
        visual = inputs["input_ids"][image] == vlm.model.config.image_token_id
        for layer in range(1, 4):
            same(f"llm.{layer}", plain.hidden_states[layer][image][visual].unflatten(0, (-1, 16)))
        same("llm.final", plain.last_hidden_state[image][visual].unflatten(0, (-1, 16)))
        with torch.no_grad():
            again = vlm.model.model.multi_modal_projector(got["shuffled"].values)
        assert relative(again, got["projected"].values) < TOLERANCE


def test_inputs_are_those_of_the_librarys_own_processor_for_stills_and_clips(vlm: InternVision) -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=vlm.tokenizer.backend_tokenizer,
        pad_token="<|endoftext|>",
        extra_special_tokens={
            "start_image_token": "<img>", "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>",
        },
    )  # fmt: skip
    image, size = vlm.image_processor, {"height": 64, "width": 64}
    video = InternVLVideoProcessor(size=size, image_mean=image.image_mean, image_std=image.image_std)
    theirs = InternVLProcessor(image, tokenizer, video, image_seq_length=16)
    prompted = with_prefix(vlm, "<|im_start|>user\n")
    still, clip = frames_of(70, 150), frames_of(60, 80, time=3, seed=1)
    for ours, expected in [
        (
            prompted.prepare([still]),
            theirs(
                images=[torch.from_numpy(still.pixels[0]).permute(2, 0, 1)],
                text="<|im_start|>user\n<IMG_CONTEXT>",
                return_tensors="pt",
            ),
        ),
        (
            prompted.prepare([clip]),
            theirs(
                videos=[torch.from_numpy(clip.pixels).permute(0, 3, 1, 2)],
                text="<|im_start|>user\n<video>",
                return_tensors="pt",
            ),
        ),
    ]:
        assert torch.equal(ours["input_ids"], expected["input_ids"])
        torch.testing.assert_close(ours["pixel_values"], expected["pixel_values"], rtol=0, atol=1e-6)


def with_prefix(vlm: InternVision, prefix: str) -> InternVision:
    card = dataclasses.replace(vlm.card, prompt_prefix=prefix)
    return InternVision(card, vlm.model, vlm.tokenizer, vlm.image_processor)


@pytest.mark.parametrize("tile", [64, 448])
def test_the_canvas_is_the_librarys_for_every_size(tile: int) -> None:
    rng = np.random.default_rng(0)
    sizes = [(64, 64), (448, 448), (480, 640), (896, 896), (1080, 1920), (128, 64), (1, 3), (7, 5)]
    sizes += [tuple(int(n) for n in rng.integers(1, 3000, 2)) for _ in range(500)]  # type: ignore[misc]
    for size in sizes:
        cols, rows = get_optimal_tiled_canvas(size, (tile, tile), 1, 12)
        assert canvas_shape(size, tile=tile) == (rows, cols)


def test_random_weights_know_positions_and_come_from_the_seed_alone(vlm: InternVision) -> None:
    again, other = load("internvl-tiny@random0"), load("internvl-tiny@random1")
    mine, same, different = (
        m.model.model.vision_tower.embeddings.position_embeddings for m in (vlm, again, other)
    )
    assert torch.equal(mine, same)
    assert not torch.equal(mine, different)
    flat = Frames(pixels=np.full((1, 64, 64, 3), 128, np.uint8), times_s=np.zeros(1))
    values = vlm.extract([flat], ["vit.1"])[0]["vit.1"].values[:64]
    assert float(values.std(dim=0).mean()) > 0.01  # one colour everywhere: only positions tell tokens apart


def test_a_checkpoint_of_another_model_is_refused(vlm: InternVision, tmp_path: Path) -> None:
    vlm.save(tmp_path)
    vision = dict(CARD.config["vision"]) | {"num_hidden_layers": 9}
    other = dataclasses.replace(CARD, config=dict(CARD.config) | {"vision": vision})
    wrong = models.ModelRef(card=other, kind="path", value=str(tmp_path))
    with pytest.raises(
        WrongCheckpoint, match="declares vision num_hidden_layers = 9, but the checkpoint has 4"
    ):
        models.family(other).load(wrong, tmp_path, device="cpu", dtype="float32", attention="sdpa")
    qwen = models.parse_ref(f"qwen2.5-vl-tiny@path:{tmp_path}")
    with pytest.raises(WrongCheckpoint, match=r"is a qwen2_5_vl, but the checkpoint in .* is a internvl"):
        models.family(qwen.card).load(qwen, tmp_path, device="cpu", dtype="float32", attention="sdpa")


def test_an_image_processor_of_another_tile_size_is_refused(vlm: InternVision, tmp_path: Path) -> None:
    vlm.save(tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(file.read_text().replace('"height": 64', '"height": 32'))
    with pytest.raises(WrongCheckpoint, match=r"takes tiles of 64 x 64 px, but .* 32 x 64"):
        load(f"internvl-tiny@path:{tmp_path}", tmp_path)


def test_real_cards_have_the_published_architecture() -> None:
    card = models.get("internvl3-8b")
    named = {p.name: p for p in models.points(card)}
    assert named["vit.24"].plans == ("I1",)
    assert "vit.25" not in named
    assert (named["vit.24"].width, named["shuffled"].width, named["projected"].width) == (1024, 4096, 3584)
    family = models.family(card)
    assert family.grid(card, named["projected"], (448, 448), 1) == (1, 16, 16)
    assert family.grid(card, named["vit.24"], (480, 640), 1) == (1, 96, 128)
    assert models.token_count(card, named["projected"], (480, 640), 1) == 3328
    assert models.token_count(card, named["vit.24"], (448, 448), 8) == 8 * 1025

"""LLaVA-NeXT: every token of every tile at its place, values of the plain forward, nothing leaking."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
)
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.modeling_llava_next import unpad_image

from foresight import models
from foresight.models.llava_next import LlavaNext
from foresight.models.llava_next_tiles import BASE, tiling
from foresight.nouns import KINDS, Frames, Tokens
from tests.conftest import frames_of
from tests.foresight.models.values import TOLERANCE, ramp, relative

CARD = models.get("llava-next-tiny")
FAMILY = models.family(CARD)
POINTS = [p.name for p in models.points(CARD)]
TOWER = ["patch", "vit.1", "vit.2", "vit.3"]
# one canvas each: 2 x 2 tiles, a row of two, a row of three, a column of three, a column of two; most are padded
SIZES = [(64, 64), (30, 57), (37, 91), (101, 33), (50, 20), (23, 120)]


def loaded() -> LlavaNext:
    ref = models.parse_ref("llava-next-tiny")
    return FAMILY.load(ref, None, device="cpu", dtype="float32", attention="sdpa")


@pytest.fixture(scope="module")
def vlm() -> LlavaNext:
    return loaded()


def sections(tokens: Tokens) -> tuple[slice, slice, slice]:
    """Return where the canvas, the base view and the tokens of no place are."""
    n = int(np.prod(tokens.grid))
    end = int((tokens.kind == 0).sum())
    return slice(0, n), slice(n, end), slice(end, len(tokens.kind))


# --- planted places ---------------------------------------------------------------------------------------------

CONSTANT = 100.0
"""What every patch carries beside its colour: a norm changes both alike, so colour is read as their ratio."""


@pytest.fixture(scope="module")
def see_through() -> LlavaNext:
    """The model with weights by which every block hands on what it is given: each token tells its mean colour."""
    model = loaded()
    core = model.model.model
    tower, projector = core.vision_tower, core.multi_modal_projector
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.zero_()
        for colour in range(3):
            tower.embeddings.patch_embedding.weight[2 * colour, colour] = 1 / 64
            tower.embeddings.patch_embedding.weight[2 * colour + 1, colour] = -1 / 64
        tower.embeddings.position_embedding.weight[1:, 6] = CONSTANT
        tower.embeddings.position_embedding.weight[1:, 7] = -CONSTANT
        tower.embeddings.class_embedding[8] = CONSTANT
        tower.pre_layrnorm.weight.fill_(1)
        projector.linear_1.weight.copy_(torch.eye(64, 48))
        projector.linear_1.bias.fill_(20)  # so far up that the activation between the two changes nothing
        projector.linear_2.weight.copy_(torch.eye(64))
        projector.linear_2.bias.fill_(-20)
        core.language_model.norm.weight.fill_(1)
    return model


def colours(values: torch.Tensor, model: LlavaNext) -> np.ndarray:
    """Return what the see-through model's tokens carry: [token 3] in 0 to 255."""
    normalised = (values[:, 0:6:2] / values[:, 6:7] * CONSTANT).numpy()
    processor = model.image_processor
    return 255 * (normalised * np.asarray(processor.image_std) + np.asarray(processor.image_mean))


@pytest.fixture(scope="module")
def seen(see_through: LlavaNext) -> list[tuple[Frames, dict[str, Tokens]]]:
    batch = [ramp(*size, sample=i, time=1 + 2 * (i % 2)) for i, size in enumerate(SIZES)]
    return list(zip(batch, see_through.extract(batch, ["all"]), strict=True))


def misplacement(frames: Frames, tokens: Tokens, part: slice, colour: np.ndarray) -> np.ndarray:
    """Return how far from its claimed place each token is, in half cells [token 2]; nan over padding.

    A cell that reaches over the picture's edge is partly padding, whose colour says nothing.
    """
    found = np.empty((len(colour), 2))
    for axis, (claimed, side) in enumerate(zip((tokens.col, tokens.row), frames.size[::-1], strict=True)):
        half = np.diff(np.unique(claimed[part])).mean() / 2
        found[:, axis] = (colour[:, axis] * side / 255 - claimed[part]) / half
        over = (claimed[part] < half - 1e-3) | (claimed[part] > side - half + 1e-3)
        found[over] = np.nan
    return found


@pytest.mark.parametrize("point", POINTS)
def test_every_token_carries_the_place_frame_and_sample_it_claims(
    see_through: LlavaNext, seen: list[tuple[Frames, dict[str, Tokens]]], point: str
) -> None:
    for sample, (frames, tokens) in enumerate(seen):
        found = tokens[point]
        for part in sections(found)[:2]:
            colour = colours(found.values[part], see_through)
            off = misplacement(frames, found, part, colour)
            inside = np.isfinite(off).all(axis=1)
            assert inside.mean() > 0.4
            # ramps of eight bits, rounded twice, and the resampling filter at the picture's edge
            assert np.abs(off[inside]).max() < 0.2
            frame = np.round(found.time_s[part][inside] / 0.5)
            assert np.abs(colour[inside, 2] - (20 + 8 * sample + 60 * frame)).max() < 1
            outside = np.zeros(len(colour), bool)
            for claimed, side in ((found.row[part], frames.size[0]), (found.col[part], frames.size[1])):
                half = np.diff(np.unique(claimed)).mean() / 2
                outside |= (claimed < -half) | (claimed > side + half)
            assert np.abs(colour[outside]).max(initial=0) < 0.1  # padding is black


def test_a_shift_by_half_a_cell_and_tiles_one_after_another_would_be_caught(
    see_through: LlavaNext, seen: list[tuple[Frames, dict[str, Tokens]]]
) -> None:
    frames, found = seen[0][0], seen[0][1]["vit.2"]
    canvas = sections(found)[0]
    colour = colours(found.values[canvas], see_through)
    cell = np.diff(np.unique(found.col[canvas])).mean()
    shifted = dataclasses.replace(found, col=found.col + cell / 2)
    assert np.nanmax(np.abs(misplacement(frames, shifted, canvas, colour))) > 0.9
    by_tile = np.argsort(found.tile[canvas], kind="stable")
    off = np.abs(misplacement(frames, found, canvas, colour[by_tile])).max(axis=1)
    assert np.nanmean(off > 0.9) > 0.7


# --- against the plain forward ----------------------------------------------------------------------------------


def joined(tiles: torch.Tensor, canvas: tuple[int, int]) -> torch.Tensor:
    """Return the canvas [token feature] of tiles [tile token feature] in rows and columns of 4 x 4 cells."""
    rows, cols = canvas[0] // 32, canvas[1] // 32
    squares = [tile.reshape(4, 4, -1) for tile in tiles]
    lines = [torch.cat(squares[r * cols : (r + 1) * cols], dim=1) for r in range(rows)]
    return torch.cat(lines).flatten(0, 1)


def test_extraction_equals_the_plain_forward_at_every_point(vlm: LlavaNext) -> None:
    batch = [frames_of(*size, seed=i) for i, size in enumerate(SIZES)]
    ours = vlm.extract(batch, ["all"])
    inputs = vlm.prepare(batch)
    pixels = {k: inputs[k] for k in ("pixel_values", "image_sizes")}
    core = vlm.model.model
    with torch.no_grad():
        plain = core(**inputs, output_hidden_states=True, use_cache=False)
        packed = core.get_image_features(**pixels).pooler_output
    for image, (frames, tokens) in enumerate(zip(batch, ours, strict=True)):
        canvas = select_best_resolution(frames.size, CARD.config["model"]["image_grid_pinpoints"])
        tiles = inputs["pixel_values"][image, : 1 + canvas[0] * canvas[1] // 32**2]
        with torch.no_grad():
            tower = core.vision_tower(tiles, output_hidden_states=True).hidden_states
            projected = core.multi_modal_projector(tower[-2][:, 1:])
        for layer, name in enumerate(TOWER):
            expected = [joined(tower[layer][1:, 1:], canvas), tower[layer][0, 1:], tower[layer][:, 0]]
            assert relative(tokens[name].values, torch.cat(expected)) < TOLERANCE
        expected = [joined(projected[1:], canvas), projected[0]]
        assert relative(tokens["projected"].values, torch.cat(expected)) < TOLERANCE
        mine = inputs["input_ids"][image] == vlm.model.config.image_token_id
        states = {"packed": packed[image], "llm.final": plain.last_hidden_state[image][mine]}
        states |= {f"llm.{k}": plain.hidden_states[k][image][mine] for k in (1, 2, 3)}
        for name, expected_state in states.items():
            assert relative(model_order(tokens[name]), expected_state) < TOLERANCE
        last = core.language_model.norm(tokens["llm.4"].values).detach()
        assert relative(last, tokens["llm.final"].values) < TOLERANCE


def model_order(tokens: Tokens) -> torch.Tensor:
    """Return packed tokens as the language model has them: base view, then rows that end in a newline."""
    canvas, base, newlines = (tokens.values[s] for s in sections(tokens))
    _, rows, cols = tokens.grid
    lines = torch.cat([canvas.reshape(rows, cols, -1), newlines.reshape(rows, 1, -1)], dim=1)
    return torch.cat([base, lines.flatten(0, 1)])


def test_the_models_inputs_are_its_own_processors(vlm: LlavaNext) -> None:
    batch = [frames_of(*size, seed=i) for i, size in enumerate(SIZES)]
    own = LlavaNextProcessor(
        vlm.image_processor,
        vlm.tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    images = [torch.from_numpy(f.pixels[0]).permute(2, 0, 1) for f in batch]
    text = [vlm.card.prompt_prefix + "<image>"] * len(batch)
    expected = own(images=images, text=text, padding=True, padding_side="right", return_tensors="pt")
    inputs = vlm.prepare(batch)
    for name in ("input_ids", "attention_mask", "pixel_values", "image_sizes"):
        assert torch.equal(inputs[name], expected[name])
    assert inputs["input_ids"][0, 0] == vlm.tokenizer.convert_tokens_to_ids("<s>")


# --- tiles, kinds, clips ----------------------------------------------------------------------------------------


def test_a_tile_sees_itself_only_and_the_base_view_sees_all(vlm: LlavaNext) -> None:
    frames = frames_of(101, 33)  # a column of three tiles: the middle one holds rows 33.7 to 67.3
    pixels = frames.pixels.copy()
    pixels[:, 42:58] = 255 - pixels[:, 42:58]
    changed = Frames(pixels=pixels, times_s=frames.times_s)
    for point in [*TOWER, "projected"]:
        before, after = (vlm.extract([f], [point])[0][point] for f in (frames, changed))
        moved = (before.values - after.values).norm(dim=1).numpy()
        assert set(before.tile[moved > 1e-4]) == {BASE, 2}
        assert set(before.tile) == {BASE, 1, 2, 3}
        classes = before.kind == KINDS.index("class")
        assert before.tile[classes].tolist() == ([] if point == "projected" else [BASE, 1, 2, 3])
        if point != "patch":  # before the first block a class token has seen nothing
            assert (moved[classes] > 1e-4).tolist() == (
                [] if point == "projected" else [True, False, True, False]
            )
        assert np.isnan(before.row[classes]).all()
        assert np.isnan(before.col[classes]).all()
        assert np.isfinite(before.row[~classes]).all()


def test_tiles_count_row_by_row_and_keep_their_number_when_padding_is_cut_off(vlm: LlavaNext) -> None:
    tokens = vlm.extract([frames_of(64, 64), frames_of(37, 91)], ["vit.1", "packed"])
    square = tokens[0]["vit.1"]
    for tile, (row, col) in {1: (16, 16), 2: (16, 48), 3: (48, 16), 4: (48, 48)}.items():
        here = (square.tile == tile) & (square.kind == 0)
        assert (square.row[here].mean(), square.col[here].mean()) == (row, col)
    wide = tokens[1]["packed"]
    cells = wide.tile[:40].reshape(4, 10)
    # 12 columns of cells lose one at either end
    assert cells.tolist() == [[1] * 3 + [2] * 4 + [3] * 3] * 4


def test_newline_tokens_follow_the_patches_one_for_every_row_with_no_place(vlm: LlavaNext) -> None:
    for frames in (frames_of(37, 91), frames_of(50, 20, time=3)):
        tokens = vlm.extract([frames], ["packed", "llm.2"])[0]
        packed = tokens["packed"]
        newline = packed.kind == KINDS.index("newline")
        rows = packed.grid[0] * packed.grid[1]
        assert newline[-rows:].all()
        assert newline.sum() == rows
        assert torch.equal(packed.values[-rows:], vlm.model.model.image_newline.detach().expand(rows, -1))
        assert np.isnan(packed.row[newline]).all()
        assert np.isnan(packed.col[newline]).all()
        last = packed.tile[: int(np.prod(packed.grid))].reshape(rows, -1)[:, -1]
        assert packed.tile[newline].tolist() == last.tolist()
        assert packed.time_s[newline].tolist() == frames.times_s.repeat(packed.grid[1]).tolist()
        assert (tokens["llm.2"].kind == packed.kind).all()


def test_each_frame_of_a_clip_is_an_image_of_its_own_in_the_order_of_time(vlm: LlavaNext) -> None:
    clip = frames_of(37, 91, time=3)
    whole = vlm.extract([clip], ["all"])[0]
    alone = vlm.extract(
        [Frames(pixels=clip.pixels[i : i + 1], times_s=clip.times_s[i : i + 1]) for i in range(3)], ["all"]
    )
    for name, tokens in whole.items():
        assert tokens.grid == (3, *alone[0][name].grid[1:])
        for here, part in zip(
            sections(tokens), zip(*(sections(a[name]) for a in alone), strict=True), strict=True
        ):
            frames = [a[name].values[p] for a, p in zip(alone, part, strict=True)]
            if len(torch.cat(frames)):
                assert relative(tokens.values[here], torch.cat(frames)) < TOLERANCE
            times = [a[name].time_s[p] for a, p in zip(alone, part, strict=True)]
            assert tokens.time_s[here].tolist() == np.concatenate(times).tolist()


# --- planning ---------------------------------------------------------------------------------------------------


def test_the_planned_grid_and_count_are_those_that_come_out(vlm: LlavaNext) -> None:
    batch = [frames_of(*size, time=1 + i % 3) for i, size in enumerate(SIZES)]
    for frames, tokens in zip(batch, vlm.extract(batch, ["all"]), strict=True):
        for point in models.points(CARD):
            found, count = tokens[point.name], len(frames.pixels)
            assert FAMILY.grid(CARD, point, frames.size, count) == found.grid
            assert models.token_count(CARD, point, frames.size, count) == len(found.values)
            assert found.values.shape[1] == point.width


def test_planned_canvases_cuts_and_counts_are_the_librarys_at_random_sizes() -> None:
    card = models.get("llava-next-mistral-7b")
    packed = next(p for p in models.points(card) if p.name == "packed")
    canvases = card.config["model"]["image_grid_pinpoints"]
    assert canvases == LlavaNextImageProcessor.image_grid_pinpoints
    processor = LlavaNextProcessor.__new__(LlavaNextProcessor)
    processor.image_processor = LlavaNextImageProcessor()
    processor.patch_size, processor.num_additional_image_tokens = 14, 1
    sizes = np.random.default_rng(0).integers(24, 1500, (300, 2)).tolist()
    for height, width in [*sizes, (224, 224), (480, 640), (448, 448), (672, 672), (1080, 1920), (336, 1008)]:
        cut = tiling((height, width), canvases, tile=336, patch=14)
        assert cut.canvas == select_best_resolution((height, width), canvases)
        cells = torch.arange(cut.cells[0] * cut.cells[1]).reshape(1, *cut.cells)
        assert torch.equal(unpad_image(cells, (height, width)), cells[:, *cut.kept])
        count = processor._get_number_of_features(height, width, 336, 336) - 1
        assert models.token_count(card, packed, (height, width), 1) == count
    known = {(224, 224): 1176, (480, 640): 2340, (448, 448): 2928}
    assert {size: models.token_count(card, packed, size, 1) for size in known} == known


def test_a_picture_too_long_and_narrow_to_be_cut_up_is_refused_while_planning(vlm: LlavaNext) -> None:
    for size in ((10, 1000), (1000, 10), (1, 5000)):
        with pytest.raises(ValueError, match=r"times as long as it is narrow.*crop it"):
            FAMILY.grid(CARD, models.points(CARD)[0], size, 1)
    with pytest.raises(ValueError, match="times as long as it is narrow"):
        vlm.extract([frames_of(4, 400)], ["vit.1"])


# --- cards and checkpoints --------------------------------------------------------------------------------------

TEXT: dict[str, dict[str, Any]] = {
    "llava-next-mistral-7b": {"model_type": "mistral", "vocab_size": 32064, "hidden_size": 4096,
                              "intermediate_size": 14336, "num_key_value_heads": 8, "sliding_window": None},
    "llava-next-vicuna-7b": {"model_type": "llama", "vocab_size": 32064},
    "llava-next-vicuna-13b": {"model_type": "llama", "vocab_size": 32064, "hidden_size": 5120,
                              "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
}  # fmt: skip


@pytest.mark.parametrize("name", TEXT)
def test_real_cards_have_the_published_architecture(name: str) -> None:
    card = models.get(name)
    with torch.device("meta"):
        model = LlavaNextForConditionalGeneration(LlavaNextConfig(text_config=TEXT[name]))
    count = sum(p.numel() for p in model.parameters())
    assert card.parameters == count
    assert card.memory_gib == round(2 * count / 2**30, 1)
    modules = dict(model.named_modules())
    assert all(p.path in modules for p in models.points(card))
    plans = {plan: p.name for p in models.points(card) for plan in p.plans}
    layers = card.config["text"]["num_hidden_layers"]
    assert plans == {"L1": "vit.23", "L2": "projected", "L3": f"llm.{layers // 4}",
                     "L4": f"llm.{layers // 2}", "L5": f"llm.{layers}"}  # fmt: skip
    assert str(models.parse_ref(name)) == f"{name}@{card.revision}"


def read(folder: Path, card: models.Card = CARD) -> LlavaNext:
    ref = models.ModelRef(card=card, kind="path", value=str(folder))
    return models.family(card).load(ref, folder, device="cpu", dtype="float32", attention="sdpa")


def test_the_checkpoint_of_another_model_is_refused(vlm: LlavaNext, tmp_path: Path) -> None:
    vlm.save(tmp_path)
    deeper = dict(CARD.config) | {"vision": dict(CARD.config["vision"]) | {"num_hidden_layers": 9}}
    with pytest.raises(ValueError, match="declares vision num_hidden_layers = 9, but the checkpoint has 3"):
        read(tmp_path, dataclasses.replace(CARD, config=deeper))
    with pytest.raises(ValueError, match=r"is a qwen2_5_vl, but the checkpoint in .* is a llava_next"):
        read(tmp_path, models.get("qwen2.5-vl-tiny"))

    processor = tmp_path / "preprocessor_config.json"
    settings = json.loads(processor.read_text())
    processor.write_text(json.dumps(settings | {"image_grid_pinpoints": [[64, 64]]}))
    with pytest.raises(ValueError, match=r"image_grid_pinpoints = .* but the checkpoint has \[\[64, 64\]\]"):
        read(tmp_path)
    processor.write_text(json.dumps(settings | {"crop_size": {"height": 16, "width": 16}}))
    with pytest.raises(ValueError, match="declares crop_size"):
        read(tmp_path)
    processor.unlink()
    with pytest.raises(ValueError, match=r"no preprocessor_config\.json; copy the whole checkpoint"):
        read(tmp_path)

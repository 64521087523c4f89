"""CogVLM2: the modules against plain sums, every token at its place, only the weights that a pass needs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision import transforms

from foresight import models
from foresight.models.architectures.cogvlm2 import KERNELS, rope_positions, vision_expert
from foresight.models.cogvlm2 import CogVlm2, _stretched
from foresight.models.cogvlm2_weights import build, from_seed
from foresight.models.loading import WrongCheckpoint
from foresight.nouns import KINDS, Frames
from tests.conftest import frames_of

TINY = models.get("cogvlm2-tiny")
REAL = models.get("cogvlm2-19b")
POINTS = [p.name for p in models.points(TINY)]
TOWER = [n for n in POINTS if n == "patch" or n.startswith("vit.")]
DECODER = [n for n in POINTS if n.startswith("llm.")]

# float32 against float32 in other orders of summation, over seven layers
TOLERANCE = 1e-5


def load(text: str = "cogvlm2-tiny", folder: Path | None = None, **other: Any) -> CogVlm2:
    ref = models.parse_ref(text)
    told = {"device": "cpu", "dtype": "float32", "attention": "sdpa"} | other
    return models.family(ref.card).load(ref, folder, **told)


@pytest.fixture(scope="module")
def vlm() -> CogVlm2:
    return load()


@pytest.fixture(scope="module")
def saved(vlm: CogVlm2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cogvlm2")
    vlm.save(folder)
    return folder


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


# --- the architecture, against sums written out from the description ---


def test_the_modules_have_the_published_names_and_the_published_number_of_bytes() -> None:
    model = build(REAL.config["vision"], REAL.config["text"], "sdpa")
    vision, decoder = "model.vision.transformer.layers.{}.", "model.layers.{}."
    names = {
        *(f"model.vision.patch_embedding.{n}" for n in ("proj.weight", "proj.bias", "cls_embedding",
                                                        "position_embedding.weight")),
        *(vision.format(i) + f"{part}.{leaf}" for i in range(63) for leaf in ("weight", "bias")
          for part in ("input_layernorm", "attention.query_key_value", "attention.dense", "mlp.fc1", "mlp.fc2",
                       "post_attention_layernorm")),
        "model.vision.conv.weight", "model.vision.conv.bias", "model.vision.boi", "model.vision.eoi",
        *(f"model.vision.linear_proj.{n}" for n in ("linear_proj.weight", "norm1.weight", "norm1.bias",
                                                    "dense_h_to_4h.weight", "gate_proj.weight",
                                                    "dense_4h_to_h.weight")),
        *(decoder.format(i) + f"mlp.{expert}_mlp.{part}_proj.weight" for i in range(32)
          for expert in ("vision", "language") for part in ("gate", "up", "down")),
        *(decoder.format(i) + f"self_attn.{expert}_expert_{part}.weight" for i in range(32)
          for expert in ("vision", "language") for part in ("query_key_value", "dense")),
        *(decoder.format(i) + part for i in range(32)
          for part in ("self_attn.vision_expert_query_key_value.bias", "self_attn.rotary_emb.inv_freq",
                       "input_layernorm.weight", "post_attention_layernorm.weight")),
        "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
    }  # fmt: skip
    state = model.state_dict()
    assert set(state) == names
    assert len(names) == 1221
    # total_size of the published index, two bytes a number
    assert 2 * sum(t.numel() for t in state.values()) == 39_006_214_656
    assert sum(p.numel() for p in model.parameters()) == REAL.parameters
    assert all(t.is_meta for t in state.values())


def test_patches_share_one_rotary_position_and_the_last_image_token_is_the_language_experts() -> None:
    sequences = [[0, 1, 1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0, 0]]
    vision = torch.tensor(sequences).bool()
    assert rope_positions(vision).tolist() == [
        [0, 1, 2, 2, 2, 3, 4, 5, 6],
        [0, 1, 2, 3, 4, 4, 5, 6, 7],
        [0, 1, 1, 2, 3, 4, 5, 6, 7],
    ]
    assert vision_expert(vision).int().tolist() == [
        [0, 1, 1, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0, 0],
    ]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def slow_tower(w: dict[str, Tensor], pixels: Tensor) -> dict[str, Tensor]:
    """The vision tower of one image [3 row col], by sums over named axes and loops over heads, in float64."""
    config = TINY.config["vision"]
    patch, heads = config["patch_size"], config["num_heads"]
    side = pixels.shape[-1] // patch
    embedded = [w["patch_embedding.cls_embedding"][0]]
    for r in range(side):
        for c in range(side):
            cell = pixels[:, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch]
            embedded.append(
                torch.einsum("dcij,cij->d", w["patch_embedding.proj.weight"], cell)
                + w["patch_embedding.proj.bias"]
            )
    x = torch.stack(embedded) + w["patch_embedding.position_embedding.weight"]
    found = {"patch": x}
    width = config["hidden_size"]
    each = width // heads
    for n in range(config["num_hidden_layers"]):
        p = f"transformer.layers.{n}."
        fused, shift = w[p + "attention.query_key_value.weight"], w[p + "attention.query_key_value.bias"]
        together = []
        for h in range(heads):
            q, k, v = (
                torch.einsum("td,fd->tf", x, fused[a : a + each]) + shift[a : a + each]
                for a in (third * width + h * each for third in range(3))
            )
            shares = torch.softmax(torch.einsum("qf,kf->qk", q, k) / math.sqrt(each), dim=1)
            together.append(shares @ v)
        seen = torch.cat(together, dim=1) @ w[p + "attention.dense.weight"].T + w[p + "attention.dense.bias"]
        x = x + layer_norm(seen, w[p + "input_layernorm.weight"], w[p + "input_layernorm.bias"], 1e-6)
        inner = gelu(x @ w[p + "mlp.fc1.weight"].T + w[p + "mlp.fc1.bias"])
        out = inner @ w[p + "mlp.fc2.weight"].T + w[p + "mlp.fc2.bias"]
        norm = p + "post_attention_layernorm."
        x = x + layer_norm(out, w[norm + "weight"], w[norm + "bias"], 1e-6)
        found[f"vit.{n + 1}"] = x
    grid = x[1:].reshape(side, side, width)
    merged = [
        torch.einsum("dcij,ijc->d", w["conv.weight"], grid[r : r + 2, c : c + 2]) + w["conv.bias"]
        for r in range(0, side, 2)
        for c in range(0, side, 2)
    ]
    found["merged"] = torch.stack(merged)
    a = "linear_proj."
    y = found["merged"] @ w[a + "linear_proj.weight"].T
    y = gelu(layer_norm(y, w[a + "norm1.weight"], w[a + "norm1.bias"], 1e-5))
    y = silu(y @ w[a + "gate_proj.weight"].T) * (y @ w[a + "dense_h_to_4h.weight"].T)
    found["projected"] = y @ w[a + "dense_4h_to_h.weight"].T
    return found


def slow_decoder(w: dict[str, Tensor], x: Tensor, experts: list[str], places: list[int]) -> dict[str, Tensor]:
    """The decoder on one sequence, token by token and head by head, rotations as complex numbers, in float64."""
    config = TINY.config["text"]
    heads, shared = config["num_attention_heads"], config["num_multi_query_heads"]
    each, length = config["hidden_size"] // heads, len(x)
    turn = [500000.0 ** (-2 * i / each) for i in range(each // 2)]

    def rotated(one: Tensor, place: int) -> Tensor:
        pairs = torch.complex(one[: each // 2], one[each // 2 :])
        angle = torch.tensor([place * t for t in turn], dtype=torch.float64)
        pairs = pairs * torch.polar(torch.ones_like(angle), angle)
        return torch.cat((pairs.real, pairs.imag))

    found = {}
    for n in range(config["num_hidden_layers"]):
        p = f"layers.{n}."
        normed = rms_norm(x, w[p + "input_layernorm.weight"])
        q: dict[tuple[int, int], Tensor] = {}
        k: dict[tuple[int, int], Tensor] = {}
        v: dict[tuple[int, int], Tensor] = {}
        for t, (expert, place) in enumerate(zip(experts, places, strict=True)):
            mixed = w[p + f"self_attn.{expert}_expert_query_key_value.weight"] @ normed[t]
            if expert == "vision":
                mixed = mixed + w[p + "self_attn.vision_expert_query_key_value.bias"]
            cut = list(mixed.split(each))
            for h in range(heads):
                q[t, h] = rotated(cut[h], place)
            for h in range(shared):
                k[t, h], v[t, h] = rotated(cut[heads + h], place), cut[heads + shared + h]
        rows = []
        for t, expert in enumerate(experts):
            parts = []
            for h in range(heads):
                g = h // (heads // shared)
                scores = torch.stack([q[t, h] @ k[s, g] / math.sqrt(each) for s in range(t + 1)])
                parts.append(sum(a * v[s, g] for s, a in enumerate(scores.softmax(0))))
            y = x[t] + w[p + f"self_attn.{expert}_expert_dense.weight"] @ torch.cat(parts)
            z = rms_norm(y, w[p + "post_attention_layernorm.weight"])
            m = p + f"mlp.{expert}_mlp."
            gated = silu(w[m + "gate_proj.weight"] @ z) * (w[m + "up_proj.weight"] @ z)
            rows.append(y + w[m + "down_proj.weight"] @ gated)
        assert len(rows) == length
        x = torch.stack(rows)
        found[f"llm.{n + 1}"] = x
    found["llm.final"] = rms_norm(x, w["norm.weight"])
    return found


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_point_equals_plain_sums_over_the_same_weights(vlm: CogVlm2, kernel: str) -> None:
    model = vlm if kernel == "sdpa" else load(attention=kernel)
    model.ensure("lm_head")
    state = {k.removeprefix("model."): v.double() for k, v in model.model.state_dict().items()}
    # norms start as ones, where a forgotten weight would not show
    generator = torch.Generator().manual_seed(0)
    state = {
        k: torch.rand(v.shape, generator=generator, dtype=torch.float64) + 0.5 if "norm" in k else v
        for k, v in state.items()
    }
    model.model.model.load_state_dict({k: v.float() for k, v in state.items() if k != "lm_head.weight"})
    try:
        frames = [frames_of(40, 72), frames_of(64, 64, seed=1)]
        ours = model.extract(frames, POINTS)
        inputs = model.prepare(frames)
        tower_weights = {k.removeprefix("vision."): v for k, v in state.items() if k.startswith("vision.")}
        for image, tokens in enumerate(ours):
            slow = slow_tower(tower_weights, inputs["pixels"][image].double())
            begin, end = state["vision.boi"][0], state["vision.eoi"][0]
            word = state["embed_tokens.weight"][int(inputs["ids"][image, 0])]
            x = torch.cat((word[None], begin, slow["projected"], end))
            patches = len(slow["projected"])
            experts = ["language", *["vision"] * (patches + 1), "language"]
            slow |= slow_decoder(state, x, experts, [0, 1, *[2] * patches, 3])
            for point in POINTS:
                # ours: patches first, then the class token, or begin and end
                order = {"tower": [*range(1, 65), 0], "decoder": [*range(2, 18), 1, 18]}
                kind = "tower" if point in TOWER else "decoder" if point in DECODER else None
                expected = slow[point][order[kind]] if kind else slow[point]
                assert relative(tokens[point].values, expected) < TOLERANCE, point
    finally:
        if model is vlm:
            fresh = from_seed(0, TINY.config["text"]["initializer_range"])
            model.model.load_state_dict({k: fresh(k, v.shape) for k, v in model.model.state_dict().items()})


def test_the_head_scores_words_from_the_final_norm(vlm: CogVlm2) -> None:
    frames = [frames_of(64, 64)]
    tokens = vlm.extract(frames, ["llm.final"])[0]["llm.final"]
    vlm.ensure("lm_head")
    with torch.no_grad():
        scores = vlm.model(**vlm.prepare(frames))
    assert scores.shape == (1, 19, 259)
    assert relative(scores[0, 2:18], tokens.values[:16] @ vlm.model.lm_head.weight.T) < TOLERANCE


@pytest.mark.parametrize(("expert", "moved"), [("vision", [1, *range(2, 18)]), ("language", [0, 18])])
def test_each_experts_weights_reach_its_own_positions_only(expert: str, moved: list[int]) -> None:
    vlm = load()
    seen: list[Tensor] = []
    vlm.ensure("model.layers.0")
    layer = vlm.model.model.layers[0]
    handle = layer.register_forward_hook(lambda _m, _i, out: seen.append(out.clone()))
    try:
        for _ in range(2):
            vlm.extract([frames_of(64, 64)], ["llm.1"])
            # after attention has mixed positions, so that only the expert's own change
            getattr(layer.self_attn, f"{expert}_expert_dense").weight.mul_(1.5)
            getattr(layer.mlp, f"{expert}_mlp").down_proj.weight.mul_(1.5)
    finally:
        handle.remove()
    changed = (seen[0] - seen[1])[0].norm(dim=1) > 1e-6
    assert changed.nonzero()[:, 0].tolist() == sorted(moved)


def test_pixels_are_those_of_the_published_transform() -> None:
    from PIL import Image

    for size in [(50, 97), (64, 64), (200, 31)]:
        image = frames_of(*size).pixels[0]
        published = transforms.Compose(
            [
                transforms.Resize((64, 64), interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.ToTensor(),
                transforms.Normalize(
                    (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
                ),
            ]
        )
        assert torch.equal(_stretched(image, 64), published(Image.fromarray(image)))


# --- places ---


@pytest.fixture(scope="module")
def local() -> CogVlm2:
    """A model whose attention says little beside what every token keeps, so that a change stays where it is."""
    vlm = load()
    vlm.ensure("lm_head")
    for name, tensor in vlm.model.state_dict().items():
        # the tower normalises what attention gives; the decoder's norm of that name comes before attention
        if name.endswith("expert_dense.weight") or (
            ".vision." in name and name.endswith("input_layernorm.weight")
        ):
            tensor.mul_(0.05)
    return vlm


def with_cell(frames: Frames, time: int, row: int, col: int, cells: int = 8) -> Frames:
    """Return `frames` with one of `cells` x `cells` cells inverted in one frame."""
    pixels = frames.pixels.copy()
    height, width = (s // cells for s in frames.size)
    here = (time, slice(row * height, (row + 1) * height), slice(col * width, (col + 1) * width))
    pixels[here] = 255 - pixels[here]
    return Frames(pixels=pixels, times_s=frames.times_s)


@pytest.mark.parametrize("point", POINTS)
def test_a_planted_cell_changes_most_the_token_at_its_place_for_several_sizes_and_clips_in_one_batch(
    local: CogVlm2, point: str
) -> None:
    batch = [frames_of(64, 64), frames_of(56, 120, seed=1), frames_of(104, 40, time=3, seed=2)]
    before = local.extract(batch, [point])
    for entry, frames in enumerate(batch):
        for time, row, col in [(0, 0, 0), (0, 1, 2), (len(frames.pixels) - 1, 3, 6), (0, 7, 7)]:
            changed = [*batch]
            changed[entry] = with_cell(frames, time, row, col)
            after = local.extract(changed, [point])
            for other, (a, b) in enumerate(zip(before, after, strict=True)):
                moved = (a[point].values - b[point].values).norm(dim=1)
                if other != entry:
                    assert float(moved.max()) < 1e-4  # another sample of the batch: rounding at most
                    continue
                tokens, most = a[point], int(moved.argmax())
                cell = frames.size[0] / 8, frames.size[1] / 8
                assert abs(tokens.row[most] - (row + 0.5) * cell[0]) <= cell[0] * 4 / tokens.grid[1]
                assert abs(tokens.col[most] - (col + 0.5) * cell[1]) <= cell[1] * 4 / tokens.grid[2]
                assert tokens.time_s[most] == np.float32(frames.times_s[time])
                elsewhere = tokens.time_s != tokens.time_s[most]
                assert not elsewhere.any() or float(moved[torch.from_numpy(elsewhere)].max()) < 1e-4


def test_patches_lie_in_raster_order_and_other_tokens_follow_without_a_place(vlm: CogVlm2) -> None:
    clip = frames_of(48, 96, time=2, step_s=0.5)
    found = vlm.extract([clip], POINTS)[0]
    extra = {"class": TOWER, "register": DECODER}
    for point, tokens in found.items():
        time, rows, cols = tokens.grid
        cells = time * rows * cols
        row, col = np.meshgrid(np.arange(rows), np.arange(cols), indexing="ij")
        assert tokens.row[:cells].tolist() == pytest.approx(
            np.tile((row.ravel() + 0.5) * 48 / rows, 2).tolist()
        )
        assert tokens.col[:cells].tolist() == pytest.approx(
            np.tile((col.ravel() + 0.5) * 96 / cols, 2).tolist()
        )
        assert tokens.time_s[:cells].tolist() == [0.0] * (cells // 2) + [0.5] * (cells // 2)
        assert np.isnan(tokens.row[cells:]).all()
        assert np.isnan(tokens.col[cells:]).all()
        kinds = [KINDS[k] for k in tokens.kind[cells:]]
        (kind,) = [k for k, names in extra.items() if point in names] or [None]
        per_frame = 1 if kind == "class" else 2 if kind else 0
        assert kinds == [kind] * 2 * per_frame
        assert tokens.time_s[cells:].tolist() == [0.0] * per_frame + [0.5] * per_frame
        assert not tokens.tile.any()


def test_the_class_token_and_the_ends_of_the_image_are_told_from_patches_and_from_each_other(
    vlm: CogVlm2,
) -> None:
    frames = [frames_of(64, 64)]
    state = vlm.model.state_dict()
    patch = vlm.extract(frames, ["patch"])[0]["patch"].values
    clean = state["model.vision.patch_embedding.cls_embedding"][0]
    place = state["model.vision.patch_embedding.position_embedding.weight"][0]
    assert torch.equal(patch[-1], clean + place)
    seen: dict[str, Tensor] = {}
    handle = vlm.model.model.layers[0].register_forward_pre_hook(lambda _m, args: seen.update(x=args[0][0]))
    try:
        last = vlm.extract(frames, ["llm.1"])[0]["llm.1"].values
    finally:
        handle.remove()
    assert torch.equal(seen["x"][1], state["model.vision.boi"][0, 0])
    assert torch.equal(seen["x"][-1], state["model.vision.eoi"][0, 0])
    # the same positions come out as the two tokens after the patches
    with torch.no_grad():
        layer = vlm.model.model.layers[0](
            seen["x"][None],
            vision_expert(vlm.prepare(frames)["vision"]),
            rope_positions(vlm.prepare(frames)["vision"]),
        )[0]
    assert relative(last[-2:], layer[[1, -1]]) < TOLERANCE


def test_a_frame_of_a_clip_is_seen_as_the_same_still_would_be(vlm: CogVlm2) -> None:
    clip = frames_of(56, 120, time=3, seed=4)
    whole = vlm.extract([clip], POINTS)[0]
    for time in range(3):
        still = Frames(pixels=clip.pixels[time : time + 1], times_s=clip.times_s[time : time + 1])
        alone = vlm.extract([still], POINTS)[0]
        for point in POINTS:
            cells = math.prod(alone[point].grid)
            part = whole[point].values[time * cells : (time + 1) * cells]
            assert relative(part, alone[point].values[:cells]) < TOLERANCE


# --- one pass, and only what it needs ---


def test_the_plans_points_are_the_towers_end_a_quarter_half_and_the_end_of_the_decoder() -> None:
    for card, layers in [(TINY, (3, 1, 2)), (REAL, (63, 8, 16))]:
        names = [
            p.name for p in models.resolve_points(models.points(card), ["C1", "C2", "C3", "C4"], model="")
        ]
        assert names == [f"vit.{layers[0]}", f"llm.{layers[1]}", f"llm.{layers[2]}", "llm.final"]
    widths = {p.name: p.width for p in models.points(REAL)}
    assert (widths["vit.63"], widths["merged"], widths["projected"], widths["llm.8"]) == (
        1792,
        1792,
        4096,
        4096,
    )
    by_name = {p.name: p for p in models.points(REAL)}
    family = models.family(REAL)
    assert family.grid(REAL, by_name["vit.63"], (1344, 1344), 1) == (1, 96, 96)
    assert family.tokens(REAL, by_name["vit.63"], (480, 640), 1) == 9217
    assert family.tokens(REAL, by_name["llm.8"], (480, 640), 1) == 2306


def test_a_pass_runs_and_holds_only_what_comes_before_the_deepest_point(saved: Path) -> None:
    vlm = load(f"cogvlm2-tiny@path:{saved}", saved)
    seen: list[str] = []
    for name, module in vlm.model.named_modules():
        if name:
            module.register_forward_hook(lambda *_, n=name: seen.append(n))

    def held() -> set[str]:
        return {name for name, tensor in vlm.model.state_dict().items() if not tensor.is_meta}

    assert held() == set()
    vlm.extract([frames_of(64, 64)], ["vit.1", "patch"])
    assert vlm.forwards == 1
    assert {n.split(".layers.")[1].split(".")[0] for n in held() if ".layers." in n} == {"0"}
    vlm.extract([frames_of(64, 64)], ["merged", "projected"])
    assert {n for n in seen if n.startswith("model.layers")} == set()
    assert all(n.startswith("model.vision.") for n in held())
    vlm.extract([frames_of(64, 64)], ["llm.2"])
    assert "model.layers.1" in seen
    assert "model.layers.2" not in seen
    assert not any(n.startswith(("model.layers.2", "model.norm", "lm_head")) for n in held())
    assert vlm.forwards == 3


def test_stopping_early_changes_no_value(vlm: CogVlm2) -> None:
    inputs = vlm.prepare([frames_of(64, 64)])
    kept: dict[str, Tensor] = {}
    handles = [
        vlm.model.get_submodule(p.path).register_forward_hook(
            lambda _m, _i, out, n=p.name: kept.update({n: out})
        )
        for p in models.points(TINY)
    ]
    try:
        with torch.no_grad():
            vlm.model.model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    for point in POINTS:
        values = vlm.extract([frames_of(64, 64)], [point])[0][point].values
        whole = kept[point][0].flatten(1).T if point == "merged" else kept[point][0]
        chosen = (
            [*range(1, 65), 0]
            if point in TOWER
            else [*range(2, 18), 1, 18]
            if point in DECODER
            else range(16)
        )
        assert torch.equal(values, whole[list(chosen)])


# --- weights ---


def test_a_saved_checkpoint_gives_equal_values_from_another_folder_and_in_shards(
    vlm: CogVlm2, saved: Path, tmp_path: Path
) -> None:
    weights = load_file(saved / "model.safetensors")
    shards = {f"model-0000{n + 1}-of-00002.safetensors": sorted(weights)[n::2] for n in range(2)}
    for name, keys in shards.items():
        save_file({k: weights[k] for k in keys}, tmp_path / name)
    index = {"weight_map": {k: name for name, keys in shards.items() for k in keys}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text((saved / "config.json").read_text())
    batch = [frames_of(64, 64), frames_of(40, 72, seed=1)]
    plain = vlm.extract(batch, POINTS)
    for folder in (saved, tmp_path):
        again = load(f"cogvlm2-tiny@path:{folder}", folder).extract(batch, POINTS)
        for a, b in zip(plain, again, strict=True):
            assert all(torch.equal(a[p].values, b[p].values) for p in POINTS)


def test_the_published_config_leaves_out_how_many_heads_share_keys(
    vlm: CogVlm2, saved: Path, tmp_path: Path
) -> None:
    config = json.loads((saved / "config.json").read_text())
    del config["num_multi_query_heads"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    with pytest.raises(
        WrongCheckpoint, match="declares text num_multi_query_heads = 2, but the checkpoint has 8"
    ):
        load(f"cogvlm2-tiny@path:{tmp_path}", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w, c: w.pop("model.vision.eoi"),
            r"has \d+ tensors, but .* lacks 1 of them, model.vision.eoi",
        ),
        (
            lambda w, c: w.update({"model.layers.0.lora_A.weight": torch.zeros(2)}),
            "has no model.layers.0.lora_A.weight",
        ),
        (
            lambda w, c: w.update({"model.norm.weight": torch.zeros(3)}),
            r"model.norm.weight .* is \[128\].*\[3\]",
        ),
        (lambda w, c: c.update(architectures=["CogVLMVideoForCausalLM"]), "is a CogVLMVideoForCausalLM"),
        (lambda w, c: c.update(architectures=["Qwen2_5_VLForConditionalGeneration"]), "is a Qwen2_5_VL"),
        (
            lambda w, c: c["vision_config"].update(num_hidden_layers=9),
            "declares vision num_hidden_layers = 3, but the checkpoint has 9",
        ),
    ],
)
def test_what_is_not_the_cards_model_is_refused_before_a_weight_is_read(
    saved: Path, tmp_path: Path, change: Any, message: str
) -> None:
    weights = load_file(saved / "model.safetensors")
    config = json.loads((saved / "config.json").read_text())
    change(weights, config)
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WrongCheckpoint, match=message):
        load(f"cogvlm2-tiny@path:{tmp_path}", tmp_path)


def test_pickled_weights_are_refused(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((saved / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    with pytest.raises(WrongCheckpoint, match=r"only pytorch_model\.bin, which can run code when opened"):
        load(f"cogvlm2-tiny@path:{tmp_path}", tmp_path)


def test_random_weights_depend_on_the_seed_and_not_on_what_else_was_drawn(vlm: CogVlm2) -> None:
    alone = load().extract([frames_of(64, 64)], ["vit.2"])[0]["vit.2"].values
    assert torch.equal(alone, vlm.extract([frames_of(64, 64)], POINTS)[0]["vit.2"].values)
    other = load("cogvlm2-tiny@random1").extract([frames_of(64, 64)], ["vit.2"])[0]["vit.2"].values
    assert relative(other, alone) > 0.1


def test_the_random_twin_of_a_checkpoint_is_drawn_for_its_configuration(saved: Path) -> None:
    ref = models.parse_ref(f"cogvlm2-tiny@path:{saved}").random_twin(7)
    twin = models.family(ref.card).load(ref, saved, device="cpu", dtype="float32", attention="sdpa")
    same = load("cogvlm2-tiny@random7")
    a, b = (m.extract([frames_of(64, 64)], ["vit.1"])[0]["vit.1"].values for m in (twin, same))
    assert torch.equal(a, b)


def test_a_half_precision_model_gives_half_precision_latents(vlm: CogVlm2) -> None:
    half = load(dtype="bfloat16").extract([frames_of(64, 64)], ["llm.final"])[0]["llm.final"]
    assert half.values.dtype == torch.bfloat16
    # bfloat16 has 8 bits: half a percent a step, over seven layers
    assert (
        relative(half.values, vlm.extract([frames_of(64, 64)], ["llm.final"])[0]["llm.final"].values) < 0.05
    )


def test_a_kernel_it_cannot_use_is_refused() -> None:
    with pytest.raises(ValueError, match="with sdpa, eager, flash_attention_2, but got 'flex_attention'"):
        load(attention="flex_attention")


def test_a_card_without_a_known_commit_asks_for_one() -> None:
    with pytest.raises(ValueError, match="but got 'none'; look the commit up on the model's page and pin it"):
        models.parse_ref("cogvlm2-19b")
    assert models.parse_ref("cogvlm2-19b@" + "0" * 40).kind == "hub"
    assert models.get("cogvlm2-19b").revision is None

"""Qwen2.5-VL: cards, points, and its tokens put back from window order into raster order.

Between the patch embedding and the merger the model keeps all tokens of a batch in one flat axis: grouped
2 x 2 for the merger, and inside the blocks also permuted into attention windows. A reader that takes that
order for raster puts 3 % of the tokens in place at 224 x 224. Here every token is put where it came from.

Architecture: Bai et al. (2025), arXiv:2502.13923.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foresight.models.card import Card, ModelRef, Point, resolve_points
from foresight.models.device import input_device, to_cpu, to_device
from foresight.models.qwen2_5_vl_order import resized, token_orders
from foresight.models.qwen2_5_vl_tiny import build_config, build_image_processor, build_tokenizer
from foresight.models.vision_language import layer_points, load_parts, padded, save_parts
from foresight.nouns import Frames, Tokens

if TYPE_CHECKING:
    import torch

_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"

_VISION = {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420, "patch_size": 14,
           "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
           "fullatt_block_indexes": [7, 15, 23, 31]}  # fmt: skip

PREPROCESSING = {
    "processor": "Qwen2VLImageProcessor",
    "backend": "torchvision",
    "order": "raster",
    "version": 1,
}
"""Identity of what happens between frames and tokens, beyond what the checkpoint's own files say."""

KERNELS = ("flash_attention_2", "sdpa", "eager")

CARDS = (
    Card(
        name="qwen2.5-vl-3b",
        family="qwen2_5_vl",
        role="vlm",
        repo="Qwen/Qwen2.5-VL-3B-Instruct",
        revision="66285546d2b821cf421d4f5eb2576359d3770cd3",
        licence="Qwen Research License (non-commercial)",
        parameters=3_754_622_976,
        memory_gib=7.0,
        dtype="bfloat16",
        size=(448, 448),
        config={"vision": _VISION, "text": {"num_hidden_layers": 36, "hidden_size": 2048}},
        default_points=("vit.12", "vit.24", "merged", "llm.8", "llm.16", "llm.24"),
        prompt_prefix=_SYSTEM,
    ),
    Card(
        name="qwen2.5-vl-7b",
        family="qwen2_5_vl",
        role="vlm",
        repo="Qwen/Qwen2.5-VL-7B-Instruct",
        revision="cc594898137f460bfe9f0759e9844b3ce807cfb5",
        licence="Apache-2.0",
        parameters=8_292_166_656,
        memory_gib=15.5,
        dtype="bfloat16",
        size=(448, 448),
        config={"vision": _VISION, "text": {"num_hidden_layers": 28, "hidden_size": 3584}},
        default_points=("vit.12", "vit.24", "merged", "llm.8", "llm.16", "llm.24"),
        prompt_prefix=_SYSTEM,
    ),
    Card(
        name="qwen2.5-vl-tiny",
        family="qwen2_5_vl",
        role="vlm",
        parameters=1_161_920,
        memory_gib=0.01,
        size=(64, 64),
        config={
            # windows of 32 px are 4 x 4 patches: a 64 px image has four, so window order really scrambles
            "vision": {"depth": 4, "hidden_size": 64, "num_heads": 4, "intermediate_size": 192, "patch_size": 8,
                       "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 32,
                       "fullatt_block_indexes": [1, 3], "initializer_range": 0.1},
            "text": {"num_hidden_layers": 4, "hidden_size": 128, "intermediate_size": 384,
                     "num_attention_heads": 4, "num_key_value_heads": 2, "mrope_section": [4, 6, 6],
                     "initializer_range": 0.08},
        },
        default_points=("patch", "vit.2", "vit.4", "merged", "llm.2", "llm.4"),
        training={"task": "captions", "data": "synthetic", "images": 2000, "steps": 400, "batch": 24,
                  "learning_rate": 1.5e-3},
    ),
)  # fmt: skip


def points(card: Card) -> tuple[Point, ...]:
    """Return the points in the order one forward pass reaches them."""
    vision, text = card.config["vision"], card.config["text"]
    width = vision["hidden_size"]
    found = [Point(name="patch", path="model.visual.patch_embed", width=width, about="patch embedding")]
    for layer in range(1, vision["depth"] + 1):
        last = " (pre-merge)" if layer == vision["depth"] else ""
        found.append(
            Point(
                name=f"vit.{layer}",
                path=f"model.visual.blocks.{layer - 1}",
                width=width,
                about=f"vision tower after {layer} of {vision['depth']} blocks{last}",
            )
        )
    found.append(
        Point(
            name="merged",
            path="model.visual.merger",
            width=text["hidden_size"],
            about="after the 2 x 2 token merger",
        )
    )
    return (*found, *layer_points(text, {}))


def grid(card: Card, point: Point, size: tuple[int, int], frames: int) -> tuple[int, int, int]:
    """Return the (time, row, col) token counts at `point` for frames of `size` (height, width) px."""
    vision = card.config["vision"]
    unit = vision["patch_size"] * vision["spatial_merge_size"]
    height, width = resized(size, unit=unit, least=unit * unit if card.tiny else 56 * 56)
    cell = vision["patch_size"] if point.name == "patch" or point.name.startswith("vit.") else unit
    return -(-frames // vision["temporal_patch_size"]), height // cell, width // cell


def load(
    ref: ModelRef,
    folder: Path | None,
    *,
    device: str,
    dtype: str,
    attention: str,
    points: Sequence[str] | None = None,
) -> QwenVision:
    """Load the model named by `ref` from `folder`; without a folder its weights are drawn from `ref`'s seed.

    With `points` only the layers that those need are loaded.
    """
    from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

    model = load_parts(
        Qwen2_5_VLForConditionalGeneration,
        ref,
        folder,
        tiny_config=lambda: build_config(ref.card),
        device=device,
        dtype=dtype,
        attention=attention,
        points=points,
        depth="depth",
    )
    tokenizer = AutoTokenizer.from_pretrained(folder) if folder else build_tokenizer()
    image, video = _processors(ref.card, folder)
    return QwenVision(ref.card, model, tokenizer, image, video)


class QwenVision:
    """A loaded Qwen2.5-VL that reads latents at any of its points in one forward pass."""

    def __init__(self, card: Card, model: Any, tokenizer: Any, image_processor: Any, video_processor: Any):
        self.card, self.model, self.tokenizer = card, model, tokenizer
        self.image_processor, self.video_processor = image_processor, video_processor
        self.forwards = 0
        """Forward passes so far."""

    def extract(self, batch: Sequence[Frames], asked: Sequence[str]) -> list[dict[str, Tokens]]:
        """Return one `{point: Tokens}` per entry of `batch`, all points from one forward pass.

        Sizes may differ within the batch; stills and clips may not be mixed. The pass ends after the deepest
        point asked for, and never enters the language model when only the vision tower is.
        """
        import torch

        from foresight.models.tap import record

        wanted = resolve_points(points(self.card), asked, model=self.card.name)
        inputs = self.prepare(batch)
        prompted = any(p.prompted for p in wanted)

        def forward() -> None:
            if prompted:
                self.model.model.rope_deltas = None  # left over from the last call otherwise
                self.model.model(**inputs, use_cache=False)
            else:
                self.model.model.visual(inputs[_PIXELS[video]], grid_thw=inputs[_GRID[video]])

        video = _PIXELS[True] in inputs
        with torch.no_grad():
            seen = record(self.model, {p.name: p.path for p in wanted}, forward)
        self.forwards += 1
        visual = inputs["mm_token_type_ids"].bool().cpu()  # where a spread model's layers give their outputs
        orders = token_orders(inputs[_GRID[video]], self.model.config.vision_config)
        return [
            {
                p.name: _tokens(
                    seen[p.name][visual] if p.prompted else seen[p.name],
                    *orders["raster" if p.prompted else _ORDER.get(p.name, "window")],
                    index,
                    frames,
                )
                for p in wanted
            }
            for index, frames in enumerate(batch)
        ]

    def prepare(self, batch: Sequence[Frames]) -> dict[str, Any]:
        """Return the model's own inputs for `batch`, on its device: pixels, grids, and the padded prompt."""
        import torch

        video = _is_video(batch)
        if video:
            clips = [torch.from_numpy(f.pixels.copy()).permute(0, 3, 1, 2) for f in batch]
            inputs = self.video_processor(
                clips, do_sample_frames=False, cap_pixels_per_frame=False, return_tensors="pt"
            )
        else:
            stills = [torch.from_numpy(f.pixels[0].copy()).permute(2, 0, 1) for f in batch]
            inputs = self.image_processor(stills, return_tensors="pt")
        grids = inputs[_GRID[video]]
        merge = self.model.config.vision_config.spatial_merge_size**2
        sequences = [self._sequence(int(g.prod()) // merge, video) for g in grids]
        ids, mask = padded(sequences, self.tokenizer)
        placeholder = self.model.config.video_token_id if video else self.model.config.image_token_id
        kinds = (ids == placeholder).int() * (2 if video else 1)
        extra = {}
        if video:
            # the model's clock: seconds between two temporal patches; left out it would silently mean 1.0
            step = self.model.config.vision_config.temporal_patch_size
            extra["second_per_grid_ts"] = torch.tensor([_frame_step_s(f) * step for f in batch])
        device = input_device(self.model)
        pixels = inputs[_PIXELS[video]].to(self.model.dtype)
        named = {_PIXELS[video]: pixels, _GRID[video]: grids, "input_ids": ids, "attention_mask": mask}
        return {k: to_device(v, device) for k, v in (named | {"mm_token_type_ids": kinds} | extra).items()}

    def rows(self, inputs: Mapping[str, Any], rows: torch.Tensor) -> dict[str, Any]:
        """Return the entries `rows` of prepared inputs: pixels lie end to end, everything else by entry."""
        import torch

        video = _PIXELS[True] in inputs
        counts = inputs[_GRID[video]].prod(-1)
        starts = counts.cumsum(0) - counts
        patches = torch.cat([torch.arange(int(starts[r]), int(starts[r] + counts[r])) for r in rows])
        return {k: v[patches] if k == _PIXELS[video] else v[rows] for k, v in inputs.items()}

    def save(self, folder: Path) -> None:
        """Write an ordinary checkpoint folder: safetensors, configuration, tokenizer and image processor.

        Raises `WrongCheckpoint` for a model of which only some layers were loaded.
        """
        save_parts(self.card, self.model, folder, self.tokenizer, self.image_processor)

    def _sequence(self, visual_tokens: int, video: bool) -> list[int]:
        config = self.model.config
        prefix = self.tokenizer(self.card.prompt_prefix, add_special_tokens=False)["input_ids"]
        placeholder = config.video_token_id if video else config.image_token_id
        vision = [config.vision_start_token_id, *[placeholder] * visual_tokens, config.vision_end_token_id]
        return [*map(int, prefix), *vision]


_PIXELS = {False: "pixel_values", True: "pixel_values_videos"}
_GRID = {False: "image_grid_thw", True: "video_grid_thw"}
_ORDER = {"patch": "block", "merged": "merged window"}
"""Token order at the points that are not inside the blocks."""


def _tokens(values: Any, places: np.ndarray, grids: np.ndarray, image: int, frames: Frames) -> Tokens:
    """Return the tokens of one image out of a flat batch, in raster order."""
    mine = np.flatnonzero(places[:, 0] == image)
    where = places[mine, 1:]
    raster = np.lexsort((where[:, 2], where[:, 1], where[:, 0]))
    order, where = mine[raster], where[raster]
    t, h, w = (int(n) for n in grids[image])
    height, width = frames.size
    # two frames make one temporal patch (an odd last frame is repeated); its time is their mean
    times = np.asarray(frames.times_s, dtype=np.float64)
    padded = np.concatenate([times, times[-1:].repeat(max(2 * t - len(times), 0))])
    clock = padded[: 2 * t].reshape(t, 2).mean(axis=1) if len(times) > 1 else times[:1]
    return Tokens(
        values=to_cpu(values[_index(order, values)]),
        time_s=clock[where[:, 0]].astype(np.float32),
        row=((where[:, 1] + 0.5) * height / h).astype(np.float32),
        col=((where[:, 2] + 0.5) * width / w).astype(np.float32),
        kind=np.zeros(len(order), np.uint8),
        tile=np.zeros(len(order), np.int32),
        grid=(t, h, w),
    )


def _index(order: np.ndarray, values: Any) -> Any:
    import torch

    return torch.from_numpy(order).to(values.device)


def _is_video(batch: Sequence[Frames]) -> bool:
    kinds = {len(f.pixels) > 1 for f in batch}
    if len(kinds) > 1:
        raise ValueError("a batch holds stills or clips, but got both; group the samples by media")
    return kinds == {True}


def _frame_step_s(frames: Frames) -> float:
    return float(np.diff(frames.times_s).mean())


def _processors(card: Card, folder: Path | None) -> tuple[Any, Any]:
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    if folder is not None and (folder / "preprocessor_config.json").is_file():
        image = Qwen2VLImageProcessor.from_pretrained(folder)
        own = (folder / "video_preprocessor_config.json").is_file()
        video = Qwen2VLVideoProcessor.from_pretrained(folder) if own else _video_processor(image)
        return image, video
    image = build_image_processor(card)
    return image, _video_processor(image)


def _video_processor(image: Any) -> Any:
    from transformers import Qwen2VLVideoProcessor

    return Qwen2VLVideoProcessor(
        patch_size=image.patch_size,
        merge_size=image.merge_size,
        temporal_patch_size=image.temporal_patch_size,
        size={"shortest_edge": image.size["shortest_edge"], "longest_edge": image.size["longest_edge"]},
    )

"""LLaVA-NeXT: cards, points, and the tokens of its tiles put together into one picture.

A CLIP tower sees each tile on its own, a projector takes its last layer but one to the language model's width, and
there the tiles follow one another as one picture. At every point the cells of the whole picture come first here, in
raster order, then the base view's (tile 0), then class or newline tokens.

The model reads images only. Every frame of a clip is an image of its own, with a prompt of its own, and time counts
the frames.

Liu et al. (2024), LLaVA-NeXT; the projector: arXiv:2310.03744.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foresight.models.card import Card, ModelRef, Point, resolve_points
from foresight.models.llava import LoadedLlava, language_points, need_processor, prompts, tower_points
from foresight.models.llava_next_tiles import Places, Tiling, packed_places, tiling, tower_places
from foresight.models.llava_next_tiny import build_config, build_image_processor, build_tokenizer
from foresight.models.loading import WrongCheckpoint
from foresight.models.vision_language import load_parts, read_modules
from foresight.nouns import Frames, Tokens

if TYPE_CHECKING:
    import torch

PREPROCESSING = {
    "processor": "LlavaNextImageProcessor",
    "backend": "torchvision",
    "clips": "frame by frame",
    "order": "raster, base view, class or newline",
    "version": 1,
}
"""Identity of what happens between frames and tokens, beyond what the checkpoint's own files say."""

_VISION = {"num_hidden_layers": 24, "hidden_size": 1024, "image_size": 336, "patch_size": 14}
_MODEL = {
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
}

_MISTRAL_7B = Card(
    name="llava-next-mistral-7b",
    family="llava_next",
    role="vlm",
    repo="llava-hf/llava-v1.6-mistral-7b-hf",
    revision="216670a16460adb7c41ce3e123ceb3859f73ab12",
    licence="Apache-2.0",
    parameters=7_566_747_648,
    memory_gib=14.1,
    dtype="bfloat16",
    size=(448, 448),
    config={
        "model": _MODEL,
        "vision": _VISION,
        "text": {"model_type": "mistral", "num_hidden_layers": 32, "hidden_size": 4096},
    },
    default_points=("vit.12", "vit.23", "projected", "llm.8", "llm.16", "llm.32"),
    prompt_prefix="[INST] ",
)
_VICUNA_7B = replace(
    _MISTRAL_7B,
    name="llava-next-vicuna-7b",
    repo="llava-hf/llava-v1.6-vicuna-7b-hf",
    revision="c916e6cdcd760b4cecd1dd4907f84ac649f93b23",
    licence="Llama 2 Community License",
    parameters=7_063_431_168,
    memory_gib=13.2,
    config=dict(_MISTRAL_7B.config)
    | {"text": {"model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096}},
    prompt_prefix="A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions. USER: ",
)
_VICUNA_13B = replace(
    _VICUNA_7B,
    name="llava-next-vicuna-13b",
    repo="llava-hf/llava-v1.6-vicuna-13b-hf",
    revision="745cfbdb14dfeff9bcc6eb731937102e88ea3024",
    parameters=13_351_499_776,
    memory_gib=24.9,
    config=dict(_MISTRAL_7B.config)
    | {"text": {"model_type": "llama", "num_hidden_layers": 40, "hidden_size": 5120}},
    default_points=("vit.12", "vit.23", "projected", "llm.10", "llm.20", "llm.40"),
)

CARDS = (
    _MISTRAL_7B,
    _VICUNA_7B,
    _VICUNA_13B,
    Card(
        name="llava-next-tiny",
        family="llava_next",
        role="vlm",
        memory_gib=0.01,
        parameters=255_824,
        size=(64, 64),
        config={
            "model": _MODEL | {"image_grid_pinpoints": [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]},
            "vision": {"num_hidden_layers": 3, "hidden_size": 48, "num_attention_heads": 4,
                       "intermediate_size": 96, "image_size": 32, "patch_size": 8, "initializer_factor": 4.0},
            "text": {"num_hidden_layers": 4, "hidden_size": 64, "intermediate_size": 128,
                     "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.08},
        },
        default_points=("patch", "vit.2", "projected", "llm.2", "llm.4"),
        prompt_prefix="[INST] ",
    ),
)  # fmt: skip


def points(card: Card) -> tuple[Point, ...]:
    """Return the points in the order one forward pass reaches them, L1 to L5 of the plans among them."""
    projector, width = "model.multi_modal_projector", card.config["text"]["hidden_size"]
    projected = (
        Point(
            name="projected",
            path=projector,
            width=width,
            about="after the projector, all tiles, with padding",
            plans=("L2",),
        ),
        Point(
            name="packed",
            path=projector,
            width=width,
            about="the same as the language model is given it: without padding, with newline tokens",
        ),
    )
    return (*tower_points(card.config, patch="pre_layrnorm"), *projected, *language_points(card.config))


def grid(card: Card, point: Point, size: tuple[int, int], frames: int) -> tuple[int, int, int]:
    """Return the (time, row, col) counts of the whole picture's cells for frames of `size` (height, width) px.

    With padding up to the projector, without from `packed` on; neither counts the base view. Raises `ValueError`
    for frames too long and narrow to be cut up.
    """
    return (frames, *_cells(point, _cut(card, size)))


def tokens(card: Card, point: Point, size: tuple[int, int], frames: int) -> int:
    """Return the count of all tokens at `point`: grid, base view, and class or newline tokens."""
    return frames * sum(_places(point, _cut(card, size)).sections)


def load(
    ref: ModelRef,
    folder: Path | None,
    *,
    device: str,
    dtype: str,
    attention: str,
    points: Sequence[str] | None = None,
) -> LlavaNext:
    """Load the model named by `ref` from `folder`; without a folder its weights are drawn from `ref`'s seed.

    With `points` only the layers that those need are loaded. Raises `WrongCheckpoint` for files that are not the
    card's model, tiles and canvases included.
    """
    from transformers import AutoTokenizer, LlavaNextForConditionalGeneration, LlavaNextImageProcessor

    model = load_parts(
        LlavaNextForConditionalGeneration,
        ref,
        folder,
        tiny_config=lambda: build_config(ref.card),
        device=device,
        dtype=dtype,
        attention=attention,
        points=points,
    )
    if folder is None:
        return LlavaNext(ref.card, model, build_tokenizer(), build_image_processor(ref.card))
    need_processor(ref, folder)
    processor = LlavaNextImageProcessor.from_pretrained(folder)
    _check_processor(ref, processor)
    return LlavaNext(ref.card, model, AutoTokenizer.from_pretrained(folder), processor)


class LlavaNext(LoadedLlava):
    """A loaded LLaVA-NeXT that reads latents at any of its points in one forward pass."""

    def extract(self, batch: Sequence[Frames], asked: Sequence[str]) -> list[dict[str, Tokens]]:
        """Return one `{point: Tokens}` per entry of `batch`, all points from one forward pass.

        Sizes and lengths may differ within the batch. The pass ends after the deepest point asked for, and never
        enters the language model when only the vision side is.
        """
        wanted = resolve_points(points(self.card), asked, model=self.card.name)
        inputs = self.prepare(batch)
        seen = read_modules(self.model, inputs, wanted)
        self.forwards += 1
        visual = inputs["input_ids"] == self.model.config.image_token_id
        return [
            {p.name: self._tokens(p, seen[p.name], visual, entry) for p in wanted}
            for entry in _entries(self.card, batch)
        ]

    def prepare(self, batch: Sequence[Frames]) -> dict[str, Any]:
        """Return the model's own inputs for the frames of `batch`, on its device: tiles, sizes, padded prompts.

        One image a frame: pixel_values is [image tile 3 row col], filled up with empty tiles that the model skips.
        """
        import torch

        images = [torch.from_numpy(p.copy()).permute(2, 0, 1) for f in batch for p in f.pixels]
        inputs = self.image_processor(images, do_pad=True, return_tensors="pt")
        counts = [
            sum(packed_places(e.cut).sections) for e in _entries(self.card, batch) for _ in e.frames.pixels
        ]
        placeholder = self.model.config.image_token_id
        ids, mask = prompts(self.tokenizer, self.card.prompt_prefix, placeholder, counts)
        device = self.model.device
        return {
            "input_ids": ids.to(device),
            "attention_mask": mask.to(device),
            "pixel_values": inputs["pixel_values"].to(device, self.model.dtype),
            "image_sizes": inputs["image_sizes"].to(device),
        }

    def _tokens(self, point: Point, seen: torch.Tensor, visual: torch.Tensor, entry: _Entry) -> Tokens:
        """Return one sample's tokens out of what a module returned for the whole batch.

        `visual` [image token] says which positions of the prompts are the image's.
        """
        import torch

        count = len(entry.frames.pixels)
        if point.prompted:
            values = seen[entry.images][visual[entry.images].to(seen.device)].unflatten(0, (count, -1))
        else:
            tiles = seen[entry.tiles].unflatten(0, (count, entry.cut.tiles))
            values = torch.stack(self._packed(tiles, entry.cut)) if _is_packed(point) else tiles.flatten(1, 2)
        return _in_order(values, _places(point, entry.cut), _cells(point, entry.cut), entry.frames)

    def _packed(self, tiles: torch.Tensor, cut: Tiling) -> list[torch.Tensor]:
        """Return the projected tiles [frame tile token feature] as the model itself packs them."""
        packed, _ = self.model.model.pack_image_features(
            list(tiles),
            [cut.frame] * len(tiles),
            vision_feature_select_strategy=self.model.config.vision_feature_select_strategy,
            image_newline=self.model.model.image_newline,
        )
        return [p.detach() for p in packed]


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One sample of a batch: how its frames are cut up, and which images and tiles of the pass they are."""

    frames: Frames
    cut: Tiling
    images: slice
    tiles: slice


def _entries(card: Card, batch: Sequence[Frames]) -> list[_Entry]:
    found: list[_Entry] = []
    image = tile = 0
    for frames in batch:
        cut, count = _cut(card, frames.size), len(frames.pixels)
        images, tiles = slice(image, image + count), slice(tile, tile + count * cut.tiles)
        found.append(_Entry(frames=frames, cut=cut, images=images, tiles=tiles))
        image, tile = images.stop, tiles.stop
    return found


def _cut(card: Card, size: tuple[int, int]) -> Tiling:
    canvases, vision = card.config["model"]["image_grid_pinpoints"], card.config["vision"]
    return tiling(size, canvases, tile=vision["image_size"], patch=vision["patch_size"])


def _is_packed(point: Point) -> bool:
    return point.name == "packed" or point.prompted


def _cells(point: Point, cut: Tiling) -> tuple[int, int]:
    return cut.kept_shape if _is_packed(point) else cut.cells


def _places(point: Point, cut: Tiling) -> Places:
    return (
        packed_places(cut) if _is_packed(point) else tower_places(cut, class_token=point.name != "projected")
    )


def _in_order(values: torch.Tensor, places: Places, cells: tuple[int, int], frames: Frames) -> Tokens:
    """Return the tokens of `values` [frame token feature], section by section and in each frame by frame."""
    import torch

    count = len(frames.pixels)
    sections = [np.arange(a, b) for a, b in pairwise(np.cumsum([0, *places.sections]).tolist())]
    token = np.concatenate([np.tile(s, count) for s in sections])
    frame = np.concatenate([np.arange(count).repeat(len(s)) for s in sections])
    index = (torch.from_numpy(n).to(values.device) for n in (frame, places.order[token]))
    return Tokens(
        values=values[tuple(index)].cpu(),
        time_s=np.asarray(frames.times_s, dtype=np.float32)[frame],
        row=places.row[token],
        col=places.col[token],
        kind=places.kind[token],
        tile=places.tile[token],
        grid=(count, *cells),
    )


def _check_processor(ref: ModelRef, processor: Any) -> None:
    """Raise `WrongCheckpoint` when the image processor cuts images up otherwise than the card says."""
    tile = ref.card.config["vision"]["image_size"]
    declared = {
        "size": {"shortest_edge": tile},
        "crop_size": {"height": tile, "width": tile},
        "image_grid_pinpoints": ref.card.config["model"]["image_grid_pinpoints"],
    }
    for key, value in declared.items():
        found = getattr(processor, key)
        found = dict(found) if isinstance(value, dict) else [list(canvas) for canvas in found]
        if found != value:
            raise WrongCheckpoint(
                f"{ref.card.name} declares {key} = {value} for its image processor, but the checkpoint has {found}; "
                "the tokens would be at other places: use its own card"
            )

"""InternVL: cards, points, and the tokens of its tiles put together into one picture.

The model sees an image as square tiles and a thumbnail (`internvl_tiles`), each a sequence of its own with a class
token in front. Before the language model, 2 x 2 neighbouring tokens become one of four times the width.

Architecture: Chen et al. (2023), arXiv:2312.14238; Zhu et al. (2025), arXiv:2504.10479 (InternVL3).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foresight.models.card import Card, ModelRef, Point, resolve_points
from foresight.models.internvl_tiles import LEAST, MOST, Cut, cut, places
from foresight.models.internvl_tiny import build_config, build_image_processor, build_tokenizer
from foresight.models.loading import WrongCheckpoint
from foresight.models.vision_language import layer_points, load_parts, padded, read_modules, save_parts
from foresight.nouns import Frames, Tokens

if TYPE_CHECKING:
    import torch

START, CONTEXT, END = "<img>", "<IMG_CONTEXT>", "</img>"
"""The text around an image, and the placeholder of one of its tokens."""

CLIP_TEXT = ("Frame{}: ", "\n")
"""What the family writes before each frame of a clip, counted from 1, and between two of them."""

PREPROCESSING = {
    "processor": "GotOcr2ImageProcessor",
    "backend": "torchvision",
    "tiles": [LEAST, MOST],
    "thumbnail": "last",
    "clip": [*CLIP_TEXT],
    "order": "raster",
    "version": 1,
}
"""Identity of what happens between frames and tokens, beyond what the checkpoint's own files say."""

VISION_300M = {"num_hidden_layers": 24, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096,
               "image_size": [448, 448], "patch_size": [14, 14], "norm_type": "layer_norm",
               "use_qk_norm": False}  # fmt: skip

MODEL = {"downsample_ratio": 0.5, "vision_feature_layer": -1, "vision_feature_select_strategy": "default"}

_DEFAULT = ("vit.12", "vit.24", "projected", "llm.8", "llm.16")


def _card(
    name: str, *, repo: str, revision: str, parameters: int, memory_gib: float, layers: int, width: int
) -> Card:
    return Card(
        name=name,
        family="internvl",
        role="vlm",
        repo=repo,
        revision=revision,
        licence="MIT; the language model inside is Apache-2.0",
        parameters=parameters,
        memory_gib=memory_gib,
        dtype="bfloat16",
        size=(448, 448),
        config={"vision": VISION_300M, "text": {"num_hidden_layers": layers, "hidden_size": width}, "model": MODEL},
        default_points=_DEFAULT,
        prompt_prefix="<|im_start|>user\n",
    )  # fmt: skip


CARDS = (
    _card("internvl3-1b", repo="OpenGVLab/InternVL3-1B-hf", revision="014c0583a0d4bedf29fbe2dbff4f865eb998e171",
          parameters=938_193_024, memory_gib=1.8, layers=24, width=896),
    _card("internvl3-2b", repo="OpenGVLab/InternVL3-2B-hf", revision="cb57a075cb75a2e6d1b668b128d48bb00ae321d2",
          parameters=2_088_957_440, memory_gib=3.9, layers=28, width=1536),
    _card("internvl3-8b", repo="OpenGVLab/InternVL3-8B-hf", revision="259a3b64a14623c0ec91a045cb43f7c5af5fa6af",
          parameters=7_944_373_760, memory_gib=14.8, layers=28, width=3584),
    _card("internvl2.5-8b-mpo", repo="OpenGVLab/InternVL2_5-8B-MPO-hf",
          revision="543db189852edd2dbf0c0395c6afe4159cdc842f",
          parameters=8_075_365_376, memory_gib=15.0, layers=32, width=4096),
    Card(
        name="internvl-tiny",
        family="internvl",
        role="vlm",
        parameters=642_912,
        memory_gib=0.01,
        size=(64, 64),
        config={
            # tiles of 64 px: an image of 64 x 64 is one, of 64 x 128 two and a thumbnail
            "vision": {"num_hidden_layers": 4, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128,
                       "image_size": [64, 64], "patch_size": [8, 8], "norm_type": "layer_norm", "use_qk_norm": False,
                       "attention_bias": True, "layer_scale_init_value": 1.0, "initializer_range": 0.1},
            "text": {"num_hidden_layers": 4, "hidden_size": 96, "intermediate_size": 256, "num_attention_heads": 4,
                     "num_key_value_heads": 2, "initializer_range": 0.08},
            "model": MODEL,
        },
        default_points=("patch", "vit.2", "vit.4", "projected", "llm.2", "llm.4"),
    ),
)  # fmt: skip

_PLANS = {"vit.24": "I1", "vit.out": "I2", "shuffled": "I3.in", "projected": "I3",
          "llm.8": "I4", "llm.16": "I5"}  # fmt: skip
_TINY_PLANS = {"vit.2": "I1", "vit.out": "I2", "shuffled": "I3.in", "projected": "I3",
               "llm.1": "I4", "llm.2": "I5"}  # fmt: skip
"""A tiny card has the plans' points at the same fraction of its depth."""


def points(card: Card) -> tuple[Point, ...]:
    """Return the points in the order one forward pass reaches them.

    The plans' I3 is the projector: `I3` its output, `I3.in` its input, the tokens after the pixel shuffle. `vit.out`
    is what the tower hands on; where the tower ends without a norm it equals the last layer.
    """
    vision, text = card.config["vision"], card.config["text"]
    plans = _TINY_PLANS if card.tiny else _PLANS
    depth, narrow, tower = vision["num_hidden_layers"], vision["hidden_size"], "model.vision_tower"
    wide = narrow * _shrink(card) ** 2
    found = [
        ("patch", f"{tower}.embeddings.patch_embeddings", narrow, "patch embedding, before positions are added"),
        *((f"vit.{k}", f"{tower}.encoder.layer.{k - 1}", narrow, f"vision tower after {k} of {depth} layers")
          for k in range(1, depth + 1)),
        ("vit.out", f"{tower}.layernorm", narrow, "vision tower's output"),
        # the shuffle is no module: what goes in is recorded, and shuffled by the model's own method
        ("shuffled", f"{tower}.layernorm", wide, "after the pixel shuffle, which makes one token of 2 x 2"),
        ("projected", "model.multi_modal_projector", text["hidden_size"], "after the projector"),
    ]  # fmt: skip
    seen = (
        Point(name=name, path=path, width=width, about=about, plans=(plans[name],) if name in plans else ())
        for name, path, width, about in found
    )
    return (*seen, *layer_points(text, plans))


def grid(card: Card, point: Point, size: tuple[int, int], frames: int) -> tuple[int, int, int]:
    """Return the (time, row, col) token counts of the canvas at `point` for frames of `size` (height, width) px."""
    return _cut(card, size, frames).grid(_side(card, point.name))


def tokens(card: Card, point: Point, size: tuple[int, int], frames: int) -> int:
    """Return how many tokens there are: the canvas, the thumbnail of a tiled still, a class token a tile."""
    tiles, side = _cut(card, size, frames).tiles, _side(card, point.name)
    return tiles * (side * side + point.name.startswith("vit."))


def load(
    ref: ModelRef,
    folder: Path | None,
    *,
    device: str,
    dtype: str,
    attention: str,
    points: Sequence[str] | None = None,
) -> InternVision:
    """Load the model named by `ref` from `folder`; without a folder its weights are drawn from `ref`'s seed.

    With `points` only the layers that those need are loaded.
    """
    from transformers import AutoTokenizer, GotOcr2ImageProcessor, InternVLForConditionalGeneration

    model = load_parts(
        InternVLForConditionalGeneration,
        ref,
        folder,
        tiny_config=lambda: build_config(ref.card),
        device=device,
        dtype=dtype,
        attention=attention,
        points=points,
    )
    if folder is None:
        tokenizer, processor = build_tokenizer(), build_image_processor(_tile(ref.card))
    else:
        tokenizer, processor = (
            AutoTokenizer.from_pretrained(folder),
            GotOcr2ImageProcessor.from_pretrained(folder),
        )
    if ref.kind == "random":
        draw_places(model, int(ref.value))
    return InternVision(ref.card, model, tokenizer, processor)


def draw_places(model: Any, seed: int) -> None:
    """Give random weights a class token and position embeddings, drawn from `seed`.

    The library starts both at zero, and a tower without positions is no fair control for one that has them.
    """
    import torch

    embeddings = model.model.vision_tower.embeddings
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (embeddings.cls_token, embeddings.position_embeddings):
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn * model.config.vision_config.initializer_range)


class InternVision:
    """A loaded InternVL that reads latents at any of its points in one forward pass."""

    def __init__(
        self,
        card: Card,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        *,
        clip_text: tuple[str, str] = CLIP_TEXT,
    ):
        self.card, self.model, self.tokenizer, self.image_processor = card, model, tokenizer, image_processor
        self.clip_text = clip_text
        self.forwards = 0
        """Forward passes so far."""
        size, tile = image_processor.size, _tile(card)
        if (size["height"], size["width"]) != (tile, tile):
            raise WrongCheckpoint(
                f"{card.name} takes tiles of {tile} x {tile} px, but its image processor makes them "
                f"{size['height']} x {size['width']}; copy preprocessor_config.json again"
            )

    def extract(self, batch: Sequence[Frames], asked: Sequence[str]) -> list[dict[str, Tokens]]:
        """Return one `{point: Tokens}` per entry of `batch`, all points from one forward pass.

        Sizes may differ within the batch, and stills and clips may be mixed. The pass ends after the deepest point
        asked for, and never enters the language model when only vision points are.
        """
        wanted = resolve_points(points(self.card), asked, model=self.card.name)
        inputs = self.prepare(batch)
        seen = read_modules(self.model, inputs, wanted)
        if "shuffled" in seen:
            seen["shuffled"] = self._shuffled(seen["shuffled"])
        self.forwards += 1
        cuts = [_cut(self.card, f.size, len(f.pixels)) for f in batch]
        ends = np.cumsum([c.tiles for c in cuts])
        visual = inputs["input_ids"] == self.model.config.image_token_id
        return [
            {
                p.name: _tokens(
                    _of(seen[p.name], index, visual) if p.prompted
                    else seen[p.name][ends[index] - cuts[index].tiles : ends[index]].flatten(0, 1),
                    cuts[index], frames, side=_side(self.card, p.name), class_token=p.name.startswith("vit."),
                )
                for p in wanted
            }
            for index, frames in enumerate(batch)
        ]  # fmt: skip

    def prepare(self, batch: Sequence[Frames]) -> dict[str, Any]:
        """Return the model's own inputs for `batch`, on its device: tiles end to end, and the padded prompts."""
        import torch

        pixels = torch.cat([self._pixels(f) for f in batch])
        ids, mask = padded([self._sequence(f) for f in batch], self.tokenizer)
        device = self.model.device
        return {
            "pixel_values": pixels.to(device, self.model.dtype),
            "input_ids": ids.to(device),
            "attention_mask": mask.to(device),
        }

    def save(self, folder: Path) -> None:
        """Write an ordinary checkpoint folder: safetensors, configuration, tokenizer and image processor.

        Raises `WrongCheckpoint` for a model of which only some layers were loaded.
        """
        save_parts(self.card, self.model, folder, self.tokenizer, self.image_processor)

    def _pixels(self, frames: Frames) -> torch.Tensor:
        """Return [tile 3 row col]: a still's tiles and thumbnail, or a clip's frames."""
        import torch

        images = [torch.from_numpy(p.copy()).permute(2, 0, 1) for p in frames.pixels]
        inputs = self.image_processor(
            images, crop_to_patches=len(images) == 1, min_patches=LEAST, max_patches=MOST, return_tensors="pt"
        )
        return inputs["pixel_values"]

    def _sequence(self, frames: Frames) -> list[int]:
        """Return the token ids of the prompt up to the end of the image; what follows cannot change its latents."""
        tiles = _cut(self.card, frames.size, len(frames.pixels)).tiles
        per_tile = _side(self.card, "projected") ** 2
        label, between = self.clip_text
        if len(frames.pixels) > 1:
            text = between.join(
                f"{label.format(i + 1)}{START}{CONTEXT * per_tile}{END}" for i in range(tiles)
            )
        else:
            text = f"{START}{CONTEXT * per_tile * tiles}{END}"
        return [int(i) for i in self.tokenizer(self.card.prompt_prefix + text)["input_ids"]]

    def _shuffled(self, tower: torch.Tensor) -> torch.Tensor:
        """Return [tile token feature] as the projector is given it, from the tower's output."""
        tiles, _, width = tower.shape
        side = _side(self.card, "vit.out")
        square = tower[:, 1:].reshape(tiles, side, side, width)
        return self.model.model.pixel_shuffle(square, self.model.config.downsample_ratio).flatten(1, 2)


def _tokens(values: Any, cut: Cut, frames: Frames, *, side: int, class_token: bool) -> Tokens:
    """Return one sample's tokens, the canvas first, out of [token feature] in the model's order."""
    import torch

    at = places(cut, side=side, class_token=class_token)
    return Tokens(
        values=values[torch.from_numpy(at.order).to(values.device)].cpu(),
        time_s=np.asarray(frames.times_s, np.float32)[at.frame],
        row=at.row.astype(np.float32),
        col=at.col.astype(np.float32),
        kind=at.kind,
        tile=at.tile,
        grid=cut.grid(side),
    )


def _of(values: Any, index: int, visual: Any) -> Any:
    return values[index][visual[index].to(values.device)]


def _cut(card: Card, size: tuple[int, int], frames: int) -> Cut:
    return cut(size, frames, tile=_tile(card))


def _tile(card: Card) -> int:
    return int(card.config["vision"]["image_size"][0])


def _shrink(card: Card) -> int:
    return round(1 / card.config["model"]["downsample_ratio"])


def _side(card: Card, point: str) -> int:
    """Return the cells along a tile at a point: patches in the tower, blocks of 2 x 2 of them after it."""
    side = _tile(card) // int(card.config["vision"]["patch_size"][0])
    return side if point == "patch" or point.startswith("vit.") else side // _shrink(card)

"""CLIP and SigLIP vision towers on their own, without a language model behind them.

Their positions are learnt for one size, so every picture is brought to it by the checkpoint's own rule: CLIP resizes
the shorter side and cuts the middle out, SigLIP stretches. What is cut away has no token, and places are told
in pixels of the frames before that. CLIP has a class token, which it puts first; SigLIP has none.

Radford et al. (2021), arXiv:2103.00020; Zhai et al. (2023), arXiv:2303.15343.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foresight.data.fitting import Fit
from foresight.models.card import Card, ModelRef, Point
from foresight.models.encoders import FrameEncoder, vit_points
from foresight.models.loading import check_config, check_folder, load_model

PREPROCESSING = {
    "processor": "the checkpoint's own CLIPImageProcessor or SiglipImageProcessor",
    "backend": "torchvision",
    "clips": "frame by frame",
    "order": "raster, class",
    "version": 1,
}
"""Identity of what happens between frames and tokens, beyond what the checkpoint's own files say."""


def _card(name: str, repo: str, revision: str | None, licence: str, parameters: int, **config: Any) -> Card:
    depth = config["num_hidden_layers"]
    return Card(
        name=name,
        family="clip",
        role="encoder",
        repo=repo,
        revision=revision,
        licence=licence,
        parameters=parameters,
        memory_gib=round(2 * parameters / 2**30, 2),
        dtype="bfloat16",
        size=(config["image_size"],) * 2,
        config=config,
        default_points=(f"vit.{depth // 2}", f"vit.{depth - 1}", f"vit.{depth}"),
    )


def _tiny(name: str, kind: str, parameters: int, **own: float) -> Card:
    return Card(
        name=name,
        family="clip",
        role="encoder",
        parameters=parameters,
        memory_gib=0.01,
        size=(64, 64),
        config={"kind": kind, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
                "intermediate_size": 192, "patch_size": 8, "image_size": 64, **own},
        default_points=("patch", "vit.2", "vit.4"),
    )  # fmt: skip


_L14 = {"kind": "clip", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
        "intermediate_size": 4096, "patch_size": 14}  # fmt: skip
_SO400M = {"kind": "siglip", "hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16,
           "intermediate_size": 4304, "patch_size": 14, "image_size": 384}  # fmt: skip
_B16 = {"kind": "siglip", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "patch_size": 16, "image_size": 224}  # fmt: skip

CARDS = (
    _card("clip-l14-224", "openai/clip-vit-large-patch14",
          "32bd64288804d66eefd0ccbe215aa642df71cc41", "MIT", 303_179_776, **_L14, image_size=224),
    _card("clip-l14-336", "openai/clip-vit-large-patch14-336",
          "ce19dc912ca5cd21c8a653c79e251e808ccabcd1", "MIT", 303_507_456, **_L14, image_size=336),
    _card("siglip-b16-224", "google/siglip-base-patch16-224",
          "7fd15f0689c79d79e38b1c2e2e2370a7bf2761ed", "Apache-2.0", 92_884_224, **_B16),
    _card("siglip-so400m-384", "google/siglip-so400m-patch14-384",
          "9fdffc58afc957d1a03a25b10dba0329ab15c2a3", "Apache-2.0", 428_225_600, **_SO400M),
    _card("siglip2-so400m-384", "google/siglip2-so400m-patch14-384",
          "e8e487298228002f3d8a82e0cd5c8ea9c567f57f", "Apache-2.0", 428_225_600, **_SO400M),
    _tiny("clip-tiny", "clip", 183_680, initializer_factor=3.0),
    _tiny("siglip-tiny", "siglip", 225_152),
)  # fmt: skip


def points(card: Card) -> tuple[Point, ...]:
    """Return the points in the order one forward pass reaches them.

    CLIP's last norm sees the class token alone, so its patches end at the last block.
    """
    config = card.config
    clip = config["kind"] == "clip"
    return vit_points(
        config["num_hidden_layers"],
        config["hidden_size"],
        # CLIP normalises before the first block: that is what transformers calls hidden state 0
        patch="pre_layrnorm" if clip else "embeddings",
        blocks="encoder.layers",
        final=None if clip else "post_layernorm",
    )


def grid(card: Card, point: Point, size: tuple[int, int], frames: int) -> tuple[int, int, int]:
    """Return the (time, row, col) counts of patches: the same for frames of any size; time counts frames."""
    side = card.config["image_size"] // card.config["patch_size"]
    return frames, side, side


def tokens(card: Card, point: Point, size: tuple[int, int], frames: int) -> int:
    """Return the count of patches and, with CLIP, of a class token for each frame."""
    _, rows, cols = grid(card, point, size, frames)
    return frames * (rows * cols + (card.config["kind"] == "clip"))


def view(size: tuple[int, int], rule: Any, crop: Any) -> Fit:
    """Return how a processor brings frames of `size` (height, width) px to the size of its model.

    `rule` is the processor's `size`: a `shortest_edge`, after which the middle of `crop` size is cut out, or
    the `height` and `width` that the frame is stretched to (`crop` None).
    """
    height, width = size
    if rule.get("shortest_edge"):
        short = rule["shortest_edge"]
        # the processor's own rounding: the longer side is cut to whole pixels
        resized = tuple(short if side == min(size) else int(short * side / min(size)) for side in size)
    else:
        resized = rule["height"], rule["width"]
    out = (crop["height"], crop["width"]) if crop else resized
    return Fit(
        size_out=(out[0], out[1]),
        scale_row=resized[0] / height,
        scale_col=resized[1] / width,
        offset_row=-float(int((resized[0] - out[0]) / 2)),
        offset_col=-float(int((resized[1] - out[1]) / 2)),
    )


def load(ref: ModelRef, folder: Path | None, *, device: str, dtype: str, attention: str) -> FrameEncoder:
    """Load the tower named by `ref` from `folder`; without a folder its weights are drawn from `ref`'s seed.

    The folder holds the tower alone, or the whole model with its text half, which is left where it is.
    """
    import transformers

    config = {k: v for k, v in ref.card.config.items() if k != "kind"}
    kind = {"clip": "CLIP", "siglip": "Siglip"}[ref.card.config["kind"]]
    with _tower_folder(ref, folder, getattr(transformers, f"{kind}VisionConfig")) as own:
        model = load_model(
            getattr(transformers, f"{kind}VisionModel"),
            ref,
            own,
            tiny_config=lambda: getattr(transformers, f"{kind}VisionConfig")(**config),
            device=device,
            dtype=dtype,
            attention=attention,
            check=lambda found: check_config(ref, config, found),
        )
    processor = _processor(ref.card, folder, getattr(transformers, f"{kind}ImageProcessor"))
    crop = processor.crop_size if getattr(processor, "do_center_crop", None) else None
    return FrameEncoder(
        ref.card,
        model,
        processor,
        points=points(ref.card),
        leading=("class",) if kind == "CLIP" else (),
        patch=config["patch_size"],
        view=lambda size: view(size, processor.size, crop),
    )


@contextmanager
def _tower_folder(ref: ModelRef, folder: Path | None, config_class: Any) -> Iterator[Path | None]:
    """Give a folder that holds the vision tower as a checkpoint of its own.

    A whole model's folder is shown through links to its weights, beside the configuration of its tower.
    """
    from transformers.utils import logging

    whole = ref.card.config["kind"]
    config = {} if folder is None else json.loads((folder / "config.json").read_text())
    if folder is None or config.get("model_type") != whole:
        yield folder
        return
    check_folder(ref, folder, model_type=whole)
    with tempfile.TemporaryDirectory() as scratch:
        own = Path(scratch) / folder.name
        own.mkdir()
        config_class.from_pretrained(folder).save_pretrained(own)
        for file in [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]:
            (own / file.name).symlink_to(file.resolve())
        told = logging.get_verbosity()
        logging.set_verbosity_error()  # else the text half is listed, weight by weight, as not expected
        try:
            yield own
        finally:
            logging.set_verbosity(told)


def _processor(card: Card, folder: Path | None, processor_class: Any) -> Any:
    if folder is not None and (folder / "preprocessor_config.json").is_file():
        return processor_class.from_pretrained(folder)
    side = card.config["image_size"]
    if card.config["kind"] == "clip":
        return processor_class(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    return processor_class(size={"height": side, "width": side})

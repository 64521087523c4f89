"""DINOv2, with and without registers: cards, points, and patches at their true places for frames of any size.

A self-supervised vision transformer without text: what a vision tower knows when no language taught it, and the
spatial half of a hybrid. The class token comes first, then the registers where there are any, then the patches in
raster order. Positions are interpolated, so that any number of whole patches works; a side that is no multiple
of the patch would be cut by the model without a word, and is resized to the nearest multiple here instead.

Oquab et al. (2023), arXiv:2304.07193; registers: Darcet et al. (2023), arXiv:2309.16588.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foresight.models.card import Card, ModelRef, Point
from foresight.models.encoders import FrameEncoder, stretched, vit_points
from foresight.models.loading import check_config, load_model

PREPROCESSING = {
    "processor": "BitImageProcessor",
    "backend": "torchvision",
    "resize": "each side to the nearest multiple of the patch, bicubic, no crop",
    "clips": "frame by frame",
    "order": "raster, class, registers",
    "version": 1,
}
"""Identity of what happens between frames and tokens, beyond what the checkpoint's own files say."""


def _card(
    size: str, width: int, depth: int, heads: int, parameters: int, revision: str | None, registers: int = 0
) -> Card:
    own = {"num_register_tokens": registers} if registers else {}
    return Card(
        name=f"dinov2-{'reg-' if registers else ''}{size}",
        family="dinov2",
        role="encoder",
        repo=f"facebook/dinov2-{'with-registers-' if registers else ''}{size}",
        revision=revision,
        licence="Apache-2.0",
        parameters=parameters,
        memory_gib=round(2 * parameters / 2**30, 2),
        dtype="bfloat16",
        size=(448, 448),
        config={"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads,
                "patch_size": 14, "image_size": 518, "use_swiglu_ffn": size == "giant", **own},
        default_points=(f"vit.{depth // 2}", f"vit.{3 * depth // 4}", "vit.final"),
    )  # fmt: skip


def _tiny(name: str, parameters: int, **own: int) -> Card:
    return Card(
        name=name,
        family="dinov2",
        role="encoder",
        parameters=parameters,
        memory_gib=0.01,
        size=(64, 64),
        config={"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "patch_size": 8,
                "image_size": 64, "use_swiglu_ffn": False, "initializer_range": 0.1, **own},
        default_points=("patch", "vit.2", "vit.4", "vit.final"),
    )  # fmt: skip


CARDS = (
    _card("small", 384, 12, 6, 22_056_576, "ed25f3a31f01632728cabb09d1542f84ab7b0056"),
    _card("base", 768, 12, 12, 86_580_480, "f9e44c814b77203eaa57a6bdbbd535f21ede1415"),
    _card("large", 1024, 24, 16, 304_368_640, "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c"),
    _card("giant", 1536, 40, 24, 1_136_480_768, "611a9d42f2335e0f921f1e313ad3c1b7178d206d"),
    _card("small", 384, 12, 6, 22_058_112, None, registers=4),
    _card("base", 768, 12, 12, 86_583_552, None, registers=4),
    _card("large", 1024, 24, 16, 304_372_736, "e4c89a4e05589de9b3e188688a303d0f3c04d0f3", registers=4),
    _card("giant", 1536, 40, 24, 1_136_486_912, "8d0d49f77fb8b5dd78842496ff14afe7dd4d85cb", registers=4),
    _tiny("dinov2-tiny", 217_216),
    _tiny("dinov2-reg-tiny", 217_472, num_register_tokens=4),
)


def points(card: Card) -> tuple[Point, ...]:
    """Return the points in the order one forward pass reaches them."""
    config = card.config
    return vit_points(
        config["num_hidden_layers"],
        config["hidden_size"],
        patch="embeddings",
        blocks="encoder.layer",
        final="layernorm",
    )


def grid(card: Card, point: Point, size: tuple[int, int], frames: int) -> tuple[int, int, int]:
    """Return the (time, row, col) counts of patches for frames of `size` (height, width) px; time counts frames."""
    patch = card.config["patch_size"]
    height, width = stretched(size, multiple_of=patch).size_out
    return frames, height // patch, width // patch


def tokens(card: Card, point: Point, size: tuple[int, int], frames: int) -> int:
    """Return the count of patches and, for each frame, of a class token and the registers."""
    _, rows, cols = grid(card, point, size, frames)
    return frames * (rows * cols + 1 + card.config.get("num_register_tokens", 0))


def load(ref: ModelRef, folder: Path | None, *, device: str, dtype: str, attention: str) -> FrameEncoder:
    """Load the model named by `ref` from `folder`; without a folder its weights are drawn from `ref`'s seed."""
    import transformers

    config = ref.card.config
    registers = config.get("num_register_tokens", 0)
    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    model = load_model(
        getattr(transformers, f"{kind}Model"),
        ref,
        folder,
        tiny_config=lambda: getattr(transformers, f"{kind}Config")(**config),
        device=device,
        dtype=dtype,
        attention=attention,
        check=lambda found: check_config(ref, config, found),
    )
    return FrameEncoder(
        ref.card,
        model,
        _processor(folder),
        points=points(ref.card),
        leading=("class", *["register"] * registers),
        patch=config["patch_size"],
        view=lambda size: stretched(size, multiple_of=config["patch_size"]),
        options=lambda fit: {
            "size": {"height": fit.size_out[0], "width": fit.size_out[1]},
            "do_center_crop": False,
        },
    )


def _processor(folder: Path | None) -> Any:
    from transformers import BitImageProcessor

    if folder is not None and (folder / "preprocessor_config.json").is_file():
        return BitImageProcessor.from_pretrained(folder)
    return BitImageProcessor(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])

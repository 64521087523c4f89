"""CogVLM2: cards, points, and its modules rebuilt here, because no library has them.

The published repository brings its model as code that today's transformers cannot run, and code of a repository
is never run here. `architectures/cogvlm2.py` is written after a reading of that code, in a public copy of the
repository's files, and of two serving engines that run the model. What is known of it, and how:

- Names and shapes. The 1,221 keys of the modules are those of the published model.safetensors.index.json, whose
  text has the length that these names give it; their bytes in bfloat16 sum to its `total_size`, 39,006,214,656.
- Structure: read in the code. Post-norm vision layers; the class token dropped before the merger, a convolution
  2 x 2 with stride 2; the gated adapter; begin- and end-of-image embeddings; the second expert's weights at image
  positions except the last; one rotary position for all patches; causal attention over text and image alike.
- Preprocessing: read in the code. The image is stretched to a square by bicubic filtering, on bytes; CLIP's mean
  and deviation. The sequence is the begin-of-text token, then the image; text follows it.
- Not established: that a loaded checkpoint gives the published model's numbers. The published weights have not
  been compared with it, nor has it run on a GPU. The commit of the weights is not known here either; pin one.

A clip is seen frame by frame: the model has no time. Each frame is an image, and a sequence of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from foresight.models.card import Card, ModelRef, Point, resolve_points
from foresight.models.cogvlm2_tiny import build_config, build_tokenizer
from foresight.models.cogvlm2_weights import Source, build, fill, from_files, from_seed, parts
from foresight.models.device import resolve_device, without_bars
from foresight.models.encoders import placed
from foresight.models.loading import WrongCheckpoint, check_config, check_folder
from foresight.nouns import Frames, Tokens

if TYPE_CHECKING:
    import torch

    from foresight.models.architectures.cogvlm2 import CogVLM2

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

PREPROCESSING = {
    "processor": "stretch to a square, bicubic on bytes",
    "backend": "pillow",
    "mean": list(MEAN),
    "std": list(STD),
    "order": "raster",
    "version": 1,
}
"""Identity of what happens between frames and tokens: the checkpoint has no file that says it."""

CARDS = (
    Card(
        name="cogvlm2-19b",
        family="cogvlm2",
        role="vlm",
        repo="zai-org/cogvlm2-llama3-chat-19B",
        licence="CogVLM2 License and Meta Llama 3 Community License",
        parameters=19_503_105_280,
        memory_gib=36.3,
        dtype="bfloat16",
        size=(1344, 1344),
        config={
            "vision": {"num_hidden_layers": 63, "hidden_size": 1792, "num_heads": 16, "intermediate_size": 15360,
                       "patch_size": 14, "image_size": 1344, "num_positions": 9217, "in_channels": 3,
                       "layer_norm_eps": 1e-6, "hidden_act": "gelu"},
            "text": {"num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32,
                     "num_multi_query_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
                     "rms_norm_eps": 1e-5, "hidden_act": "silu"},
        },
        default_points=("vit.63", "projected", "llm.8", "llm.16", "llm.final"),
    ),
    Card(
        name="cogvlm2-tiny",
        family="cogvlm2",
        role="vlm",
        parameters=1_267_392,
        memory_gib=0.01,
        size=(64, 64),
        config={
            "vision": {"num_hidden_layers": 3, "hidden_size": 64, "num_heads": 4, "intermediate_size": 128,
                       "patch_size": 8, "image_size": 64, "num_positions": 65, "in_channels": 3,
                       "layer_norm_eps": 1e-6, "hidden_act": "gelu"},
            "text": {"num_hidden_layers": 4, "hidden_size": 128, "num_attention_heads": 4,
                     "num_multi_query_heads": 2, "intermediate_size": 192, "vocab_size": 259,
                     "rms_norm_eps": 1e-5, "hidden_act": "silu", "initializer_range": 0.1},
        },
        default_points=("vit.3", "projected", "llm.1", "llm.2", "llm.final"),
    ),
)  # fmt: skip


def points(card: Card) -> tuple[Point, ...]:
    """Return the points in the order one forward pass reaches them.

    The plans' C1 is the end of the vision tower; C2 and C3 are the decoder at a quarter and at half of its
    layers (8 and 16 of 32), there being no separate stream of visual experts; C4, "after fusion", is its end.
    """
    vision, text = card.config["vision"], card.config["text"]
    tower, width, layers = vision["num_hidden_layers"], vision["hidden_size"], text["num_hidden_layers"]
    plans = {layers // 4: ("C2",), layers // 2: ("C3",)}
    return (
        Point(name="patch", path="model.vision.patch_embedding", width=width,
              about="patch embedding, with positions"),
        *(
            Point(name=f"vit.{n}", path=f"model.vision.transformer.layers.{n - 1}", width=width,
                  plans=("C1",) if n == tower else (),
                  about=f"vision tower after {n} of {tower} layers{' (pre-merge)' if n == tower else ''}")
            for n in range(1, tower + 1)
        ),
        Point(name="merged", path="model.vision.conv", width=width, about="after the 2 x 2 token merger"),
        Point(name="projected", path="model.vision.linear_proj", width=text["hidden_size"],
              about="after the adapter, as the decoder gets it"),
        *(
            Point(name=f"llm.{n}", path=f"model.layers.{n - 1}", width=text["hidden_size"], prompted=True,
                  plans=plans.get(n, ()),
                  about=f"decoder after {n} of {layers} layers, visual positions")
            for n in range(1, layers + 1)
        ),
        Point(name="llm.final", path="model.norm", width=text["hidden_size"], prompted=True, plans=("C4",),
              about="decoder after the final norm, visual positions"),
    )  # fmt: skip


def grid(card: Card, point: Point, size: tuple[int, int], frames: int) -> tuple[int, int, int]:
    """Return the (time, row, col) counts of patches at `point`: the same for every size, for all are stretched."""
    side = card.config["vision"]["image_size"] // card.config["vision"]["patch_size"]
    side = side if _in_tower(point) else side // 2
    return frames, side, side


def tokens(card: Card, point: Point, size: tuple[int, int], frames: int) -> int:
    """Return all tokens at `point`: of each frame its patches, and the class token in the tower or begin- and
    end-of-image in the decoder."""
    _, rows, cols = grid(card, point, size, frames)
    return frames * (rows * cols + (1 if _in_tower(point) else 2 if point.prompted else 0))


def load(ref: ModelRef, folder: Path | None, *, device: str, dtype: str, attention: str) -> CogVlm2:
    """Check the model named by `ref`; its weights come into memory with the first pass that needs them.

    Without a folder they are drawn from `ref`'s seed. `device="auto"` is the GPU when there is one.

    Raises `WrongCheckpoint` when the files are not this model, and `ValueError` for a kernel it cannot use.
    """
    if folder is None and ref.kind != "random":
        raise ValueError(f"{ref} is loaded from a checkpoint folder, but got none")
    config = _config(ref, folder) if folder else build_config(ref.card)
    model = build(config["vision_config"], config, attention)
    if ref.kind == "random":
        source = from_seed(int(ref.value), config["initializer_range"])
    else:
        source = from_files(ref, folder, model)  # type: ignore[arg-type]
    return CogVlm2(ref.card, model, config, source, folder, device=resolve_device(device), dtype=dtype)


def _config(ref: ModelRef, folder: Path) -> dict[str, Any]:
    """Return the config.json in `folder` when it is of the card's architecture, defaults filled in."""
    if ref.kind != "random":
        check_folder(ref, folder)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    # the published file leaves this one to its configuration class
    config.setdefault("num_multi_query_heads", 8)
    found = (config.get("architectures") or ["model of no name"])[0]
    if found != "CogVLMForCausalLM" or "vision_config" not in config:
        raise WrongCheckpoint(
            f"{ref.card.name} is a CogVLMForCausalLM, but the checkpoint in {folder.name} is a {found}; "
            "give its own card, or another folder"
        )
    check_config(ref, ref.card.config["vision"], SimpleNamespace(**config["vision_config"]), "vision")
    check_config(ref, ref.card.config["text"], SimpleNamespace(**config), "text")
    return config


class CogVlm2:
    """A CogVLM2 that reads latents at any of its points in one forward pass, and loads what that pass needs."""

    def __init__(
        self,
        card: Card,
        model: CogVLM2,
        config: dict[str, Any],
        source: Source,
        folder: Path | None,
        *,
        device: str,
        dtype: str,
    ):
        self.card, self.model, self.config = card, model, config
        self.device, self.dtype = device, dtype
        self._source, self._folder = source, folder
        self.forwards = 0
        """Forward passes so far."""

    def extract(self, batch: Sequence[Frames], asked: Sequence[str]) -> list[dict[str, Tokens]]:
        """Return one `{point: Tokens}` per entry of `batch`, all points from one forward pass.

        Sizes, stills and clips of any length may be mixed. The pass ends after the deepest point asked for, and
        never enters the decoder, or holds its weights, when only the vision tower is. After a frame's patches
        come its class token (in the tower) or its begin- and end-of-image tokens, as kind register (in the
        decoder); they have no place, and the frame's time.
        """
        import torch

        from foresight.models.tap import record

        wanted = resolve_points(points(self.card), asked, model=self.card.name)
        self.ensure(wanted[-1].path)
        inputs = self.prepare(batch)

        def forward() -> None:
            if wanted[-1].prompted:
                self.model.model(**inputs)
            else:
                self.model.model.vision(inputs["pixels"])

        with torch.no_grad():
            seen = record(self.model, {p.name: p.path for p in wanted}, forward)
        self.forwards += 1
        visual = inputs["vision"][0]
        ends = np.cumsum([0, *(len(f.pixels) for f in batch)])
        return [
            {
                p.name: _tokens(p, seen[p.name][first:last], visual, frames)
                for p in wanted
            }
            for frames, first, last in zip(batch, ends[:-1], ends[1:], strict=True)
        ]  # fmt: skip

    def prepare(self, batch: Sequence[Frames]) -> dict[str, torch.Tensor]:
        """Return the model's own inputs for `batch`, frame after frame, on its device.

        `pixels` [frame 3 row col], normalised; `ids` [frame token], and `vision` [frame token], true from
        begin- to end-of-image.
        """
        import torch

        vision = self.config["vision_config"]
        stills = [image for frames in batch for image in frames.pixels]
        pixels = torch.stack([_stretched(image, vision["image_size"]) for image in stills])
        before = [self.config["bos_token_id"], *self._prefix()]
        image = (vision["image_size"] // vision["patch_size"] // 2) ** 2 + 2
        ids = torch.tensor([*before, *[self.config["pad_token_id"]] * image]).expand(len(stills), -1)
        marks = torch.tensor([False] * len(before) + [True] * image).expand(len(stills), -1)
        return {
            "pixels": pixels.to(self.device, getattr(torch, self.dtype)),
            "ids": ids.to(self.device),
            "vision": marks.to(self.device),
        }

    def ensure(self, path: str) -> None:
        """Have the weights in memory of everything a pass comes to up to the module at `path`."""
        order = parts(self.config["vision_config"]["num_hidden_layers"], self.config["num_hidden_layers"])
        wanted = order[: order.index(path) + 1]
        fill(self.model, wanted, self._source, device=self.device, dtype=self.dtype)

    def save(self, folder: Path) -> None:
        """Write a checkpoint folder with the published names: safetensors, config.json and tokenizer."""
        from safetensors.torch import save_file

        self.ensure("lm_head")
        weights = {name: tensor.cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(self.config, indent=2) + "\n")
        with without_bars():
            self._tokenizer().save_pretrained(folder)

    def _prefix(self) -> list[int]:
        if not self.card.prompt_prefix:
            return []
        return list(self._tokenizer()(self.card.prompt_prefix, add_special_tokens=False)["input_ids"])

    def _tokenizer(self) -> Any:
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast.from_pretrained(self._folder) if self._folder else build_tokenizer()


def _in_tower(point: Point) -> bool:
    """Whether tokens at `point` are patches of the image, not merged ones."""
    return point.name == "patch" or point.name.startswith("vit.")


def _stretched(image: np.ndarray, side: int) -> torch.Tensor:
    """Return uint8 pixels [row col 3] as the model takes them, float32 [3 side side]."""
    import torch
    from PIL import Image

    square = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    scaled = torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255
    return (scaled - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def _tokens(point: Point, values: torch.Tensor, visual: torch.Tensor, frames: Frames) -> Tokens:
    """Return the tokens of one sample from what its frames' module gave: the patches of all frames, then the rest."""
    kind = "class" if _in_tower(point) else "register"
    if kind == "class":
        patches, rest = values[:, 1:], values[:, :1]
    elif point.prompted:
        image = values[:, visual]
        patches, rest = image[:, 1:-1], image[:, [0, -1]]
    else:
        # the merger gives [frame feature row col], the adapter after it [frame token feature]
        patches = values.flatten(2).transpose(1, 2) if values.ndim == 4 else values
        rest = patches[:, :0]
    side, each = round(patches.shape[1] ** 0.5), rest.shape[1]
    middles = np.arange(side) + 0.5
    height_px, width_px = frames.size
    return placed(
        patches.unflatten(1, (side, side)),
        times_s=frames.times_s,
        rows=middles * height_px / side,
        cols=middles * width_px / side,
        others=rest.flatten(0, 1),
        other_kinds=[kind] * (len(rest) * each),
        other_times_s=np.repeat(frames.times_s, each),
    )

"""What vision-language models of transformers share: parts held against the card, padded prompts, one short pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foresight import models
from foresight.models.card import Card, ModelRef, Point, resolve_points
from foresight.models.device import without_bars
from foresight.models.loading import check_config, load_model

if TYPE_CHECKING:
    import torch


def layer_points(text: Mapping[str, Any], plans: Mapping[str, str]) -> tuple[Point, ...]:
    """Return the points of the language model at the image's positions; `plans` has other names of some, by name."""
    layers, module = text["num_hidden_layers"], "model.language_model"
    found = [
        (f"llm.{layer}", f"{module}.layers.{layer - 1}", f"after {layer} of {layers} layers")
        for layer in range(1, layers + 1)
    ]
    return tuple(
        Point(
            name=name,
            path=path,
            width=text["hidden_size"],
            about=f"language model {where}, visual positions",
            plans=(plans[name],) if name in plans else (),
            prompted=True,
        )
        for name, path, where in (*found, ("llm.final", f"{module}.norm", "after the final norm"))
    )


def load_parts(
    model_class: Any,
    ref: ModelRef,
    folder: Path | None,
    *,
    tiny_config: Callable[[], Any],
    device: str,
    dtype: str,
    attention: str,
    points: Sequence[str] | None,
    depth: str = "num_hidden_layers",
    check: Callable[[Any], object] = lambda _: None,
) -> Any:
    """Return the model named by `ref` as `load_model` does, when its parts are those that the card declares.

    With `points` only the layers that those need are loaded; `depth` is what the tower's configuration calls its
    count of blocks. `check(config)` may refuse more. Raises `WrongCheckpoint`.
    """

    def check_all(config: Any) -> None:
        check_parts(ref, config)
        check(config)

    def shorten(config: Any) -> None:
        asked = resolve_points(models.points(ref.card), points or (), model=ref.card.name)
        _keep_layers(config, asked[-1].name, depth=depth)

    return load_model(
        model_class,
        ref,
        folder,
        tiny_config=tiny_config,
        device=device,
        dtype=dtype,
        attention=attention,
        check=check_all,
        shorten=None if points is None else shorten,
    )


def check_parts(ref: ModelRef, config: Any) -> None:
    """Raise `WrongCheckpoint` unless every part of the transformers `config` is what the card declares."""
    parts = {"model": config, "vision": config.vision_config, "text": config.text_config}
    for part, declared in ref.card.config.items():
        check_config(ref, declared, parts[part], "" if part == "model" else part)


def _keep_layers(config: Any, deepest: str, *, depth: str) -> None:
    """Take off the end of `config` the vision blocks and language layers behind the point `deepest`.

    `patch` needs none, `vit.k` the first k blocks, `llm.k` the whole tower and k layers, `llm.final` everything, and
    any other point the whole tower alone.
    """
    part, _, number = deepest.partition(".")
    if part == "patch" or (part == "vit" and number.isdigit()):
        setattr(config.vision_config, depth, int(number or 0))
    if deepest == "llm.final":
        return
    text = config.text_config
    text.num_hidden_layers = int(number) if part == "llm" else 0
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[: text.num_hidden_layers]


def padded(prompts: Sequence[Sequence[int]], tokenizer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask [prompt token] of `prompts`, filled up on the right."""
    import torch

    longest, pad = max(map(len, prompts)), tokenizer.pad_token_id or 0
    ids = [[*prompt, *[pad] * (longest - len(prompt))] for prompt in prompts]
    mask = [[1] * len(prompt) + [0] * (longest - len(prompt)) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def read_modules(model: Any, inputs: Mapping[str, Any], wanted: Sequence[Point]) -> dict[str, torch.Tensor]:
    """Return by point what its module gave in one forward pass that ends after the deepest, without gradients.

    The pass never enters the language model when only the vision side is asked for.
    """
    import torch

    from foresight.models.tap import record

    pictures = {k: v for k, v in inputs.items() if k not in ("input_ids", "attention_mask")}

    def forward() -> None:
        if any(p.prompted for p in wanted):
            model.model(**inputs, use_cache=False)
        else:
            model.model.get_image_features(**pictures)

    with torch.no_grad():
        return record(model, {p.name: p.path for p in wanted}, forward)


def save_parts(card: Card, model: Any, folder: Path, *others: Any) -> None:
    """Write an ordinary checkpoint folder: safetensors, configuration, and `others`: tokenizer and processors.

    Raises `WrongCheckpoint` for a model of which only some layers were loaded.
    """
    check_parts(ModelRef(card=card, kind="path", value=str(folder)), model.config)
    with without_bars():
        model.save_pretrained(folder, safe_serialization=True)
    for other in others:
        other.save_pretrained(folder)

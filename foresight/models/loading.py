"""Load a transformers model of any family: from safetensors, or drawn at random from its configuration.

What cannot be what its card says is refused in one sentence: another architecture, a missing shard, a checkpoint
that is only there as a pickle. Pickles are never opened and a repository's own code is never run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from foresight.models.card import ModelRef
from foresight.models.device import without_bars


class WrongCheckpoint(ValueError):
    """The files are not the model that the card names, or not all of it."""


def load_model(
    model_class: Any,
    ref: ModelRef,
    folder: Path | None,
    *,
    tiny_config: Callable[[], Any],
    device: str,
    dtype: str,
    attention: str | None,
) -> Any:
    """Return the model named by `ref` in evaluation mode on `device`.

    Weights come from the safetensors in `folder`. For random weights they are drawn from the seed of `ref`, after
    the configuration in `folder`, or `tiny_config()` without one. `device="auto"` spreads the layers over
    what there is (needs accelerate). `attention=None` is for models that have none.

    Raises `WrongCheckpoint`.
    """
    import torch

    kernels = {} if attention is None else {"attn_implementation": attention}
    if ref.kind == "random":
        config = model_class.config_class.from_pretrained(folder) if folder else tiny_config()
        with torch.random.fork_rng():
            torch.manual_seed(int(ref.value))
            model = model_class._from_config(config, dtype=getattr(torch, dtype), **kernels)
        return model.eval().to("cpu" if device == "auto" else device)
    if folder is None:
        raise ValueError(f"{ref} is loaded from a checkpoint folder, but got none")
    check_folder(ref, folder, model_type=model_class.config_class.model_type)
    with without_bars():
        model, told = model_class.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            **kernels,
            **({"device_map": "auto"} if device == "auto" else {}),
        )
    if missing := sorted(told["missing_keys"]):
        raise WrongCheckpoint(
            f"{ref.card.name} needs every weight of the model, but {folder.name} lacks {len(missing)} of them, "
            f"{missing[0]} first; copy the whole checkpoint again"
        )
    return model.eval() if device == "auto" else model.eval().to(device)


def check_folder(ref: ModelRef, folder: Path, *, model_type: str | None = None) -> None:
    """Raise `WrongCheckpoint` unless `folder` holds all the safetensors of a model of this type."""
    found = json.loads((folder / "config.json").read_text()).get("model_type")
    if model_type and found != model_type:
        raise WrongCheckpoint(
            f"{ref.card.name} is a {model_type}, but the checkpoint in {folder.name} is a {found}; "
            "give its own card, or another folder"
        )
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    wanted = {file for index in indexes for file in json.loads(index.read_text())["weight_map"].values()}
    if missing := sorted(name for name in wanted if not (folder / name).is_file()):
        raise WrongCheckpoint(
            f"{ref.card.name} lies in {len(wanted)} files, but {', '.join(missing[:3])} "
            f"{'is' if len(missing) == 1 else 'are'} not in {folder.name}; fetch the whole checkpoint"
        )
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        raise WrongCheckpoint(
            f"weights are read from *.safetensors, but {folder.name} has "
            f"{'only ' + ', '.join(pickles[:3]) + ', which can run code when opened' if pickles else 'none'}; "
            "save the model again with save_pretrained(safe_serialization=True)"
        )


def check_config(ref: ModelRef, declared: Mapping[str, Any], config: Any, part: str = "") -> None:
    """Raise `WrongCheckpoint` when a number that the card declares is another one in the checkpoint's `config`."""
    for key, value in declared.items():
        found = getattr(config, key, None)
        if found is not None and _plain(found) != _plain(value):
            raise WrongCheckpoint(
                f"{ref.card.name} declares {part + ' ' if part else ''}{key} = {value}, but the checkpoint has "
                f"{found}; it is another model: use its own card"
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value

"""Load a model of transformers or diffusers: from safetensors, or drawn at random from its configuration.

What cannot be what its card says is refused in one sentence: another architecture, a missing or torn shard, a
checkpoint that is only there as a pickle. Pickles are never opened and a repository's own code is never run.
"""

from __future__ import annotations

import json
import warnings
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
    check: Callable[[Any], None] | None = None,
    shorten: Callable[[Any], None] | None = None,
) -> Any:
    """Return the model named by `ref` in evaluation mode on `device`.

    Weights come from the safetensors in `folder`. For random weights they are drawn from the seed of `ref`, after
    the configuration in `folder`, or `tiny_config()` without one. `device="auto"` spreads the layers over
    the GPUs there are, and over memory what does not fit (accelerate). `attention=None` is for models that have none.

    `check(config)` may refuse the checkpoint before any weight is read. `shorten(config)` takes the layers off the
    end that nobody asked for, so that they take neither time nor memory; the others keep their values. Random
    weights are drawn whole all the same: which numbers a layer gets depends on what is drawn before it.

    Raises `WrongCheckpoint`.
    """
    import torch

    kernels = {} if attention is None else {"attn_implementation": attention}
    if ref.kind == "random":
        config = model_class.config_class.from_pretrained(folder) if folder else tiny_config()
        if check:
            check(config)
        with torch.random.fork_rng():
            torch.manual_seed(int(ref.value))
            model = model_class._from_config(config, dtype=getattr(torch, dtype), **kernels)
        return _verified(_placed(model.eval(), device), ref, attention)
    if folder is None:
        raise ValueError(f"{ref} is loaded from a checkpoint folder, but got none")
    check_folder(ref, folder, model_type=model_class.config_class.model_type)
    config = model_class.config_class.from_pretrained(folder)
    if check:
        check(config)
    if shorten:
        shorten(config)
    with without_bars():
        model, told = model_class.from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told, and refused below in one sentence
            **kernels,
            **({"device_map": "auto"} if device == "auto" else {}),
        )
    _check_whole(ref, folder, told)
    if wrong := sorted(told["mismatched_keys"]):
        name, found, wanted = wrong[0]
        raise WrongCheckpoint(
            f"{name} of {ref.card.name} is {list(wanted)} by its configuration, but {folder.name} holds {list(found)}; "
            "its config.json and its weights are of two models: copy both again"
        )
    return _verified(model.eval() if device == "auto" else model.eval().to(device), ref, attention)


def load_diffuser(
    model_class: Any, ref: ModelRef, folder: Path | None, *, config: Mapping[str, Any], dtype: str
) -> Any:
    """Return the diffusers model named by `ref` in evaluation mode on the CPU.

    Weights come from the safetensors in `folder`. For random weights they are drawn from the seed of `ref`, after
    the configuration in `folder`, or after `config` without one.

    Raises `WrongCheckpoint` for another class, and files that are missing, torn or pickled.
    """
    import torch

    if ref.kind == "random":
        with torch.random.fork_rng():
            torch.manual_seed(int(ref.value))
            model = model_class.from_config(model_class.load_config(folder) if folder else config)
        # diffusers' own `to` warns of casts that concern no module
        return torch.nn.Module.to(model.eval(), getattr(torch, dtype))
    if folder is None:
        raise ValueError(f"{ref} is loaded from a checkpoint folder, but got none")
    check_folder(ref, folder)
    found = model_class.load_config(folder).get("_class_name")
    if found != model_class.__name__:
        raise WrongCheckpoint(
            f"{ref.card.name} is a {model_class.__name__}, but the checkpoint in {folder.name} is a "
            f"{found or 'model of another library'}; give its own card, or another folder"
        )
    with without_bars():
        model, told = model_class.from_pretrained(
            folder, use_safetensors=True, torch_dtype=getattr(torch, dtype), output_loading_info=True
        )
    _check_whole(ref, folder, told)
    return model.eval()


def merge_adapter(ref: ModelRef, model: Any) -> Any:
    """Return the transformers `model` with the low-rank adapter of `ref` merged into its weights.

    Every layer of the adapter has to find its place. Raises `WrongCheckpoint`.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise WrongCheckpoint(
            f"{ref} has an adapter, which peft merges, but peft is not installed; "
            "install the adapters extra of this project, or merge it and give the merged folder as path:DIR"
        ) from error
    folder = check_adapter(ref)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft 0.21 reads names transformers 5.23 will drop
        # layers of the adapter that the model lacks, or the other way round, are told by a warning only
        warnings.filterwarnings("error", message=".*(missing|unexpected).*adapter.*")
        try:
            tuned = PeftModel.from_pretrained(model, folder, torch_device="cpu")
            return tuned.merge_and_unload(safe_merge=True).eval()
        except (ValueError, RuntimeError, KeyError, UserWarning) as error:
            raise WrongCheckpoint(
                f"the adapter in {folder.name} does not fit {ref.card.name} ({str(error).splitlines()[0][:160]}); "
                "give the adapter that was trained on this model"
            ) from error


def check_adapter(ref: ModelRef) -> Path:
    """Return the adapter folder of `ref`; raises `WrongCheckpoint` unless it holds a whole LoRA in safetensors."""
    folder = Path(ref.adapter).expanduser()
    if not (folder / "adapter_config.json").is_file():
        raise WrongCheckpoint(
            f"an adapter is a folder with adapter_config.json and adapter_model.safetensors, but {folder} "
            f"{'has no adapter_config.json' if folder.is_dir() else 'is no folder'}; give the folder peft saved it in"
        )
    kind = _json(ref, folder / "adapter_config.json").get("peft_type")
    if kind != "LORA":
        raise WrongCheckpoint(
            f"adapters are merged when they are LORA, but {folder.name} is {kind}; merge it where it was trained"
        )
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise WrongCheckpoint(
            f"an adapter is read from adapter_model.safetensors, but {folder.name} has none (pickles are never "
            "opened); save it again with save_pretrained(safe_serialization=True)"
        )
    if torn := _torn(weights):
        raise WrongCheckpoint(f"{weights.name} in {folder.name} {torn}; fetch that file again")
    return folder


def check_folder(ref: ModelRef, folder: Path, *, model_type: str | None = None) -> None:
    """Raise `WrongCheckpoint` unless `folder` holds all the safetensors, whole, of a model of this type.

    Reads the headers of the files and no weights.
    """
    found = _json(ref, folder / "config.json").get("model_type")
    if model_type and found != model_type:
        raise WrongCheckpoint(
            f"{ref.card.name} is a {model_type}, but the checkpoint in {folder.name} is a {found}; "
            "give its own card, or another folder"
        )
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    wanted = {file for index in indexes for file in _json(ref, index).get("weight_map", {}).values()}
    if missing := sorted(name for name in wanted if not (folder / name).is_file()):
        raise WrongCheckpoint(
            f"{ref.card.name} lies in {len(wanted)} files, but {', '.join(missing[:3])} "
            f"{'is' if len(missing) == 1 else 'are'} not in {folder.name}; fetch the whole checkpoint"
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        raise WrongCheckpoint(
            f"weights are read from *.safetensors, but {folder.name} has "
            f"{'only ' + ', '.join(pickles[:3]) + ', which can run code when opened' if pickles else 'none'}; "
            "save the model again with save_pretrained(safe_serialization=True)"
        )
    for file in weights:
        if torn := _torn(file):
            raise WrongCheckpoint(
                f"{file.name} of {ref.card.name} in {folder.name} {torn}; fetch that file again"
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


def _check_whole(ref: ModelRef, folder: Path, told: Mapping[str, Any]) -> None:
    if missing := sorted(told["missing_keys"]):
        raise WrongCheckpoint(
            f"{ref.card.name} needs every weight of the model, but {folder.name} lacks {len(missing)} of them, "
            f"{missing[0]} first; copy the whole checkpoint again"
        )


def _placed(model: Any, device: str) -> Any:
    """Return `model` on `device`; for 'auto' spread as `from_pretrained` would have spread it."""
    import torch

    if device != "auto":
        return model.to(device)
    if not torch.cuda.is_available():
        return model
    from accelerate import dispatch_model, infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    whole = list(model._no_split_modules or [])
    memory = get_balanced_memory(model, no_split_module_classes=whole)
    places = infer_auto_device_map(model, max_memory=memory, no_split_module_classes=whole)
    return dispatch_model(model, device_map=places)


def _verified(model: Any, ref: ModelRef, attention: str | None) -> Any:
    """Return `model` when every part of it computes with the kernel that its latents' identity will name."""
    if attention is None:
        return model
    used = {
        part.config._attn_implementation
        for part in model.modules()
        if getattr(getattr(part, "config", None), "_attn_implementation", None)
    }
    if other := sorted(used - {attention}):
        raise WrongCheckpoint(
            f"{ref.card.name} was to run with {attention} attention, but its classes chose {', '.join(other)}; "
            f"ask for --attention {other[0]}"
        )
    return model


def _torn(file: Path) -> str:
    """Say what is wrong with a safetensors file, judged by its header and its size; '' when nothing is.

    Layout: the header's length in 8 bytes, little endian; a JSON header with the offsets of every tensor; data.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
        if size < 8 or not 2 <= header <= size - 8:
            return "is cut off in its header, or is no safetensors file"
        try:
            entries = json.loads(stream.read(header))
            ends = [e["data_offsets"][1] for name, e in entries.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return "has a header that cannot be read"
    whole = 8 + header + max(ends, default=0)
    return "" if size == whole else f"should have {whole:,} bytes, but has {size:,}"


def _json(ref: ModelRef, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WrongCheckpoint(
            f"{path.name} of {ref.card.name} in {path.parent.name} cannot be read ({error}); fetch that file again"
        ) from error
    if not isinstance(value, dict):
        raise WrongCheckpoint(
            f"{path.name} of {ref.card.name} in {path.parent.name} is to be a JSON object; fetch that file again"
        )
    return value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value

"""What a checkpoint is: digests of its weights, of the configuration that shapes numbers, of its processor."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

COSMETIC = frozenset(
    {"_name_or_path", "_commit_hash", "transformers_version", "_diffusers_version", "torch_dtype", "dtype"}
)
"""Keys of a config.json that say where a checkpoint came from, not what it computes."""

PROCESSOR_FILES = (
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
)

ADAPTER_COSMETIC = frozenset(
    {"base_model_name_or_path", "auto_mapping", "inference_mode", "revision", "peft_version", "task_type"}
)
"""Keys of an adapter_config.json that do not change what is merged."""

Hasher = Callable[[Path], str]


def fingerprint(folder: Path, *, sha256: Hasher | None = None) -> dict[str, str]:
    """Return `{"weights", "config", "processor"}` digests of the checkpoint in `folder`.

    Equal for a copy in another folder; different after a change of one tensor, of one number of the
    configuration, or of the preprocessing. `sha256` may be a cached file hasher. No weights are loaded.

    Raises `FileNotFoundError` without a config.json or without safetensors files: pickled weights are not read.
    """
    sha256 = sha256 or file_sha256
    config = folder / "config.json"
    if not config.is_file():
        raise FileNotFoundError(f"a checkpoint folder holds a config.json, but {folder} has none")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise FileNotFoundError(
            f"a checkpoint folder holds *.safetensors files, but {folder} has none; "
            "convert pickled weights (*.bin, *.pt) to safetensors first: they are never loaded here"
        )
    return {
        # by content alone, so that renaming shards does not make another model
        "weights": _digest(sorted(sha256(f) for f in weights)),
        "config": _digest(_without_cosmetics(json.loads(config.read_text()))),
        "processor": _digest(
            {
                name: _without_cosmetics(json.loads(path.read_text()))
                if name.endswith(".json")
                else path.read_text()
                for name in PROCESSOR_FILES
                if (path := folder / name).is_file()
            }
        ),
    }


def adapter_fingerprint(folder: Path) -> str:
    """Return the digest of a low-rank adapter: its weights and the settings they are merged with.

    Equal for a copy in another folder, and whatever it says of where its base model lay.
    """
    settings = json.loads((folder / "adapter_config.json").read_text())
    kept = {k: v for k, v in settings.items() if k not in ADAPTER_COSMETIC}
    return _digest({"weights": file_sha256(folder / "adapter_model.safetensors"), "settings": kept})


def random_fingerprint(config: Mapping[str, Any], seed: int) -> dict[str, str]:
    """Return the fingerprint of `config` with random weights from `seed`, without making them.

    The initialiser belongs to torch and the model library, so their versions are part of it.
    """
    libraries = ("torch", "transformers", "diffusers")
    return {
        "weights": _digest({"random weights": seed, "libraries": versions(libraries)}),
        "config": _digest(_without_cosmetics(config)),
        "processor": _digest({}),
    }


def versions(distributions: Sequence[str]) -> dict[str, str]:
    """Return the installed version of each distribution."""
    return {name: _version(name) for name in distributions}


# the metadata of a large library takes 10 ms to parse, and is asked for at every look at a plan
_version = cache(version)


def snapshot_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read off its name where a hub cache already names blobs by it."""
    if path.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", name := path.resolve().name):
        return name
    return file_sha256(path)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _without_cosmetics(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_cosmetics(v) for k, v in value.items() if k not in COSMETIC}
    if isinstance(value, list | tuple):
        return [_without_cosmetics(v) for v in value]
    return value


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()

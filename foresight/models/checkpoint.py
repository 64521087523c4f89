"""Where a model's files are: a pinned hub snapshot, a local folder, or what the zoo trained."""

from __future__ import annotations

from pathlib import Path

from foresight.models.card import ModelRef

PATTERNS = ["*.json", "*.safetensors", "*.jinja", "*.txt"]
"""What is fetched from a hub: configuration, tokenizer and safetensors; no pickles, no code."""


class MissingCheckpoint(Exception):
    """A model's files are not on this machine; the message says how to get them."""


def find_checkpoint(ref: ModelRef, *, download: bool) -> Path:
    """Return the folder that holds the files of `ref` (a hub or path reference).

    With `download=False` only files already on this machine are looked at, so planning never touches the
    network. Raises `MissingCheckpoint` that names what is missing and how to get it.
    """
    if ref.kind == "path":
        folder = Path(ref.value).expanduser()
        if not (folder / "config.json").is_file():
            raise MissingCheckpoint(
                f"{ref.card.name}@path: names a checkpoint folder with a config.json and *.safetensors, "
                f"but {folder} {'has no config.json' if folder.is_dir() else 'is no folder'}; "
                "save the model there with save_pretrained, or give another folder"
            )
        return folder
    if ref.kind != "hub":
        raise ValueError(f"{ref} has no files of its own: it is made here")
    return _snapshot(ref, download=download)


def _snapshot(ref: ModelRef, *, download: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    card = ref.card
    if card.repo is None:
        raise ValueError(f"{card.name} is trained here and has no repository to fetch from")
    patterns = [f"{card.subfolder}/{p}" for p in PATTERNS] if card.subfolder else PATTERNS
    try:
        root = snapshot_download(
            card.repo, revision=ref.value, allow_patterns=patterns, local_files_only=not download
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        where = f" --include '{card.subfolder}/*'" if card.subfolder else ""
        raise MissingCheckpoint(
            f"{card.name} needs {card.repo} at commit {ref.value[:12]}, which is not on this machine"
            f"{' and could not be fetched' if download else ''}; on a machine with network run "
            f"`hf download {card.repo} --revision {ref.value}{where}`, or copy the checkpoint here and ask for "
            f"{card.name}@path:DIR ({type(error).__name__})"
        ) from error
    folder = Path(root) / card.subfolder
    if not (folder / "config.json").is_file():
        raise MissingCheckpoint(
            f"{card.repo} at {ref.value[:12]} should hold {card.subfolder or '.'}/config.json, but it does not"
        )
    return folder

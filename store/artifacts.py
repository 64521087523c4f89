"""Artifacts: blobs under their digest, and trees that name blobs."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from store.digest import check_id, digest, digest_bytes
from store.errors import Damaged, Missing, StoreError, explained
from store.places import Place
from store.records import sealed, unsealed


def put_blob(place: Place, data: bytes, media_type: str) -> str:
    """Keep `data`; return its id. The same bytes are kept once."""
    identity = digest_bytes("blob", [data])
    if not has_blob(place, identity):
        # the description first: the bytes make the blob visible
        place.put(_about(identity), [sealed({"media_type": media_type, "size": len(data)})])
        place.put(_name(identity), [data])
    return identity


def get_blob(place: Place, identity: str) -> bytes:
    """Return a blob's bytes, checked against its digest."""
    data = place.get(_name(identity))
    if digest_bytes("blob", [data]) != identity:
        raise Damaged(f"blob {identity[:12]} is not what was written; run what made it again")
    return data


def about_blob(place: Place, identity: str) -> tuple[str, int]:
    """Return (media type, bytes) of a blob."""
    about = unsealed(place.get(_about(identity)), _about(identity))
    return about["media_type"], about["size"]


def has_blob(place: Place, identity: str) -> bool:
    """Return whether a blob is here with all its bytes; they are read only by `get_blob` and `verify`."""
    size = place.size(_name(identity))
    try:
        return size is not None and size == about_blob(place, identity)[1]
    except (Missing, Damaged):
        return False


def put_tree(place: Place, files: Mapping[str, bytes | str | os.PathLike[str]]) -> str:
    """Keep several named files as one thing; return its id. Values are bytes, or paths to read."""
    blobs = {}
    for name, content in files.items():
        _check_name(name)
        data = content if isinstance(content, bytes) else read_file(content)
        blobs[name] = put_blob(place, data, "application/octet-stream")
    identity = digest("tree", blobs)
    if place.size(_tree(identity)) is None:
        place.put(_tree(identity), [sealed({"files": blobs})])
    return identity


def get_tree(place: Place, identity: str) -> dict[str, str]:
    """Return a tree's blob ids by name."""
    name = _tree(identity)
    blobs: dict[str, str] = unsealed(place.get(name), name)["files"]
    if digest("tree", blobs) != identity:
        raise Damaged(f"{name} holds another tree; run what made it again")
    return blobs


def has_tree(place: Place, identity: str) -> bool:
    """Return whether a tree and all its blobs are here."""
    try:
        return all(has_blob(place, blob) for blob in get_tree(place, identity).values())
    except (Missing, Damaged):
        return False


def export_tree(place: Place, identity: str, folder: str | os.PathLike[str]) -> Path:
    """Write a tree's files into a new `folder`, which appears whole or not at all; return its path."""
    target = Path(folder).absolute()
    if target.exists():
        raise StoreError(
            f"a tree is written to a new folder, but {target.name} is there already; "
            "remove it or choose another"
        )
    staged = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        for name, blob in get_tree(place, identity).items():
            path = staged / _check_name(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(get_blob(place, blob))
        staged.mkdir(parents=True, exist_ok=True)
        staged.rename(target)
    except OSError as error:
        raise explained(error, f"writing the tree to {target.name}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return target


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return a file's bytes, or a StoreError that says why not."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise explained(error, f"reading {os.fspath(path)}") from error


def _check_name(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    odd = path.is_absolute() or ".." in path.parts or str(path) != name or name == "." or "\\" in name
    if odd or any(ord(character) < 32 for character in name):
        raise ValueError(
            f"a name in a tree is relative and plain, as in 'weights/model.bin', but got {name!r}"
        )
    return path


def _name(identity: str) -> str:
    return f"blobs/{check_id(identity, 'blob id')[:2]}/{identity}"


def _about(identity: str) -> str:
    return _name(identity) + ".json"


def _tree(identity: str) -> str:
    return f"trees/{check_id(identity, 'tree id')}.json"

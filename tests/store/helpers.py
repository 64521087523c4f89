"""Small real rows, recipes and manifests that the store's tests share."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

import store


def sample(i: int) -> str:
    """Return the digest of the i-th made-up sample."""
    return hashlib.sha256(f"sample {i}".encode()).hexdigest()


def row(
    i: int,
    *,
    tokens: int = 12,
    features: int = 8,
    dtype: Any = np.float32,
    grid: tuple[int, int, int] | None = None,
) -> dict[str, Any]:
    """Return the arguments of `put` for the i-th sample: random values, distinct coordinates."""
    random = np.random.RandomState(i)  # its stream is frozen, and ids are pinned
    return {
        "sample": sample(i),
        "values": random.standard_normal((tokens, features)).astype(dtype),
        "time_s": np.linspace(0, 1, tokens, dtype=np.float32),
        "row": random.uniform(0, 224, tokens).astype(np.float32),
        "col": random.uniform(0, 224, tokens).astype(np.float32),
        "kind": (np.arange(tokens) % 3).astype(np.uint8),
        "tile": np.arange(tokens, dtype=np.int32) - 1,
        "grid": (1, 3, 4) if grid is None and tokens == 12 else grid or (0, 0, 0),
    }


def recipe(**changes: Any) -> store.Recipe:
    """Return an extraction recipe; `changes` replace settings."""
    settings = {"model": {"card": "tiny", "weights": "3f" * 32}, "point": "vit.4", "dtype": "float32"}
    return store.Recipe(operation="extract", version=1, settings={**settings, **changes})


def manifest(indices: Any) -> dict[str, Any]:
    """Return a manifest of made-up samples."""
    return {
        "source": "folder",
        "samples": [
            {"sample": sample(i), "key": f"photos/{i}.png", "label": "ab"[i % 2], "group": f"g{i // 2}"}
            for i in indices
        ],
    }


def fill(
    catalog: store.Store,
    indices: Any,
    *,
    rows_per_shard: int = 4,
    of: store.Recipe | None = None,
    **about: Any,
) -> store.Writer:
    """Put the rows of `indices`; return the writer, with its counts."""
    with catalog.writer(of or recipe(), rows_per_shard=rows_per_shard) as writer:
        for i in indices:
            writer.put(**row(i, **about))
    return writer

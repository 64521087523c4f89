"""A row: one sample's tokens at one extraction point, and the digest that names its bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Float, Int, UInt8

from store.digest import canonical, digest_bytes

DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
COORDS: dict[str, np.dtype[Any]] = {
    "time_s": np.dtype("<f4"),
    "row": np.dtype("<f4"),
    "col": np.dtype("<f4"),
    "kind": np.dtype("u1"),
    "tile": np.dtype("<i4"),
}
"""The coordinates of every token, in the order their bytes stand in a row's digest."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One sample's latents at one point, in raster order, with the place of every token.

    All coordinates have as many entries as `values` has tokens.
    """

    values: Float[np.ndarray, "token feature"]
    """float32, float16 or bfloat16 (ml_dtypes), bit for bit as it was put."""
    time_s: Float[np.ndarray, " token"]
    """Seconds."""
    row: Float[np.ndarray, " token"]
    """Pixels, down."""
    col: Float[np.ndarray, " token"]
    """Pixels, to the right."""
    kind: UInt8[np.ndarray, " token"]
    tile: Int[np.ndarray, " token"]
    grid: tuple[int, int, int] = (0, 0, 0)
    """(time, row, col) counts of the leading tokens when they fill a grid, else (0, 0, 0)."""

    @property
    def dtype(self) -> str:
        return self.values.dtype.name

    @property
    def coords(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in COORDS}


def checked(
    *, values: Any, grid: tuple[int, int, int], spare: np.ndarray | None = None, **coords: Any
) -> Row:
    """Return a Row that owns contiguous native copies, or raise ValueError.

    Coordinates are converted to their stored types; a value that would change by it is refused. `spare` is an
    array to copy into if it fits: fresh memory costs more than the copy itself.
    """
    values = np.asarray(values)
    if values.ndim != 2 or values.dtype.name not in DTYPES or 0 in values.shape:
        raise ValueError(
            f"values are [token, feature] of {', '.join(DTYPES)} with at least one of each, "
            f"but got {values.dtype.name} {list(values.shape)}"
        )
    tokens = len(values)
    found: dict[str, np.ndarray] = {}
    for name, dtype in COORDS.items():
        given = np.asarray(coords[name])
        if given.shape != (tokens,):
            raise ValueError(
                f"{name} has one entry per token, but got {list(given.shape)} for {tokens} tokens"
            )
        if given.dtype == dtype:
            found[name] = given.copy()
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            found[name] = np.array(given, dtype=dtype, order="C", copy=True)
        if dtype.kind in "ui" and not np.array_equal(found[name], given):
            raise ValueError(
                f"{name} must fit {dtype.name}, but got values from {given.min()} to {given.max()}"
            )
    whole = tuple(int(n) for n in grid)
    if len(whole) != 3 or min(whole) < 0 or (any(whole) and not 0 < math.prod(whole) <= tokens):
        raise ValueError(
            f"a grid is (time, row, col) counts that multiply to at most {tokens} tokens, or (0, 0, 0), "
            f"but got {tuple(grid)}"
        )
    kept = spare
    if kept is None or kept.shape != values.shape or kept.dtype.name != values.dtype.name:
        kept = np.empty(values.shape, DTYPES[values.dtype.name])
    np.copyto(kept, values)
    return Row(values=kept, grid=(whole[0], whole[1], whole[2]), **found)


def row_digest(row: Row) -> bytes:
    """Return the 32-byte digest over dtype, shape, grid, values and coordinates.

    Neither the sample nor the recipe is in it: equal latents have equal digests wherever they come from.
    """
    parts: list[Any] = [_head(row.dtype, row.values.shape, row.grid), bits(row.values)]
    parts += [bits(np.ascontiguousarray(getattr(row, name), dtype=dtype)) for name, dtype in COORDS.items()]
    return bytes.fromhex(digest_bytes("row", parts))


@lru_cache(maxsize=1024)
def _head(dtype: str, shape: tuple[int, ...], grid: tuple[int, int, int]) -> bytes:
    return canonical({"dtype": dtype, "shape": list(shape), "grid": list(grid)}) + b"\n"


def bits(values: np.ndarray) -> np.ndarray:
    """Return the bytes of a contiguous array as uint8, without a copy (bfloat16 has no buffer of its own)."""
    return values.reshape(-1).view(np.uint8)

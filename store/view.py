"""Lazy labelled views: xarray over Dask, one chunk per shard, reductions inside the chunk's task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr

from store.digest import digest
from store.places import place_of
from store.reading import Rows, in_chunks
from store.recipe import Recipe
from store.rows import COORDS, DTYPES
from store.tables import Table

How = Literal["mean", "max", "flatten"]
Located = Sequence[tuple[Table, int]]
_SAMPLE_COORDS = ("key", "label", "group")


def open_view(
    url: str,
    recipe: Recipe,
    manifest: Mapping[str, Any],
    found: Located,
    *,
    grid: bool,
    attrs: Mapping[str, Any],
) -> xr.Dataset:
    """Return the Dataset of located rows, in manifest order.

    Equal token counts: `values` (sample, token, feature), or (sample, time, row, col, feature) when
    `grid` and every row has the same grid. Unequal counts: contiguous ragged, `values` (token, feature) with
    the rows end to end, `sample_index` (token) and `row_sizes` (sample).
    """
    counts = _counts(found)
    grids = {tuple(int(n) for n in table.grids[i]) for table, i in found}
    regular = len(set(counts.tolist())) == 1
    if grid and (len(grids) != 1 or not any(next(iter(grids)))):
        raise ValueError(
            f"a grid view needs one regular grid for all rows, but there are {sorted(grids)[:4]}; "
            "open the view with grid=False"
        )
    axes = ["time", "row", "col"] if grid else ["token"]
    inner = next(iter(grids)) if grid else (int(counts[0]),)
    chunks = in_chunks(found, _usual(found))
    name = digest("view", [recipe.id, [t.shard for t, _ in found], [i for _, i in found], grid])[:32]
    builder = _Arrays(url, chunks, name, inner if regular else None)
    dims = ["sample", *axes] if regular else ["token"]
    features, dtype = found[0][0].features, DTYPES[found[0][0].dtype]
    data = {"values": ([*dims, "feature"], builder.array("values", dtype, features))}
    coords: dict[str, Any] = {c: (dims, builder.array(c, kind)) for c, kind in COORDS.items()}
    coords |= sample_coords(manifest)
    if not regular:
        coords["sample_index"] = ("token", np.repeat(np.arange(len(found)), counts))
        coords["row_sizes"] = ("sample", counts)
    return xr.Dataset(data, coords=coords, attrs=dict(attrs))


def pooled_view(
    url: str,
    recipe: Recipe,
    manifest: Mapping[str, Any],
    found: Located,
    how: How,
    *,
    attrs: Mapping[str, Any],
) -> xr.DataArray:
    """Return [sample, feature] float32, lazy; a row is reduced where it is read, in float64 for the mean."""
    counts = _counts(found)
    features = found[0][0].features
    if how == "flatten":
        if len(set(counts.tolist())) != 1:
            raise ValueError(
                f"flatten needs equal token counts, but rows have {counts.min()} to {counts.max()}; "
                "use mean or max"
            )
        features *= int(counts[0])
    elif how not in ("mean", "max"):
        raise ValueError(f"how is 'mean', 'max' or 'flatten', but got {how!r}")
    chunks = in_chunks(found, _usual(found))
    name = (
        "pooled-" + digest("view", [recipe.id, [t.shard for t, _ in found], [i for _, i in found], how])[:32]
    )
    graph = {(name, k, 0): (_pooled, url, _Chunk(chunk), how) for k, chunk in enumerate(chunks)}
    array = da.Array(graph, name, (tuple(len(c) for c in chunks), (features,)), dtype=np.float32)
    return xr.DataArray(
        array, dims=["sample", "feature"], coords=sample_coords(manifest), name=how, attrs=dict(attrs)
    )


def sample_coords(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the coordinates along `sample`: the digest, and what the manifest says of each sample."""
    samples = manifest["samples"]
    coords: dict[str, Any] = {"sample": ("sample", np.array([s["sample"] for s in samples], dtype="<U64"))}
    for name in _SAMPLE_COORDS:
        said = [s.get(name) for s in samples]
        if any(value is not None for value in said):
            whole = all(isinstance(value, str) for value in said)
            coords[name] = ("sample", np.array(said) if whole else np.array(said, dtype=object))
    return coords


class _Arrays:
    """Builds one lazy array per variable over the same chunks of rows."""

    def __init__(self, url: str, chunks: Sequence[Located], name: str, inner: tuple[int, ...] | None) -> None:
        self.url, self.chunks, self.name, self.inner = url, chunks, name, inner

    def array(self, variable: str, dtype: np.dtype, features: int | None = None) -> da.Array:
        key = f"{variable}-{self.name}"
        if self.inner is None:
            along: tuple[Any, ...] = (tuple(int(_counts(c).sum()) for c in self.chunks),)
        else:
            along = (tuple(len(c) for c in self.chunks), *((n,) for n in self.inner))
        if features is not None:
            along = (*along, (features,))
        zeros = (0,) * (len(along) - 1)
        graph = {
            (key, k, *zeros): (_gathered, self.url, _Chunk(chunk), variable, self.inner)
            for k, chunk in enumerate(self.chunks)
        }
        return da.Array(graph, key, along, dtype=dtype)


class _Chunk:
    """Located rows of one task, opaque to Dask, which would search plain tuples for keys."""

    def __init__(self, rows: Located) -> None:
        self.rows = rows

    def __dask_tokenize__(self) -> list[Any]:
        return [(table.shard, i) for table, i in self.rows]


@lru_cache(maxsize=8)
def _rows(url: str) -> Rows:
    """Return this process's reader of a place: tasks carry the URL, not an open file."""
    return Rows(place_of(url))


def _gathered(url: str, chunk: _Chunk, variable: str, inner: tuple[int, ...] | None) -> np.ndarray:
    rows = _rows(url)
    if variable == "values":
        parts = [rows.row(table, i).values for table, i in chunk.rows]
    else:
        parts = [rows.coord(table, i, variable) for table, i in chunk.rows]
    joined = np.concatenate(parts)
    return joined if inner is None else joined.reshape(len(chunk.rows), *inner, *parts[0].shape[1:])


def _pooled(url: str, chunk: _Chunk, how: How) -> np.ndarray:
    rows = _rows(url)
    return np.stack([pool(rows.row(table, i).values, how) for table, i in chunk.rows])


def pool(values: np.ndarray, how: How) -> np.ndarray:
    """Return one row's [token, feature] as float32 [feature] (mean, max) or [token · feature] (flatten)."""
    wide = values.astype(np.float32)
    if how == "flatten":
        return wide.reshape(-1)
    return wide.max(axis=0) if how == "max" else wide.mean(axis=0, dtype=np.float64).astype(np.float32)


def _counts(found: Located) -> np.ndarray:
    return np.array([int(table.tokens[i]) for table, i in found], np.int64)


def _usual(found: Located) -> int:
    """Return the rows of the largest shard in sight: the size its writer chose."""
    return max(len(table) for table in {id(t): t for t, _ in found}.values())

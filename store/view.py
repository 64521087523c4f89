"""Lazy labelled views: xarray over Dask, one chunk per shard, reductions inside the chunk's task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr

from store.contents import Contents
from store.digest import digest_bytes
from store.places import place_of
from store.reading import Rows, in_chunks
from store.recipe import Recipe
from store.rows import COORDS, DTYPES
from store.tables import Table
from store.training import gather

How = Literal["mean", "max", "flatten"]
Located = Sequence[tuple[Table, int]]
PATCH = 0
"""The `kind` of a token that stands for a piece of the picture."""
_SAMPLE_COORDS = ("key", "label", "group")


def open_view(contents: Contents, recipe: Recipe, manifest_id: str, *, grid: bool) -> xr.Dataset:
    """Return the Dataset of a manifest's rows, in manifest order.

    Equal token counts: `values` (sample, token, feature). With `grid`, where every row has the same grid: its
    tokens alone, (sample, time, row, col, feature). Unequal counts: contiguous ragged, `values` (token,
    feature) with the rows end to end, `sample_index` (token) and `row_sizes` (sample). Token coordinates
    `time_s`, `row`, `col`, `kind`, `tile` have the axes of `values` but `feature`, and are lazy too.
    """
    found = contents.located(recipe.id, manifest_id)
    counts = _counts(found)
    regular = grid or len(set(counts.tolist())) == 1
    inner = _one_grid(found) if grid else (int(counts[0]),)
    arrays = _Arrays(contents.place.address, found, inner if regular else None, recipe.id)
    dims = ["sample", *(["time", "row", "col"] if grid else ["token"])] if regular else ["token"]
    coords: dict[str, Any] = {name: (dims, arrays.array(name)) for name in COORDS}
    coords |= sample_coords(contents.manifest(manifest_id))
    if not regular:
        coords["sample_index"] = ("token", np.repeat(np.arange(len(found)), counts))
        coords["row_sizes"] = ("sample", counts)
    data = {"values": ([*dims, "feature"], arrays.array("values"))}
    return xr.Dataset(data, coords=coords, attrs=contents.attrs(recipe, manifest_id))


def pooled_view(contents: Contents, recipe: Recipe, manifest_id: str, how: How) -> xr.DataArray:
    """Return [sample, feature] float32, lazy; a row is reduced where it is read, in float64 for the mean.

    The mean and the maximum are over patch tokens: class, register and newline tokens stand for no place.
    """
    found = contents.located(recipe.id, manifest_id)
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
    name = f"pooled-{how}-{_token_of(recipe.id, found)}"
    address = contents.place.address
    graph = {(name, k, 0): (_pooled, address, _Chunk(chunk), how) for k, chunk in enumerate(chunks)}
    array = da.Array(graph, name, (tuple(len(c) for c in chunks), (features,)), dtype=np.float32)
    return xr.DataArray(
        array,
        dims=["sample", "feature"],
        coords=sample_coords(contents.manifest(manifest_id)),
        name=how,
        attrs=contents.attrs(recipe, manifest_id),
    )


def stacked_view(
    contents: Contents, recipes: Mapping[str, Recipe], manifest_id: str, how: How | None
) -> xr.DataArray:
    """Return one recipe per point stacked along a new first axis `point`; all must have one shape."""
    sides = [_side(contents, recipe, manifest_id, how) for recipe in recipes.values()]
    shapes = {point: side.shape for point, side in zip(recipes, sides, strict=True)}
    if not sides or len(set(shapes.values())) != 1:
        raise ValueError(
            f"points to stack need one shape, but they have {shapes}; pool them with how=…, or use `joined`"
        )
    whole = xr.concat(sides, xr.DataArray(list(recipes), dims="point", name="point"), combine_attrs="drop")
    return whole.assign_attrs(manifest_id=manifest_id, recipe_ids={p: r.id for p, r in recipes.items()})


def joined_view(
    contents: Contents, recipes: Mapping[str, Recipe], manifest_id: str, how: How | None
) -> xr.Dataset:
    """Return one variable per name, all along `sample`; other axes are named `<name>_token` and so on."""
    variables = {}
    for name, recipe in recipes.items():
        side = _side(contents, recipe, manifest_id, how)
        if side.dims[0] != "sample":
            raise ValueError(
                f"{name} has unequal token counts, so it has no axis to join; pool it with how=…"
            )
        kept = side.drop_vars([c for c in side.coords if c in COORDS])
        variables[name] = kept.rename({axis: f"{name}_{axis}" for axis in kept.dims if axis != "sample"})
    return xr.Dataset(variables, attrs={"manifest_id": manifest_id})


def _side(contents: Contents, recipe: Recipe, manifest_id: str, how: How | None) -> xr.DataArray:
    if how is not None:
        return pooled_view(contents, recipe, manifest_id, how)
    view = open_view(contents, recipe, manifest_id, grid=False)
    return view["values"].assign_attrs(view.attrs)


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

    def __init__(self, address: str, found: Located, inner: tuple[int, ...] | None, recipe_id: str) -> None:
        chunks = in_chunks(found, _usual(found))
        self.address, self.inner = address, inner
        self.chunks = [_Chunk(chunk) for chunk in chunks]
        self.name = f"{_token_of(recipe_id, found)}-{inner}"
        self.features, self.dtype = found[0][0].features, DTYPES[found[0][0].dtype]
        if inner is None:
            self.along: tuple[Any, ...] = (tuple(int(_counts(chunk).sum()) for chunk in chunks),)
        else:
            self.along = (tuple(len(chunk) for chunk in chunks), *((n,) for n in inner))

    def array(self, variable: str) -> da.Array:
        is_values = variable == "values"
        along = (*self.along, (self.features,)) if is_values else self.along
        key, zeros = f"{variable}-{self.name}", (0,) * (len(along) - 1)
        graph = {
            (key, k, *zeros): (_gathered, self.address, chunk, variable, self.inner)
            for k, chunk in enumerate(self.chunks)
        }
        return da.Array(graph, key, along, dtype=self.dtype if is_values else COORDS[variable])


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


def _gathered(address: str, chunk: _Chunk, variable: str, inner: tuple[int, ...] | None) -> np.ndarray:
    rows = _rows(address)
    if variable == "values":
        got = gather(rows, chunk.rows)
    else:
        got = [rows.coord(table, i, variable) for table, i in chunk.rows]
    if inner is None:
        return np.concatenate(got)
    n = math.prod(inner)  # of a grid: what follows its tokens is no part of it
    taken = got[:, :n] if isinstance(got, np.ndarray) else np.stack([row[:n] for row in got])
    return taken.reshape(len(chunk.rows), *inner, *taken.shape[2:])


def _pooled(url: str, chunk: _Chunk, how: How) -> np.ndarray:
    rows = _rows(url)
    return np.stack([pool(_pooled_tokens(rows, table, i, how), how) for table, i in chunk.rows])


def _pooled_tokens(rows: Rows, table: Table, i: int, how: How) -> np.ndarray:
    row = rows.row(table, i)
    patches = row.kind == PATCH
    if how == "flatten" or math.prod(row.grid) == len(row.values) or not patches.any():
        return row.values
    return row.values[patches]


def pool(values: np.ndarray, how: How) -> np.ndarray:
    """Return one row's [token, feature] as float32 [feature] (mean, max) or [token · feature] (flatten)."""
    wide = values.astype(np.float32)
    if how == "flatten":
        return wide.reshape(-1)
    return wide.max(axis=0) if how == "max" else wide.mean(axis=0, dtype=np.float64).astype(np.float32)


def _counts(found: Located) -> np.ndarray:
    return np.array([int(table.tokens[i]) for table, i in found], np.int64)


def _one_grid(found: Located) -> tuple[int, ...]:
    grids = {tuple(int(n) for n in table.grids[i]) for table, i in found}
    if len(grids) != 1 or not any(next(iter(grids))):
        raise ValueError(
            f"a grid view needs one regular grid for all rows, but there are {sorted(grids)[:4]}; "
            "open the view with grid=False"
        )
    return next(iter(grids))


def _token_of(recipe_id: str, found: Located) -> str:
    """Return a name for Dask: equal for equal bytes in equal places."""
    rows = (table.shard.encode() + i.to_bytes(4, "little") for table, i in found)
    return digest_bytes("view", [recipe_id.encode(), b"".join(rows)])[:32]


def _usual(found: Located) -> int:
    """Return the rows of the largest shard in sight: the size its writer chose."""
    return max(len(table) for table in {id(t): t for t, _ in found}.values())

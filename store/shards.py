"""A shard: rows written together as an immutable Zarr v3 group, readable by offset without decoding."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import google_crc32c
import numpy as np
from blake3 import blake3

from store.digest import digest_bytes
from store.errors import Damaged
from store.places import Place
from store.recipe import Recipe
from store.records import now
from store.rows import COORDS, DTYPES, Row, bits
from store.tables import Table

FORMAT = 1
BITS_OF = {"bfloat16": "uint16"}
"""What a Zarr reader without our code sees for types Zarr has no name for."""
_FILL = {"float32": "NaN", "float16": "NaN", "uint16": 0x7FC0, "uint8": 255, "int32": -1}
_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}


def shard_folder(recipe: str, shard: str) -> str:
    """Return the name of a shard's folder."""
    return f"shards/{recipe}/{shard}"


def values_name(dtype: str) -> str:
    """Return the name of the values array: a stranger must not take bits for numbers."""
    return "values_bits" if dtype in BITS_OF else "values"


def encode_shard(
    recipe: Recipe,
    rows: Sequence[tuple[bytes, bytes, Row]],
    *,
    seq: int,
    provenance: Mapping[str, Any],
) -> tuple[Table, dict[str, list[Any]]]:
    """Return the table and files of a shard of (sample digest, row digest, row), the group's own last.

    Rows of one token count become the axes [sample token feature], checksummed row by row; rows of several
    counts lie end to end along [token feature].
    """
    first = rows[0][2]
    counts = [len(row.values) for _, _, row in rows]
    fixed = len(set(counts)) == 1
    name, dtype, features = values_name(first.dtype), first.dtype, first.values.shape[1]
    shard = digest_bytes(
        "shard", [recipe.id.encode(), struct.pack("<Q", seq), *(sample + own for sample, own, _ in rows)]
    )
    shape = [len(rows), counts[0], features] if fixed else [sum(counts), features]
    axes = ["sample", "token"] if fixed else ["token"]
    data = _sharded(rows) if fixed else _contiguous(rows)
    files: dict[str, list[Any]] = {f"{name}/c/{'/'.join('0' * len(shape))}": data}
    files[f"{name}/zarr.json"] = [_array(shape, [*axes, "feature"], dtype, per_row=fixed)]
    for coord, kind in COORDS.items():
        joined = np.concatenate([getattr(row, coord) for _, _, row in rows]).astype(kind, copy=False)
        files[f"{coord}/c/{'/'.join('0' * len(axes))}"] = [joined, _crc(joined)]
        files[f"{coord}/zarr.json"] = [_array(shape[:-1], axes, kind.name)]
    about: dict[str, Any] = {
        "format": FORMAT,
        "recipe_id": recipe.id,
        "recipe": recipe.canonical(),
        "dtype": dtype,
        "layout": "fixed" if fixed else "ragged",
        "seq": seq,
        "created": now(),
        "samples": [sample.hex() for sample, _, _ in rows],
        "row_digests": [own.hex() for _, own, _ in rows],
        "row_sizes": counts,
        "grids": [list(row.grid) for _, _, row in rows],
        "provenance": dict(provenance),
    }
    files["zarr.json"] = [_json({"zarr_format": 3, "node_type": "group", "attributes": {"foresight": about}})]
    values_file = next(iter(files))
    table = Table(
        recipe=recipe.id,
        shard=shard,
        seq=seq,
        layout=about["layout"],
        dtype=dtype,
        features=features,
        created=about["created"],
        files={
            path: (sum(memoryview(p).nbytes for p in parts), "" if path == values_file else _blake(parts))
            for path, parts in files.items()
        },
        samples=np.frombuffer(b"".join(sample for sample, _, _ in rows), np.uint8).reshape(-1, 32),
        digests=np.frombuffer(b"".join(own for _, own, _ in rows), np.uint8).reshape(-1, 32),
        tokens=np.array(counts, np.uint32),
        grids=np.array([row.grid for _, _, row in rows], np.uint32),
    )
    return table, files


class Shard:
    """One shard's bytes, read by offset. Rows are checked by the caller; lengths are checked here."""

    def __init__(self, place: Place, table: Table) -> None:
        self.place, self.table = place, table
        self.folder = shard_folder(table.recipe, table.shard)
        fixed = table.layout == "fixed"
        self.values_file = f"{values_name(table.dtype)}/c/{'0/0/0' if fixed else '0/0'}"
        self._coord_chunk = "c/0/0" if fixed else "c/0"
        width = table.features * DTYPES[table.dtype].itemsize
        sizes = table.tokens.astype(np.int64) * width
        ends = np.cumsum(sizes + 4 if fixed else sizes)
        self.offsets: np.ndarray = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        """[row] where each row's bytes start in the values file."""
        self.sizes: np.ndarray = sizes
        """[row] bytes of each row's values."""
        self._starts = np.concatenate([[0], np.cumsum(table.tokens.astype(np.int64))])
        self._coords: dict[str, np.ndarray] | None = None

    def values(self, i: int) -> np.ndarray:
        """Return row i's values, [token feature], not yet checked."""
        data = self.place.get_range(
            f"{self.folder}/{self.values_file}", int(self.offsets[i]), int(self.sizes[i])
        )
        if len(data) != self.sizes[i]:
            raise Damaged(
                f"{self.folder}/{self.values_file} ends before row {i}; "
                "`foresight store verify` drops what is lost, the next run computes it again"
            )
        return np.frombuffer(data, DTYPES[self.table.dtype]).reshape(-1, self.table.features)

    def coord(self, name: str) -> np.ndarray:
        """Return one coordinate of all rows end to end, [token], checked against its checksum."""
        if self._coords is None:
            self._coords = {}
        if name not in self._coords:
            path = f"{self.folder}/{name}/{self._coord_chunk}"
            data = self.place.get(path)
            flat, check = data[:-4], data[-4:]
            if (
                len(flat) != self._starts[-1] * COORDS[name].itemsize
                or _crc(np.frombuffer(flat, "u1")) != check
            ):
                raise Damaged(
                    f"{path} is not what was written; `foresight store verify` drops the rows it "
                    "belongs to, the next run computes them again"
                )
            self._coords[name] = np.frombuffer(flat, COORDS[name])
        return self._coords[name]

    def span(self, i: int) -> slice:
        """Return where row i's tokens are along the coordinates."""
        return slice(int(self._starts[i]), int(self._starts[i + 1]))

    def row(self, i: int) -> Row:
        """Return row i, not yet checked against its digest."""
        grid = tuple(int(n) for n in self.table.grids[i])
        coords = {name: self.coord(name)[self.span(i)] for name in COORDS}
        return Row(values=self.values(i), grid=(grid[0], grid[1], grid[2]), **coords)


def _sharded(rows: Sequence[tuple[bytes, bytes, Row]]) -> list[Any]:
    """Return one Zarr shard of uncompressed chunks, one row each, with its index at the end."""
    parts: list[Any] = []
    for _, _, row in rows:
        flat = bits(row.values)
        parts += [flat, _crc(flat)]
    size = parts[0].nbytes
    index = np.array([[i * (size + 4), size + 4] for i in range(len(rows))], "<u8")
    return [*parts, index, _crc(index)]


def _contiguous(rows: Sequence[tuple[bytes, bytes, Row]]) -> list[Any]:
    """Return one uncompressed chunk with a checksum over all of it."""
    parts = [bits(row.values) for _, _, row in rows]
    check = 0
    for part in parts:
        check = google_crc32c.extend(check, _readonly(part))
    return [*parts, struct.pack("<I", check)]


def _array(shape: list[int], axes: list[str], dtype: str, *, per_row: bool = False) -> bytes:
    stored = BITS_OF.get(dtype, dtype)
    inner = [{"name": "bytes"} if stored == "uint8" else _LITTLE, _CRC]
    codecs = (
        inner
        if not per_row
        else [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [1, *shape[1:]],
                    "codecs": inner,
                    "index_codecs": [_LITTLE, _CRC],
                    "index_location": "end",
                },
            }
        ]
    )
    attributes: dict[str, Any] = {}
    if axes[-1] == "feature":
        attributes = {"coordinates": " ".join(COORDS), "dtype": dtype}
    if stored != dtype:
        attributes["read_as"] = f"the bits of {dtype}: array.view(ml_dtypes.{dtype})"
    return _json(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": shape,
            "data_type": stored,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shape}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            # a lost chunk must not read as zeros
            "fill_value": _FILL[stored],
            "codecs": codecs,
            "dimension_names": axes,
            "attributes": attributes,
        }
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


def _readonly(array: np.ndarray) -> np.ndarray:
    view = array.reshape(-1).view(np.uint8)
    view.flags.writeable = False
    return view


def _crc(array: np.ndarray) -> bytes:
    return struct.pack("<I", google_crc32c.value(_readonly(array)))


def _blake(parts: Sequence[Any]) -> str:
    hasher = blake3()
    for part in parts:
        hasher.update(memoryview(part).cast("B"))
    return hasher.hexdigest()

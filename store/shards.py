"""A shard: rows written together as an immutable Zarr v3 group, readable by offset without decoding."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from blake3 import blake3

from store.digest import digest_bytes
from store.errors import Damaged
from store.places import Place
from store.recipe import Recipe
from store.records import now
from store.rows import COORDS, DTYPES, Row, bits, row_digest
from store.tables import Table

FORMAT = 1
BITS_OF = {"bfloat16": "uint16"}
"""What a Zarr reader without our code sees for types Zarr has no name for."""
_FILL = {"float32": "NaN", "float16": "NaN", "uint16": 0x7FC0, "uint8": 255, "int32": -1}
_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}


@dataclass(frozen=True, kw_only=True)
class Put:
    """A row to be written, with all that names and checks it."""

    sample: bytes
    """32 bytes."""
    digest: bytes
    """32 bytes."""
    check: bytes
    """CRC32C of the values, little-endian."""
    row: Row


def prepared(sample: bytes, row: Row) -> Put:
    """Return the row with its digest and checksum, taken while its bytes are in the processor's cache."""
    return Put(sample=sample, digest=row_digest(row), check=crc_bytes(bits(row.values)), row=row)


def shard_folder(recipe: str, shard: str) -> str:
    """Return the name of a shard's folder."""
    return f"shards/{recipe}/{shard}"


def values_name(dtype: str) -> str:
    """Return the name of the values array: a stranger must not take bits for numbers."""
    return "values_bits" if dtype in BITS_OF else "values"


def encode_shard(
    recipe: Recipe,
    rows: Sequence[Put],
    *,
    seq: int,
    provenance: Mapping[str, Any],
) -> tuple[Table, dict[str, list[Any]]]:
    """Return the table and files of a shard, the group's own file last.

    Rows of one token count become the axes [sample token feature], checksummed row by row; rows of several
    counts lie end to end along [token feature].
    """
    first = rows[0].row
    counts = [len(put.row.values) for put in rows]
    fixed = len(set(counts)) == 1
    name, dtype, features = values_name(first.dtype), first.dtype, first.values.shape[1]
    shape = [len(rows), counts[0], features] if fixed else [sum(counts), features]
    axes = ["sample", "token"] if fixed else ["token"]
    data = _sharded(rows) if fixed else _contiguous(rows)
    files: dict[str, list[Any]] = {f"{name}/{_chunk(len(shape))}": data}
    files[f"{name}/zarr.json"] = [_array(shape, [*axes, "feature"], dtype, per_row=fixed)]
    for coord, kind in COORDS.items():
        joined = np.concatenate([getattr(put.row, coord) for put in rows]).astype(kind, copy=False)
        files[f"{coord}/{_chunk(len(axes))}"] = [joined, crc_bytes(joined)]
        files[f"{coord}/zarr.json"] = [_array(shape[:-1], axes, kind.name)]
    about: dict[str, Any] = {
        "format": FORMAT,
        "recipe_id": recipe.id,
        "recipe": recipe.canonical(),
        "dtype": dtype,
        "layout": "fixed" if fixed else "ragged",
        "seq": seq,
        "created": now(),
        "samples": [put.sample.hex() for put in rows],
        "row_digests": [put.digest.hex() for put in rows],
        "row_sizes": counts,
        "grids": [list(put.row.grid) for put in rows],
        "provenance": dict(provenance),
    }
    files["zarr.json"] = [_json({"zarr_format": 3, "node_type": "group", "attributes": {"foresight": about}})]
    values_file = next(iter(files))
    # its name is what it says of itself: shards that differ in anything never meet in one folder
    shard = digest_bytes("shard", files["zarr.json"])
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
        samples=np.frombuffer(b"".join(put.sample for put in rows), np.uint8).reshape(-1, 32),
        digests=np.frombuffer(b"".join(put.digest for put in rows), np.uint8).reshape(-1, 32),
        tokens=np.array(counts, np.uint32),
        grids=np.array([put.row.grid for put in rows], np.uint32),
    )
    return table, files


def rebuilt_table(place: Place, recipe: str, shard: str) -> Table:
    """Return a shard's row table from the shard itself. Damaged when its own account is not what was written."""
    folder = shard_folder(recipe, shard)
    data = place.get(f"{folder}/zarr.json")
    if digest_bytes("shard", [data]) != shard:
        raise Damaged(f"{folder}/zarr.json is not what was written, so its rows are lost; extract again")
    about = json.loads(data)["attributes"]["foresight"]
    if about["recipe_id"] != recipe:
        raise Damaged(f"{folder} is a shard of recipe {about['recipe_id'][:12]}, not of {recipe[:12]}")
    fixed, values = about["layout"] == "fixed", values_name(about["dtype"])
    values_file = f"{values}/{_chunk(3 if fixed else 2)}"
    shape = json.loads(place.get(f"{folder}/{values}/zarr.json"))["shape"]
    files = {}
    for name in [
        f"{array}/{file}" for array in (values, *COORDS) for file in place.names(f"{folder}/{array}")
    ]:
        content = b"" if name == values_file else place.get(f"{folder}/{name}")
        size = place.size(f"{folder}/{name}") if name == values_file else len(content)
        files[name] = (size or 0, "" if name == values_file else _blake([content]))
    files["zarr.json"] = (len(data), _blake([data]))

    def digests(name: str) -> np.ndarray:
        return np.frombuffer(bytes.fromhex("".join(about[name])), np.uint8).reshape(-1, 32)

    return Table(
        recipe=recipe,
        shard=shard,
        seq=about["seq"],
        layout=about["layout"],
        dtype=about["dtype"],
        features=shape[-1],
        created=about["created"],
        files=files,
        samples=digests("samples"),
        digests=digests("row_digests"),
        tokens=np.array(about["row_sizes"], np.uint32),
        grids=np.array(about["grids"], np.uint32).reshape(-1, 3),
    )


def shard_recipe(place: Place, table: Table) -> Recipe:
    """Return the recipe a shard carries with it."""
    data = json.loads(place.get(f"{shard_folder(table.recipe, table.shard)}/zarr.json"))
    return Recipe.from_canonical(data["attributes"]["foresight"]["recipe"])


class Shard:
    """One shard's bytes, read by offset. Rows are checked by the caller; lengths are checked here."""

    def __init__(self, place: Place, table: Table) -> None:
        self.place, self.table = place, table
        self.folder = shard_folder(table.recipe, table.shard)
        fixed = table.layout == "fixed"
        self.values_file = f"{values_name(table.dtype)}/{_chunk(3 if fixed else 2)}"
        self._coord_chunk = _chunk(2 if fixed else 1)
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
        out = np.empty((int(self.table.tokens[i]), self.table.features), DTYPES[self.table.dtype])
        flat = bits(out)
        if (
            self.place.read_into(f"{self.folder}/{self.values_file}", int(self.offsets[i]), [flat])
            != flat.nbytes
        ):
            raise self._short(i)
        return out

    def sizes_hold(self, size_of: Callable[[str], int | None]) -> bool:
        """Return whether every array's bytes are here in their whole length, as `size_of` names tells."""
        return all(
            size_of(f"{self.folder}/{name}") == size
            for name, (size, _) in self.table.files.items()
            if not name.endswith("zarr.json")
        )

    def expect(self, i: int) -> None:
        """Say that row i will be read soon."""
        self.place.expect(f"{self.folder}/{self.values_file}", int(self.offsets[i]), int(self.sizes[i]))

    def values_into(self, i: int, out: np.ndarray, *, check: bool) -> bool | None:
        """Fill `out` [token feature] with row i; return whether its checksum fits, None where none was read."""
        own = bytearray(4 if check and self.table.layout == "fixed" else 0)
        flat = bits(out)
        path = f"{self.folder}/{self.values_file}"
        read = self.place.read_into(path, int(self.offsets[i]), [flat, own] if own else [flat])
        if read != flat.nbytes + len(own):
            raise self._short(i)
        return crc_bytes(flat) == own if own else None

    def token(self, i: int, token: int) -> np.ndarray:
        """Return one token's values, [feature], unchecked: a row's checksum needs all of the row."""
        dtype = DTYPES[self.table.dtype]
        width = self.table.features * dtype.itemsize
        if not 0 <= token < self.table.tokens[i]:
            raise IndexError(f"row {i} has {self.table.tokens[i]} tokens, but token {token} was asked for")
        out = np.empty(self.table.features, dtype)
        path = f"{self.folder}/{self.values_file}"
        if self.place.read_into(path, int(self.offsets[i]) + token * width, [bits(out)]) != width:
            raise self._short(i)
        return out

    def _short(self, i: int) -> Damaged:
        return Damaged(
            f"{self.folder}/{self.values_file} ends before row {i}; "
            "`foresight store verify` drops what is lost, the next run computes it again"
        )

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
                or crc_bytes(np.frombuffer(flat, "u1")) != check
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


def _chunk(axes: int) -> str:
    """Return the file of an array's one chunk: no folders below the array, each would have to be synced."""
    return "c" + ".0" * axes


def _sharded(rows: Sequence[Put]) -> list[Any]:
    """Return one Zarr shard of uncompressed chunks, one row each, with its index at the end."""
    parts: list[Any] = []
    for put in rows:
        parts += [bits(put.row.values), put.check]
    size = parts[0].nbytes
    index = np.array([[i * (size + 4), size + 4] for i in range(len(rows))], "<u8")
    return [*parts, index, crc_bytes(index)]


def _contiguous(rows: Sequence[Put]) -> list[Any]:
    """Return one uncompressed chunk with a checksum over all of it."""
    parts = [bits(put.row.values) for put in rows]
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
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
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


def crc_bytes(array: np.ndarray) -> bytes:
    """Return the CRC-32C of an array's bytes, little-endian, as Zarr's crc32c codec puts it."""
    return struct.pack("<I", google_crc32c.value(_readonly(array)))


def _blake(parts: Sequence[Any]) -> str:
    hasher = blake3()
    for part in parts:
        hasher.update(memoryview(part).cast("B"))
    return hasher.hexdigest()

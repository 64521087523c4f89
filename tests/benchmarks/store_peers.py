"""How peers keep and read the same rows, each in its usual way; bfloat16 as its bits, which all of them can hold."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

TOKENS, FEATURES, BATCH = 256, 1024, 32


@functools.cache
def _base() -> np.ndarray:
    import ml_dtypes

    values = np.random.default_rng(0).standard_t(3, (64, TOKENS, FEATURES)).astype(np.float32)
    return values.astype(ml_dtypes.bfloat16).view(np.uint16)


def row_of(i: int) -> np.ndarray:
    """Return the bits of row i, [token feature] uint16: 64 different rows, over and over."""
    return _base()[i % 64]


class Peer:
    """One way to keep rows: write them, then open and read. `cannot` lists tasks it has no usual way for."""

    name = ""
    cannot: tuple[str, ...] = ()

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.rows = folder, rows

    def can(self, task: str) -> bool:
        return task not in self.cannot

    def write(self) -> None:
        raise NotImplementedError

    def open(self) -> None:
        raise NotImplementedError

    def take(self, rows: Any) -> np.ndarray:
        """Return rows by number, [row token feature]."""
        raise NotImplementedError

    def token(self, row: int, token: int) -> np.ndarray:
        raise NotImplementedError

    def scan(self) -> int:
        steps = (slice(i, min(i + BATCH, self.rows)) for i in range(0, self.rows, BATCH))
        return sum(used(self.take(step)) for step in steps)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return self.take(rows)

    def shuffled(self, order: np.ndarray) -> int:
        return sum(used(self.take(order[i : i + BATCH])) for i in range(0, self.rows, BATCH))


class Raw(Peer):
    """A memory-mapped file of the same bytes."""

    name = "raw file, mapped"

    def write(self) -> None:
        mapped = np.memmap(self.folder / "raw", np.uint16, "w+", shape=(self.rows, TOKENS, FEATURES))
        for i in range(self.rows):
            mapped[i] = row_of(i)
        mapped.flush()
        _synced(self.folder)

    def open(self) -> None:
        self.mapped = np.memmap(self.folder / "raw", np.uint16, "r", shape=(self.rows, TOKENS, FEATURES))

    def take(self, rows: Any) -> np.ndarray:
        return np.array(self.mapped[rows])

    def token(self, row: int, token: int) -> np.ndarray:
        return np.array(self.mapped[row, token])


class Zarr(Peer):
    """zarr-python, one row a chunk, uncompressed."""

    name = "zarr-python, row chunks"
    shards: tuple[int, ...] | None = None

    def write(self) -> None:
        import zarr

        array = zarr.create_array(
            str(self.folder / "z"),
            shape=(self.rows, TOKENS, FEATURES),
            chunks=(1, TOKENS, FEATURES),
            shards=self.shards,
            dtype="uint16",
            compressors=None,
        )
        for i in range(0, self.rows, 64):
            array[i : i + 64] = np.stack([row_of(k) for k in range(i, min(i + 64, self.rows))])
        _synced(self.folder)

    def open(self) -> None:
        import zarr

        self.array = zarr.open_array(str(self.folder / "z"), mode="r")

    def take(self, rows: Any) -> np.ndarray:
        # row by row: `oindex` over many chunks is several times slower, and holds every chunk at once
        return self.array[rows] if isinstance(rows, slice) else np.stack([self.array[int(i)] for i in rows])

    def token(self, row: int, token: int) -> np.ndarray:
        return self.array[row, token]


class ZarrSharded(Zarr):
    """zarr-python, 64 rows a shard."""

    name = "zarr-python, sharded"
    shards = (64, TOKENS, FEATURES)


class TensorStore(Peer):
    """tensorstore on Zarr v3, one row a chunk."""

    name = "tensorstore, row chunks"

    def _spec(self) -> dict[str, Any]:
        return {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(self.folder / "t")}}

    def write(self) -> None:
        import tensorstore as ts

        grid = {"name": "regular", "configuration": {"chunk_shape": [1, TOKENS, FEATURES]}}
        metadata = {"shape": [self.rows, TOKENS, FEATURES], "chunk_grid": grid, "data_type": "uint16"}
        array = ts.open({**self._spec(), "metadata": metadata}, create=True).result()
        for i in range(0, self.rows, 64):
            array[i : i + 64] = np.stack([row_of(k) for k in range(i, min(i + 64, self.rows))])
        _synced(self.folder)

    def open(self) -> None:
        import tensorstore as ts

        self.array = ts.open(self._spec()).result()

    def take(self, rows: Any) -> np.ndarray:
        return self.array[rows].read().result()

    def token(self, row: int, token: int) -> np.ndarray:
        return self.array[row, token].read().result()


class Hdf5(Peer):
    """HDF5 through h5py, contiguous."""

    name = "HDF5, contiguous"

    def write(self) -> None:
        import h5py

        with h5py.File(self.folder / "h.h5", "w") as file:
            data = file.create_dataset("values", (self.rows, TOKENS, FEATURES), "uint16")
            for i in range(self.rows):
                data[i] = row_of(i)
        _synced(self.folder)

    def open(self) -> None:
        import h5py

        self.data = h5py.File(self.folder / "h.h5", "r")["values"]

    def take(self, rows: Any) -> np.ndarray:
        if isinstance(rows, slice):
            return self.data[rows]
        ascending = np.sort(rows)  # h5py takes rows in ascending order only
        return self.data[ascending][np.argsort(np.argsort(rows))]

    def token(self, row: int, token: int) -> np.ndarray:
        return self.data[row, token]


class Icechunk(Peer):
    """icechunk over Zarr, one row a chunk, one commit."""

    name = "icechunk, row chunks"

    def write(self) -> None:
        import icechunk
        import zarr

        icechunk.set_logs_filter("error")
        repo = icechunk.Repository.create(icechunk.local_filesystem_storage(str(self.folder / "i")))
        session = repo.writable_session("main")
        array = zarr.create_array(
            session.store,
            shape=(self.rows, TOKENS, FEATURES),
            chunks=(1, TOKENS, FEATURES),
            dtype="uint16",
            compressors=None,
        )
        for i in range(0, self.rows, 64):
            array[i : i + 64] = np.stack([row_of(k) for k in range(i, min(i + 64, self.rows))])
        session.commit("rows")
        _synced(self.folder)

    def open(self) -> None:
        import icechunk
        import zarr

        repo = icechunk.Repository.open(icechunk.local_filesystem_storage(str(self.folder / "i")))
        self.array = zarr.open_array(repo.readonly_session("main").store, mode="r")

    def take(self, rows: Any) -> np.ndarray:
        # row by row: `oindex` over many chunks is several times slower, and holds every chunk at once
        return self.array[rows] if isinstance(rows, slice) else np.stack([self.array[int(i)] for i in rows])

    def token(self, row: int, token: int) -> np.ndarray:
        return self.array[row, token]


class ArrowDataset(Peer):
    """Hugging Face datasets (Arrow files), one array a row."""

    name = "HF datasets (Arrow)"

    def write(self) -> None:
        import datasets

        features = datasets.Features({"values": datasets.Array2D((TOKENS, FEATURES), "uint16")})
        with datasets.arrow_writer.ArrowWriter(
            path=str(self.folder / "a.arrow"), features=features
        ) as writer:
            for i in range(self.rows):
                writer.write({"values": row_of(i)})
            writer.finalize()
        _synced(self.folder)

    def open(self) -> None:
        import datasets

        self.data = datasets.Dataset.from_file(str(self.folder / "a.arrow")).with_format("numpy")

    def take(self, rows: Any) -> np.ndarray:
        return np.asarray(self.data[rows]["values"])

    def token(self, row: int, token: int) -> np.ndarray:
        return np.asarray(self.data[row]["values"])[token]


class WebDataset(Peer):
    """WebDataset: tar shards of 64 rows, read in order, shuffled in a buffer of 256 rows."""

    name = "WebDataset (tar)"
    cannot = ("gather", "token")

    def write(self) -> None:
        import webdataset

        with webdataset.ShardWriter(str(self.folder / "%05d.tar"), maxcount=64, verbose=0) as sink:
            for i in range(self.rows):
                buffer = io.BytesIO()
                np.save(buffer, row_of(i), allow_pickle=False)
                sink.write({"__key__": f"{i:08d}", "npy": buffer.getvalue()})
        _synced(self.folder)

    def open(self) -> None:
        self.shards = sorted(str(path) for path in self.folder.glob("*.tar"))

    def _batches(self, shuffle: int) -> Iterator[np.ndarray]:
        import webdataset

        data = (
            webdataset.WebDataset(self.shards, shardshuffle=False).shuffle(shuffle).decode().to_tuple("npy")
        )
        for (batch,) in data.batched(BATCH):
            yield np.stack(batch) if isinstance(batch, list) else batch

    def scan(self) -> int:
        return sum(used(batch) for batch in self._batches(0))

    def shuffled(self, order: np.ndarray) -> int:
        return sum(used(batch) for batch in self._batches(256))


PEERS: list[type[Peer]] = [Zarr, ZarrSharded, TensorStore, Hdf5, Icechunk, ArrowDataset, WebDataset]


def used(values: np.ndarray) -> int:
    """Touch every value, as a consumer would; 1 when there was something."""
    flat = np.ascontiguousarray(values).reshape(-1).view(np.uint64)
    return int(np.bitwise_xor.reduce(flat) >= 0)


def _synced(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)

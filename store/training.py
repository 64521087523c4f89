"""Reading for training: batches of rows in a seeded order, read ahead, resumable, shared among ranks."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from store.reading import Rows
from store.rows import DTYPES
from store.tables import Table

_ANNOUNCED = 3
"""Batches the kernel is told of before they are read, so that the disk always has work."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of one step, in the epoch's order."""

    epoch: int
    step: int
    index: np.ndarray
    """[row] positions in the manifest."""
    values: np.ndarray | list[np.ndarray]
    """[row token feature]; a list of [token feature] where token counts differ."""

    def torch(self) -> Any:
        """Return `values` as torch tensors that share the memory, bfloat16 by its bits."""
        if isinstance(self.values, list):
            return [as_torch(values) for values in self.values]
        return as_torch(self.values)


@dataclass(kw_only=True)
class Reader:
    """Batches of a manifest's rows; every row once an epoch.

    Iterating gives the current epoch's batches from the current step on, then moves to the next epoch: loop
    over it once per epoch. The order depends on `seed` and the epoch alone. All ranks take the same number of
    steps; the last batches of an epoch may be short, or empty for some ranks. A thread reads `prefetch`
    batches ahead, so about `prefetch` + 2 are in memory. As a map-style data set (`len`, `reader[i]`, many at
    once through `__getitems__`) it gives torch tensors [token feature] in manifest order.
    """

    rows: Rows
    found: Sequence[tuple[Table, int]]
    content_id: str
    batch_rows: int = 32
    seed: int | None = 0
    """None reads in manifest order."""
    rank: int = 0
    ranks: int = 1
    prefetch: int = 2
    epoch: int = field(default=0, init=False)
    step: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.batch_rows < 1 or self.prefetch < 1 or not 0 <= self.rank < self.ranks:
            raise ValueError(
                "a reader needs batch_rows ≥ 1, prefetch ≥ 1 and 0 ≤ rank < ranks, but got "
                f"{self.batch_rows}, {self.prefetch}, {self.rank} of {self.ranks}"
            )

    @property
    def steps(self) -> int:
        """Steps of one epoch, the same for every rank."""
        return -(-len(self.found) // (self.batch_rows * self.ranks))

    def state(self) -> dict[str, Any]:
        """Return the position as a plain value, to be kept in a checkpoint."""
        return {
            "content_id": self.content_id,
            "seed": self.seed,
            "batch_rows": self.batch_rows,
            "ranks": self.ranks,
            "epoch": self.epoch,
            "step": self.step,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on after the last batch that was handed out when `state` was taken."""
        mine = {**self.state(), "epoch": state["epoch"], "step": state["step"]}
        odd = [name for name in mine if mine[name] != state.get(name)]
        if odd:
            raise ValueError(
                f"a position holds for the same rows, seed and batches, but {', '.join(odd)} differ; "
                "open the reader as it was, or start at epoch 0"
            )
        self.epoch, self.step = state["epoch"], state["step"]

    def __iter__(self) -> Iterator[Batch]:
        ahead: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=self.prefetch)
        stop = threading.Event()
        epoch, first = self.epoch, self.step
        thread = threading.Thread(
            target=self._read_ahead, args=(ahead, stop, epoch, first), name="read-ahead", daemon=True
        )
        thread.start()
        try:
            while (batch := ahead.get()) is not None:
                if isinstance(batch, BaseException):
                    raise batch
                self.step = batch.step + 1
                yield batch
            self.epoch, self.step = epoch + 1, 0
        finally:
            stop.set()
            while thread.is_alive():
                _emptied(ahead)
                thread.join(0.01)

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, i: int) -> Any:
        return as_torch(self._values([i])[0])

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        return [as_torch(values) for values in self._values(indices)]

    def _read_ahead(self, ahead: queue.Queue[Any], stop: threading.Event, epoch: int, first: int) -> None:
        try:
            buffers = _Buffers(self.prefetch + 3)
            whole = order(len(self), self.seed, epoch)
            mine = [self._mine(whole, step) for step in range(self.steps)]
            announced = first
            for step in range(first, self.steps):
                while announced < min(step + 1 + _ANNOUNCED, self.steps):
                    self.rows.expect([self.found[i] for i in mine[announced]])
                    announced += 1
                values = self._values(mine[step], buffers)
                if stop.is_set():
                    return
                ahead.put(Batch(epoch=epoch, step=step, index=mine[step], values=values))
                values = []  # or the buffer would never be free
            ahead.put(None)
        except BaseException as error:
            ahead.put(error)

    def _mine(self, epoch_order: np.ndarray, step: int) -> np.ndarray:
        together = self.batch_rows * self.ranks
        here = epoch_order[step * together : (step + 1) * together]
        return np.array_split(here, self.ranks)[self.rank]

    def _values(
        self, indices: Sequence[int] | np.ndarray, buffers: _Buffers | None = None
    ) -> np.ndarray | list[np.ndarray]:
        return gather(self.rows, [self.found[int(i)] for i in indices], buffers)


class _Buffers:
    """Arrays that are handed out again once nobody else refers to them: fresh memory costs more than a copy."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        for array in self._kept:
            # the list, the loop and the call itself; a view or a tensor of it would be a fourth
            if array.shape == shape and array.dtype == dtype and sys.getrefcount(array) == 3:
                return array
        array = np.empty(shape, dtype)
        self._kept = [*self._kept[-self._most + 1 :], array]
        return array


def gather(
    rows: Rows, found: Sequence[tuple[Table, int]], buffers: _Buffers | None = None
) -> np.ndarray | list[np.ndarray]:
    """Return located rows' values, [row token feature], in the order given; a list where counts differ."""
    if not found:
        return []
    table = found[0][0]
    dtype, features = DTYPES[table.dtype], table.features
    counts = [int(t.tokens[i]) for t, i in found]
    if buffers is None:  # a reader with buffers has announced its rows already
        rows.expect(found)
    out: np.ndarray | list[np.ndarray]
    if len(set(counts)) == 1:
        shape = (len(found), counts[0], features)
        out = np.empty(shape, dtype) if buffers is None else buffers.take(shape, dtype)
    else:
        out = [np.empty((n, features), dtype) for n in counts]
    # in the order of the disk, whatever the order asked for
    disk_order = sorted(range(len(found)), key=lambda k: (found[k][0].name, found[k][1]))
    if rows.place.at_once == 1:
        for k in disk_order:
            rows.values_into(*found[k], out[k])
    else:
        with ThreadPoolExecutor(rows.place.at_once) as pool:
            for done in [pool.submit(rows.values_into, *found[k], out[k]) for k in disk_order]:
                done.result()
    return out


def order(n: int, seed: int | None, epoch: int) -> np.ndarray:
    """Return the epoch's order of `n` rows, a permutation fixed for ever by (n, seed, epoch).

    Rows are sorted by SplitMix64 of their number (Steele, Lea & Flood 2014), so that no library's random
    stream can change what a resumed run reads.
    """
    if seed is None:
        return np.arange(n)
    with np.errstate(over="ignore"):
        start = _mixed(np.array([seed % (1 << 64)], np.uint64)) + np.uint64(epoch)
        keys = _mixed(_mixed(start) + np.arange(n, dtype=np.uint64))
    return np.argsort(keys, kind="stable")


def as_torch(values: np.ndarray) -> Any:
    """Return a torch tensor that shares the memory of `values`, bfloat16 by its bits."""
    import torch

    if values.dtype.name == "bfloat16":
        return torch.from_numpy(values.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(values)


def _mixed(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _emptied(ahead: queue.Queue[Any]) -> None:
    while True:
        try:
            ahead.get_nowait()
        except queue.Empty:
            return

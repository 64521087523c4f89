"""Writing rows of one recipe: shards are sealed behind the caller's back, whole or not at all."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from store.digest import check_id, plain
from store.index import RowIndex
from store.places import Place
from store.recipe import Recipe
from store.rows import checked
from store.shards import Put, encode_shard, prepared, shard_folder

_MAX_SHARD_BYTES = 1 << 27
_SEALERS = 4
"""Shards being made durable at once: on two cores 4 wrote at 0.90 to 0.94 of a raw mapped file, 2 at 0.78 to 0.80."""
_GLANCE_S = 1.0
"""How often a writer looks what others sealed meanwhile; a row sealed twice is harmless."""


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """A row that was put again with other bytes; the first is kept."""

    sample: str
    kept: str
    """Row digest, 64 hex digits."""
    refused: str
    """Row digest, 64 hex digits."""


class Writer:
    """Puts rows of one recipe, and seals a shard each time `rows_per_shard` rows are together.

    A context manager: leaving it seals the rest, also when the body raised, because complete rows are valid
    whatever happened next. Two threads seal, so that one shard is copied to the page cache while the other
    waits for the disk; at most three shards are in memory. `rows_written` counts rows that are durable.
    """

    def __init__(
        self,
        place: Place,
        index: RowIndex,
        recipe: Recipe,
        *,
        rows_per_shard: int,
        provenance: Mapping[str, Any],
    ) -> None:
        if rows_per_shard < 1:
            raise ValueError(f"a shard holds at least one row, but got rows_per_shard={rows_per_shard}")
        self.recipe = recipe
        self.rows_written = 0
        self.rows_reused = 0
        self.conflicts: list[Conflict] = []
        self._place, self._index = place, index
        self._rows_per_shard, self._provenance = rows_per_shard, plain(dict(provenance))
        self._buffer: dict[bytes, Put] = {}
        self._bytes = 0
        self._sealing: dict[bytes, bytes] = {}
        self._shape: tuple[str, int] | None = None
        if index.refresh().tables:
            self._shape = (index.tables[0].dtype, index.tables[0].features)
        self._thread = ThreadPoolExecutor(_SEALERS, thread_name_prefix="seal")
        self._pending: list[Future[None]] = []
        self._lock = threading.Lock()
        self._last_seq = 0
        self._spare: list[np.ndarray] = []

    def put(
        self,
        *,
        sample: str,
        values: Any,
        time_s: Any,
        row: Any,
        col: Any,
        kind: Any,
        tile: Any,
        grid: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        """Take one sample's tokens; arrays are copied, so the caller may reuse them at once.

        `values` is [token feature], the coordinates are [token]. ValueError when they do not fit each other,
        or the recipe's other rows in dtype or features. Durable after `flush` or on leaving the context.
        """
        address = bytes.fromhex(check_id(sample, "sample digest"))
        spare = self._spare.pop() if self._spare else None
        taken = checked(
            values=values, time_s=time_s, row=row, col=col, kind=kind, tile=tile, grid=grid, spare=spare
        )
        shape = (taken.dtype, taken.values.shape[1])
        if self._shape not in (None, shape):
            raise ValueError(
                f"rows of one recipe share dtype and features, {self._shape}, but got {shape} for "
                f"sample {sample[:12]}…; another dtype or point needs another recipe"
            )
        self._shape = shape
        put = prepared(address, taken)
        if not self._is_new(address, put.digest):
            self._spare.append(taken.values)
            return
        self._buffer[address] = put
        self._bytes += taken.values.nbytes
        if len(self._buffer) >= self._rows_per_shard or self._bytes >= _MAX_SHARD_BYTES:
            self._seal_behind()

    def flush(self) -> None:
        """Seal what was put so far; when this returns every row is durable and in sight."""
        self._seal_behind()
        self._wait(0)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
            self._index.pack()
        except Exception as also:
            if error is None:
                raise
            error.add_note(f"and the rows put before could not all be sealed: {also}")
        finally:
            self._thread.shutdown()

    def _is_new(self, address: bytes, digest: bytes) -> bool:
        known = self._buffer[address].digest if address in self._buffer else self._sealing.get(address)
        known = known or self._index.digest_of(address)
        if known is None:
            return True
        self._note_known(address, known, digest)
        return False

    def _note_known(self, address: bytes, known: bytes, digest: bytes) -> None:
        if known == digest:
            self.rows_reused += 1
        else:
            self.conflicts.append(Conflict(sample=address.hex(), kept=known.hex(), refused=digest.hex()))

    def _seal_behind(self) -> None:
        self._wait(_SEALERS - 1)
        if self._buffer:
            rows, self._buffer, self._bytes = self._buffer, {}, 0
            self._sealing |= {address: put.digest for address, put in rows.items()}
            # numbered here, so that shards stand in the order their rows were put
            self._last_seq = max(self._index.next_seq(), self._last_seq + 1)
            self._pending.append(self._thread.submit(self._seal, rows, self._last_seq))

    def _wait(self, at_most: int) -> None:
        while len(self._pending) > at_most:
            self._pending.pop(0).result()

    def _seal(self, rows: dict[bytes, Put], seq: int) -> None:
        try:
            self._index.refresh_if_older(_GLANCE_S)
            left = self._unknown(rows)
            if left:
                table, files = encode_shard(self.recipe, left, seq=seq, provenance=self._provenance)
                self._place.put_folder(shard_folder(table.recipe, table.shard), files)
                self._index.add(table)
            with self._lock:
                self.rows_written += len(left)
        finally:
            for address, put in rows.items():
                self._sealing.pop(address, None)
                if len(self._spare) < self._rows_per_shard:
                    self._spare.append(put.row.values)

    def _unknown(self, rows: dict[bytes, Put]) -> list[Put]:
        """Return the rows that no other writer has sealed meanwhile."""
        left = []
        with self._lock:
            for address, put in rows.items():
                known = self._index.digest_of(address)
                if known is None:
                    left.append(put)
                else:
                    self._note_known(address, known, put.digest)
        return left

"""Reading rows: opened shards are kept at hand, and each row is checked the first time it is read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from store.errors import Damaged
from store.places import Place
from store.rows import Row, row_digest
from store.shards import Shard
from store.tables import Table

_OPEN_SHARDS = 256


class Rows:
    """Reads rows of one place by (table, position). A row is checked against its digest once per process."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._shards: OrderedDict[str, Shard] = OrderedDict()
        self._checked: dict[str, np.ndarray] = {}

    def shard(self, table: Table) -> Shard:
        """Return the opened shard of `table`."""
        shard = self._shards.get(table.shard)
        if shard is None:
            shard = self._shards[table.shard] = Shard(self.place, table)
            while len(self._shards) > _OPEN_SHARDS:
                self._shards.popitem(last=False)
        return shard

    def row(self, table: Table, i: int) -> Row:
        """Return a row. Damaged when its bytes are not what was written."""
        row = self.shard(table).row(i)
        seen = self._checked.setdefault(table.shard, np.zeros(len(table), bool))
        if not seen[i]:
            if row_digest(row) != table.digests[i].tobytes():
                raise _not_as_written(table, i)
            seen[i] = True
        return row

    def values_into(self, table: Table, i: int, out: np.ndarray) -> None:
        """Fill `out` [token feature]; checked by the row's checksum, or its digest where it has none."""
        shard = self.shard(table)
        seen = self._checked.setdefault(table.shard, np.zeros(len(table), bool))
        fits = shard.values_into(i, out, check=not seen[i])
        if fits is False:
            raise _not_as_written(table, i)
        if fits is None and not seen[i]:
            self.row(table, i)
        seen[i] = True

    def expect(self, found: Sequence[tuple[Table, int]]) -> None:
        """Say that these rows will be read soon."""
        for table, i in found:
            self.shard(table).expect(i)

    def coord(self, table: Table, i: int, name: str) -> np.ndarray:
        """Return one coordinate of one row, [token]."""
        shard = self.shard(table)
        return shard.coord(name)[shard.span(i)]


def in_chunks(found: Sequence[tuple[Table, int]], rows: int) -> list[list[tuple[Table, int]]]:
    """Cut located rows, in order, into chunks: at shard boundaries where that gives about `rows` a chunk.

    Rows that lie as they were written give one chunk per shard; rows in any other order give chunks of about
    `rows` gathered from several shards, so the number of chunks never grows beyond that of shards for long.
    """
    chunks: list[list[tuple[Table, int]]] = []
    last: Table | None = None
    for table, i in found:
        full = bool(chunks) and len(chunks[-1]) >= rows
        whole = bool(chunks) and table is not last and 2 * len(chunks[-1]) > rows
        if not chunks or full or whole:
            chunks.append([])
        chunks[-1].append((table, i))
        last = table
    return chunks


def _not_as_written(table: Table, i: int) -> Damaged:
    return Damaged(
        f"row {i} of shard {table.shard[:12]} (sample {table.samples[i].tobytes().hex()[:12]}…) is not what "
        "was written; `foresight store verify` drops it, the next run computes it again"
    )

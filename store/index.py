"""Which rows of a recipe are here, and where: read from row tables, kept in step with what others write."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

from store.digest import check_id, digest, digest_bytes
from store.errors import Damaged, Missing
from store.places import Place
from store.records import now, sealed, unsealed
from store.tables import Table, decode_tables, encode_table

_PACK_AFTER = 32
"""Row tables outside packs that make a new pack worth writing."""


class RowIndex:
    """The rows of one recipe by sample digest. `refresh` takes in what was sealed or dropped since."""

    def __init__(self, place: Place, recipe: str) -> None:
        self.place, self.recipe = place, check_id(recipe, "recipe id")
        self.folder = f"rows/{recipe}"
        self.tables: list[Table] = []
        """In order of (seq, shard)."""
        self.damaged: dict[str, str] = {}
        """Row tables that cannot be read, and why; their rows are missing."""
        self._where: dict[bytes, tuple[Table, int]] = {}
        self._names: set[str] = set()
        self.drops: dict[str, list[tuple[str, int]]] = {}
        """(shard, position) of the rows each drop made missing, by the drop's file name."""
        self._dropped: set[tuple[str, int]] = set()
        self._highest = 0
        self._refreshed = float("-inf")
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._where)

    def refresh(self) -> RowIndex:
        """Take in what changed on disk; return self. Safe beside threads that look rows up."""
        with self._lock:
            names = set(self.place.names(self.folder))
            if names != self._names:
                self._change(names)
            self._refreshed = time.monotonic()
        return self

    def refresh_if_older(self, seconds: float) -> None:
        """Refresh unless that was done within `seconds`: a listing grows with the number of shards."""
        if time.monotonic() - self._refreshed > seconds:
            self.refresh()

    def _change(self, names: set[str]) -> None:
        new, gone = names - self._names, self._names - names
        added = sorted(self._load({name for name in new if name.endswith(".rows")}), key=lambda t: t.name)
        drops = sorted(name for name in new if name.endswith(".drop"))
        for name in drops:
            try:
                record = unsealed(self.place.get(f"{self.folder}/{name}"), f"{self.folder}/{name}")
                self.drops[name] = [(shard, int(i)) for shard, i in record["rows"]]
                self._dropped.update(self.drops[name])
            except Damaged as error:
                # the rows it dropped come into sight again, and fail their own checks again
                self.damaged[name] = str(error)
        self.tables = [table for table in self.tables if table.name not in gone]
        self._merge(added, again=bool(gone or drops))
        self.damaged = {name: why for name, why in self.damaged.items() if name in names}
        self.drops = {name: rows for name, rows in self.drops.items() if name in names}
        self._names = names
        self._highest = max((int(name[:8]) for name in names), default=0)

    def find(self, sample: str) -> tuple[Table, int] | None:
        """Return the table and position of a sample's row, None when it is missing."""
        return self._where.get(bytes.fromhex(sample))

    def missing(self, samples: Iterable[str]) -> list[str]:
        """Return the samples that have no row, in the order given."""
        try:
            absent = [s for s in samples if bytes.fromhex(s) not in self._where]
        except (ValueError, TypeError):
            absent = list(samples)
        for sample in absent:
            check_id(sample, "sample digest")
        return absent

    def live(self) -> list[tuple[Table, int]]:
        """Return where every row of the recipe is, one place a sample."""
        return list(self._where.values())

    def is_dropped(self, table: Table, i: int) -> bool:
        """Return whether that row was dropped as damaged."""
        return (table.shard, i) in self._dropped

    def digest_of(self, sample: bytes) -> bytes | None:
        """Return a row's digest by the sample's 32 bytes, None when it is missing."""
        found = self._where.get(sample)
        return None if found is None else found[0].digests[found[1]].tobytes()

    def locate(self, samples: Sequence[str]) -> list[tuple[Table, int]]:
        """Return the table and position of every sample. Missing when a row is."""
        found = [self._where.get(bytes.fromhex(s)) for s in samples]
        absent = [s for s, where in zip(samples, found, strict=True) if where is None]
        if absent:
            raise Missing(
                f"{len(absent)} of {len(samples)} rows are missing (first: sample {absent[0][:12]}…); "
                "run the extraction again, it computes just those"
            )
        return [where for where in found if where is not None]

    def content_id(self, samples: Sequence[str]) -> str | None:
        """Return the digest over the rows' digests in order; None while one is missing."""
        digests = [self.digest_of(bytes.fromhex(s)) for s in samples]
        return None if None in digests else digest_bytes("latents", [d for d in digests if d is not None])

    def next_seq(self) -> int:
        """Return one more than the highest sequence number in sight."""
        return self._highest + 1

    def add(self, table: Table) -> None:
        """Make a shard visible: put its row table, and take it in."""
        self.place.put(f"{self.folder}/{table.name}", [encode_table(table)])
        with self._lock:
            if table.name not in self._names or table.name in self.damaged:
                self.damaged.pop(table.name, None)
                self._merge([table], again=False)
                self._names.add(table.name)
                self._highest = max(self._highest, table.seq)

    def drop(self, rows: Sequence[tuple[str, int]], why: str) -> None:
        """Make (shard, position) rows missing, for good; a new row of the same sample is another shard's."""
        value: dict[str, Any] = {"rows": [list(row) for row in sorted(rows)], "why": why, "created": now()}
        name = f"{self.refresh().next_seq():08d}-{digest('drop', value)}.drop"
        self.place.put(f"{self.folder}/{name}", [sealed(value)])
        self.refresh()

    def pack(self) -> None:
        """Write all tables as one file when many lie outside; packs only save opening them one by one."""
        self.refresh()
        packed = {t.name for t, _ in self._packs()}
        live = [t for t in self.tables if t.name in self._names]
        if sum(t.name not in packed for t in live) <= _PACK_AFTER:
            return
        data = b"".join(encode_table(t) for t in live)
        name = f"{digest_bytes('pack', [data])}.pack"
        old = self.place.names(f"packs/{self.recipe}")
        self.place.put(f"packs/{self.recipe}/{name}", [data])
        for other in old:
            if other != name:
                self.place.remove(f"packs/{self.recipe}/{other}")

    def _packs(self) -> list[tuple[Table, str]]:
        found = []
        for name in self.place.names(f"packs/{self.recipe}"):
            try:
                data = self.place.get(f"packs/{self.recipe}/{name}")
                found += [(table, name) for table in decode_tables(data, name)]
            except (Missing, Damaged):
                continue  # a pack is a copy: what it lacks is read from the row tables
        return found

    def _load(self, names: set[str]) -> list[Table]:
        tables = []
        left = set(names)
        if len(names) > _PACK_AFTER:
            for table, _ in self._packs():
                if table.name in left and table.recipe == self.recipe:
                    left.remove(table.name)
                    tables.append(table)
        for name in left:
            try:
                (table,) = decode_tables(self.place.get(f"{self.folder}/{name}"), f"{self.folder}/{name}")
                if table.name != name or table.recipe != self.recipe:
                    raise Damaged(f"row table {self.folder}/{name} says it is {table.name} of {table.recipe}")
                tables.append(table)
            except Missing:
                continue  # swept since it was listed
            except (Damaged, ValueError) as error:
                self.damaged[name] = str(error)
        return tables

    def _merge(self, added: Sequence[Table], *, again: bool) -> None:
        """Add tables in their order; `again` looks at all rows anew."""
        if again or (added and self.tables and added[0].name < self.tables[-1].name):
            tables = sorted([*self.tables, *added], key=lambda table: table.name)
            where: dict[bytes, tuple[Table, int]] = {}
            self._take_in(tables, where)
            self.tables, self._where = tables, where
        else:
            self._take_in(added, self._where)
            self.tables += added

    def _take_in(self, tables: Sequence[Table], where: dict[bytes, tuple[Table, int]]) -> None:
        for table in tables:
            joined = table.samples.tobytes()
            for i in range(len(table)):
                if (table.shard, i) not in self._dropped:
                    where.setdefault(joined[32 * i : 32 * i + 32], (table, i))

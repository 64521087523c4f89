"""Row tables: the small binary file that makes a shard visible and says what rows it holds.

Bytes: `FSROWS1\\n`, header length (u32), header (canonical JSON), then for the `rows` of the header:
sample digests (32 bytes each), row digests (32 bytes each), token counts (u32 each), grids (3 u32 each), and
last the BLAKE3 of all that precedes. Little-endian. A pack is row tables one after the other.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from blake3 import blake3

from store.digest import canonical
from store.errors import Damaged

MAGIC = b"FSROWS1\n"


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """The rows of one shard. Order between shards is (seq, shard): no clock decides who was first."""

    recipe: str
    shard: str
    seq: int
    """One more than the highest its writer could see."""
    layout: str
    """'fixed': every row has as many tokens; 'ragged': they lie end to end."""
    dtype: str
    features: int
    created: str
    files: dict[str, tuple[int, str]]
    """Size of every file of the shard and BLAKE3 of its bytes ('' for the values: their rows have one)."""
    samples: np.ndarray
    """[row 32] uint8."""
    digests: np.ndarray
    """[row 32] uint8."""
    tokens: np.ndarray
    """[row] uint32."""
    grids: np.ndarray
    """[row 3] uint32."""

    @property
    def name(self) -> str:
        """The file's name among the recipe's row tables."""
        return f"{self.seq:08d}-{self.shard}.rows"

    def __len__(self) -> int:
        return len(self.tokens)


def encode_table(table: Table) -> bytes:
    """Return the bytes of the row table."""
    header = canonical(
        {
            "recipe": table.recipe,
            "shard": table.shard,
            "seq": table.seq,
            "layout": table.layout,
            "dtype": table.dtype,
            "features": table.features,
            "created": table.created,
            "rows": len(table),
            "files": {name: list(about) for name, about in table.files.items()},
        }
    )
    body = b"".join(
        [
            MAGIC,
            struct.pack("<I", len(header)),
            header,
            table.samples.astype(np.uint8).tobytes(),
            table.digests.astype(np.uint8).tobytes(),
            table.tokens.astype("<u4").tobytes(),
            table.grids.astype("<u4").tobytes(),
        ]
    )
    return body + blake3(body).digest()


def decode_tables(data: bytes, name: str) -> Iterator[Table]:
    """Yield the tables of a row table file or a pack. Damaged when a byte differs; `name` says which file."""
    at = 0
    while at < len(data):
        try:
            table, at = _decode(data, at)
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise Damaged(
                f"row table {name} is not what was written (from byte {at}); "
                "`foresight store verify` writes it anew from its shard"
            ) from error
        yield table


def _decode(data: bytes, start: int) -> tuple[Table, int]:
    if data[start : start + 8] != MAGIC:
        raise ValueError("magic")
    (length,) = struct.unpack_from("<I", data, start + 8)
    body = start + 12 + length
    header: dict[str, Any] = json.loads(data[start + 12 : body])
    rows = header.pop("rows")
    end = body + rows * (32 + 32 + 4 + 12)
    if blake3(data[start:end]).digest() != data[end : end + 32]:
        raise ValueError("checksum")

    def column(at: int, dtype: str, width: int) -> np.ndarray:
        flat = np.frombuffer(data, dtype=dtype, count=rows * width, offset=body + at * rows)
        return flat.reshape(rows, width)

    header["files"] = {name: (size, check) for name, (size, check) in header["files"].items()}
    table = Table(
        **header,
        samples=column(0, "u1", 32),
        digests=column(32, "u1", 32),
        tokens=column(64, "<u4", 1)[:, 0],
        grids=column(68, "<u4", 3),
    )
    return table, end + 32

"""The data behind an interactive projection: places as integers, labels as codes, one sheet of thumbnails."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from foresight.reports.figures import label_codes

STEPS = 9999
TILE_PX = 64
MOST_TILES = 1024


@dataclass(frozen=True, kw_only=True)
class Projector:
    """What the page's script draws: one panel per extraction point, the same samples in each.

    A sample hovered in one panel is marked in all of them.
    """

    names: Sequence[str]
    """Label names by code; the last is 'other' when there are too many to colour."""
    codes: Sequence[int]
    """[sample] index into `names`."""
    labels: Sequence[str]
    """[sample] the label itself."""
    keys: Sequence[str]
    panels: Sequence[Mapping[str, Any]]
    """{point, explained, x, y}: places as integers from 0 to `STEPS`, y upwards."""
    tiles: Sequence[int]
    """[sample] place of its thumbnail on the sheet, −1 where it has none."""
    sheet: bytes
    """All thumbnails as one JPEG, row by row; empty when there are none."""
    columns: int
    alt: str

    def to_json(self) -> dict[str, Any]:
        """Return what the script reads, without the sheet."""
        return {
            "names": list(self.names),
            "codes": list(self.codes),
            "labels": list(self.labels),
            "keys": list(self.keys),
            "panels": [dict(p) for p in self.panels],
            "tiles": list(self.tiles),
            "columns": self.columns,
            "rows": -(-(max(self.tiles, default=-1) + 1) // self.columns) if self.columns else 0,
            "steps": STEPS,
        }


def projector(
    panels: Mapping[str, Mapping[str, Any]],
    labels: Sequence[str | None],
    keys: Sequence[str],
    thumbnails: Mapping[str, bytes],
) -> Projector:
    """Return the interactive view of `panels`: point → {xy [sample 2], explained}.

    At most `MOST_TILES` samples, spread evenly, get a thumbnail: the page stays a few megabytes.
    """
    names, codes = label_codes(labels)
    tiles, sheet, columns = _sheet([thumbnails.get(k) for k in keys])
    places = []
    for point, panel in panels.items():
        xy = np.asarray(panel["xy"], dtype=float).reshape(-1, 2)
        if len(xy) != len(keys):
            raise ValueError(
                f"{point} has {len(xy)} places for {len(keys)} samples; give one place per sample"
            )
        if not np.isfinite(xy).all():
            bad = keys[int(np.flatnonzero(~np.isfinite(xy).all(axis=1))[0])]
            raise ValueError(
                f"a projection is finite, but {point} has no place for {bad!r}; leave the point out"
            )
        low, span = xy.min(axis=0), np.ptp(xy, axis=0)
        unit = (xy - low) / np.where(span > 0, span, 1.0)
        grid = np.rint(unit * STEPS).astype(int)
        explained = [round(float(s), 4) for s in panel.get("explained", ()) if s is not None]
        places.append(
            {"point": point, "explained": explained, "x": grid[:, 0].tolist(), "y": grid[:, 1].tolist()}
        )
    return Projector(
        names=names,
        codes=codes.tolist(),
        labels=["no label" if v is None else str(v) for v in labels],
        keys=[str(k) for k in keys],
        panels=places,
        tiles=tiles,
        sheet=sheet,
        columns=columns,
        alt=f"{len(keys)} samples on their first two principal components, coloured by label",
    )


def _sheet(pictures: Sequence[bytes | None]) -> tuple[list[int], bytes, int]:
    """Return (tile of each sample, JPEG sheet, columns)."""
    held = [i for i, png in enumerate(pictures) if png is not None]
    if len(held) > MOST_TILES:
        held = [held[i * len(held) // MOST_TILES] for i in range(MOST_TILES)]
    if not held:
        return [-1] * len(pictures), b"", 0
    columns = math.ceil(math.sqrt(len(held)))
    rows = -(-len(held) // columns)
    sheet = Image.new("RGB", (columns * TILE_PX, rows * TILE_PX), (128, 128, 128))
    tiles = [-1] * len(pictures)
    for tile, i in enumerate(held):
        with Image.open(io.BytesIO(pictures[i] or b"")) as image:
            small = image.convert("RGB")
            small.thumbnail((TILE_PX, TILE_PX))
        x, y = tile % columns * TILE_PX, tile // columns * TILE_PX
        sheet.paste(small, (x + (TILE_PX - small.width) // 2, y + (TILE_PX - small.height) // 2))
        tiles[i] = tile
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=82)
    return tiles, buffer.getvalue(), columns

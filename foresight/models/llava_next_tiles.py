"""How LLaVA-NeXT cuts an image into tiles, and which place each of its tokens has.

The image is scaled to fit the best of a few canvases, padded to it with black, and cut into square tiles; before
them goes a base view, the whole image stretched to one tile. For the language model the tiles are put together
again, cells of padding are cut off, and each row of cells is followed by a newline token.

Liu et al. (2024), "LLaVA-NeXT", the `anyres` and `spatial_unpad` rules; written out here so that planning loads no
model library. The tests hold them to the library's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foresight.nouns import KINDS

BASE = 0
"""Number of the base view's tile; the tiles of the canvas count from 1, row by row, as in the model."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """One image on its canvas: lengths of the frame in px, of the canvas in px, of tiles in cells."""

    frame: tuple[int, int]
    """(height, width) px of the image as it was given."""
    canvas: tuple[int, int]
    """(height, width) px."""
    tile: int
    """Side of a tile in px."""
    patch: int
    """Side of a cell in px."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols) of tiles."""
        return self.canvas[0] // self.tile, self.canvas[1] // self.tile

    @property
    def side(self) -> int:
        """Cells along a tile."""
        return self.tile // self.patch

    @property
    def cells(self) -> tuple[int, int]:
        """(rows, cols) of cells on the whole canvas, padding included."""
        return self.shape[0] * self.side, self.shape[1] * self.side

    @property
    def tiles(self) -> int:
        """Tiles the model is given, the base view included."""
        return 1 + self.shape[0] * self.shape[1]

    @property
    def scaled(self) -> tuple[int, int]:
        """(height, width) px of the image on the canvas."""
        (height, width), (canvas_height, canvas_width) = self.frame, self.canvas
        across, down = canvas_width / width, canvas_height / height
        if across < down:
            return min(math.ceil(height * across), canvas_height), canvas_width
        return canvas_height, min(math.ceil(width * down), canvas_width)

    @property
    def kept(self) -> tuple[slice, slice]:
        """Rows and columns of cells that stay when padding is cut off: whole cells, as many on either side.

        Where the padding is no even number of cells a padded row or column stays.
        """
        (height, width), (rows, cols) = self.frame, self.cells
        if width / height > cols / rows:
            cut = (rows - int(round(height * (cols / width), 7))) // 2
            return slice(cut, rows - cut), slice(0, cols)
        cut = (cols - int(round(width * (rows / height), 7))) // 2
        return slice(0, rows), slice(cut, cols - cut)

    @property
    def kept_shape(self) -> tuple[int, int]:
        rows, cols = self.kept
        return rows.stop - rows.start, cols.stop - cols.start

    def centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Return row [row] and col [col] of the canvas cells' centres, in px of the frame; outside it for padding."""
        return tuple(
            ((np.arange(cells) + 0.5) * self.patch - (canvas - scaled) // 2) * frame / scaled
            for cells, canvas, scaled, frame in zip(
                self.cells, self.canvas, self.scaled, self.frame, strict=True
            )
        )  # type: ignore[return-value]

    def base_centres(self) -> tuple[np.ndarray, np.ndarray]:
        """Return row [row] and col [col] of the base view's centres, in px of the frame."""
        return tuple((np.arange(self.side) + 0.5) * n / self.side for n in self.frame)  # type: ignore[return-value]


def tiling(frame: tuple[int, int], canvases: Sequence[Sequence[int]], *, tile: int, patch: int) -> Tiling:
    """Return how an image of `frame` (height, width) px is cut up.

    The canvas is the one that keeps most of the image's pixels, and of those the smallest, the first listed.
    Raises `ValueError` for an image so long and narrow that none of its cells would be left.
    """
    height, width = frame
    best, most, least = None, 0, math.inf
    for canvas in canvases:
        scale = min(canvas[1] / width, canvas[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        wasted = canvas[0] * canvas[1] - kept
        if kept > most or (kept == most and wasted < least):
            best, most, least = (canvas[0], canvas[1]), kept, wasted
    if best is not None:
        found = Tiling(frame=(height, width), canvas=best, tile=tile, patch=patch)
        if min(found.kept_shape) > 0:
            return found
    longest = max(max(c) // patch for c in canvases)
    raise ValueError(
        f"an image is at most about {longest} times as long as it is narrow, or no row of its cells is left, but "
        f"got {height} x {width} px; crop it, or ask for frames of another size"
    )


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where one image's tokens are, in the order we give them, section by section.

    The sections are the canvas cells in raster order, the base view's cells in raster order, and the tokens of no
    place: class tokens, base view first, or newline tokens, row by row.
    """

    sections: tuple[int, int, int]
    order: np.ndarray
    """Index of each token in the model's own sequence of this image."""
    row: np.ndarray
    """Centre in px of the frame; nan without a place."""
    col: np.ndarray
    kind: np.ndarray
    tile: np.ndarray
    """`BASE` for the base view; a newline has the tile of the cell it follows."""


def tower_places(cut: Tiling, *, class_token: bool) -> Places:
    """Return the places of [tile token] as the vision tower has them, base view first, class token first."""
    rows, cols = cut.cells
    first = int(class_token)
    length = first + cut.side**2
    row, col = np.mgrid[:rows, :cols].reshape(2, -1)
    base = np.arange(cut.side**2)
    tile = _tile(cut, row, col)
    inside = row % cut.side * cut.side + col % cut.side
    none = np.arange(cut.tiles) if class_token else np.arange(0)
    return _places(
        cut,
        (row, col),
        order=(tile * length + first + inside, first + base, none * length),
        tiles=(tile, none),
        other="class",
    )


def packed_places(cut: Tiling) -> Places:
    """Return the places of the tokens the language model is given: base view, then rows that end in a newline."""
    rows, cols = cut.kept
    height, width = cut.kept_shape
    row, col = np.mgrid[rows, cols].reshape(2, -1)
    start = cut.side**2
    position = start + (row - rows.start) * (width + 1) + col - cols.start
    lines = np.arange(height)
    return _places(
        cut,
        (row, col),
        order=(position, np.arange(start), start + lines * (width + 1) + width),
        tiles=(_tile(cut, row, col), _tile(cut, lines + rows.start, np.full(height, cols.stop - 1))),
        other="newline",
    )


def _tile(cut: Tiling, row: np.ndarray, col: np.ndarray) -> np.ndarray:
    return 1 + row // cut.side * cut.shape[1] + col // cut.side


def _places(
    cut: Tiling,
    cells: tuple[np.ndarray, np.ndarray],
    *,
    order: tuple[np.ndarray, np.ndarray, np.ndarray],
    tiles: tuple[np.ndarray, np.ndarray],
    other: str,
) -> Places:
    sections = (len(order[0]), len(order[1]), len(order[2]))
    (down, across), (base_down, base_across) = cut.centres(), cut.base_centres()
    nowhere = np.full(sections[2], np.nan)
    kinds = (KINDS.index("patch"), KINDS.index("patch"), KINDS.index(other))
    return Places(
        sections=sections,
        order=np.concatenate(order),
        row=np.concatenate([down[cells[0]], base_down.repeat(cut.side), nowhere]).astype(np.float32),
        col=np.concatenate([across[cells[1]], np.tile(base_across, cut.side), nowhere]).astype(np.float32),
        kind=np.repeat(kinds, sections).astype(np.uint8),
        tile=np.concatenate([tiles[0], np.full(sections[1], BASE), tiles[1]]).astype(np.int32),
    )

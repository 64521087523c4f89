"""How InternVL cuts an image into tiles, and which place each of its tokens has.

A still is stretched to a canvas of 1 to 12 square tiles, whichever has the shape closest to its own, and cut into
them row by row; after more than one tile comes a thumbnail, the whole image stretched to one tile. Of a clip each
frame is one tile. Every tile goes through the vision tower on its own.

Chen et al. (2024), arXiv:2404.16821, "dynamic aspect ratio"; written out here so that planning loads no model library.
The tests hold it to the library's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foresight.nouns import KINDS

LEAST, MOST = 1, 12
"""Tiles on a canvas, without the thumbnail."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """One sample in tiles, in the model's own order: (time, row, col), then the thumbnail."""

    frame: tuple[int, int]
    """(height, width) px of the frames as they were given."""
    time: int
    """Frames of a clip; 1 for a still."""
    shape: tuple[int, int]
    """(rows, cols) of tiles on the canvas; (1, 1) for a clip."""

    @property
    def canvas(self) -> int:
        return self.time * self.shape[0] * self.shape[1]

    @property
    def thumbnail(self) -> bool:
        return self.shape != (1, 1)

    @property
    def tiles(self) -> int:
        """Tiles the model is given, the thumbnail included."""
        return self.canvas + self.thumbnail

    def grid(self, side: int) -> tuple[int, int, int]:
        """Return (time, row, col) counts of cells on the canvas, for tiles of `side` x `side` cells."""
        return self.time, self.shape[0] * side, self.shape[1] * side


def cut(frame: tuple[int, int], frames: int, *, tile: int) -> Cut:
    """Return how `frames` frames of `frame` (height, width) px are cut into tiles of `tile` px a side."""
    return Cut(frame=frame, time=frames, shape=(1, 1) if frames > 1 else canvas_shape(frame, tile=tile))


def canvas_shape(frame: tuple[int, int], *, tile: int) -> tuple[int, int]:
    """Return the (rows, cols) of tiles an image of `frame` (height, width) px is stretched to.

    The canvas whose width over height is closest to the image's. Of canvases that are equally close, the one with
    more tiles as long as the image has more than half of its pixels.
    """
    height, width = frame
    canvases = sorted(
        ((cols, rows) for cols in range(1, MOST + 1) for rows in range(1, MOST + 1) if LEAST <= cols * rows <= MOST),
        key=lambda canvas: canvas[0] * canvas[1],
    )  # fmt: skip
    off = {canvas: abs(width / height - canvas[0] / canvas[1]) for canvas in canvases}
    closest = [canvas for canvas in canvases if off[canvas] == min(off.values())]
    filled = [c for c in closest[1:] if height * width > 0.5 * tile * tile * c[0] * c[1]]
    cols, rows = filled[-1] if filled else closest[0]
    return rows, cols


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where one sample's tokens are, in the order we give them.

    First the canvas in raster order (time, row, col), then the thumbnail in raster order, then the class tokens in
    the order of the tiles. `tile` counts a still's tiles row by row from 0, the thumbnail last; a clip is not tiled,
    so there it is 0.
    """

    order: np.ndarray
    """Index of each token in the model's own sequence of this sample, tile after tile."""
    frame: np.ndarray
    """Index of the frame it is of."""
    row: np.ndarray
    """Centre in px of the frame; nan for a class token."""
    col: np.ndarray
    kind: np.ndarray
    tile: np.ndarray


def places(cut: Cut, *, side: int, class_token: bool) -> Places:
    """Return the places of tokens [tile token]: `side` x `side` cells a tile, behind its class token if it has one."""
    first = int(class_token)
    length = first + side * side
    time, row, col = np.indices(cut.grid(side)).reshape(3, -1)
    tile = (time * cut.shape[0] + row // side) * cut.shape[1] + col // side
    inside = row % side * side + col % side
    small_row, small_col = np.indices((side, side)).reshape(2, -1) if cut.thumbnail else np.zeros((2, 0), int)
    owners = np.arange(cut.tiles if class_token else 0)
    nowhere = np.full(len(owners), np.nan)
    height, width = cut.frame
    rows, cols = cut.grid(side)[1:]
    tiles = np.concatenate([tile, np.full(len(small_row), cut.canvas), owners])
    return Places(
        order=np.concatenate(
            [
                tile * length + first + inside,
                cut.canvas * length + first + small_row * side + small_col,
                owners * length,
            ]
        ),
        frame=np.concatenate([time, np.zeros(len(small_row), int), owners if cut.time > 1 else owners * 0]),
        row=np.concatenate([(row + 0.5) * height / rows, (small_row + 0.5) * height / side, nowhere]),
        col=np.concatenate([(col + 0.5) * width / cols, (small_col + 0.5) * width / side, nowhere]),
        kind=np.repeat(
            (KINDS.index("patch"), KINDS.index("class")), (len(tile) + len(small_row), len(owners))
        ).astype(np.uint8),
        tile=(tiles * (cut.time == 1)).astype(np.int32),
    )

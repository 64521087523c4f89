"""Bring frames to one size, and keep the geometry that carries boxes and token places along."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image

from foresight.nouns import Frames

How = Literal["crop", "letterbox", "stretch"]
PAD = (128, 128, 128)
"""Letterbox bars: mid-grey, close to zero after the usual normalisation."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The map between input and output pixels: `output = input · scale + offset`, for each axis.

    Coordinates are continuous: pixel i covers [i, i + 1), so a box around a whole image is [0, 0, width,
    height].
    """

    size_out: tuple[int, int]
    """(height, width) after, px."""
    scale_row: float
    scale_col: float
    offset_row: float
    """px of the output."""
    offset_col: float

    def boxes(self, boxes: Any, *, clip: bool = False) -> Float[np.ndarray, "box 4"]:
        """Return boxes [x0, y0, x1, y1] of the input in pixels of the output.

        With `clip` they are cut to the output frame; a box cropped away entirely then has no area.
        """
        given = np.asarray(boxes, np.float64).reshape(-1, 4)
        scale = np.array([self.scale_col, self.scale_row] * 2)
        offset = np.array([self.offset_col, self.offset_row] * 2)
        mapped = given * scale + offset
        if clip:
            height, width = self.size_out
            mapped = np.clip(mapped, 0, [width, height, width, height])
        return mapped

    def to_input(self, row: Any, col: Any) -> tuple[Any, Any]:
        """Return places (row, col) of the output as places of the input; numbers or arrays."""
        return (row - self.offset_row) / self.scale_row, (col - self.offset_col) / self.scale_col

    def to_output(self, row: Any, col: Any) -> tuple[Any, Any]:
        """Return places (row, col) of the input as places of the output; numbers or arrays."""
        return row * self.scale_row + self.offset_row, col * self.scale_col + self.offset_col


def fit(frames: Frames, *, size: tuple[int, int] | None, how: How = "crop") -> tuple[Frames, Fit]:
    """Return the frames at `size` = (height, width), and the map that was applied.

    - `crop`: the largest centred part with the asked aspect ratio, resized. Cuts the long sides.
    - `letterbox`: everything, aspect ratio kept, centred between mid-grey bars. Sides round to whole pixels,
      so the two scales can differ slightly; `Fit` holds the true ones.
    - `stretch`: everything, aspect ratio not kept.
    `size=None` changes nothing. Resizing is Pillow's bicubic, whose kernel widens when it shrinks
    (antialiased).
    """
    height, width = frames.size
    if how not in ("crop", "letterbox", "stretch"):
        raise ValueError(f"frames are fitted by 'crop', 'letterbox' or 'stretch', but got {how!r}")
    if size is None:
        size = (height, width)
    out_h, out_w = int(size[0]), int(size[1])
    if out_h < 1 or out_w < 1:
        raise ValueError(f"a size is (height, width) in whole pixels from 1 on, but got {size}")
    box = (0.0, 0.0, float(width), float(height))
    inner = (out_h, out_w)
    if how == "crop":
        part_w = min(width, height * out_w / out_h)
        part_h = min(height, width * out_h / out_w)
        left, top = (width - part_w) / 2, (height - part_h) / 2
        box = (left, top, left + part_w, top + part_h)
    elif how == "letterbox":
        scale = min(out_h / height, out_w / width)
        inner = (
            min(out_h, max(1, round(height * scale))),
            min(out_w, max(1, round(width * scale))),
        )
    top_px, left_px = (out_h - inner[0]) // 2, (out_w - inner[1]) // 2
    scale_row, scale_col = inner[0] / (box[3] - box[1]), inner[1] / (box[2] - box[0])
    geometry = Fit(
        size_out=(out_h, out_w),
        scale_row=scale_row,
        scale_col=scale_col,
        offset_row=top_px - box[1] * scale_row,
        offset_col=left_px - box[0] * scale_col,
    )
    if (out_h, out_w) == (height, width):
        return frames, geometry
    pixels = np.empty((len(frames.pixels), out_h, out_w, 3), np.uint8)
    pixels[:] = PAD
    for t, frame in enumerate(frames.pixels):
        resized = Image.fromarray(frame).resize((inner[1], inner[0]), Image.Resampling.BICUBIC, box=box)
        pixels[t, top_px : top_px + inner[0], left_px : left_px + inner[1]] = np.asarray(resized)
    return replace(frames, pixels=pixels), geometry

"""Draw antialiased shapes, from random draws that are the same everywhere and for ever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 48, 44),
    "green": (46, 176, 66),
    "blue": (48, 92, 228),
    "yellow": (238, 208, 52),
    "purple": (166, 62, 200),
    "cyan": (64, 206, 214),
}
SHAPES = ("circle", "square", "triangle")
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "centre", "right")


class Draws:
    """Random numbers of one sample: a function of (stream, seed, index) and of nothing else.

    Philox is counter-based, so sample 712 needs no sample before it. Only its raw 64-bit words are used:
    numpy promises those across versions, and makes no such promise for its distributions.
    Philox: Salmon et al. (2011), doi:10.1145/2063384.2063405.
    """

    def __init__(self, seed: int, index: int, *, stream: int = 0) -> None:
        key = np.array([seed, index], np.uint64)
        self._bits = np.random.Philox(key=key, counter=np.array([0, 0, 0, stream], np.uint64))

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * ((self._bits.random_raw() >> 11) * 2.0**-53)

    def choice(self, count: int) -> int:
        """Return a whole number in [0, count)."""
        return int(self.uniform(0, count))

    def bytes_(self, count: int) -> UInt8[np.ndarray, " count"]:
        """Return `count` values from 0 to 255."""
        words = np.asarray(self._bits.random_raw(-(-count // 8)), np.dtype("<u8"))
        return words.view(np.uint8)[:count]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One shape: its box is [col - radius, row - radius, col + radius, row + radius] exactly, in pixels."""

    shape: str
    colour: str
    rgb: tuple[int, int, int]
    """The colour with its jitter."""
    row: float
    col: float
    radius: float
    """Half the side of the box, px."""

    @property
    def box(self) -> list[float]:
        return [
            self.col - self.radius,
            self.row - self.radius,
            self.col + self.radius,
            self.row + self.radius,
        ]

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


def draw_shape(
    draws: Draws,
    size: tuple[int, int],
    *,
    radius: tuple[float, float] = (0.11, 0.22),
    colour: str | None = None,
    near: Shape | None = None,
) -> Shape:
    """Return a shape wholly inside a frame of `size` = (height, width).

    `radius` is its range as a share of the shorter side. The third of the frame that holds the centre is
    drawn first, row and column each with probability 1/3, then the place inside it: place words are balanced.
    With `near`, the place is drawn around that shape instead, close enough for the boxes to overlap.
    Places and radii are multiples of 1/16 px, so that boxes are exact decimal numbers.
    """
    short = min(size)
    r = sixteenth(draws.uniform(radius[0] * short, radius[1] * short))
    place = []
    for axis, side in enumerate(size):
        if near is None:
            third = draws.choice(3)
            low, high = max(r, side * third / 3), min(side - r, side * (third + 1) / 3)
        else:
            centre, reach = (near.row, near.col)[axis], 0.8 * (near.radius + r)
            low, high = max(r, centre - reach), min(side - r, centre + reach)
        place.append(min(max(sixteenth(draws.uniform(low, high)), r), side - r))
    if colour is None:
        colour = list(COLOURS)[draws.choice(len(COLOURS))]
    jitter = [int(draws.uniform(-12, 13)) for _ in range(3)]
    red, green, blue = (min(255, max(0, value + j)) for value, j in zip(COLOURS[colour], jitter, strict=True))
    return Shape(
        shape=SHAPES[draws.choice(len(SHAPES))],
        colour=colour,
        rgb=(red, green, blue),
        row=place[0],
        col=place[1],
        radius=r,
    )


def draw_ground(draws: Draws, size: tuple[int, int]) -> Float32[np.ndarray, "row col 3"]:
    """Return a dark to middling ground: a third plain, a third with a ramp, a third with faint grain."""
    base = draws.uniform(40, 130)
    rgb = np.array([base + draws.uniform(-10, 10) for _ in range(3)], np.float32)
    ground = np.empty((*size, 3), np.float32)
    ground[:] = rgb
    texture = draws.choice(3)
    if texture == 1:
        down, across = draws.uniform(-20, 20), draws.uniform(-20, 20)
        rows = (np.arange(size[0], dtype=np.float32) / np.float32(size[0]) - np.float32(0.5)) * np.float32(
            down
        )
        cols = (np.arange(size[1], dtype=np.float32) / np.float32(size[1]) - np.float32(0.5)) * np.float32(
            across
        )
        ground += (rows[:, None] + cols[None, :])[..., None]
    elif texture == 2:
        grain = draws.bytes_(size[0] * size[1]).reshape(size)
        ground += (((grain >> 5).astype(np.float32)) - np.float32(3.5))[..., None]
    return ground


def place_words(shape: Shape, size: tuple[int, int]) -> tuple[str, str]:
    """Return which third of the frame holds the centre: one of `ROWS`, one of `COLUMNS`."""
    row = min(2, int(3 * shape.row / size[0]))
    col = min(2, int(3 * shape.col / size[1]))
    return ROWS[row], COLUMNS[col]


def paint(canvas: Float32[np.ndarray, "row col 3"], shape: Shape) -> None:
    """Blend the shape over the canvas, in place; edges are a ramp one pixel wide."""
    window, depth = _depth(shape, canvas.shape[:2])
    cover = np.clip(depth + 0.5, 0.0, 1.0).astype(np.float32)[..., None]
    part = canvas[window]
    part += cover * (np.array(shape.rgb, np.float32) - part)


def cover(shape: Shape, size: tuple[int, int]) -> Bool[np.ndarray, "row col"]:
    """Return where a pixel's centre lies inside the shape: the exact mask."""
    mask = np.zeros(size, bool)
    window, depth = _depth(shape, size)
    mask[window] = depth >= 0
    return mask


def to_pixels(canvas: Float32[np.ndarray, "row col 3"]) -> UInt8[np.ndarray, "row col 3"]:
    """Return the canvas as 8-bit pixels."""
    return np.rint(np.clip(canvas, 0, 255)).astype(np.uint8)


def sixteenth(value: float) -> float:
    """Return the nearest multiple of 1/16: exact in binary and short in decimal."""
    return round(value * 16) / 16


def _depth(shape: Shape, size: Any) -> tuple[tuple[slice, slice], Float[np.ndarray, "row col"]]:
    """Return the window around the shape and how deep each pixel centre is inside it, px."""
    r = shape.radius
    rows = slice(max(0, int(shape.row - r) - 1), min(size[0], int(shape.row + r) + 2))
    cols = slice(max(0, int(shape.col - r) - 1), min(size[1], int(shape.col + r) + 2))
    v = (np.arange(rows.start, rows.stop) + 0.5 - shape.row)[:, None]
    u = (np.arange(cols.start, cols.stop) + 0.5 - shape.col)[None, :]
    if shape.shape == "circle":
        # sqrt is exactly rounded everywhere; hypot is not
        return (rows, cols), r - np.sqrt(u * u + v * v)
    if shape.shape == "square":
        return (rows, cols), np.minimum(r - np.abs(u), r - np.abs(v))
    if shape.shape == "triangle":
        # apex in the middle of the box's top side, base along its bottom side
        return (rows, cols), np.minimum((v + r - 2 * np.abs(u)) / np.sqrt(5.0), r - v)
    raise ValueError(f"a shape is one of {SHAPES}, but got {shape.shape!r}")

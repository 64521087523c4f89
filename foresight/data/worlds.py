"""The synthetic world of single shapes, and what every synthetic world gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, UInt8

from foresight.data.painting import Draws, cover, draw_ground, draw_shape, paint, place_words, to_pixels
from foresight.nouns import Media


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """One rendered sample with everything that is known about it."""

    pixels: UInt8[np.ndarray, "time row col 3"]
    times_s: Float[np.ndarray, " time"]
    masks: UInt8[np.ndarray, "time row col"]
    """0 where the ground shows, k where the k-th object of `annotations['boxes']` shows."""
    label: str
    annotations: dict[str, Any]


class World(Protocol):
    """A rule that turns (seed, index, size) into one sample."""

    name: str
    media: Media
    size: tuple[int, int]
    """Default (height, width), px."""

    def render(self, seed: int, index: int, size: tuple[int, int]) -> Rendered: ...


class Shapes:
    """One coloured shape on a plain or faintly textured ground.

    The label is the colour and not the shape: a model of a million parameters trained for a minute names the
    colour (0.92 where chance is 0.17) and hardly the shape (0.40 where chance is 0.33), and classes nobody
    can tell apart make every metric look broken. The shape is in the annotations, for whoever wants the hard
    task.
    """

    name = "shapes"
    media: Media = "image"
    size = (64, 64)

    def render(self, seed: int, index: int, size: tuple[int, int]) -> Rendered:
        draws = Draws(seed, index, stream=0)
        canvas = draw_ground(draws, size)
        shape = draw_shape(draws, size)
        paint(canvas, shape)
        row_word, column_word = place_words(shape, size)
        return Rendered(
            pixels=to_pixels(canvas)[None],
            times_s=np.zeros(1),
            masks=cover(shape, size).astype(np.uint8)[None],
            label=shape.colour,
            annotations={
                "size": list(size),
                "boxes": [shape.box],
                "classes": [shape.colour],
                "colour": shape.colour,
                "shape": shape.shape,
                "name": shape.name,
                "row": row_word,
                "column": column_word,
                "place": f"{row_word} {column_word}",
                "caption": f"{shape.name} {row_word} {column_word}",
            },
        )

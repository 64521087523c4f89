"""The synthetic world of several shapes that hide one another."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from foresight.data.painting import (
    COLOURS,
    Draws,
    Shape,
    cover,
    draw_ground,
    draw_shape,
    paint,
    place_words,
    to_pixels,
)
from foresight.data.worlds import Rendered
from foresight.nouns import Media

MIN_VISIBLE = 0.35
"""Share of its own area that every shape keeps in view."""
TRIES = 30


class Scenes:
    """Two to four shapes of different colours; half of the later ones are set down partly over an earlier
    one.

    Boxes are of the whole shapes, also where they are hidden; `visible` is the share of each that shows. The
    label is the colour of the shape in front, which nothing hides.
    """

    name = "scenes"
    media: Media = "image"
    size = (96, 96)

    def render(self, seed: int, index: int, size: tuple[int, int]) -> Rendered:
        draws = Draws(seed, index, stream=1)
        canvas = draw_ground(draws, size)
        shapes, mask = _arrange(draws, size, 2 + draws.choice(3))
        for shape in shapes:
            paint(canvas, shape)
        front = shapes[-1]
        return Rendered(
            pixels=to_pixels(canvas)[None],
            times_s=np.zeros(1),
            masks=mask[None],
            label=front.colour,
            annotations={
                "size": list(size),
                "boxes": [shape.box for shape in shapes],
                "classes": [shape.colour for shape in shapes],
                "shapes": [shape.shape for shape in shapes],
                "places": [" ".join(place_words(shape, size)) for shape in shapes],
                "visible": [
                    round(int((mask == k).sum()) / int(cover(shape, size).sum()), 4)
                    for k, shape in enumerate(shapes, start=1)
                ],
                "count": len(shapes),
                "caption": ", ".join(shape.name for shape in reversed(shapes)),
            },
        )


def _arrange(
    draws: Draws, size: tuple[int, int], count: int
) -> tuple[list[Shape], UInt8[np.ndarray, "row col"]]:
    """Return shapes from back to front and which of them shows at each pixel centre, counted from 1.

    A shape that would hide too much of another is drawn again elsewhere; the first of a scene always fits,
    and a second fits unless `TRIES` draws in a row fell on the first, which a share below 1e-9 of scenes
    does.
    """
    shapes: list[Shape] = []
    areas: list[int] = []
    mask = np.zeros(size, np.uint8)
    left = list(COLOURS)
    for k in range(1, count + 1):
        colour = left.pop(draws.choice(len(left)))
        over = shapes and draws.choice(2)
        target = shapes[draws.choice(len(shapes))] if over else None
        for _ in range(TRIES):
            shape = draw_shape(draws, size, radius=(0.10, 0.20), colour=colour, near=target)
            here = cover(shape, size)
            after = np.where(here, np.uint8(k), mask)
            if all((after == j).sum() >= MIN_VISIBLE * area for j, area in enumerate(areas, start=1)):
                shapes.append(shape)
                areas.append(int(here.sum()))
                mask = after
                break
        else:
            break
    return shapes, mask

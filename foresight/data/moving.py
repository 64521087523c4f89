"""The synthetic world of one shape that moves straight ahead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from foresight.data.painting import (
    Draws,
    cover,
    draw_ground,
    draw_shape,
    paint,
    place_words,
    sixteenth,
    to_pixels,
)
from foresight.data.worlds import Rendered
from foresight.nouns import Media

FRAMES = 17
"""8k + 1, as causal video autoencoders take."""
FPS = 8
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
"""(row, col) steps."""
ROUNDING = 0.5
"""px that rounding each step to 1/16 px can add to half the way: 8 steps of 1/32, and to spare."""
TRAVEL = {"slow": (0.15, 0.25), "fast": (0.40, 0.50)}
"""Way from first to last frame, as a share of the side it runs along."""


class Moving:
    """One shape crosses part of the frame in two seconds, in one of four directions, slowly or fast.

    The label is the direction. The place in the middle of the clip is drawn before the direction and without
    regard to it, so the middle frame alone says nothing about the label: a model that knows it saw motion.
    """

    name = "moving"
    media: Media = "clip"
    size = (64, 64)

    def render(self, seed: int, index: int, size: tuple[int, int]) -> Rendered:
        draws = Draws(seed, index, stream=2)
        ground = draw_ground(draws, size)
        shape = draw_shape(draws, size, radius=(0.10, 0.16))
        speed = list(TRAVEL)[draws.choice(2)]
        share = draws.uniform(*TRAVEL[speed])
        # the same clearance on both axes, so that the place does not tell the axis of the motion either
        middle = []
        for side, at in zip(size, (shape.row, shape.col), strict=True):
            margin = shape.radius + share * side / 2
            middle.append(sixteenth(min(max(at, margin + ROUNDING), side - margin - ROUNDING)))
        direction = list(DIRECTIONS)[draws.choice(len(DIRECTIONS))]
        step_row, step_col = DIRECTIONS[direction]
        # a whole number of 1/16 px a frame keeps every box exact
        per_frame = sixteenth(share * size[0 if step_row else 1] / (FRAMES - 1))
        track = [
            replace(
                shape,
                row=middle[0] + step_row * per_frame * (t - FRAMES // 2),
                col=middle[1] + step_col * per_frame * (t - FRAMES // 2),
            )
            for t in range(FRAMES)
        ]
        pixels = np.empty((FRAMES, *size, 3), np.uint8)
        masks = np.empty((FRAMES, *size), np.uint8)
        for t, moved in enumerate(track):
            canvas = ground.copy()
            paint(canvas, moved)
            pixels[t] = to_pixels(canvas)
            masks[t] = cover(moved, size)
        halfway = track[FRAMES // 2]
        return Rendered(
            pixels=pixels,
            times_s=np.arange(FRAMES) / FPS,
            masks=masks,
            label=direction,
            annotations={
                "size": list(size),
                "boxes": [halfway.box],
                "classes": [shape.colour],
                "track": [moved.box for moved in track],
                "direction": direction,
                "speed": speed,
                "velocity_px_s": [step_row * per_frame * FPS, step_col * per_frame * FPS],
                "fps": FPS,
                "colour": shape.colour,
                "shape": shape.shape,
                "name": shape.name,
                "place": " ".join(place_words(halfway, size)),
                "caption": f"{shape.name} moving {direction}",
            },
        )

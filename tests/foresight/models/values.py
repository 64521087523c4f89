"""What the tests of many families share: how close values are, and frames whose colour tells their place."""

from __future__ import annotations

import numpy as np
import torch

from foresight.nouns import Frames

# the same kernels in the same order: only the split of a matrix product over threads may differ in fp32
TOLERANCE = 1e-5


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def ramp(height: int, width: int, sample: int, time: int = 1) -> Frames:
    """Return frames whose red tells the column, green the row, and blue the sample and frame."""
    pixels = np.zeros((time, height, width, 3))
    pixels[..., 0] = 255 * (np.arange(width) + 0.5) / width
    pixels[..., 1] = (255 * (np.arange(height) + 0.5) / height)[:, None]
    pixels[..., 2] = (20 + 8 * sample + 60 * np.arange(time))[:, None, None]
    return Frames(pixels=pixels.round().astype(np.uint8), times_s=np.arange(time) * 0.5)

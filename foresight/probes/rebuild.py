"""Linear rebuilding: every token gives the pixels of its own cell; what edges come back tells the fine detail."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, UInt8

from foresight.probes.grids import TokenGrids, patches

PENALTY = 1e-3
"""Ridge penalty per training token, on features of unit variance."""
SIGMA, LOW, HIGH = 1.0, 0.05, 0.1
"""Canny's smoothing in px and its two thresholds, on luma in [0, 1]: fixed, so that two pictures compare."""
RADIUS_PX = 1.5
"""Edges match within this distance: their eight neighbours. It decides the result, so it stands with it."""
BLOCK = 64


def rebuilt(
    train: TokenGrids, pixels: UInt8[np.ndarray, "sample row col 3"], test: TokenGrids
) -> Float[np.ndarray, "sample row col 3"]:
    """Return the pictures of `rebuilt_parts` together."""
    return np.concatenate(list(rebuilt_parts(train, pixels, test)))


def rebuilt_parts(
    train: TokenGrids, pixels: UInt8[np.ndarray, "sample row col 3"], test: TokenGrids
) -> Iterator[Float[np.ndarray, "sample row col 3"]]:
    """Yield the pictures a ridge from each token to its cell's pixels gives of `test`, in [0, 1], `BLOCK` at a time.

    One map for all cells, learnt from `train` with the pictures `pixels`; closed form, no step size and no seed.
    Grids of one time step. Sides that the grid does not divide come back at the nearest that it does.
    """
    if train.shape[0] != 1:
        raise ValueError(
            f"a picture is rebuilt from one time step, but got {train.shape[0]}; take one with `at` first"
        )
    width = train.values.shape[-1] + 1
    inner = np.zeros((width, width))
    outer = np.zeros((width, patches(pixels[:1, None], train.shape).shape[-1]))
    for start in range(0, len(train), BLOCK):
        given = _with_one(train.values[start : start + BLOCK])
        wanted = patches(pixels[start : start + BLOCK, None], train.shape)
        flat = wanted.reshape(-1, wanted.shape[-1]).astype(np.float64)
        inner += given.T @ given
        outer += given.T @ flat
    ridge = PENALTY * inner[-1, -1] * np.eye(width)
    ridge[-1, -1] = 0.0  # the mean is not held back
    solved = np.linalg.lstsq(inner + ridge, outer, rcond=None)[0]
    for start in range(0, len(test), BLOCK):
        read = _with_one(test.values[start : start + BLOCK]) @ solved
        cut = read.reshape(-1, *test.shape, solved.shape[1])
        yield np.clip(joined(cut, pixels.shape[1:3]), 0.0, 1.0)


def joined(
    cut: Float[np.ndarray, "sample 1 row col feature"], size: tuple[int, int]
) -> Float[np.ndarray, "sample row col 3"]:
    """Undo `patches` of pictures of `size` (height, width)."""
    n, _, rows, cols, _ = cut.shape
    down, across = max(1, round(size[0] / rows)), max(1, round(size[1] / cols))
    parts = cut.reshape(n, rows, cols, down, across, 3).transpose(0, 1, 3, 2, 4, 5)
    return parts.reshape(n, rows * down, cols * across, 3).astype(np.float32)


def edges(picture: Float[np.ndarray, "row col 3"]) -> Bool[np.ndarray, "row col"]:
    """Return where Canny sees an edge in the luma of a picture in [0, 1]."""
    from skimage.feature import canny

    luma = picture @ np.array([0.2125, 0.7154, 0.0721], picture.dtype)
    found: np.ndarray = canny(luma, sigma=SIGMA, low_threshold=LOW, high_threshold=HIGH)
    return found


def edge_f1(
    found: Float[np.ndarray, "sample row col 3"], truth: Float[np.ndarray, "sample row col 3"]
) -> Float[np.ndarray, " sample"]:
    """Return how well the edges of each pair agree, in [0, 1].

    Precision is the share of found edge pixels within `RADIUS_PX` of a true one, recall the reverse. No found
    edge gives 0; nan where the true picture has none.
    """
    from scipy.ndimage import distance_transform_edt

    def near(some: np.ndarray, others: np.ndarray) -> float:
        return float((distance_transform_edt(~others)[some] <= RADIUS_PX).mean())

    scores = []
    for a, b in zip(found, truth, strict=True):
        mine, true = edges(a), edges(b)
        if not true.any():
            scores.append(np.nan)
        elif not mine.any():
            scores.append(0.0)
        else:
            precision, recall = near(mine, true), near(true, mine)
            total = precision + recall
            scores.append(2 * precision * recall / total if total else 0.0)
    return np.array(scores)


def _with_one(values: np.ndarray) -> Float[np.ndarray, "token feature"]:
    flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
    return np.concatenate([flat, np.ones((len(flat), 1))], axis=1)

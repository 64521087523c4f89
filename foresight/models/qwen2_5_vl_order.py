"""Which place each of Qwen2.5-VL's tokens has: sizes in patches, and the orders in which the model keeps tokens.

In block order the processor's groups of 2 x 2 patches follow one another; in window order the groups are permuted
into attention windows too. The merger makes one token of each group, still window by window; the language model gets
them in raster order.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


def resized(size: tuple[int, int], *, unit: int, least: int, most: int = 28 * 28 * 1280) -> tuple[int, int]:
    """Return the (height, width) px the processor resizes to: multiples of `unit`, area within bounds.

    The processor's own rule, written out so that planning loads no model library; a test holds them together.
    """
    height, width = (max(round(side / unit) * unit, 0) for side in size)
    if height * width > most:
        shrink = math.sqrt(size[0] * size[1] / most)
        return tuple(max(unit, math.floor(s / shrink / unit) * unit) for s in size)  # type: ignore[return-value]
    if height * width < least:
        grow = math.sqrt(least / (size[0] * size[1]))
        return tuple(math.ceil(s * grow / unit) * unit for s in size)  # type: ignore[return-value]
    return height, width


def token_orders(grids: torch.Tensor, vision: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return for each token order (owner and place of every token, counts per image).

    `grids` is [image 3] in patches, and `vision` the configuration of the tower.
    """
    import torch
    from transformers.vision_utils import get_vision_window_index

    grids = grids.cpu()
    merge = vision.spatial_merge_size
    window, _ = get_vision_window_index(
        grids, spatial_merge_size=merge, window_size=vision.window_size, patch_size=vision.patch_size
    )
    in_window = (window[:, None] * merge**2 + torch.arange(merge**2)).reshape(-1).numpy()
    blocks = block_order(grids.numpy(), merge)
    merged_grids = grids.numpy() // np.array([1, merge, merge])
    merged = block_order(merged_grids, 1)
    return {
        "block": (blocks, grids.numpy()),
        "window": (blocks[in_window], grids.numpy()),
        "merged window": (merged[window.numpy()], merged_grids),
        "raster": (merged, merged_grids),
    }


def block_order(grids: np.ndarray, merge: int) -> np.ndarray:
    """Return (image, time, row, col) of every token in the processor's order, [token 4].

    `grids` is [image 3] in patches. Tokens come in `merge` x `merge` groups, the groups in raster order;
    `merge=1` is plain raster.
    """
    rows = []
    for image, (t, h, w) in enumerate(grids.tolist()):
        time, row, col = np.meshgrid(np.arange(t), np.arange(h), np.arange(w), indexing="ij")
        grouped = [
            a.reshape(t, h // merge, merge, w // merge, merge).swapaxes(2, 3).reshape(-1)
            for a in (time, row, col)
        ]
        rows.append(np.stack([np.full(t * h * w, image), *grouped], axis=1))
    return np.concatenate(rows)

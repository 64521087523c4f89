"""Token grids whose contents are known: the pixels of synthetic pictures, cut into patches."""

from __future__ import annotations

import numpy as np

from foresight import data
from foresight.data import Sampling
from foresight.nouns import Manifest
from foresight.probes import TokenGrids, fit_axes, patches, reduced

SIDE = 64


def pictures(world: str, *, samples: int, seed: int = 0) -> tuple[Manifest, np.ndarray]:
    """Return the manifest of a still world and its pixels [sample row col 3]."""
    source = data.open(world, samples=samples, seed=seed)
    frames = [source.frames(s, Sampling(frames=1)).pixels[0] for s in source.manifest]
    return source.manifest, np.stack(frames)


def grids(pixels: np.ndarray, *, cells: int = 8, fitted_on: int = 100) -> TokenGrids:
    """Return the patches of a `cells` x `cells` grid on axes fitted on the first samples."""
    block = patches(pixels[:, None], (1, cells, cells))
    axes = fit_axes(block[:fitted_on].reshape(-1, block.shape[-1]), seed=0)
    centres = (np.arange(cells) + 0.5) / cells
    return reduced([block], axes, rows=centres, cols=centres, times_s=np.zeros(1))


def boxes(manifest: Manifest) -> np.ndarray:
    """Return the box of the first object of every sample, in shares of the frame."""
    return np.array(
        [np.array(s.annotations["boxes"][0]) / ([s.annotations["size"][1], s.annotations["size"][0]] * 2)
         for s in manifest]
    )  # fmt: skip

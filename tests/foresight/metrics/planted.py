"""Data with known answers for the tests of the measures."""

from __future__ import annotations

import numpy as np


def gaussians(n: int, widths: tuple[int, ...], *, seed: int = 0) -> list[np.ndarray]:
    """Return independent standard normal matrices [n width]."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, d)) for d in widths]


def shared(
    n: int, widths: tuple[int, int], *, rank: int = 8, noise: float = 0.5, seed: int = 0
) -> list[np.ndarray]:
    """Return two spaces that see the same `rank` latent directions, each with its own noise."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n, rank))
    return [latent @ rng.standard_normal((rank, d)) + noise * rng.standard_normal((n, d)) for d in widths]


def frames_of_videos(
    videos: int, frames: int, widths: tuple[int, int], *, jitter: float = 0.15, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return two spaces that share nothing but near-duplicate frames of the same videos, and groups."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(videos), frames)
    x, y = (
        rng.standard_normal((videos, d))[groups] + jitter * rng.standard_normal((videos * frames, d))
        for d in widths
    )
    return x, y, groups


def rotation(d: int, *, seed: int = 0) -> np.ndarray:
    """Return a random orthogonal matrix [d d]."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]

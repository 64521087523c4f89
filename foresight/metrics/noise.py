"""What a dimension is measured on, distinct rows, and noise of the same size to compare it with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from foresight.metrics.space import FEWEST, Space, as_space


@lru_cache(maxsize=4)
def isotropic_noise(n: int, width: int) -> Space:
    """Return standard normal rows, the same for the same shape; kept for the next measure."""
    # float32: a control needs no more, and 1000 x 4096 stay 16 MB
    space = Space(np.random.default_rng([n, width]).standard_normal((n, width), dtype=np.float32))
    _ = space.gram
    return space


@lru_cache(maxsize=1)
def matched_gaussian(space: Space, *, seed: int) -> Space:
    """Return Gaussian rows with the covariance of `space`, on its principal axes; kept for the next measure."""
    values = space.spectrum[0]
    draws = np.random.default_rng([seed, 7]).standard_normal((len(space), len(values)))
    return Space(draws * np.sqrt(values / max(len(space) - 1, 1)))


def noise_controls(
    space: Space, statistic: Callable[..., float], settings: Mapping[str, Any], *, seed: int
) -> dict[str, float]:
    """Return `statistic(distances, **settings)` of isotropic noise and of a Gaussian with the covariance of `space`.

    That of isotropic noise is measured once for each shape: `statistic` is a function of a module, and `settings`
    are all that it depends on.
    """
    return {
        "isotropic noise": _of_isotropic(statistic, tuple(settings.items()), len(space), space.width),
        "matched gaussian": statistic(matched_gaussian(space, seed=seed).distances(), **settings),
    }


@lru_cache(maxsize=64)
def _of_isotropic(
    statistic: Callable[..., float], settings: tuple[tuple[str, Any], ...], n: int, width: int
) -> float:
    return statistic(isotropic_noise(n, width).distances(), **dict(settings))


def distinct_rows(x: Any, groups: Sequence[Any] | np.ndarray | None, *, seed: int) -> tuple[Space, int, int]:
    """Return one row per group, equal rows once; the number of samples; how many groups were equal rows."""
    space = as_space(x, groups)
    if space.n_groups < len(space):
        shuffled = np.random.default_rng([seed, 8]).permutation(len(space))
        _, first = np.unique(space.groups[shuffled], return_index=True)
        chosen = space.rows(np.sort(shuffled[first]))
    else:
        chosen = space
    _, kept = np.unique(chosen.row_ids, return_index=True)
    dropped = len(chosen) - len(kept)
    return (chosen.rows(np.sort(kept)) if dropped else chosen), len(space), dropped


def too_few(space: Space) -> str:
    """Return why `space` is too small for a dimension, or an empty string."""
    if len(space) < FEWEST:
        return f"a dimension needs at least {FEWEST} different groups, but got {len(space)}"
    return ""

"""What the clip readers share: their error, and the checks on what a container says."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from foresight.data.sampling import Sampling


class ClipError(ValueError):
    """A clip cannot be read; the message is the reason, without the file's name."""


def choose(sampling: Sampling, starts_s: Float[np.ndarray, " frame"]) -> Int[np.ndarray, " time"]:
    """Return the frames that `sampling` takes, after checking that their times can be true."""
    if len(starts_s) == 0:
        raise ClipError("it has no frames")
    if not np.isfinite(starts_s).all() or (np.diff(starts_s) < 0).any():
        raise ClipError("the times of its frames do not ascend")
    try:
        return sampling.indices(starts_s)
    except ValueError as error:
        raise ClipError(str(error)) from None

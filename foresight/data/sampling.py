"""Which frames of a clip are looked at: identity, so the rules are exact."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """One of three rules; a still is one frame at 0 s under all of them.

    - `Sampling(frames=N)`: the clip is cut into N equal spans, counted in frames, and each span gives its
      centre frame; N = 1 is the middle frame. A clip of fewer than N frames gives N frames all the same, in
      order and some of them repeatedly (their times repeat too), so every clip of a data set has one shape.
    - `Sampling(frames=N, rate_hz=R)`: the frames shown at 0, 1/R, 2/R, … seconds after the first frame. Past
      the end of the clip the last frame is repeated.
    - `Sampling(times_s=(…))`: the frames shown at these times; a time past the end is an error.

    Causal video autoencoders take 8k + 1 frames: `Sampling(frames=causal_length(16))`.
    """

    frames: int = 1
    """How many frames a clip gives."""
    rate_hz: float | None = None
    """Frames per second of clip time; None spreads the frames over the whole clip."""
    times_s: tuple[float, ...] | None = None
    """Explicit times after the first frame, in seconds, ascending; `frames` is then their number."""

    def __post_init__(self) -> None:
        if self.times_s is not None:
            times = tuple(float(t) for t in self.times_s)
            if self.rate_hz is not None or self.frames not in (1, len(times)):
                raise ValueError(
                    f"explicit times already say how many frames there are, but got times_s of {len(times)} "
                    f"with frames={self.frames}, rate_hz={self.rate_hz}; give times_s alone"
                )
            if (
                not times
                or list(times) != sorted(times)
                or not all(math.isfinite(t) and t >= 0 for t in times)
            ):
                raise ValueError(f"times_s are ascending seconds from 0 on, at least one, but got {times}")
            object.__setattr__(self, "times_s", times)
            object.__setattr__(self, "frames", len(times))
        if isinstance(self.frames, bool) or not isinstance(self.frames, int) or self.frames < 1:
            raise ValueError(f"frames is a whole number from 1 on, but got {self.frames!r}")
        if self.rate_hz is not None and not (math.isfinite(self.rate_hz) and self.rate_hz > 0):
            raise ValueError(f"rate_hz is a number above 0, but got {self.rate_hz!r}")

    def canonical(self) -> dict[str, Any]:
        """Return the plain value that stands for this sampling in a recipe."""
        if self.times_s is not None:
            return {"rule": "times", "times_s": list(self.times_s)}
        if self.rate_hz is not None:
            return {"rule": "rate", "frames": self.frames, "rate_hz": float(self.rate_hz)}
        return {"rule": "uniform", "frames": self.frames}

    def indices(self, starts_s: Float[np.ndarray, " frame"]) -> Int[np.ndarray, " time"]:
        """Return which frames to take of a clip whose frames are first shown at `starts_s`, ascending.

        Raises ValueError for a clip without frames, and for an explicit time past the clip's last frame by
        more than that frame's own duration.
        """
        count = len(starts_s)
        if count == 0:
            raise ValueError("a clip has at least one frame, but this one has none")
        if self.times_s is None and self.rate_hz is None:
            # (2i + 1) n / 2N in whole numbers: no rounding that differs between machines
            return np.array([(2 * i + 1) * count // (2 * self.frames) for i in range(self.frames)], np.int64)
        after_s = np.asarray(starts_s, np.float64) - float(starts_s[0])
        if self.times_s is not None:
            wanted = np.array(self.times_s, np.float64)
            end_s = float(after_s[-1]) + (float(np.median(np.diff(after_s))) if count > 1 else 0.0)
            if count > 1 and wanted[-1] >= end_s:
                raise ValueError(
                    f"frames were asked for at {wanted[-1]:g} s, but the clip ends at {end_s:g} s"
                )
        else:
            wanted = np.arange(self.frames, dtype=np.float64) / float(self.rate_hz or 1.0)
        # containers keep times in ticks, often of 1 ms: a frame half a tick late still counts as shown
        shown = np.searchsorted(after_s, wanted + 5e-4, side="right") - 1
        return np.clip(shown, 0, count - 1).astype(np.int64)


def causal_length(at_least: int) -> int:
    """Return the smallest 8 k + 1 that is `at_least` or more: what causal video autoencoders take."""
    return -(-max(at_least - 1, 0) // 8) * 8 + 1

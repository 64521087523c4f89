"""Q1.4, decoded: how good the pictures are that a linear map of one point's tokens gives through the decoder."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from foresight.studies.rebuilt import Place, Rebuilt, linear_probe
from foresight.studies.reconstruction import RANDOM, TOKENS, Measurement, gained
from foresight.studies.rows import TRAINED, place_of

OF = "of the decoded prediction"
"""What the names of these numbers end with: 'SSIM of the decoded prediction'."""
GAIN = f"minus {RANDOM}"
"""What the paired difference to the copy is called in a measurement's detail."""
MOST = 16
"""Samples that are decoded and scored: a real decoder takes seconds for each."""


def spread(scored: Int[np.ndarray, " sample"], most: int = MOST) -> Int[np.ndarray, " sample"]:
    """Return at most `most` of the samples, evenly from first to last: data may be sorted by class."""
    count = min(most, len(scored))
    return scored[np.linspace(0, len(scored) - 1, count).round().astype(int)] if count else scored


def decoded_prediction(found: Rebuilt, place: Place) -> list[Measurement]:
    """Return perceptual distance, SSIM and PSNR at `place`, and the R² of the latents that were decoded.

    Beside each stand the decoder's own round trip, the mean image, one colour, mean-pooled tokens and the copy with
    random weights at the same point; the detail `GAIN` holds the number minus the copy's, {value, low, high}, sample
    by sample. `null` is the better of the constant pictures, which any map has to beat; 0 of R².
    """
    copy = found.scores((place[0], place[1], RANDOM), TOKENS) if place[2] == TRAINED else None
    mine = found.scores(place, TOKENS)
    gains = {}
    if mine is not None and copy is not None:
        gains = gained(copy, mine, groups=found.groups, distance=found.distance, seed=found.seed)
    rows = []
    for m in linear_probe(found):
        if place_of(m) != place:
            continue
        detail = dict(m["detail"])
        if gain := gains.get(m["name"]):
            told = gain.to_json()
            detail[GAIN] = {k: told[k] for k in ("value", "low", "high")}
        rows.append({**m, "row": "Q1.4", "name": f"{m['name']} {OF}", "detail": detail})
    return rows

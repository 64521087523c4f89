"""The alignment study, Q1: what is measured in each space, and between every VLM point and the decoder.

A measurement is a plain dict: which row of the study, which number, at which point of which model, then the
estimate with its interval, chance level, p and controls. `target` names the part of the other space that was
compared, where it is not the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from foresight.studies.alone import categories, dimensions
from foresight.studies.between import kernels, neighbours, probes, similarity
from foresight.studies.choice import PRIMARY, decide
from foresight.studies.decoder import decoder_latent
from foresight.studies.rows import RANDOM, RECALL_KS, TRAINED, Latent, Measurement, Spaces

__all__ = [
    "PRIMARY",
    "RANDOM",
    "RECALL_KS",
    "ROWS",
    "TRAINED",
    "Latent",
    "Measurement",
    "Spaces",
    "categories",
    "decide",
    "decoder_latent",
    "dimensions",
    "kernels",
    "neighbours",
    "probes",
    "similarity",
]

ROWS: Mapping[str, Callable[[Spaces], list[Measurement]]] = {
    "Q1.1": categories,
    "Q1.2": decoder_latent,
    "Q1.3": dimensions,
    "Q1.4": probes,
    "Q1.5": similarity,
    "Q1.6": neighbours,
    "Q1.7": kernels,
}
"""Every row of the study that is measured from latents; the decision, Q1.D, reads these."""

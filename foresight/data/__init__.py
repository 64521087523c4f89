"""Data: open a data set, list its samples, read their frames."""

from foresight.data.ahead import prefetch
from foresight.data.errors import NoUsableData, Unreadable
from foresight.data.fitting import Fit, fit
from foresight.data.sampling import Sampling, causal_length
from foresight.data.source import DataSource, kinds, open

__all__ = [
    "DataSource",
    "Fit",
    "NoUsableData",
    "Sampling",
    "Unreadable",
    "causal_length",
    "fit",
    "kinds",
    "open",
    "prefetch",
]

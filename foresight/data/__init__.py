"""Data: open a data set, list its samples, read their frames."""

from foresight.data.ahead import prefetch
from foresight.data.check import Report, check
from foresight.data.errors import NoUsableData, Unreadable
from foresight.data.fitting import Fit, fit
from foresight.data.sampling import Sampling, causal_length
from foresight.data.source import DataSource, kinds, open

__all__ = [
    "DataSource",
    "Fit",
    "NoUsableData",
    "Report",
    "Sampling",
    "Unreadable",
    "causal_length",
    "check",
    "fit",
    "kinds",
    "open",
    "prefetch",
]

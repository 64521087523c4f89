"""Thresholds and gates as data, and the verdicts they give, with reasons."""

from foresight.decisions.budget import (
    cross_attention_parameters,
    mlp_parameters,
    mlp_width_for,
)
from foresight.decisions.q1 import Criterion, Q1Decision, q1_decision
from foresight.decisions.verdicts import Verdict, gate, judge, threshold_table

__all__ = [
    "Criterion",
    "Q1Decision",
    "Verdict",
    "cross_attention_parameters",
    "gate",
    "judge",
    "mlp_parameters",
    "mlp_width_for",
    "q1_decision",
    "threshold_table",
]

"""Thresholds and gates as data, and the verdicts they give, with reasons."""

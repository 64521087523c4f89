"""Figures, tables and the one self-contained page."""

from foresight.reports.page import Cell, Figure, Headline, Report, Section, Table, Tile, render
from foresight.reports.q1 import Q1Inputs, build_q1_report
from foresight.reports.tables import measurements_csv

__all__ = [
    "Cell",
    "Figure",
    "Headline",
    "Q1Inputs",
    "Report",
    "Section",
    "Table",
    "Tile",
    "build_q1_report",
    "measurements_csv",
    "render",
]

"""Figures, tables and the one self-contained page."""

from foresight.reports.compare import build_comparison_report
from foresight.reports.comparison import Comparison, Run, compare
from foresight.reports.export import export_report, figure_files
from foresight.reports.page import Cell, Figure, Headline, Report, Section, Table, Tile, render
from foresight.reports.q1 import Q1Inputs, build_q1_report
from foresight.reports.tables import measurements_csv

__all__ = [
    "Cell",
    "Comparison",
    "Figure",
    "Headline",
    "Q1Inputs",
    "Report",
    "Run",
    "Section",
    "Table",
    "Tile",
    "build_comparison_report",
    "build_q1_report",
    "compare",
    "export_report",
    "figure_files",
    "measurements_csv",
    "render",
]

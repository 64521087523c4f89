"""One report for all tests that only read it: drawing its figures twice would cost seconds."""

import pytest

from foresight.reports import Q1Inputs, Report, build_q1_report, render
from tests.foresight.reports.fakes import q1_inputs


@pytest.fixture(scope="session")
def inputs() -> Q1Inputs:
    return q1_inputs()


@pytest.fixture(scope="session")
def report(inputs: Q1Inputs) -> Report:
    return build_q1_report(inputs)


@pytest.fixture(scope="session")
def page(report: Report) -> str:
    return render(report)

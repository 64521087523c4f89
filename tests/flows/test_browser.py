"""Q1, Q2 and C1 asked for in a real browser: forms are filled, runs start, and their pages show what came of them.

Needs Chromium, which no Python package brings: `make browser`. Skipped where there is none.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, TimeoutError, expect, sync_playwright

from tests.deployments.test_local import ask

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
PATIENCE_S = 400
TRIES = 5
ASKED = {
    "Samples": "8",
    "Seed": "3",
    "Vision-language models": "qwen2.5-vl-tiny@random0",
    "Extraction points": "merged",
}
DECODER = {"Video decoder": "ltx-video-tiny@random0"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not CHROMIUM, reason="no Chromium on this machine; `make browser` installs it on Debian"
    ),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a `foresight ui` in a folder of its own."""
    folder = tmp_path_factory.mktemp("browser")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "foresight"), "ui", "--port", str(port)],
        cwd=folder,
        env=environment | {"PREFECT_WORKER_QUERY_SECONDS": "2"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        while not (told := process.stdout.readline()).startswith("open "):
            assert told, "foresight ui ended"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def page(url: str) -> Iterator[Page]:
    """A page that reaches this machine alone."""

    def on_this_machine(route: Route) -> None:
        if urlsplit(route.request.url).hostname == "127.0.0.1":
            route.continue_()
        else:
            route.abort()

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(1000 * PATIENCE_S)
        expect.set_options(timeout=1000 * PATIENCE_S)
        page.route(re.compile(".*"), on_this_machine)
        yield page
        browser.close()


def fill(page: Page, label: str, value: str) -> None:
    """Give a field of the form another value: the first entry of a list, the number of an optional one."""
    field = page.locator(
        ".schema-form-property:has(> .p-label__header .schema-form-property__label"
        f':text-is("{label} (Optional)"))'
    ).first
    boxes = field.locator("textarea, input")
    for way_in in ("int", "Add item"):
        button = field.get_by_role("button", name=way_in, exact=True)
        if button.count() and (way_in == "int" or not boxes.count()):
            button.click()
    boxes.first.fill(value)
    boxes.first.press("Tab")


def submit(page: Page) -> str:
    """Return the run that the form starts; pressed again where the server was too busy, as a person would."""
    # the form hands its last field over a moment after it was left
    page.wait_for_timeout(1000)
    said = []
    for _ in range(TRIES):
        with page.expect_response(lambda answer: "create_flow_run" in answer.url) as answered:
            page.get_by_role("button", name="Submit").click()
        if answered.value.ok:
            return str(answered.value.json()["id"])
        said.append(f"{answered.value.status} {answered.value.text()[:200]}")
        page.wait_for_timeout(2000)
    raise AssertionError(said)


def run_through_its_form(url: str, page: Page, experiment: str, values: dict[str, str]) -> str:
    """Return the run that a filled form started, after its page said that it is completed."""
    page.goto(f"{url}/deployments")
    page.get_by_text(f"{experiment}-cpu", exact=True).first.click()
    page.wait_for_url("**/deployments/deployment/*")
    page.goto(f"{page.url.split('?')[0]}/run")
    page.get_by_text("Samples (Optional)").first.wait_for()
    for label, value in values.items():
        fill(page, label, value)
    run = submit(page)
    page.goto(f"{url}/runs/flow-run/{run}")
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    assert ask(f"{url}/api/flow_runs/{run}")["state"]["name"] == "Completed"
    return run


def open_artifact(url: str, page: Page, run: str, key: str) -> None:
    """Open an artifact of a run; the page is loaded again where the server was too busy, as a person would."""
    for _ in range(TRIES):
        page.goto(f"{url}/runs/flow-run/{run}")
        page.get_by_text("Artifacts", exact=True).first.click()
        with suppress(TimeoutError):
            return page.get_by_text(key, exact=True).first.click(timeout=1000 * PATIENCE_S / TRIES)
    raise AssertionError(f"the page of run {run} shows no artifact {key}, loaded {TRIES} times")


def is_in_view(page: Page, column: str) -> bool:
    """Return whether a column of a table, as wide as its widest cell, is whole: a page cuts what is too wide."""
    header = page.get_by_role("columnheader", name=column, exact=True)
    header.wait_for()
    return bool(
        header.evaluate(
            """cell => {
                const right = cell.getBoundingClientRect().right;
                for (let around = cell.parentElement; around; around = around.parentElement)
                    if (getComputedStyle(around).overflowX !== "visible" &&
                        right > around.getBoundingClientRect().right + 1) return false;
                return right <= innerWidth;
            }"""
        )
    )


@pytest.fixture(scope="module")
def q1_run(url: str, page: Page) -> str:
    """A finished run of Q1."""
    return run_through_its_form(url, page, "q1", ASKED | DECODER)


def test_q1_is_filled_in_started_and_seen_to_its_end(url: str, page: Page, q1_run: str) -> None:
    asked: dict[str, Any] = ask(f"{url}/api/flow_runs/{q1_run}")["parameters"]["settings"]
    assert (asked["samples"], asked["seed"]) == (8, 3)
    assert (asked["vlm"], asked["points"]) == (["qwen2.5-vl-tiny@random0"], ["merged"])
    assert asked["decoder"] == "ltx-video-tiny@random0"

    page.goto(f"{url}/runs/flow-run/{q1_run}")
    page.get_by_text("Artifacts", exact=True).first.click()
    for key in ("q1-plan", "q1-result", "q1-report", "q1-metrics"):
        expect(page.get_by_text(key, exact=True).first).to_be_visible()
    page.get_by_text("q1-result", exact=True).first.click()
    for told in ("95 % interval", "Open questions:"):
        expect(page.get_by_text(told, exact=True).first).to_be_visible()
    page.goto(f"{url}/runs/flow-run/{q1_run}")
    page.get_by_text("Task Runs", exact=True).first.click()
    expect(page.get_by_text("Q1.D decision", exact=True).first).to_be_visible()
    _all_settled(url, q1_run)


@pytest.mark.parametrize(
    ("experiment", "values", "figure"),
    [("q2", ASKED, "q2-2-boxes-q2-2"), ("c1", ASKED | DECODER, "c1-1-projections")],
)
def test_q2_and_c1_start_from_their_forms_and_read_the_latents_of_q1(
    url: str, page: Page, q1_run: str, experiment: str, values: dict[str, str], figure: str
) -> None:
    run = run_through_its_form(url, page, experiment, values)
    open_artifact(url, page, run, f"{experiment}-result")
    expect(page.get_by_text("95 % interval", exact=True).first).to_be_visible()
    expect(page.get_by_text("; 0 forward passes, 0 rows written, ").first).to_be_visible()
    open_artifact(url, page, run, figure)
    picture = page.locator("img[src^='data:image/png']")
    picture.wait_for()
    assert picture.evaluate("picture => picture.naturalWidth") > 300


@pytest.mark.parametrize(("table", "column"), [("q1-plan", "why"), ("q1-metrics", "95 % interval")])
def test_what_is_read_first_in_a_table_is_not_cut(
    url: str, page: Page, q1_run: str, table: str, column: str
) -> None:
    open_artifact(url, page, q1_run, table)
    assert is_in_view(page, column)


def _all_settled(url: str, run: str) -> None:
    """Wait until every stage is a task run that was computed; their states arrive after the run's own."""
    until = time.monotonic() + PATIENCE_S
    states: dict[str, str] = {}
    while len(states) < 15 or any(state == "Running" for state in states.values()):
        assert time.monotonic() < until, states
        found = ask(f"{url}/api/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        states = {task["name"]: task["state_name"] for task in found}
        time.sleep(0.5)
    assert {name for name, state in states.items() if state != "Completed"} == {
        # random weights need no making
        "model qwen2.5-vl-tiny@random0",
        "model ltx-video-tiny@random0",
    }

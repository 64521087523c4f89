"""Q1 asked for in a real browser: the form is filled, the run starts, and its page shows what came of it.

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
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, expect, sync_playwright

from tests.deployments.test_local import ask

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
PATIENCE_S = 400

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


@pytest.fixture
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
    kind = field.get_by_role("button", name="int", exact=True)
    if kind.count():
        kind.click()
    box = field.locator("textarea, input").first
    box.fill(value)
    box.press("Tab")


def submit(page: Page) -> str:
    """Return the run that the form starts; pressed again where the server was too busy, as a person would."""
    # the form hands its last field over a moment after it was left
    page.wait_for_timeout(1000)
    said = []
    for _ in range(5):
        with page.expect_response(lambda answer: "create_flow_run" in answer.url) as answered:
            page.get_by_role("button", name="Submit").click()
        if answered.value.ok:
            return str(answered.value.json()["id"])
        said.append(f"{answered.value.status} {answered.value.text()[:200]}")
        page.wait_for_timeout(2000)
    raise AssertionError(said)


def test_q1_is_filled_in_started_and_seen_to_its_end(url: str, page: Page) -> None:
    deployment = ask(f"{url}/api/deployments/name/q1/q1-cpu")
    page.goto(f"{url}/deployments/deployment/{deployment['id']}/run")
    page.get_by_text("Samples (Optional)").first.wait_for()
    fill(page, "Samples", "8")
    fill(page, "Seed", "3")
    fill(page, "Video decoder", "ltx-video-tiny@random0")
    fill(page, "Vision-language models", "qwen2.5-vl-tiny@random0")
    run = submit(page)
    asked: dict[str, Any] = ask(f"{url}/api/flow_runs/{run}")["parameters"]["settings"]
    assert (asked["samples"], asked["seed"]) == (8, 3)
    assert (asked["vlm"], asked["decoder"]) == (["qwen2.5-vl-tiny@random0"], "ltx-video-tiny@random0")

    page.goto(f"{url}/runs/flow-run/{run}")
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    assert ask(f"{url}/api/flow_runs/{run}")["state"]["name"] == "Completed"
    page.get_by_text("Artifacts", exact=True).first.click()
    for key in ("q1-plan", "q1-result", "q1-report", "q1-metrics"):
        expect(page.get_by_text(key, exact=True).first).to_be_visible()
    page.get_by_text("q1-result", exact=True).first.click()
    for told in ("95 % interval", "Open questions:"):
        expect(page.get_by_text(told, exact=True).first).to_be_visible()
    page.goto(f"{url}/runs/flow-run/{run}")
    page.get_by_text("Task Runs", exact=True).first.click()
    expect(page.get_by_text("Q1.D decision", exact=True).first).to_be_visible()
    _all_settled(url, run)


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

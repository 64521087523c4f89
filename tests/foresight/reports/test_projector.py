"""Interactive projections: the data the script reads, and the script in a real browser where there is one."""

import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from foresight.reports.projector import STEPS, TILE_PX, projector
from tests.foresight.reports.fakes import HOSTILE, POINTS, thumbnail

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


def view(n=6, **change):
    rng = np.random.default_rng(0)
    keys = [HOSTILE, *(str(i) for i in range(1, n))]
    parts = {
        "panels": {"vit.2": {"xy": rng.normal(size=(n, 2)), "explained": [0.5, 0.2]}},
        "labels": ["a", None] * (n // 2),
        "keys": keys,
        "thumbnails": {k: thumbnail(i) for i, k in enumerate(keys[:-1])},
    }
    return projector(**(parts | change))


def test_places_keep_their_order_and_fill_the_panel():
    xy = np.array([[0.0, 5.0], [1.0, -5.0], [4.0, 0.0], [2.0, 1.0], [3.0, 2.0], [0.5, 3.0]])
    panel = view(panels={"p": {"xy": xy}}).panels[0]
    assert min(panel["x"]) == 0
    assert max(panel["x"]) == STEPS
    assert np.argsort(panel["x"]).tolist() == np.argsort(xy[:, 0]).tolist()
    assert np.argsort(panel["y"]).tolist() == np.argsort(xy[:, 1]).tolist()


def test_a_constant_axis_is_drawn_and_not_divided_by_zero():
    assert set(view(panels={"p": {"xy": np.zeros((6, 2))}}).panels[0]["x"]) == {0}


def test_each_thumbnail_lies_on_its_tile():
    flat = {}
    for i, key in enumerate("abcd"):
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), (60 * i, 0, 0)).save(buffer, "png")
        flat[key] = buffer.getvalue()
    p = view(keys=[*"abcd"], labels=[None] * 4, thumbnails=flat, panels={"p": {"xy": np.zeros((4, 2))}})
    with Image.open(io.BytesIO(p.sheet)) as sheet:
        for i, tile in enumerate(p.tiles):
            x, y = tile % p.columns * TILE_PX + TILE_PX // 2, tile // p.columns * TILE_PX + TILE_PX // 2
            assert sheet.getpixel((x, y))[0] == pytest.approx(60 * i, abs=6)  # JPEG at quality 82


def test_a_sample_without_a_thumbnail_has_no_tile():
    p = view()
    assert p.tiles[-1] == -1
    assert view(thumbnails={}).sheet == b""


def test_bad_places_are_refused():
    with pytest.raises(ValueError, match="one place per sample"):
        view(panels={"p": {"xy": np.zeros((5, 2))}})
    with pytest.raises(ValueError, match="has no place for '2'"):
        view(panels={"p": {"xy": np.array([[0, 0], [0, 0], [0, np.nan], [0, 0], [0, 0], [0, 0]])}})


def test_the_data_inside_the_page_cannot_end_its_script_and_reads_back(page):
    text = re.search(r'<script type="application/json" id="data-Q1\.1">(.*?)</script>', page, re.S).group(1)
    data = json.loads(text)
    assert data["keys"][0] == HOSTILE
    assert [p["point"] for p in data["panels"]] == [
        *POINTS,
        *(f"{p}, {method}" for method in ("t-SNE", "UMAP") for p in POINTS),
    ]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")
def test_hovering_shows_the_sample_and_zooming_moves_the_picture(tmp_path, page):
    from playwright.sync_api import sync_playwright

    path = tmp_path / "q1.html"
    path.write_text(page, encoding="utf-8")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        trouble, asked = [], []
        page.on("pageerror", lambda e: trouble.append(str(e)))
        page.on("console", lambda m: trouble.append(m.text))
        page.on("request", lambda r: asked.append(r.url))
        page.goto(path.as_uri())
        canvas = page.locator(".panels canvas").first
        canvas.scroll_into_view_if_needed()
        canvas.focus()
        before = canvas.evaluate("c => c.toDataURL()")
        page.keyboard.press(".")
        tip = page.locator(".tip")
        assert tip.is_visible()
        assert HOSTILE in tip.inner_text()
        page.keyboard.press("Escape")
        assert not tip.is_visible()
        page.keyboard.press("+")
        assert canvas.evaluate("c => c.toDataURL()") != before
        page.keyboard.press("0")
        assert canvas.evaluate("c => c.toDataURL()") == before
        page.locator(".legend button").first.click()
        assert canvas.evaluate("c => c.toDataURL()") != before
        assert page.locator(".twin").is_hidden()
        page.emulate_media(media="print")
        assert page.locator(".twin").is_visible()
        browser.close()
    assert trouble == []
    assert all(url.startswith(("file:", "data:")) for url in asked)

"""Boxes and places are carried along exactly when frames are fitted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foresight import data
from foresight.nouns import Frames

from .media import picture

SIDES = st.integers(8, 90)
HOWS = st.sampled_from(["crop", "letterbox", "stretch"])


def frames_of(pixels: np.ndarray) -> Frames:
    return Frames(pixels=pixels[None], times_s=np.zeros(1))


@settings(max_examples=40, deadline=None)
@given(h=SIDES, w=SIDES, oh=SIDES, ow=SIDES, how=HOWS)
def test_places_go_there_and_back(h, w, oh, ow, how):
    fitted, geometry = data.fit(frames_of(picture(h, w)), size=(oh, ow), how=how)
    assert fitted.size == geometry.size_out == (oh, ow)
    rows, cols = np.array([0.0, h / 3, h]), np.array([0.0, w / 2, w])
    there = geometry.to_output(rows, cols)
    back = geometry.to_input(*there)
    np.testing.assert_allclose(back, (rows, cols), atol=1e-9)
    boxes = geometry.boxes([[cols[0], rows[0], cols[1], rows[1]]])
    np.testing.assert_allclose(boxes[0], [there[1][0], there[0][0], there[1][1], there[0][1]], atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(h=SIDES, w=SIDES, oh=SIDES, ow=SIDES)
def test_a_crop_fills_the_output_and_a_letterbox_keeps_everything(h, w, oh, ow):
    whole = [[0, 0, w, h]]
    x0, y0, x1, y1 = data.fit(frames_of(picture(h, w)), size=(oh, ow), how="crop")[1].boxes(whole)[0]
    assert x0 <= 1e-9
    assert y0 <= 1e-9
    assert x1 >= ow - 1e-9
    assert y1 >= oh - 1e-9
    x0, y0, x1, y1 = data.fit(frames_of(picture(h, w)), size=(oh, ow), how="letterbox")[1].boxes(whole)[0]
    assert x0 >= -1e-9
    assert y0 >= -1e-9
    assert x1 <= ow + 1e-9
    assert y1 <= oh + 1e-9


@pytest.mark.parametrize("how", ["crop", "letterbox", "stretch"])
@pytest.mark.parametrize("size", [(64, 64), (40, 100), (130, 50)])
def test_a_planted_square_lands_where_its_box_says(how, size):
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[24:36, 34:46] = 255
    fitted, geometry = data.fit(frames_of(pixels), size=size, how=how)
    x0, y0, x1, y1 = geometry.boxes([[34, 24, 46, 36]], clip=True)[0]
    grey = fitted.pixels[0, :, :, 0].astype(float)
    if how == "letterbox":
        mask = np.zeros(size, bool)
        a0, b0, a1, b1 = (round(v) for v in geometry.boxes([[0, 0, 80, 60]])[0])
        mask[b0:b1, a0:a1] = True
        assert (fitted.pixels[0][~mask] == 128).all()
        grey[~mask] = 0
    rows, cols = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    # the centre of mass of the white square is the centre of its box; 8-bit rounding moves it by far less
    assert (grey.sum(1) @ rows) / grey.sum() == pytest.approx((y0 + y1) / 2, abs=0.1)
    assert (grey.sum(0) @ cols) / grey.sum() == pytest.approx((x0 + x1) / 2, abs=0.1)
    assert grey.sum() / 255 == pytest.approx((x1 - x0) * (y1 - y0), rel=0.1)


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    fitted, _ = data.fit(frames_of(stripes), size=(16, 16), how="stretch")
    assert np.abs(fitted.pixels[0, 2:-2, 2:-2].astype(int) - 127).max() <= 12


def test_no_size_changes_nothing():
    frames = frames_of(picture())
    fitted, geometry = data.fit(frames, size=None, how="crop")
    assert fitted is frames
    assert geometry.boxes([[1, 2, 3, 4]]).tolist() == [[1, 2, 3, 4]]
    assert geometry.boxes([]).shape == (0, 4)


def test_clipped_boxes_stay_in_the_frame():
    _, geometry = data.fit(frames_of(picture(40, 80)), size=(40, 40), how="crop")
    assert geometry.boxes([[0, 0, 80, 40]]).tolist() == [[-20, 0, 60, 40]]
    assert geometry.boxes([[0, 0, 80, 40]], clip=True).tolist() == [[0, 0, 40, 40]]


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="'crop', 'letterbox' or 'stretch'"):
        data.fit(frames_of(picture()), size=(8, 8), how="squash")
    with pytest.raises(ValueError, match="whole pixels"):
        data.fit(frames_of(picture()), size=(0, 8), how="crop")

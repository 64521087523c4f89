"""Synthetic samples are the same everywhere, and what is written about them is true."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from foresight import data
from foresight.data.painting import COLOURS

PINNED = ["96ad28674aff52cf", "f480f21f6d9e2c21"]
PINNED_BOX = [[29.625, 1.4375, 57.625, 29.4375]]


def test_a_sample_is_the_same_in_a_small_and_in_a_large_data_set():
    small = data.open("synthetic", samples=40, seed=3)
    large = data.open("synthetic", samples=300, seed=3)
    assert small.manifest.samples == large.manifest.samples[:40]
    again = large.frames(small.manifest.samples[17], data.Sampling())
    np.testing.assert_array_equal(
        again.pixels, small.frames(small.manifest.samples[17], data.Sampling()).pixels
    )


def test_the_first_samples_of_seed_0_are_pinned():
    manifest = data.open("synthetic", samples=2, seed=0).manifest
    assert [d[:16] for d in manifest.digests] == PINNED
    assert manifest.samples[0].annotations["boxes"] == PINNED_BOX


def test_another_seed_gives_other_samples():
    first = set(data.open("synthetic", samples=50, seed=0).manifest.digests)
    assert first.isdisjoint(data.open("synthetic", samples=50, seed=1).manifest.digests)


def test_box_and_mask_agree_and_the_mask_shows_the_named_colour():
    src = data.open("synthetic", samples=60, seed=0)
    for sample in src.manifest:
        mask = src.mask(sample)
        pixels = src.frames(sample, data.Sampling()).pixels[0]
        assert mask.shape == (64, 64)
        assert set(np.unique(mask)) == {0, 1}
        x0, y0, x1, y1 = sample.annotations["boxes"][0]
        rows, cols = np.nonzero(mask)
        # the box is exact, the mask holds pixel centres: each side within the slope of one pixel
        assert cols.min() >= x0 - 0.5
        assert cols.max() + 1 <= x1 + 0.5
        assert rows.min() >= y0 - 0.5
        assert rows.max() + 1 <= y1 + 0.5
        assert abs((rows.max() + 1 - rows.min()) - (y1 - y0)) <= 2.01
        inner = np.median(pixels[mask == 1], axis=0)
        distances = {name: np.abs(inner - rgb).sum() for name, rgb in COLOURS.items()}
        assert min(distances, key=distances.__getitem__) == sample.label == sample.annotations["colour"]


def test_the_area_of_a_shape_is_the_area_of_its_kind():
    src = data.open("synthetic", samples=120, seed=5, size=128)
    for sample in src.manifest:
        x0, y0, x1, y1 = sample.annotations["boxes"][0]
        share = src.mask(sample).sum() / ((x1 - x0) * (y1 - y0))
        expected = {"circle": np.pi / 4, "square": 1.0, "triangle": 0.5}[sample.annotations["shape"]]
        # counting pixel centres errs by less than half a pixel along the edge: 5 % at a radius of 14 px
        assert share == pytest.approx(expected, abs=0.06)


def test_the_place_words_are_true_and_balanced():
    manifest = data.open("synthetic", samples=900, seed=0).manifest
    for sample in manifest:
        x0, y0, x1, y1 = sample.annotations["boxes"][0]
        row = ("top", "middle", "bottom")[int((y0 + y1) / 2 / 64 * 3)]
        column = ("left", "centre", "right")[int((x0 + x1) / 2 / 64 * 3)]
        assert sample.annotations["place"] == f"{row} {column}"
        assert sample.annotations["caption"].startswith(sample.annotations["name"])
    places = Counter(s.annotations["place"] for s in manifest)
    assert len(places) == 9
    assert max(places.values()) < 1.6 * min(places.values())
    assert len(Counter(manifest.labels)) == 6


def test_frames_may_be_of_any_size_but_not_absurd():
    src = data.open("synthetic", samples=3, size=(48, 80))
    assert src.frames(src.manifest.samples[0], data.Sampling(frames=4)).pixels.shape == (1, 48, 80, 3)
    with pytest.raises(ValueError, match="sides of 16 to 4096"):
        data.open("synthetic", size=3)


def test_a_thumbnail_is_a_png_of_the_sample():
    src = data.open("synthetic", samples=1)
    image = Image.open(io.BytesIO(src.thumbnail(src.manifest.samples[0], size=32)))
    assert (image.format, image.size) == ("PNG", (32, 32))


def test_a_sample_of_another_data_set_is_refused():
    src, other = data.open("synthetic", samples=2), data.open("synthetic", samples=2, seed=9)
    with pytest.raises(KeyError, match="not one of them"):
        src.frames(other.manifest.samples[0], data.Sampling())


def test_scanning_tells_its_progress():
    src = data.open("synthetic", samples=5)
    seen: list[tuple[int, int]] = []
    src.scan_progress = lambda done, total: seen.append((done, total))
    assert len(src.manifest) == 5
    assert seen == [(i, 5) for i in range(1, 6)]


@pytest.mark.parametrize("spec", ["imagenet", "", "imagenet:x"])
def test_an_unknown_kind_lists_the_known_ones(spec):
    with pytest.raises(ValueError, match=r"folder:DIR.*synthetic"):
        data.open(spec)


def test_bad_requests_say_what_is_allowed():
    with pytest.raises(ValueError, match="a synthetic world is one of"):
        data.open("synthetic:fog")
    with pytest.raises(ValueError, match=r"takes the options \['size'\], but got \['colour'\]"):
        data.open("synthetic", colour="red")
    with pytest.raises(ValueError, match="whole number from 1 on"):
        data.open("synthetic", samples=0)
    with pytest.raises(ValueError, match="a seed is a whole number"):
        data.open("synthetic", seed=-1)

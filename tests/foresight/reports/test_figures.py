"""Figures: real pictures, the same bytes again, gaps where numbers are undefined."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from foresight.reports import figures, galleries, latent_figures
from foresight.reports.style import DARK, LIGHT, distinct, legend_shape, literal
from tests.foresight.reports.fakes import HOSTILE, thumbnail

NAN = math.nan


def pictures():
    rng = np.random.default_rng(0)
    bars = [
        figures.Bar(label="vit.2", series="TwoNN", value=5.0, low=4.0, high=6.0, controls={"mean": 1.0}),
        figures.Bar(label=HOSTILE, series="MLE", value=NAN),
    ]
    series = figures.Series(name=HOSTILE, value=[0.1, NAN, 0.3], low=[0.0, NAN, 0.2], high=[0.2, NAN, 0.4])
    thumbs = {"a": thumbnail(1), "b": thumbnail(2)}
    return {
        "curve": figures.layer_curve(["x", "y", "z"], [series], ylabel="CKA", threshold=0.4),
        "heat": figures.heat_map(np.array([[0.1, NAN], [0.9, 0.4]]), ["r1", "r2"], ["c1", "c2"], label="CKA"),
        "projection": figures.projections(
            {"vit.2": {"xy": rng.normal(size=(30, 2)), "explained": [0.5, 0.1]}},
            [str(i % 12) for i in range(30)],
        ),
        "distances": figures.distance_density(rng.random(50), rng.random(50), point="vit.2", rho=0.5),
        "bars": figures.interval_bars(bars, xlabel="dimensions"),
        "probe": figures.probe_dots(bars, xlabel="R²", threshold=0.5),
        "spectrum": figures.spectrum({"vit.2": [0.5, 0.3, 0.2]}),
        "shares": latent_figures.channel_shares({"trained": [0.5, 0.3, 0.2], HOSTILE: [0.4, 0.3, 0.3]}),
        "activations": latent_figures.activations(
            np.sort(rng.normal(size=(5, 3)), axis=1), [0.05, 0.5, 0.95]
        ),
        "autocorrelation": latent_figures.autocorrelation_map([[0.1, 1.0, 0.1], [0.0, 0.5, None]]),
        "spectra": latent_figures.channel_spectra([[0.9, 0.1], [NAN, NAN], [0.2, 0.8]], [0.3, None, 0.9]),
        "outliers": galleries.outliers(
            [{"first": "a", "second": "gone", "vlm": 0.1, "decoder": 0.9}], thumbs
        ),
        "gallery": galleries.gallery([(thumbnail(1), HOSTILE)]),
        "retrieval": galleries.retrieval([{"query": "a", "vlm": ["b", "gone"], "decoder": ["b"]}], thumbs),
        "reconstruction": galleries.reconstructions(
            [{"input": thumbnail(1), "output": thumbnail(2), "psnr": NAN}]
        ),
    }


NAMES = sorted(pictures())


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_a_readable_picture_and_draws_the_same_twice(name):
    picture = pictures()[name]
    png = picture.png(LIGHT)
    assert pictures()[name].png(LIGHT) == png
    with Image.open(io.BytesIO(png)) as image:
        assert min(image.size) > 100
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 24)) > 8


@pytest.mark.parametrize("low", [-0.15, -0.1, -0.05])
def test_the_name_of_an_axis_is_whole_whatever_its_ticks_are(low):
    value = np.linspace(0.52, low + 0.1, 6)
    lines = [
        figures.Series(name="trained", role="main", value=value, low=value - 0.1, high=value + 0.18),
        figures.Series(name="chance", role="chance", value=np.zeros(6)),
        figures.Series(name="random weights", role="untrained", value=value - 0.02),
    ]
    points = ["patch", "vit.2", "vit.4", "merged", "llm.2", "llm.4"]
    picture = figures.layer_curve(points, lines, ylabel="Spearman ρ of distances", threshold=0.6)
    drawn = np.asarray(Image.open(io.BytesIO(picture.png())).convert("L"))
    assert (drawn[:, :4] == 255).all()


@pytest.mark.parametrize("panels", [1, 3])
def test_the_names_of_all_labels_are_whole_below_few_panels(panels):
    labels = [f"a label of {n} letters" for n in range(10, 16)]
    panel = {"xy": np.random.default_rng(0).normal(size=(6, 2)), "explained": (0.6, 0.2)}
    picture = figures.projections({f"vit.{i}": panel for i in range(panels)}, labels)
    drawn = np.asarray(Image.open(io.BytesIO(picture.png())).convert("L"))
    assert (drawn[:, -4:] == 255).all()
    assert (drawn[:, :4] == 255).all()


def test_the_dark_theme_is_dark():
    def brightness(png):
        with Image.open(io.BytesIO(png)) as image:
            return float(np.asarray(image.convert("L")).mean())

    picture = pictures()["curve"]
    assert brightness(picture.png(DARK)) < 80 < brightness(picture.png(LIGHT))


def test_vectors_are_undated_and_repeat():
    picture = pictures()["curve"]
    assert picture.svg() == pictures()["curve"].svg()
    assert picture.pdf() == pictures()["curve"].pdf()
    assert picture.pdf().startswith(b"%PDF")
    assert b"<svg" in picture.svg()


def test_rare_labels_are_gathered_and_common_ones_kept():
    names, codes = figures.label_codes(["a"] * 5 + ["b"] * 4 + list("cdefghijk") + [None])
    assert names[0] == "a"
    assert names[-1] == "other"
    assert len(names) == 8
    assert (codes[:5] == 0).all()
    assert codes[-1] == 7


def test_names_from_data_are_drawn_as_they_are():
    assert literal("a$b$") == r"a\$b\$"
    assert "\n" not in literal("a\nb")
    assert len(literal("x" * 500)) == 60


def test_mismatched_input_is_refused():
    with pytest.raises(ValueError, match="one row per name"):
        figures.heat_map(np.zeros((2, 2)), ["a"], ["b", "c"], label="x")
    with pytest.raises(ValueError, match="distances come in pairs"):
        figures.distance_density(np.zeros(3), np.zeros(2), point="x")
    with pytest.raises(ValueError, match="at least one picture"):
        galleries.gallery([])
    with pytest.raises(ValueError, match="has its input's size"):
        galleries.reconstructions([{"input": thumbnail(1, 8), "output": thumbnail(2, 16), "psnr": 1.0}])


def test_shared_parts_of_long_names_are_left_out():
    names = [f"model.layers.{i}.output.hidden_states" for i in range(3)]
    assert distinct(names) == ["0", "1", "2"]
    assert distinct(["vit.2", "vit.4"]) == ["vit.2", "vit.4"]
    versions = ["qwen2.5-vl-7b · merged", "qwen2.5-vl-7b · projected"]
    assert distinct(versions) == versions
    assert distinct(["a" * 50, "a" * 50]) == ["a" * 50, "a" * 50]


def test_a_legend_of_long_names_has_fewer_columns():
    assert legend_shape(["trained", "chance", "random"]) == (3, 1)
    assert legend_shape(["x" * 30] * 4) == (1, 4)
    assert legend_shape([]) == (1, 0)

"""The Q1 page: complete, escaped, offline and the same bytes for the same input."""

import csv
import html
import io
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from foresight.metrics.perceptual import UNPUBLISHED
from foresight.reports import build_q1_report, measurements_csv, render
from foresight.reports.page import number_text
from foresight.reports.q1_words import HALVES, NO_CEILING, begun
from foresight.studies.decoded import GAIN as DECODED_GAIN
from foresight.studies.decoded import OF
from foresight.studies.position import GAIN, POSITION
from foresight.studies.reconstruction import MEAN_IMAGE, ONE_COLOUR, POOLED, RANDOM, ROUND_TRIP, TOKENS
from tests.foresight.reports.fakes import (
    HOSTILE,
    POINTS,
    decoder_rows,
    measured,
    measurements,
    q1_inputs,
    thumbnail,
)

BARE = {
    "projections": {},
    "layouts": {},
    "outliers": [],
    "thumbnails": {},
    "neighbours": [],
    "reconstructions": [],
    "distances": None,
}


class Reader(HTMLParser):
    """Collects tags with their attributes, and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_loads_nothing_from_anywhere(page):
    for tag, attrs in Reader(page).tags:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        for name in ("src", "srcset", "href", "data", "poster", "action"):
            value = attrs.get(name) or ""
            assert not value or value.startswith(("data:", "#")), (tag, name, value[:60])
        assert not (tag == "script" and "src" in attrs)
    assert "@import" not in page
    assert not re.search(r"url\(", page[page.index("<style>") : page.index("</style>")])
    assert "default-src 'none'" in page


def test_hostile_names_are_text_and_nothing_else(page):
    assert HOSTILE not in page
    assert "<img src=x" not in page
    assert html.escape(HOSTILE, quote=False) in page.replace("&#39;", "'")
    reader = Reader(page)
    assert sum(tag == "script" for tag, _ in reader.tags) == page.count("<script")
    assert not any(name.startswith("on") for _, attrs in reader.tags for name in attrs)


def test_every_measurement_is_on_the_page_and_in_the_csv(page, inputs):
    text = " ".join(Reader(page).words)
    for m in inputs.measurements:
        assert m["name"] in text
        assert number_text(m["value"]) in text
    lines = list(csv.DictReader(io.StringIO(measurements_csv(inputs.measurements))))
    assert len(lines) == len(inputs.measurements)
    for line, m in zip(lines, inputs.measurements, strict=True):
        assert line["value"] == ("" if m["value"] is None else repr(float(m["value"])))
        assert line["point"] == m["point"]


def test_an_undefined_number_says_why(page):
    assert "n/a (every sample is the same)" in page


def test_the_skipped_files_are_counted_and_listed_with_reasons(page):
    text = " ".join(Reader(page).words)
    assert "1 file could not be used" in text
    assert "truncated <b>JPEG</b>" in text


def test_the_verdict_comes_before_the_sections(page, inputs):
    assert page.index(inputs.decision["overall"].replace("'", "&#39;")) < page.index('id="Q1.1"')
    ids = re.findall(r'<section id="(Q1[^"]*)"', page)
    assert ids == ["Q1.1", "Q1.2", "Q1.3", "Q1.4", "Q1.5", "Q1.6", "Q1.7", "Q1.D"]


def test_every_failure_criterion_is_on_the_page(page, inputs):
    for criterion in inputs.decision["criteria"]:
        assert criterion["title"] in page
        assert criterion["state"].replace("'", "&#39;") in page


def test_pictures_have_words_and_are_not_blank(report):
    figures = [f for s in report.sections for f in s.figures]
    assert len(figures) >= 10
    assert len({f.name for f in figures}) == len(figures)
    for figure in figures:
        assert len(figure.alt) > 20
        assert figure.caption
        for png in (figure.png, figure.dark):
            with Image.open(io.BytesIO(png)) as image:
                assert len(image.convert("RGB").getcolors(maxcolors=1 << 24)) > 8, figure.name


def test_every_picture_is_on_the_page_with_its_words(page, report):
    images = [attrs for tag, attrs in Reader(page).tags if tag == "img" and attrs.get("class") != "sheet"]
    assert len(images) == sum(len(s.figures) for s in report.sections)
    assert all(attrs["alt"] for attrs in images)


def test_tables_have_headers_and_can_be_reached_by_keyboard(page):
    reader = Reader(page)
    assert sum(tag == "table" for tag, _ in reader.tags) == page.count('role="region" tabindex="0"')
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in reader.tags if tag == "th")


@pytest.mark.slow
def test_equal_inputs_give_equal_bytes(page):
    assert render(build_q1_report(q1_inputs())) == page


def test_the_report_is_plain_json_with_every_raw_number(report, inputs):
    value = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert len(value["measurements"]) == len(inputs.measurements)
    assert value["verdict"]["word"] == inputs.decision["overall"]
    assert all(len(f["png_sha256"]) == 64 for s in value["sections"] for f in s["figures"])


def test_the_sentences_follow_the_numbers():
    def words(scale):
        rows = [m for m in measurements() if m["row"] == "Q1.4" and m["variant"] == "trained"]
        copy = {**rows[-1], "variant": "random weights", **measured(scale)}
        report = build_q1_report(q1_inputs(measurements=[*rows, copy], **BARE))
        return " ".join(next(s for s in report.sections if s.id == "Q1.4").text)

    far = words(0.1)
    assert "0.500 (95 % interval 0.450 to 0.550) at llm.2, the highest of 3 points" in far
    assert "training adds 0.400, and the two intervals do not overlap" in far
    assert "but the intervals overlap" in words(0.48)
    assert "training does not improve ridge R² VLM→decoder; it is 0.100 worse" in words(0.6)


def test_the_position_probe_is_told_beside_its_copy_and_does_not_lead_its_row():
    rows = [m for m in measurements() if m["row"] == "Q1.4" and m["variant"] == "trained"]
    probe = {**rows[-1], "name": POSITION, **measured(0.3)}
    copy = {**probe, "variant": "random weights", **measured(0.1)}
    report = build_q1_report(q1_inputs(measurements=[*rows, probe, copy], **BARE))
    text = " ".join(next(s for s in report.sections if s.id == "Q1.4").text)
    assert "Ridge R² VLM→decoder is 0.500" in text
    assert f"{begun(POSITION)} is 0.300" in text
    assert "training adds 0.200" in text


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (0.01, 0.1, " (95 % interval 0.010 to 0.100)."),
        (0.0, 0.1, "does not exclude that places are read as well without training."),
        (-0.1, 0.0, "does not exclude that places are read as well without training."),
        (-0.1, -0.01, "places are read better without training."),
    ],
)
def test_places_are_told_as_trained_minus_random_weights_where_both_were_paired(low, high, told):
    rows = [m for m in measurements() if m["row"] == "Q1.4" and m["variant"] == "trained"]
    gain = {"value": (low + high) / 2, "low": low, "high": high}
    probe = {**rows[-1], "name": POSITION, **measured(0.3, detail={GAIN: gain})}
    report = build_q1_report(q1_inputs(measurements=[*rows, probe], **BARE))
    line = next(s for s in report.sections if s.id == "Q1.4").text[-1]
    assert line.startswith("There, on the same tokens, trained minus random weights is")
    assert line.endswith(told)


def test_the_methods_say_what_stands_where_a_noise_ceiling_would():
    rows = [m for m in measurements() if m["row"] == "Q1.4"]
    halves = {**rows[0], "name": f"ridge R² {HALVES}", "point": "latent"}
    told = [build_q1_report(q1_inputs(measurements=m, **BARE)).methods for m in (rows, [*rows, halves])]
    assert [NO_CEILING in t for t in told] == [False, True]


def test_a_run_without_labels_pictures_or_distances_still_reports():
    keys = ["a", "b"]
    report = build_q1_report(
        q1_inputs(
            keys=keys, labels=[None, None], stages=[], recipes=[], measurements=measurements()[:1], **BARE
        )
    )
    assert "CAN&#39;T TELL" in render(report)


def test_bad_input_is_refused_with_the_rule():
    with pytest.raises(ValueError, match="one label per key"):
        q1_inputs(labels=["a"])
    with pytest.raises(ValueError, match="lacks \\['name'\\]"):
        q1_inputs(measurements=[{"row": "Q1.1", "value": 1.0}])


def test_a_spreadsheet_runs_no_name_as_a_formula():
    text = measurements_csv(
        [{"row": "Q1.1", "name": "=cmd()", "point": POINTS[0], "value": -0.5, "controls": {"@x": 1.0}}]
    )
    assert ",'=cmd()," in text
    assert ",-0.5," in text


def long_names(models, points):
    place = {"row": "Q1.7", "name": "linear CKA (debiased)", "variant": "trained"}
    return [
        place
        | {"model": m, "point": p}
        | measured(0.3 + i / 100, controls={"biased": 0.8, "biased null": 0.7})
        for m in models
        for i, p in enumerate(points)
    ]


def test_two_models_with_many_long_point_names_are_told_apart():
    points = [f"language_model.layers.{i}.output_hidden_states" for i in range(28)]
    models = ["qwen2.5-vl-7b-instruct@abcdef012345", "internvl2-8b"]
    cards = [{"role": "vlm", "card": m, "points": points} for m in models]
    report = build_q1_report(q1_inputs(measurements=long_names(models, points), models=cards, **BARE))
    section = next(s for s in report.sections if s.id == "Q1.7")
    assert "the highest of 56 points" in section.text[0]
    assert "already read 0.700" in section.text[1]
    assert all(m in render(report) for m in models)


def test_one_model_alone_is_not_repeated_at_every_point():
    report = build_q1_report(q1_inputs(measurements=long_names(["tiny-vlm"], POINTS), **BARE))
    section = next(s for s in report.sections if s.id == "Q1.7")
    assert "at llm.2, the highest of 3 points" in section.text[0]
    assert report.measurements[0]["model"] == "tiny-vlm"


def test_a_study_of_which_nothing_is_defined_claims_nothing():
    undefined = measured(None, why="3 samples are fewer than k = 10", null=None, p=None)
    rows = [{k: m[k] for k in ("row", "name", "point", "variant")} | undefined for m in measurements()]
    report = build_q1_report(q1_inputs(measurements=rows, **BARE))
    text = [line for s in report.sections if s.id != "Q1.D" for line in s.text]
    assert text
    said = ("undefined at every point", "cannot be compared", "is undefined: 3 samples are fewer")
    assert all(any(words in line for words in said) for line in text)


def test_parts_of_the_decoder_are_a_heat_map_and_not_points_of_the_vlm():
    whole = long_names(["tiny-vlm"], POINTS)
    parts = [
        m | {"target": f"channels {g}"} | measured(0.9, controls={"biased": 0.95})
        for m in whole
        for g in range(3)
    ]
    report = build_q1_report(q1_inputs(measurements=[*whole, *parts], **BARE))
    section = next(s for s in report.sections if s.id == "Q1.7")
    assert "is 0.320" in section.text[0]
    names = [f.name for f in section.figures if f.name.startswith("targets-")]
    assert names == ["targets-linear-cka-debiased", "targets-linear-cka-biased"]
    assert "vit.2 → channels 1" in render(report)
    overview = next(f for s in report.sections for f in s.figures if f.name == "overview")
    assert "channels" not in overview.alt


def test_recall_is_shown_at_every_k():
    rows = [
        {
            "row": "Q1.6",
            "name": f"Recall@{k}",
            "point": p,
            "variant": "trained",
            **measured(0.1 + k / 200, null=k / 300),
        }
        for k in (5, 10, 50)
        for p in POINTS
    ]
    report = build_q1_report(q1_inputs(measurements=rows, **BARE))
    section = next(s for s in report.sections if s.id == "Q1.6")
    assert [f.name for f in section.figures] == ["curve-recall-10", "recall-by-k"]
    assert "k = 5 0.125; k = 10 0.150; k = 50 0.350" in section.figures[1].alt


def section(report, row):
    return next(s for s in report.sections if s.id == row)


def test_the_decoder_section_tells_bands_and_what_a_random_copy_gives(report):
    part = section(report, "Q1.2")
    text = " ".join(part.text)
    assert "Neighbouring cells are alike" in text
    assert "in a copy with random weights" in text
    assert "coarser than white noise" in text
    figures = {f.name: f for f in part.figures}
    assert list(figures) == ["channel-variance", "activations", "autocorrelation", "channel-spectra"]
    assert "coarse: " in figures["channel-spectra"].caption
    columns = part.tables[0].columns
    assert columns[-1] == "random weights"
    assert all(cell.kind != "undefined" for cell in (row[-1] for row in part.tables[0].rows))


def test_layouts_stand_beside_components_and_say_what_they_cannot(report, page):
    part = section(report, "Q1.1")
    assert {"projections", "tsne", "umap"} <= {f.name for f in part.figures}
    assert "distances between clusters and their sizes mean nothing" in page
    assert [p["point"] for p in part.projector.panels] == [
        *POINTS,
        *(f"{p}, {method}" for method in ("t-SNE", "UMAP") for p in POINTS),
    ]


def test_outlier_pairs_are_shown_with_their_frames(report):
    (figure,) = [f for f in section(report, "Q1.5").figures if f.name == "outliers"]
    assert "close and the other far apart" in figure.alt


def test_kinds_of_pairs_are_a_heat_map_of_their_own_and_not_the_whole():
    kinds = ["pairs of one label", "pairs of two labels"]
    place = {"row": "Q1.5", "name": "Spearman ρ of distances", "variant": "trained"}
    rows = [place | {"point": p} | measured(0.5) for p in POINTS]
    rows += [place | {"point": p, "target": k} | measured(0.9) for p in POINTS for k in kinds]
    part = section(build_q1_report(q1_inputs(measurements=rows, **BARE)), "Q1.5")
    assert "is 0.500" in part.text[0]
    (figure,) = [f for f in part.figures if f.name.startswith("targets-")]
    assert "by the kind of pairs" in figure.caption


def test_the_best_point_is_named_with_what_is_left_of_it():
    rows = [
        {"row": "Q1.7", "name": "linear CKA (debiased)", "variant": "trained", "point": p} | measured(0.5)
        for p in POINTS
    ]
    best = {**rows[-1], "name": "CKA of the best point", "p": 0.04}
    best["detail"] = {"correction": "max-T", "chosen from": 3, "p of each": {}}
    other = {
        **rows[-1],
        "name": "CKA of the point chosen on the other half",
        **measured(0.31),
        "n_effective": 10,
    }
    other["detail"] = {"chosen on": 10, "chosen from": 3}
    halves = {
        **rows[0],
        "name": "linear CKA (debiased) between halves of the decoder's channels",
        "point": "latent",
    }
    halves |= measured(0.8)
    report = build_q1_report(q1_inputs(measurements=[*rows, best, other, halves], **BARE))
    text = " ".join(section(report, "Q1.7").text)
    assert "As the best of 3 points llm.2 has p = 0.04 (max-T)" in text
    assert "Chosen on 10 groups, llm.2 reads 0.310" in text
    assert "of which 0.500 is 62.5 %" in text


def test_every_row_that_decides_something_says_what_would_change_it(report):
    for row in ("Q1.2", "Q1.3", "Q1.4", "Q1.5", "Q1.6", "Q1.7", "Q1.D"):
        assert section(report, row).changes, row


def test_the_decoders_random_copy_is_no_second_vlm():
    cards = [
        {"role": "vlm", "card": "tiny-vlm", "points": POINTS},
        {"role": "decoder", "card": "tiny-vae", "points": ["latent"]},
        {"role": "decoder control", "card": "tiny-vae@random0", "points": ["latent"]},
    ]
    rows = [*long_names(["tiny-vlm"], POINTS), *decoder_rows()]
    report = build_q1_report(q1_inputs(measurements=rows, models=cards, **BARE))
    assert "at llm.2, the highest of 3 points" in section(report, "Q1.7").text[0]


def test_a_number_of_half_the_samples_does_not_halve_the_run():
    half = {**measurements()[0], "n": 20, "n_effective": 10}
    report = build_q1_report(q1_inputs(measurements=[*measurements(), half], **BARE))
    assert dict(report.summary)["Independent groups"] == "20 to 40"


def decoded(**change):
    """Measurements of a decoded prediction that beats its floors and is level with its copy."""
    controls = {ROUND_TRIP: 0.2, MEAN_IMAGE: 0.9, ONE_COLOUR: 0.95, POOLED: 0.7, RANDOM: 0.41}
    gain = {"value": -0.01, "low": -0.03, "high": 0.01}
    found = {
        "LPIPS": measured(0.4, null=0.9, controls=controls, detail={DECODED_GAIN: gain}),
        "SSIM": measured(0.8, null=0.6, controls={**controls, ROUND_TRIP: 0.95, MEAN_IMAGE: 0.6}),
    }
    place = {"row": "Q1.4", "point": "llm.2", "variant": "trained"}
    return [{**place, "name": f"{n} {OF}", **m} for n, m in (found | change).items()]


def decoded_section(rows, **change):
    mine = [m for m in measurements() if m["row"] == "Q1.4"]
    report = build_q1_report(q1_inputs(measurements=[*mine, *rows], **BARE, **change))
    return next(s for s in report.sections if s.id == "Q1.4")


def test_the_decoded_prediction_is_told_and_stands_beside_every_control():
    pictures = {
        name: [thumbnail(i), thumbnail(i + 1)] for i, name in enumerate(("input", ROUND_TRIP, TOKENS, RANDOM))
    }
    section = decoded_section(decoded(), decoded=pictures)
    first, second = section.text[-2:]
    assert (
        "predicts at llm.2 has a LPIPS of 0.400 (95 % interval 0.350 to 0.450), lower being better" in first
    )
    assert "round trip 0.200, mean-pooled tokens 0.700, the better constant picture 0.900" in first
    assert "threshold" not in first
    assert "reaches 0.410" in second
    assert "does not exclude that training adds nothing there" in second
    (table,) = (t for t in section.tables if t.caption.startswith("The decoded prediction at llm.2"))
    lines = {row[0].text: row[1].text for row in table.rows}
    shown = {ROUND_TRIP: "0.200", RANDOM: "0.410", POOLED: "0.700", MEAN_IMAGE: "0.900", ONE_COLOUR: "0.950"}
    assert shown.items() <= lines.items()
    assert lines["prediction"] == "0.400 [0.350, 0.450]"
    assert list(table.columns) == ["", "LPIPS ↓", "SSIM ↑"]
    (gallery,) = (f for f in section.figures if f.name == "decoded-prediction")
    assert "decoder round trip, prediction, random weights" in gallery.alt
    # the row is still told by its ridge, and the other figures and tables leave these numbers out
    assert section.text[0].startswith("Ridge R² VLM→decoder")
    assert not any(OF in c.text for t in section.tables[:1] for row in t.rows for c in row)


@pytest.mark.parametrize(
    ("gain", "told"),
    [((-0.03, -0.01), "−0.010)."), ((0.01, 0.03), "so training makes it worse there.")],
)
def test_a_copy_that_is_clearly_worse_or_better_is_told_so(gain, told):
    detail = {DECODED_GAIN: {"value": sum(gain) / 2, "low": gain[0], "high": gain[1]}}
    (lpips,) = decoded()[:1]
    text = decoded_section([{**lpips, "detail": detail}]).text
    assert text[-1].endswith(told)


def test_a_distance_of_other_networks_and_an_ssim_that_a_blank_picture_passes_are_told():
    lpips, ssim = decoded(SSIM=measured(0.8, null=0.9))
    text = " ".join(decoded_section([{**lpips, "name": f"{UNPUBLISHED} {OF}"}, ssim]).text)
    assert "Perceptual distance (random AlexNet) is not LPIPS and not comparable with the threshold" in text
    assert "By SSIM (0.800) the pictures are no better than a constant one (0.900)" in text


def test_what_was_not_decoded_says_why():
    nothing = [{**m, **measured(None, why="there are 3 groups", null=None, p=None)} for m in decoded()]
    section = decoded_section(nothing)
    assert section.text[-1] == "No prediction could be decoded and scored: there are 3 groups."
    assert not any(t.caption.startswith("The decoded prediction") for t in section.tables)
    absent = decoded_section([], undecoded="its layers are not what becomes pixels")
    assert absent.text[-1] == "No prediction was decoded: its layers are not what becomes pixels."


def test_random_weights_that_were_asked_for_are_what_is_looked_at():
    rows = [
        {**m, "model": "tiny-vlm@random0"}
        for m in measurements()
        if m["variant"] == "random weights" and m["point"] in POINTS
    ]
    report = build_q1_report(q1_inputs(measurements=rows, **BARE))
    part = section(report, "Q1.4")
    assert part.text[0].startswith("Ridge R²")
    assert "undefined" not in part.text[0]
    assert "as asked" in {cell.text for t in part.tables for row in t.rows for cell in row}

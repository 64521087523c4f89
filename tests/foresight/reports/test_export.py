"""A report as files: complete, whole, and named by nothing that comes from data."""

import io
import json

import pytest
from PIL import Image

from foresight.reports import Figure, Headline, Report, Section, export_report, render
from foresight.reports.figures import Series, layer_curve
from tests.foresight.reports.fakes import thumbnail


def small_report(name="../../escape", section="../Q1.1"):
    picture = layer_curve(["a", "b"], [Series(name="x", value=[0.1, 0.2])], ylabel="CKA")
    figures = [
        Figure.of(picture, name=name, alt="a curve", caption="c"),
        Figure(png=thumbnail(1), alt="pixels", caption="c", name=name),
    ]
    return Report(
        title="t", verdict=Headline(word="PASS", sentence="s"), summary=[], methods=[], provenance=[],
        sections=[Section(id=section, title="s", figures=figures)],
        downloads=[("measurements.csv", "text/csv", b"a,b\n")],
    )  # fmt: skip


def test_everything_is_written_and_readable(tmp_path):
    report = small_report("curve", "Q1.1")
    files = export_report(report, tmp_path / "out")
    names = sorted(str(f.relative_to(tmp_path / "out")) for f in files)
    assert names == [
        "figures/q1-1-curve-2.png",
        "figures/q1-1-curve.pdf",
        "figures/q1-1-curve.png",
        "measurements.csv",
        "report.html",
        "report.json",
    ]
    assert (tmp_path / "out" / "report.html").read_text(encoding="utf-8") == render(report)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["title"] == "t"
    assert (tmp_path / "out" / "figures/q1-1-curve.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(io.BytesIO((tmp_path / "out" / "figures/q1-1-curve.png").read_bytes())) as image:
        assert image.width > 100


def test_a_second_export_replaces_the_first_with_equal_bytes(tmp_path):
    first = {f: f.read_bytes() for f in export_report(small_report(), tmp_path)}
    assert {f: f.read_bytes() for f in export_report(small_report(), tmp_path)} == first
    assert not list(tmp_path.rglob(".partial-*"))


def test_no_name_from_data_leaves_the_folder(tmp_path):
    files = export_report(small_report(), tmp_path / "out")
    assert all((tmp_path / "out") in f.resolve().parents for f in files)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        export_report(small_report(), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.slow
def test_every_figure_of_a_q1_report_is_exported(tmp_path, report):
    export_report(report, tmp_path)
    count = sum(len(s.figures) for s in report.sections)
    assert len(list(tmp_path.glob("figures/*.png"))) == count
    assert len(list(tmp_path.glob("figures/*.pdf"))) == count

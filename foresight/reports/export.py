"""A report as files in a folder: the page, its JSON and CSV, and every figure as PNG and PDF."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from foresight.reports.page import Report, render
from foresight.reports.tables import file_name


def export_report(report: Report, folder: Path) -> list[Path]:
    """Write the report into `folder` (made when absent) and return the files, the page first.

    `report.html`, `report.json`, the downloads, and `figures/<section>-<figure>.png` with `.pdf` beside it
    where the figure can be drawn as a vector. Every file appears whole or not at all; files of the same name
    are replaced, others are left alone.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"a report is exported into a folder, but {folder} is a file; name another place")
    files = {"report.html": render(report).encode(), "report.json": _json(report)}
    for name, _, content in report.downloads:
        stem, _, suffix = name.rpartition(".")
        files[f"{file_name(stem)}.{file_name(suffix)}"] = content
    files |= figure_files(report)
    return [_write(folder / name, content) for name, content in files.items()]


def figure_files(report: Report) -> dict[str, bytes]:
    """Return {relative name: content} of every figure, as PNG and, where it can be drawn again, as PDF."""
    files: dict[str, bytes] = {}
    for section in report.sections:
        for i, figure in enumerate(section.figures, start=1):
            stem = f"figures/{file_name(section.id)}-{file_name(figure.name or str(i))}"
            if f"{stem}.png" in files:
                stem += f"-{i}"
            files[f"{stem}.png"] = figure.png
            if figure.picture is not None:
                files[f"{stem}.pdf"] = figure.picture.pdf()
    return files


def _json(report: Report) -> bytes:
    return json.dumps(report.to_json(), indent=1, ensure_ascii=False, allow_nan=False).encode()


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
        # mkstemp makes the file private; a report is meant to be read by others
        os.chmod(temporary, 0o644)  # noqa: PTH101
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path

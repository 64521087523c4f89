"""What every experiment's report leaves in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import store
from foresight.reports import Report, figure_files, measurements_csv, render
from tasks.house import House
from tasks.measure import to_json
from tasks.model import provenance


def keep_report(
    house: House,
    recipe: store.Recipe,
    report: Report,
    *,
    measurements: Sequence[Mapping[str, Any]],
    verdict: str,
) -> None:
    """Record a report: `page` (HTML), `report` and `measurements` (JSON), `table` (CSV) and `figures`."""
    figures = {Path(name).name: content for name, content in figure_files(report).items()}
    outputs = {
        "figures": house.store.put_tree(figures),
        "report": house.store.put_blob(to_json(report.to_json()), "application/json"),
        "page": house.store.put_blob(render(report).encode(), "text/html"),
        "measurements": house.store.put_blob(to_json(list(measurements)), "application/json"),
        "table": house.store.put_blob(measurements_csv(measurements).encode(), "text/csv"),
    }
    house.store.record(
        recipe,
        outputs=outputs,
        values={"verdict": verdict, "skipped": len(house.manifest.skipped)},
        provenance=provenance(),
    )

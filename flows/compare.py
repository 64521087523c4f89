"""Two finished runs held against each other: which numbers moved, and whether by more than their intervals allow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import store
from flows.earlier import find_run
from foresight import models
from foresight.reports import Comparison, Run, build_comparison_report, compare, export_report
from tasks.house import WrongRequest

MEASUREMENTS = "measurements.json"
"""What a report's folder holds of its numbers."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Two runs, what of them differs, and the page that shows it."""

    comparison: Comparison
    verdict: str
    """MOVED, NO CHANGE BEYOND NOISE or IDENTICAL."""
    sentence: str
    report: Path

    def to_json(self) -> dict[str, Any]:
        """Return the document `foresight compare --json` prints; undefined numbers are None."""
        c = self.comparison
        page: dict[str, Any] = json.loads((self.report.parent / "report.json").read_text())
        return {
            "before": c.before.name,
            "after": c.after.name,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "settings": [{"what": what, "before": a, "after": b} for what, a, b in c.settings],
            "changes": page["measurements"],
            "only_before": [dict(m) for m in c.only_before],
            "only_after": [dict(m) for m in c.only_after],
            "report": str(self.report),
        }


def compare_runs(before: str, after: str, *, url: str, out: Path) -> Compared:
    """Compare two runs and write the page into `out`.

    A run is the beginning of its id or 'last', looked up in the store at `url`, or the folder its report was
    written to; of a folder only the numbers are known. Raises `WrongRequest` when no run is meant, or a run has
    no numbers, and `ValueError` when the two share none.
    """
    sides = [read_run(text, url=url) for text in (before, after)]
    page = build_comparison_report(*sides)
    written = export_report(page, out)
    return Compared(
        comparison=compare(*sides),
        verdict=page.verdict.word,
        sentence=page.verdict.sentence,
        report=written[0],
    )


def read_run(text: str, *, url: str) -> Run:
    """Return what a comparison needs of the run `text` means."""
    folder = Path(text)
    if folder.is_dir() or "/" in text:
        return _from_folder(folder)
    latents = store.open(url)
    return _from_store(latents, find_run(latents, None, text))


def _from_folder(folder: Path) -> Run:
    try:
        measurements = json.loads((folder / MEASUREMENTS).read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise WrongRequest(
            f"a run is named by its id or by the folder of its report, but {folder} has no {MEASUREMENTS}; "
            "`foresight run` prints both"
        ) from None
    return Run(name=str(folder), measurements=measurements)


def _from_store(latents: store.Store, run: store.Recipe) -> Run:
    experiment, short = run.settings["experiment"], store.short(run.id)
    stages: Mapping[str, Any] = run.settings["stages"]
    results = {name: latents.result(kept["key"]) for name, kept in stages.items() if kept["recipes"]}
    report = results.get("report")
    if report is None or "measurements" not in report.outputs:
        raise WrongRequest(
            f"runs are compared by the numbers of their reports, but {experiment} run {short} has none in "
            f"{latents.url}; compare runs that wrote a report"
        )
    decided = [r.outputs["decision"] for r in results.values() if r is not None and "decision" in r.outputs]
    decision = json.loads(latents.get_blob(decided[0]))["decision"] if decided else {}
    versions = report.provenance or {}
    return Run(
        name=f"{experiment} run {short}",
        measurements=json.loads(latents.get_blob(report.outputs["measurements"])),
        decision=decision,
        data=_data(latents, run),
        models=_models(run),
        recipes=[recipe for kept in stages.values() for recipe in kept["recipes"].values()],
        versions={
            **versions.get("packages", {}),
            **{k: str(v) for k, v in versions.items() if k != "packages"},
        },
    )


def _data(latents: store.Store, run: store.Recipe) -> dict[str, Any]:
    manifest = run.settings["stages"]["data"]["key"]
    about = {"source": run.settings["asked"]["data"], "manifest": manifest}
    try:
        return about | {"n": len(latents.manifest(manifest)["samples"])}
    except store.Missing:
        return about


def _models(run: store.Recipe) -> list[dict[str, Any]]:
    """Return a run's models in the order they were asked for, each with the points that were read."""
    asked = run.settings["asked"]
    found = []
    for name, kept in run.settings["stages"].items():
        if not name.startswith("extract "):
            continue
        recipes = list(kept["recipes"].values())
        settings = recipes[0]["settings"]
        short = name.removeprefix("extract ")
        found.append(
            {
                "role": _role(short, settings["model"]["card"], asked),
                "card": short,
                "fingerprint": settings["model"]["weights"],
                "points": [r["settings"]["point"] for r in recipes],
                "dtype": settings["dtype"],
            }
        )
    wanted = list(asked.get("vlm", ()))
    cards = [text.split("@")[0] for text in wanted]

    def place(model: dict[str, Any]) -> tuple[int, ...]:
        card = str(model["card"])
        return tuple(
            names.index(name) if name in names else len(names)
            for names, name in ((cards, card.split("@")[0]), (wanted, card))
        )

    return sorted(found, key=place)


def _role(short: str, card: str, asked: Mapping[str, Any]) -> str:
    if card == str(asked.get("decoder") or "").split("@")[0]:
        return "decoder"
    # a copy with random weights is only a control where nobody asked for it
    if "@random" in short and short not in asked.get("vlm", ()):
        return "control"
    known = models.cards().get(card)
    return "encoder" if known and known.role == "encoder" else "vlm"

"""The last stages: pictures of what the decoder makes of its latents, and the report."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

import store
from foresight import models
from foresight.data import Unreadable
from foresight.nouns import Sample, Tokens
from foresight.reports import (
    Cell,
    Figure,
    Headline,
    Q1Inputs,
    Report,
    Section,
    Table,
    build_q1_report,
    render,
)
from foresight.reports.galleries import gallery
from foresight.studies import pictures
from tasks.decoded import DecodePrediction, read_pictures
from tasks.extract import Extract
from tasks.house import House, Progress, write_whole
from tasks.kept import read_decision, read_measurements, to_json
from tasks.layouts import Layouts, read_layouts, shown
from tasks.measure import Compared, Decide, MeasuredRow, read_spaces
from tasks.model import load, provenance
from tasks.report import ReportStage, data_told, model_told, versions_told
from tasks.stages import Look, look_up

EXAMPLES = 8
EXAMPLES_VERSION = 1
"""Goes up when the same latents are decoded to other pictures."""

NOT_PIXELS = "its layers are not what becomes pixels"
QUERIES = 6
THUMBNAIL_PX = 96
PAIRS = 20_000
OUTLIERS = 8


def decodes(extract: Extract) -> bool:
    """Return whether the model can turn what is extracted back into pixels: its family says so with `DECODES`."""
    return bool(getattr(models.family(extract.ref.card), "DECODES", False))


@dataclass(frozen=True, kw_only=True)
class DecodeExamples:
    """Decode the stored latents of the first samples, to see what the decoder keeps. Output: `pictures`."""

    decoder: Extract
    name: str = "decode examples"

    @property
    def needs(self) -> tuple[str, ...]:
        return ("data", self.decoder.name, f"model {self.decoder.ref.short}")

    def recipe(self, house: House, given: Mapping[str, Look]) -> store.Recipe:
        point = self.decoder.points[0].name
        about = given[f"model {self.decoder.ref.short}"].values["fingerprint"]
        return store.Recipe(
            operation="decode-examples",
            version=EXAMPLES_VERSION,
            settings={
                "model": {"card": self.decoder.ref.card.name, **about},
                "samples": house.manifest.digests[:EXAMPLES],
                "dtype": self.decoder.dtype,
            },
            inputs={point: given[self.decoder.name].outputs[point]},
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(house, given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        extract, point = self.decoder, self.decoder.points[0].name
        recipe_id = given[extract.name].values["recipes"][point]
        samples = house.manifest.samples[:EXAMPLES]
        model = load(
            extract.ref,
            given[f"model {extract.ref.short}"],
            house,
            dtype=extract.dtype,
            attention=extract.attention,
        )
        files: dict[str, Any] = {}
        told = []
        for i, sample in enumerate(samples):
            row = house.store.row(recipe_id, sample.digest)
            tokens = Tokens(
                values=row.values.astype(np.float32), time_s=row.time_s, row=row.row, col=row.col,
                kind=row.kind, tile=row.tile, grid=row.grid,
            )  # fmt: skip
            decoded = model.decode([tokens])[0]
            frames = extract.framing.apply(house.source.frames(sample, extract.framing.sampling))
            middle = len(frames.pixels) // 2
            given_pixels = frames.pixels / 255.0
            error = float(np.square(decoded[: len(given_pixels)] - given_pixels).mean())
            files[f"{i:02d}-input.png"] = _png(frames.pixels[middle])
            files[f"{i:02d}-output.png"] = _png((decoded[middle] * 255).round().astype(np.uint8))
            told.append({"key": sample.key, "psnr": -10 * float(np.log10(error)) if error else None})
            progress(i + 1, len(samples), "decoded")
        files["examples.json"] = to_json(told)
        house.store.record(
            self.recipe(house, given),
            outputs={"pictures": house.store.put_tree(files)},
            provenance=provenance(),
        )


@dataclass(frozen=True, kw_only=True)
class Q1Report(ReportStage):
    """Write the Q1 report."""

    rows: tuple[MeasuredRow, ...]
    decide: Decide
    layouts: Layouts
    examples: DecodeExamples | None
    decoded: DecodePrediction | None
    compared: Compared
    seed: int
    experiment: ClassVar[str] = "q1"
    version: ClassVar[int] = 4

    @property
    def extractions(self) -> tuple[Extract, ...]:
        return self.compared.extractions

    @property
    def shown(self) -> tuple[MeasuredRow | Layouts | DecodeExamples, ...]:
        return (*self.measuring, self.layouts, *((self.examples,) if self.examples else ()))

    @property
    def measuring(self) -> tuple[MeasuredRow, ...]:
        return (*self.rows, *((self.decoded,) if self.decoded else ()))

    def reads(self, given: Mapping[str, Look]) -> dict[str, str]:
        found = {r.row: given[r.name].outputs["measurements"] for r in self.measuring}
        pictured = {"pictures": self.examples, "decoded pictures": self.decoded}
        pictures = {k: given[s.name].outputs["pictures"] for k, s in pictured.items() if s}
        return found | pictures | {"layouts": given[self.layouts.name].outputs["layouts"]}

    def build(self, inputs: Q1Inputs) -> Report:
        return build_q1_report(inputs)

    def inputs(self, house: House, given: Mapping[str, Look]) -> Q1Inputs:
        manifest = house.manifest
        decision, made = read_decision(house, given[self.decide.name])
        measured = read_measurements(house, (given[r.name] for r in self.measuring))
        spaces = read_spaces(house, given, self.compared.without_copies(), self.seed)
        looked_at = shown(spaces)
        best = looked_at[decision["best_point"]]
        queries = [i * len(manifest) // QUERIES for i in range(QUERIES)] if len(manifest) > QUERIES else []
        keys = [s.key for s in manifest]
        pairs = pictures.distance_pairs(best.space, spaces.decoder.space, most=PAIRS, seed=self.seed)
        classes = sorted({label for label in manifest.labels if label is not None})
        return Q1Inputs(
            measurements=measured + made,
            decision=decision,
            data=data_told(house)
            | {"classes": classes, "ignored": sum(getattr(house.source, "ignored", {}).values())},
            models=[self._about(e, given) for e in self.extractions],
            keys=keys,
            labels=list(manifest.labels),
            projections={name: pictures.projection(s.space) for name, s in looked_at.items()},
            layouts=read_layouts(house, given[self.layouts.name], looked_at),
            outliers=[
                pair | {"first": keys[pair["first"]], "second": keys[pair["second"]]}
                for pair in pictures.outliers(best.space, spaces.decoder.space, OUTLIERS)
            ],
            thumbnails={s.key: house.source.thumbnail(s, THUMBNAIL_PX) for s in manifest.samples[:2000]},
            distances={**pairs, "point": decision["best_point"]},
            neighbours=[
                {
                    "query": keys[i],
                    "vlm": [keys[j] for j in pictures.nearest(best.space, i, 6)],
                    "decoder": [keys[j] for j in pictures.nearest(spaces.decoder.space, i, 6)],
                }
                for i in queries
            ],
            decoded=read_pictures(house, given[self.decoded.name]) if self.decoded else {},
            undecoded="" if self.decoded else self._undecoded(),
            reconstructions=self._reconstructions(house, given),
            recipes=self.recipes(house, given),
            versions=versions_told(),
        )

    def _about(self, extract: Extract, given: Mapping[str, Look]) -> dict[str, Any]:
        decoder = extract.ref.card.role == "decoder"
        asked = extract in (*self.compared.vlm, self.compared.decoder)
        told = model_told(extract, given, control=not asked)
        if decoder and not asked:
            told["role"] = "decoder control"
        if extract == self.compared.decoder and not self.examples:
            told["decoded examples"] = f"none: {NOT_PIXELS}"
        scores = given[f"model {extract.ref.short}"].values.get("scores", {})
        return told | {
            "dtype": extract.dtype,
            "attention": "none" if decoder else extract.attention,
            "trained scores": ", ".join(
                f"{k.replace('_', ' ')} {v:.2f}" for k, v in scores.items() if not k.endswith("_by_chance")
            ),
        }

    def _undecoded(self) -> str:
        extract = self.compared.decoder
        return f"{extract.points[0].name} of {extract.ref.short} is read, and {NOT_PIXELS}"

    def _reconstructions(self, house: House, given: Mapping[str, Look]) -> list[dict[str, Any]]:
        if not self.examples:
            return []
        tree = house.store.get_tree(given[self.examples.name].outputs["pictures"])
        told = json.loads(house.store.get_blob(tree["examples.json"]))
        return [
            {
                "input": house.store.get_blob(tree[f"{i:02d}-input.png"]),
                "output": house.store.get_blob(tree[f"{i:02d}-output.png"]),
                "psnr": entry["psnr"],
            }
            for i, entry in enumerate(told)
        ]


def write_report(house: House, report: Look, out: Path) -> Path:
    """Copy a finished report out of the store into a folder people can open; return the page's path."""
    for name, output in (
        ("report.html", "page"),
        ("report.json", "report"),
        ("measurements.json", "measurements"),
        ("measurements.csv", "table"),
    ):
        write_whole(out / name, house.store.get_blob(report.outputs[output]))
    for name, blob in house.store.get_tree(report.outputs["figures"]).items():
        write_whole(out / "figures" / Path(name).name, house.store.get_blob(blob))
    return out / "report.html"


def begin_report(house: House, looks: Sequence[Look], out: Path, title: str) -> Path | None:
    """Write a first page, the samples and the plan, to be replaced by the finished report; return its path.

    None when there is an earlier report, which stays until the new one is whole.
    """
    page = out / "report.html"
    if page.exists():
        return None
    manifest = house.manifest
    figures = []
    if shown := list(_readable_thumbnails(house, manifest.samples[:32])):
        figures = [
            Figure.of(
                gallery(shown),
                name="samples",
                wide=True,
                alt=f"{len(shown)} of {len(manifest)} samples with their labels",
                caption=f"{len(shown)} of {len(manifest)} samples.",
            )
        ]
    stages = Table(
        caption="What this run does",
        columns=["stage", "state when it began", "why"],
        rows=[
            [Cell(text=k.name), Cell(text=k.state, kind="word"), Cell(text=k.why, kind="long")] for k in looks
        ],
    )
    report = Report(
        title=title,
        verdict=Headline(word="RUNNING", sentence="This page is replaced by the report when the run ends."),
        summary=[("Data", manifest.source), ("Samples", str(len(manifest)))],
        sections=[Section(id="data", title="Samples", figures=figures, tables=[stages])],
        methods=[],
        provenance=[],
        skipped=[(s.key, s.why) for s in manifest.skipped],
    )
    write_whole(page, render(report).encode())
    return page


def _readable_thumbnails(house: House, samples: Sequence[Sample]) -> Iterator[tuple[bytes, str]]:
    """Yield (PNG, caption); what cannot be decoded is left to the extraction, which names it."""
    for sample in samples:
        with suppress(Unreadable):
            yield house.source.thumbnail(sample, THUMBNAIL_PX), sample.label or sample.key


def read_figures(house: House, report: Look) -> dict[str, bytes]:
    """Return the PNG files of a finished report's figures, by name."""
    tree = house.store.get_tree(report.outputs["figures"])
    return {Path(n).name: house.store.get_blob(blob) for n, blob in tree.items() if n.endswith(".png")}


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()

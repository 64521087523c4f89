"""The stages of the spatial study: what raw patches give on each grid, then one row at one point after another."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

import store
from foresight.decisions.spatial import q2_decision
from foresight.metrics import Estimate
from foresight.metrics.perceptual import trunk_identity
from foresight.probes import TokenGrids, patches
from foresight.studies import spatial, spatial_truth
from foresight.studies.spatial import ROWS, Row, Split
from foresight.studies.spatial_truth import Truth
from tasks.extract import Extract
from tasks.house import House, Progress
from tasks.kept import keep_decision, put_json, read_measurements, to_json
from tasks.model import provenance
from tasks.stages import Look, look_up
from tasks.token_grids import BLOCK, Beside, Counts, frame_size, on_axes, read_grids

VERSIONS = {"Q2.1": 1, "Q2.2": 1, "Q2.3": 1, "Q2.4": 1, "Q2.D": 2}
"""A row's version goes up when its numbers move for the same latents."""

TITLES = {"Q2.1": "boxes", "Q2.2": "objects", "Q2.3": "fine detail", "Q2.4": "motion"}
SHOWN = 8
"""Test samples whose readings are kept for the report's galleries."""


def why_not(row: str, house: House, steps: int) -> str:
    """Return why the data or the frames asked for cannot give a row; '' when they can."""
    if row in ("Q2.1", "Q2.2"):
        return spatial_truth.without_boxes(house.manifest)
    if row == "Q2.4":
        return spatial_truth.without_directions(house.manifest, steps)
    return ""


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """Run a row's probe on raw patches of one grid. Its `values` are what every point on that grid is held against."""

    row: str
    grid: Counts
    extract: Extract
    """Whose frames are cut into patches."""
    seed: int

    @property
    def name(self) -> str:
        grid, px = ("x".join(map(str, sides)) for sides in (self.grid, frame_size(self.extract)))
        return f"{self.row} raw patches {grid} at {px} px"

    @property
    def version(self) -> int:
        """Goes up when the same patches give other numbers."""
        return VERSIONS[self.row]

    needs: tuple[str, ...] = ("data",)

    def recipe(self, house: House) -> store.Recipe:
        stills = all(s.media == "image" for s in house.manifest)
        settings: dict[str, Any] = {
            "seed": self.seed,
            "grid": list(self.grid),
            "frames": self.extract.framing.canonical(stills=stills),
        }
        return store.Recipe(
            operation=f"{self.row.lower()}.patches",
            version=self.version,
            settings=settings | _network(self.row),
            inputs={"manifest": house.manifest_id},
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(house))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        row = ROWS[self.row]
        pictures = Pictures(house, self.extract, self.grid)
        truth = truth_of(self.row, house, self.extract, pictures)
        where = spatial.split(house.manifest.groups, truth, seed=self.seed)
        grids = read_patches(pictures, truth, where, row, seed=self.seed)
        found = spatial.ceiling(row, grids, truth, where, seed=self.seed)
        house.store.record(self.recipe(house), values={"ceiling": found}, provenance=provenance())


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Run one row's probe at one point, with every control. Outputs: `measurements` and, for pictures, `examples`."""

    row: str
    extract: Extract
    copy: Extract
    """The same architecture with random weights."""
    point: str
    ceiling: Ceiling
    seed: int
    model: str = ""
    """Said in the name when there are several models."""
    beside: Beside | None = None
    """The model whose features stand beside these on one grid; None for the model alone."""

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.row, TITLES[self.row], self.model, self.label)))

    @property
    def label(self) -> str:
        """The point, with what stands beside it."""
        return f"{self.point}+{self.beside.name}" if self.beside else self.point

    @property
    def path(self) -> str:
        """The model the number is told of; points of one path follow each other in depth."""
        return f"{self.extract.ref.short}+{self.beside.name}" if self.beside else self.extract.ref.short

    @property
    def extractions(self) -> tuple[Extract, ...]:
        """All whose tokens are read: the trained ones, then the random copies."""
        if self.beside is None:
            return self.extract, self.copy
        return self.extract, self.beside.extract, self.copy, self.beside.copy

    @property
    def needs(self) -> tuple[str, ...]:
        extracts = (e.name for e in self.extractions)
        return tuple(dict.fromkeys(("data", *extracts, self.ceiling.name)))

    def recipe(self, house: House, given: Mapping[str, Look]) -> store.Recipe:
        settings: dict[str, Any] = {"seed": self.seed, "card": self.extract.ref.short, "point": self.point}
        inputs = {
            "manifest": house.manifest_id,
            "tokens": given[self.extract.name].outputs[self.point],
            "random weights": given[self.copy.name].outputs[self.point],
            "raw patches": str(given[self.ceiling.name].key),
        }
        if self.beside:
            point = self.beside.point
            settings["beside"] = {"card": self.beside.extract.ref.short, "point": point}
            inputs["tokens beside"] = given[self.beside.extract.name].outputs[point]
            inputs["random weights beside"] = given[self.beside.copy.name].outputs[point]
        return store.Recipe(
            operation=self.row.lower(),
            version=VERSIONS[self.row],
            settings=settings | _network(self.row),
            inputs=inputs,
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(house, given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        row = ROWS[self.row]
        pictures = Pictures(house, self.extract, self.ceiling.grid)
        truth = truth_of(self.row, house, self.extract, pictures)
        where = spatial.split(house.manifest.groups, truth, seed=self.seed)

        def read(extract: Extract, beside: Extract | None) -> TokenGrids:
            parts = [(extract, self.point)]
            if self.beside and beside:
                parts.append((beside, self.beside.point))
            return read_grids(house, parts, given, truth, where, row=self.row, seed=self.seed)

        second = (self.beside.extract, self.beside.copy) if self.beside else (None, None)
        main = read(self.extract, second[0])
        numbers, found = spatial.measure(
            row,
            main,
            read(self.copy, second[1]),
            truth,
            where,
            ceiling=given[self.ceiling.name].values["ceiling"],
            seed=self.seed,
        )
        extra = (
            {"box IoU by hidden features": spatial.capacities(main, truth, where, seed=self.seed)}
            if self.row == "Q2.1"
            else {}
        )
        measured = []
        for name, number in numbers.items():
            estimate = number.estimate().to_json()
            estimate["detail"] |= (extra if name == row.lead else {}) | {"classes": list(truth.names)}
            if self.beside:
                estimate["detail"]["beside"] = self.beside.name
            measured.append(
                {
                    "row": self.row, "name": name, "model": self.path, "point": self.label,
                    "variant": "trained" if self.extract.ref.kind != "random" else "random weights",
                    **estimate,
                }
            )  # fmt: skip
        house.store.record(
            self.recipe(house, given),
            outputs={
                "measurements": put_json(house, measured),
                "examples": house.store.put_tree(_examples(self.row, found, truth, where)),
            },
            provenance=provenance(),
        )


@dataclass(frozen=True, kw_only=True)
class Decide:
    """Q2.D: the verdicts over all points. Output: `decision`, a JSON blob."""

    probes: tuple[Probe, ...]
    absent: Mapping[str, str]
    """Why a row is not measured on this data, by row."""
    name: str = "Q2.D decision"

    @property
    def needs(self) -> tuple[str, ...]:
        return ("data", *(p.name for p in self.probes))

    def recipe(self, given: Mapping[str, Look]) -> store.Recipe:
        return store.Recipe(
            operation="q2.d",
            version=VERSIONS["Q2.D"],
            settings={"absent": dict(self.absent), "order": [p.name for p in self.probes]},
            inputs={p.name: given[p.name].outputs["measurements"] for p in self.probes},
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        measured = read_measurements(house, (given[p.name] for p in self.probes))
        decision = q2_decision(measured, absent=self.absent)
        n, groups = len(house.manifest), len(set(house.manifest.groups))
        undefined = [
            {"row": row, "name": ROWS[row].lead, "model": None, "point": None, "variant": "trained"}
            | Estimate.undefined(why, n=n, n_effective=groups).to_json()
            for row, why in self.absent.items()
        ]
        keep_decision(house, self.recipe(given), decision, measurements=undefined)


class Pictures:
    """The fitted frames of samples, read when asked for and not kept."""

    def __init__(self, house: House, extract: Extract, grid: Counts) -> None:
        self.house, self.extract, self.grid = house, extract, grid

    def frames(self, index: int) -> Any:
        """Return the frames a model is given of one sample."""
        sample = self.house.manifest.samples[index]
        framing = self.extract.framing
        return framing.apply(self.house.source.frames(sample, framing.sampling))

    def patches(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return [sample time row col feature] of some samples."""
        cut = [patches(self.frames(i).pixels[None], self.grid) for i in indices]
        return np.concatenate(cut)

    def stills(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return [sample row col 3], the frame in the middle of each sample's middle step."""
        return np.stack([self.still(i) for i in indices])

    def still(self, index: int) -> np.ndarray:
        """Return one sample's frame [row col 3]."""
        pixels = self.frames(index).pixels
        found: np.ndarray = pixels[self._middle(len(pixels))]
        return found

    def time_s(self) -> float:
        """Return the time of that frame in the first sample."""
        times = self.frames(0).times_s
        return float(times[self._middle(len(times))])

    def _middle(self, frames: int) -> int:
        steps = self.grid[0]
        return int((steps // 2 + 0.5) * frames / steps)


def read_patches(pictures: Pictures, truth: Truth, where: Split, row: Row, *, seed: int) -> TokenGrids:
    """Return the raw patches of the truth's samples, on axes fitted on the training part."""
    counts, rows, cols = pictures.grid
    steps = [counts // 2] if row.still else list(range(counts))

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(truth), BLOCK):
            yield pictures.patches(truth.indices[start : start + BLOCK])[:, steps]

    return on_axes(
        blocks,
        where,
        rows=(np.arange(rows) + 0.5) / rows,
        cols=(np.arange(cols) + 0.5) / cols,
        times_s=np.asarray(steps, float),
        width=row.width,
        seed=seed,
    )


def truth_of(row: str, house: House, extract: Extract, pictures: Pictures) -> Truth:
    """Return what a row has to find."""
    manifest = house.manifest
    if row == "Q2.4":
        return spatial_truth.directions(manifest)
    if row == "Q2.3":
        every = np.arange(len(manifest))
        return Truth(indices=every, values=pictures.stills(every))
    objects = spatial_truth.objects(
        manifest, size=frame_size(extract), how=extract.framing.fit, time_s=pictures.time_s()
    )
    return spatial_truth.largest(objects) if row == "Q2.1" else objects


def _examples(row: str, found: Any, truth: Truth, where: Split) -> dict[str, Any]:
    """Return files that tell what was read off the first test samples: places in the manifest, truth, reading."""
    told, files = [], {}
    for k, i in enumerate(where.test[:SHOWN].tolist()):
        entry: dict[str, Any] = {"sample": int(truth.indices[i])}
        if row == "Q2.1":
            entry |= {"truth": [truth.values[i].tolist()], "found": [found[k].tolist()]}
        elif row == "Q2.2":
            sure = np.argsort(-found[k].scores)[: len(truth.values[i])]
            entry |= {"truth": truth.values[i].boxes.tolist(), "found": found[k].boxes[sure].tolist()}
        elif row == "Q2.3":
            files[f"{k:02d}.png"] = as_png((found[k] * 255).round().astype(np.uint8))
        else:
            entry |= {"truth": truth.names[truth.values[i]], "found": truth.names[int(found[k])]}
        told.append(entry)
    return files | {"examples.json": to_json(told)}


def as_png(pixels: np.ndarray) -> bytes:
    """Return uint8 pixels [row col 3] as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def _network(row: str) -> dict[str, Any]:
    return {"perceptual": trunk_identity()} if row == "Q2.3" else {}

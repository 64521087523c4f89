"""The stages of the spatial study: what raw patches give on each grid, then one row at one point after another."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

import store
from foresight import models
from foresight.decisions.spatial import q2_decision
from foresight.metrics import Estimate
from foresight.metrics.perceptual import trunk_identity
from foresight.probes import FIT_TOKENS, TokenGrids, fit_axes, patches, reduced
from foresight.studies import spatial, spatial_truth
from foresight.studies.spatial import ROWS, Split
from foresight.studies.spatial_truth import Truth
from tasks.extract import Extract
from tasks.house import House, Progress
from tasks.measure import to_json
from tasks.model import provenance
from tasks.stages import Look, look_up

VERSIONS = {"Q2.1": 1, "Q2.2": 1, "Q2.3": 1, "Q2.4": 1, "Q2.D": 2}
"""A row's version goes up when its numbers move for the same latents."""

TITLES = {"Q2.1": "boxes", "Q2.2": "objects", "Q2.3": "fine detail", "Q2.4": "motion"}
SHOWN = 8
"""Test samples whose readings are kept for the report's galleries."""
BLOCK = 64
"""Rows read at a time."""

Counts = tuple[int, int, int]


def grid_of(extract: Extract, point: str, house: House) -> Counts:
    """Return the (time, row, col) counts of a point's tokens over the run's samples; (0, 0, 0) where they fill none."""
    card = extract.ref.card
    (found,) = (p for p in extract.points if p.name == point)
    counts = models.family(card).grid(card, found, _size(extract), _frames(extract, house))
    return int(counts[0]), int(counts[1]), int(counts[2])


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
        return f"{self.row} raw patches {'x'.join(map(str, self.grid))}"

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
            version=VERSIONS[self.row],
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
        steps = [self.grid[0] // 2] if row.still else list(range(self.grid[0]))

        def blocks() -> Iterator[np.ndarray]:
            for start in range(0, len(truth), BLOCK):
                whole = pictures.patches(truth.indices[start : start + BLOCK])
                yield whole[:, steps]

        _, rows, cols = self.grid
        grids = _reduced(
            blocks,
            where,
            rows=(np.arange(rows) + 0.5) / rows,
            cols=(np.arange(cols) + 0.5) / cols,
            times_s=np.asarray(steps, float),
            width=row.width,
            seed=self.seed,
        )
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

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.row, TITLES[self.row], self.model, self.point)))

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("data", self.extract.name, self.copy.name, self.ceiling.name)))

    def recipe(self, house: House, given: Mapping[str, Look]) -> store.Recipe:
        return store.Recipe(
            operation=self.row.lower(),
            version=VERSIONS[self.row],
            settings={"seed": self.seed, "card": self.extract.ref.short, "point": self.point}
            | _network(self.row),
            inputs={
                "manifest": house.manifest_id,
                "tokens": given[self.extract.name].outputs[self.point],
                "random weights": given[self.copy.name].outputs[self.point],
                "raw patches": str(given[self.ceiling.name].key),
            },
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(house, given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        row = ROWS[self.row]
        pictures = Pictures(house, self.extract, self.ceiling.grid)
        truth = truth_of(self.row, house, self.extract, pictures)
        where = spatial.split(house.manifest.groups, truth, seed=self.seed)

        def read(extract: Extract) -> TokenGrids:
            return read_grids(
                house, extract, given[extract.name], self.point, truth, where, self.row, self.seed
            )

        main = read(self.extract)
        numbers, found = spatial.measure(
            row,
            main,
            read(self.copy),
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
            measured.append(
                {
                    "row": self.row, "name": name, "model": self.extract.ref.short, "point": self.point,
                    "variant": "trained" if self.extract.ref.kind != "random" else "random weights",
                    **estimate,
                }
            )  # fmt: skip
        house.store.record(
            self.recipe(house, given),
            outputs={
                "measurements": house.store.put_blob(to_json(measured), "application/json"),
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
        measured = measurements(house, given, self.probes)
        decision = q2_decision(measured, absent=self.absent)
        n, groups = len(house.manifest), len(set(house.manifest.groups))
        undefined = [
            {"row": row, "name": ROWS[row].lead, "model": None, "point": None, "variant": "trained"}
            | Estimate.undefined(why, n=n, n_effective=groups).to_json()
            for row, why in self.absent.items()
        ]
        blob = house.store.put_blob(
            to_json({"measurements": undefined, "decision": decision}), "application/json"
        )
        house.store.record(
            self.recipe(given),
            outputs={"decision": blob},
            values={"verdict": decision["overall"]},
            provenance=provenance(),
        )


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


def truth_of(row: str, house: House, extract: Extract, pictures: Pictures) -> Truth:
    """Return what a row has to find."""
    manifest = house.manifest
    if row == "Q2.4":
        return spatial_truth.directions(manifest)
    if row == "Q2.3":
        every = np.arange(len(manifest))
        return Truth(indices=every, values=pictures.stills(every))
    objects = spatial_truth.objects(
        manifest, size=_size(extract), how=extract.framing.fit, time_s=pictures.time_s()
    )
    return spatial_truth.largest(objects) if row == "Q2.1" else objects


def read_grids(
    house: House, extract: Extract, look: Look, point: str, truth: Truth, where: Split, row: str, seed: int
) -> TokenGrids:
    """Return one point's tokens of the truth's samples, on axes fitted on the training part. Reads blocks of rows."""
    recipe = look.values["recipes"][point]
    digests = [house.manifest.digests[i] for i in truth.indices]
    first = house.store.row(recipe, digests[0])
    counts: Counts = (int(first.grid[0]), int(first.grid[1]), int(first.grid[2]))
    tokens = math.prod(counts)
    height, width = _size(extract)
    steps = [counts[0] // 2] if ROWS[row].still else list(range(counts[0]))
    places = [np.asarray(axis[:tokens]).reshape(counts) for axis in (first.time_s, first.row, first.col)]

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(digests), BLOCK):
            part = np.asarray(house.store.gather(recipe, digests[start : start + BLOCK]))
            yield part[:, :tokens].reshape(len(part), *counts, -1)[:, steps].astype(np.float32)

    return _reduced(
        blocks,
        where,
        rows=places[1][0, :, 0] / height,
        cols=places[2][0, 0, :] / width,
        times_s=places[0][steps, 0, 0],
        width=ROWS[row].width,
        seed=seed,
    )


def measurements(house: House, given: Mapping[str, Look], probes: Sequence[Probe]) -> list[dict[str, Any]]:
    """Return the numbers of finished probes, in order."""
    found: list[dict[str, Any]] = []
    for probe in probes:
        found += json.loads(house.store.get_blob(given[probe.name].outputs["measurements"]))
    return found


def _reduced(
    blocks: Any,
    where: Split,
    *,
    rows: np.ndarray,
    cols: np.ndarray,
    times_s: np.ndarray,
    width: int,
    seed: int,
) -> TokenGrids:
    each = -(-FIT_TOKENS // len(where.train))
    training, start, chosen = set(where.train.tolist()), 0, []
    rng = np.random.default_rng([seed, 12])
    for block in blocks():
        flat = block.reshape(len(block), -1, block.shape[-1])
        for i in range(len(block)):
            if start + i in training:
                chosen.append(flat[i, rng.permutation(flat.shape[1])[:each]])
        start += len(block)
    axes = fit_axes(np.concatenate(chosen), width=width, seed=seed)
    return reduced(blocks(), axes, rows=rows, cols=cols, times_s=times_s)


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


def _size(extract: Extract) -> tuple[int, int]:
    size: tuple[int, int] = extract.framing.size or extract.ref.card.size
    return size


def _frames(extract: Extract, house: House) -> int:
    stills = all(s.media == "image" for s in house.manifest)
    return 1 if stills else extract.framing.sampling.frames or 1

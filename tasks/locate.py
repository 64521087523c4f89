"""C1's localisation stage: the place of the largest object, read off one point's tokens on their true grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

import store
from foresight.data.fitting import fit
from foresight.metrics.estimate import Estimate
from foresight.nouns import Frames, Sample
from foresight.probes import TokenGrids, patches
from foresight.studies import located as study
from foresight.studies import reconstruction
from foresight.studies.located import Truth
from foresight.studies.rebuilt import Place, row_of
from foresight.studies.reconstruction import Measurement
from tasks.extract import Extract
from tasks.house import House, Progress
from tasks.kept import keep_measurements
from tasks.pairs import Source, stored
from tasks.reconstruct import too_few
from tasks.stages import Look, look_up

VERSION = 1
"""Goes up when the same tokens give other numbers."""
BLOCK = 64


@dataclass(frozen=True, kw_only=True)
class Locate:
    """C1.4: read boxes off the tokens of one point, with every control. Output: `measurements`."""

    source: Source
    copy: Extract
    """The same architecture with random weights."""
    seed: int

    @property
    def name(self) -> str:
        return f"C1.4 place {self.source.extract.ref.short} {self.source.point}"

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("data", self.source.extract.name, self.copy.name)))

    def recipe(self, house: House, given: Mapping[str, Look]) -> store.Recipe:
        point = self.source.point
        return store.Recipe(
            operation="c1.4",
            version=VERSION,
            settings={
                "seed": self.seed,
                "card": self.source.model,
                "point": point,
                "variant": self.source.variant,
            },
            inputs={
                "manifest": house.manifest_id,
                "tokens": given[self.source.extract.name].outputs[point],
                "random weights": given[self.copy.name].outputs[point],
            },
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(house, given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        place: Place = (self.source.model, self.source.point, self.source.variant)
        try:
            rows = self._measured(house, given, progress, place)
        except NotMeasured as error:
            n, groups = len(house.manifest), len(set(house.manifest.groups))
            estimate = Estimate.undefined(str(error), n=n, n_effective=groups)
            rows = [row_of("C1.4", name, place, estimate) for name in study.METRICS]
        keep_measurements(house, self.recipe(house, given), rows)

    def _measured(
        self, house: House, given: Mapping[str, Look], progress: Progress, place: Place
    ) -> list[Measurement]:
        if why := too_few(house):
            raise NotMeasured(why)
        truth = _truth(house, self.source.extract)
        folds = reconstruction.parted(house.manifest.groups, seed=self.seed)[truth.indices]
        test = folds == reconstruction.TEST
        if test.sum() < 1 or (~test).sum() < study.FEWEST:
            raise NotMeasured(
                f"a box probe learns from at least {study.FEWEST} samples and is scored on others, but "
                f"{int((~test).sum())} and {int(test.sum())} have a box there"
            )
        samples = [house.manifest.samples[i] for i in truth.indices]
        extract = self.source.extract
        rows, cols = self._centres(house, given, samples[0])

        def grids(read: Callable[[Sample], np.ndarray]) -> TokenGrids:
            return study.on_axes(lambda: _blocks(samples, read), ~test, rows=rows, cols=cols, seed=self.seed)

        def tokens(of: Extract) -> Callable[[Sample], np.ndarray]:
            return lambda sample: self._grid(house, given, of, sample)

        def pixels(sample: Sample) -> np.ndarray:
            frames = extract.framing.apply(house.source.frames(sample, extract.framing.sampling))
            return patches(frames.pixels[None], (1, len(rows), len(cols)))[0]

        read = {}
        for at, (name, one) in enumerate(
            {"tokens": tokens(extract), "random weights": tokens(self.copy), "raw patches": pixels}.items()
        ):
            read[name] = grids(one)
            progress(at + 1, 4, f"read {name}")
        found = study.located(
            read["tokens"], read["random weights"], read["raw patches"], truth, folds=folds,
            groups=[s.group for s in samples], seed=self.seed,
        )  # fmt: skip
        return [row_of("C1.4", name, place, number.estimate()) for name, number in found.items()]

    def _grid(self, house: House, given: Mapping[str, Look], of: Extract, sample: Sample) -> np.ndarray:
        found = stored(house, given, of, self.source.point, sample)
        cells = math.prod(found.grid)
        if not cells:
            raise NotMeasured("places are read off tokens that fill a grid, but these fill none")
        return np.asarray(found.values[:cells]).reshape(*found.grid, -1)

    def _centres(
        self, house: House, given: Mapping[str, Look], sample: Sample
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return where rows and columns lie, as shares of the frame."""
        found = stored(house, given, self.source.extract, self.source.point, sample)
        if not any(found.grid):
            raise NotMeasured("places are read off tokens that fill a grid, but these fill none")
        height, width = self.source.extract.framing.size or self.source.extract.ref.card.size
        cells = math.prod(found.grid)
        down, across = (np.asarray(a[:cells]).reshape(found.grid) for a in (found.row, found.col))
        return down[0, :, 0] / height, across[0, 0, :] / width


class NotMeasured(Exception):
    """The data or the tokens cannot give the row; the message says why."""


def _truth(house: House, extract: Extract) -> Truth:
    """Return the largest box of every still that has one, in the frame the model was given."""
    if any(s.media == "clip" for s in house.manifest):
        raise NotMeasured("boxes are read off stills, but these are clips")
    indices, boxes = [], []
    for i, sample in enumerate(house.manifest):
        given, size = sample.annotations.get("boxes"), sample.annotations.get("size")
        if not given or not size:
            continue
        blank = Frames(pixels=np.zeros((1, *map(int, size), 3), np.uint8), times_s=np.zeros(1))
        where = fit(blank, size=extract.framing.size, how=extract.framing.fit)[1]  # type: ignore[arg-type]
        if (box := study.largest_box(given, where)) is not None:
            indices.append(i)
            boxes.append(box)
    if not indices:
        raise NotMeasured(f"no sample of {house.manifest.source} has an annotated box")
    return Truth(indices=np.array(indices), boxes=np.array(boxes, np.float64))


def _blocks(samples: list[Sample], read: Callable[[Sample], np.ndarray]) -> Iterator[np.ndarray]:
    for first in range(0, len(samples), BLOCK):
        yield np.stack([read(s) for s in samples[first : first + BLOCK]])

"""C1's working stages: pictures rebuilt from stored latents, their references, and what is measured on them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

import store
from foresight import data
from foresight.metrics.perceptual import Perceptual, perceptual, trunk_identity
from foresight.nouns import Frames, Sample, Tokens
from foresight.studies import reconstruction as study
from foresight.studies.reconstruction import Scores
from tasks.extract import Extract, Undecodable
from tasks.house import House, Progress
from tasks.model import load, provenance
from tasks.pairs import Pairs, Source, as_cells, stored
from tasks.stages import Look, look_up

REFERENCES_VERSION = 1
REBUILD_VERSION = 1
"""A version goes up when the same latents give other pictures or other scores."""

EXAMPLES = 8
"""Scored samples whose pictures are kept."""
AT_ONCE = 16
"""Samples decoded and scored together."""

Predict = Callable[[np.ndarray], np.ndarray]
"""Blocks of tokens [sample block source] to blocks of cells [sample block target]."""


@dataclass(kw_only=True)
class Bench:
    """The scored samples of one run: their true pictures, the decoder, and how rebuilt pictures are scored."""

    house: House
    given: Mapping[str, Look]
    decoder: Extract
    seed: int

    @cached_property
    def folds(self) -> np.ndarray:
        return study.parted(self.house.manifest.groups, seed=self.seed)

    @cached_property
    def scored(self) -> np.ndarray:
        """Indices of the samples that no probe is trained on."""
        found: np.ndarray = np.flatnonzero(self.folds == study.TEST)
        return found

    @cached_property
    def model(self) -> Any:
        extract = self.decoder
        about = self.given[f"model {extract.ref.short}"]
        return load(extract.ref, about, self.house, dtype=extract.dtype, attention=extract.attention)

    @cached_property
    def distance(self) -> Perceptual:
        return perceptual(device="cpu" if self.house.device == "cpu" else "cuda")

    def pictures(self, indices: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (index, true pixels [time row col 3] in [0, 1]) of samples as the decoder's model was given them."""
        samples = self.house.manifest.samples
        numbers = {samples[int(i)].digest: int(i) for i in indices}
        framing = self.decoder.framing
        wanted = [samples[int(i)] for i in indices]
        for sample, frames in data.prefetch(
            self.house.source, wanted, framing.sampling, workers=self.house.workers, ahead=AT_ONCE
        ):
            if not isinstance(frames, Frames):
                raise Undecodable({sample: frames.why})
            yield numbers[sample.digest], (framing.apply(frames).pixels / np.float32(255)).astype(np.float32)

    def cells(self, indices: np.ndarray) -> list[Tokens]:
        """Return the decoder's stored latents."""
        samples: list[Sample] = [self.house.manifest.samples[int(i)] for i in indices]
        point = self.decoder.points[0].name
        return [stored(self.house, self.given, self.decoder, point, s) for s in samples]

    def score(
        self, rebuilt: Callable[[np.ndarray], np.ndarray], progress: Progress, text: str
    ) -> tuple[Scores, list[np.ndarray]]:
        """Return the scores of every scored sample and the first examples' pictures.

        `rebuilt` gives the pictures [sample time row col 3] of indices; pictures of one shape are scored together.
        """
        scores: list[Scores] = []
        shown: list[np.ndarray] = []
        for some, truth in _batched(self.pictures(self.scored)):
            pictures = rebuilt(some)
            scores.append(study.score(pictures, truth, self.distance))
            shown += list(pictures[: max(EXAMPLES - len(shown), 0)])
            progress(sum(len(s.ssim) for s in scores), len(self.scored), text)
        return Scores.joined(scores), shown


@dataclass(frozen=True, kw_only=True)
class References:
    """Score what needs no VLM: the decoder's own round trip, the mean image, one colour.

    Outputs: `scores`, `pictures`.
    """

    decoder: Extract
    seed: int
    name: str = "references"

    @property
    def needs(self) -> tuple[str, ...]:
        return ("data", self.decoder.name, f"model {self.decoder.ref.short}")

    def recipe(self, house: House, given: Mapping[str, Look]) -> store.Recipe:
        point = self.decoder.points[0].name
        return store.Recipe(
            operation="c1.references",
            version=REFERENCES_VERSION,
            settings=scoring(self.decoder, house, given, seed=self.seed),
            inputs={point: given[self.decoder.name].outputs[point], **split_inputs(house)},
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(house, given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        if why := too_few(house):
            return record_why(house, self.recipe(house, given), why)
        bench = Bench(house=house, given=given, decoder=self.decoder, seed=self.seed)
        scores, files = score_references(bench, progress)
        record_scores(
            house, self.recipe(house, given), scores=scores, told={}, files=files,
            more={"distance": bench.distance.name},
        )  # fmt: skip


def score_references(bench: Bench, progress: Progress) -> tuple[dict[str, Scores], dict[str, bytes]]:
    """Return the scores of what needs no VLM, by name, and PNG files of the first pictures and of the true ones."""
    mean = _mean_picture(bench)
    colour = np.broadcast_to(mean.mean(axis=(0, 1, 2)), mean.shape)
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        study.ROUND_TRIP: lambda some: bench.model.decode(bench.cells(some)),
        study.MEAN_IMAGE: lambda some: np.stack([mean] * len(some)),
        study.ONE_COLOUR: lambda some: np.stack([colour] * len(some)),
    }
    files: dict[str, bytes] = {}
    scores = {}
    for way, rebuilt in ways.items():
        scores[way], shown = bench.score(rebuilt, progress, way)
        files |= pngs(way, shown)
    return scores, files | pngs("input", [p for _, p in bench.pictures(bench.scored[:EXAMPLES])])


@dataclass(frozen=True, kw_only=True)
class Rebuild:
    """C1.2: rebuild pictures from one point by a linear map, and by the same map with its controls.

    Outputs: `scores` by reading, `pictures`. Values: what the fold that chooses says, the token grid.
    """

    source: Source
    decoder: Extract
    seed: int
    readings: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"rebuild {self.source.extract.ref.short} {self.source.point}"

    @property
    def needs(self) -> tuple[str, ...]:
        return ("data", self.source.extract.name, self.decoder.name, f"model {self.decoder.ref.short}")

    def recipe(self, house: House, given: Mapping[str, Look]) -> store.Recipe:
        point = self.decoder.points[0].name
        return store.Recipe(
            operation="c1.rebuild",
            version=REBUILD_VERSION,
            settings=scoring(self.decoder, house, given, seed=self.seed)
            | {
                "card": self.source.extract.ref.short,
                "point": self.source.point,
                "readings": list(self.readings),
            },
            inputs={
                "tokens": given[self.source.extract.name].outputs[self.source.point],
                point: given[self.decoder.name].outputs[point],
                **split_inputs(house),
            },
        )

    def look(self, house: House, given: Mapping[str, Look]) -> Look:
        return look_up(house, self.name, self.recipe(house, given))

    def run(self, house: House, given: Mapping[str, Look], progress: Progress) -> None:
        recipe = self.recipe(house, given)
        if why := too_few(house):
            return record_why(house, recipe, why)
        bench = Bench(house=house, given=given, decoder=self.decoder, seed=self.seed)
        scores: dict[str, Scores] = {}
        files: dict[str, bytes] = {}
        told: dict[str, dict[str, Any]] = {}
        for reading in self.readings:
            pairs = Pairs(
                house=house, given=given, source=self.source, decoder=self.decoder, reading=reading, seed=self.seed
            )  # fmt: skip
            try:
                pairs.where  # noqa: B018 (tells whether the tokens fill a grid)
            except ValueError as error:
                return record_why(house, recipe, str(error))
            scores[reading], told[reading], shown = fit_and_rebuild(bench, pairs, progress, reading)
            files |= pngs(reading, shown)
        first = told[self.readings[0]]
        record_scores(
            house, recipe, scores=scores, told=told, files=files,
            values={"validation_r2": first["validation_r2"], "grid": first["grid"]},
        )  # fmt: skip


def fit_and_rebuild(
    bench: Bench, pairs: Pairs, progress: Progress, text: str
) -> tuple[Scores, dict[str, Any], list[np.ndarray]]:
    """Return the scores of a ridge fitted on all samples but the fold `TEST`, what is told of it, and pictures."""
    training = np.flatnonzero(bench.folds != study.TEST)
    ridge = study.fit_probe((bench.folds[some], x, y) for some, x, y in pairs.parts(training))
    scores, latents, shown = rebuild(bench, pairs, ridge.predict, ridge.mean_y, progress, text)
    told = {
        "penalty": ridge.penalty,
        "validation_r2": finite(ridge.validation_r2),
        "latents": np.round(latents, 6).tolist(),
        "grid": list(pairs.grid),
        "placed": list(pairs.where.tokens),
        "blocks": list(pairs.where.blocks),
        "trained on": len(training),
        "parameters": int(ridge.weights.size + ridge.mean_x.size + ridge.mean_y.size),
    }
    return scores, told, shown


def rebuild(
    bench: Bench, pairs: Pairs, predict: Predict, mean_y: np.ndarray, progress: Progress, text: str
) -> tuple[Scores, np.ndarray, list[np.ndarray]]:
    """Return scores, [sample 2] sums for the latents' R², and the first pictures, of a map on the scored samples.

    `mean_y` [block target] is the mean of the training latents, which a map has to beat.
    """
    sums: list[np.ndarray] = []
    mean = pairs.where.join_cells(mean_y[None])[0]

    def rebuilt(some: np.ndarray) -> np.ndarray:
        x, y = pairs.read(some)
        predicted = pairs.where.join_cells(predict(x))
        sums.append(study.explained(predicted, pairs.where.join_cells(y), mean))
        pictures: np.ndarray = bench.model.decode(as_cells(predicted, bench.cells(some)))
        return pictures

    scores, shown = bench.score(rebuilt, progress, text)
    return scores, np.concatenate(sums), shown


def scoring(decoder: Extract, house: House, given: Mapping[str, Look], *, seed: int) -> dict[str, Any]:
    """Return the settings every rebuilt picture and its scores depend on."""
    about = given[f"model {decoder.ref.short}"].values["fingerprint"]
    stills = all(s.media == "image" for s in house.manifest)
    return {
        "model": {"card": decoder.ref.card.name, **about},
        "dtype": decoder.dtype,
        "frames": decoder.framing.canonical(stills=stills),
        "distance": trunk_identity(),
        "seed": seed,
    }


def split_inputs(house: House) -> dict[str, str]:
    """Return what says which samples there are and which are one group."""
    return {"groups": house.labels_id, "samples": store.digest("samples", house.manifest.digests)}


def place_of(source: Source) -> tuple[str, str, str]:
    """Return (model, point, variant)."""
    return source.model, source.point, source.variant


def too_few(house: House) -> str:
    """Return why nothing can be held out; '' when it can."""
    groups = len(set(house.manifest.groups))
    if groups >= study.FOLDS:
        return ""
    return (
        f"a probe is trained, chosen and scored on {study.FOLDS} parts of the groups, but there are {groups}"
    )


def read_scores(house: House, look: Look) -> dict[str, Any]:
    """Return a stage's scores as JSON values; {'why': …} where there are none."""
    found: dict[str, Any] = json.loads(house.store.get_blob(look.outputs["scores"]))
    return found


def _batched(pictures: Iterator[tuple[int, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (indices, pixels [sample time row col 3]) of neighbours of one shape, at most `AT_ONCE`."""
    held: list[tuple[int, np.ndarray]] = []
    for index, pixels in pictures:
        if held and (len(held) == AT_ONCE or held[0][1].shape != pixels.shape):
            yield np.array([i for i, _ in held]), np.stack([p for _, p in held])
            held = []
        held.append((index, pixels))
    if held:
        yield np.array([i for i, _ in held]), np.stack([p for _, p in held])


def _mean_picture(bench: Bench) -> np.ndarray:
    total, count = None, 0
    for _, pixels in bench.pictures(np.flatnonzero(bench.folds != study.TEST)):
        wide = pixels.astype(np.float64)
        total = wide if total is None else total + wide
        count += 1
    assert total is not None
    return (total / count).astype(np.float32)


def pngs(name: str, pictures: Sequence[np.ndarray]) -> dict[str, bytes]:
    """Return the middle frame of each picture as a PNG file."""
    return {
        f"{file_stem(name)}{i:02d}.png": png((p[len(p) // 2] * 255).round().astype(np.uint8))
        for i, p in enumerate(pictures)
    }


def read_pngs(house: House, look: Look, name: str) -> list[bytes]:
    """Return the pictures a stage kept under a name, in order; none where nothing could be rebuilt."""
    tree = house.store.get_tree(look.outputs["pictures"])
    return [house.store.get_blob(tree[n]) for n in sorted(tree) if n.startswith(file_stem(name))]


def file_stem(name: str) -> str:
    """Return what the names of the files kept under `name` begin with."""
    return f"{name.replace(' ', '-')}-"


def png(pixels: np.ndarray) -> bytes:
    """Return uint8 pixels [row col 3] as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def record_scores(
    house: House,
    recipe: store.Recipe,
    *,
    scores: Mapping[str, Scores],
    told: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, bytes],
    more: Mapping[str, Any] | None = None,
    outputs: Mapping[str, str] | None = None,
    values: Mapping[str, Any] | None = None,
) -> None:
    """Record scores by reading, each with what is told of it, and pictures."""
    content = {k: v.to_json() | dict(told.get(k, {})) for k, v in scores.items()} | dict(more or {})
    house.store.record(
        recipe,
        outputs={
            "scores": _blob(house, content),
            "pictures": house.store.put_tree(dict(files)),
            **(outputs or {}),
        },
        values=values or {},
        provenance=provenance(),
    )


def record_why(house: House, recipe: store.Recipe, why: str) -> None:
    """Record that nothing could be rebuilt, with the reason."""
    house.store.record(
        recipe,
        outputs={"scores": _blob(house, {"why": why}), "pictures": house.store.put_tree({})},
        values={"why": why},
        provenance=provenance(),
    )


def _blob(house: House, value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
    return house.store.put_blob(text.encode(), "application/json")


def finite(value: float) -> float | None:
    """Return `value`, None where JSON could not hold it."""
    return value if np.isfinite(value) else None

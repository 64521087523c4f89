"""A small store with planted rows and a chosen point, for the stage that decodes what a linear map predicts."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

import store
from flows import q1
from flows.build import open_house
from foresight.studies.choice import BEST
from foresight.studies.decoded import OF
from foresight.studies.reconstruction import RANDOM
from tasks.decoded import DecodePrediction
from tasks.extract import Extract
from tasks.house import House
from tasks.ingest import Ingest
from tasks.kept import put_json
from tasks.measure import Compared, Measure
from tasks.model import Model
from tasks.stages import Look, run

POINTS = ["vit.1", "merged"]
GRIDS = {"vit.1": (1, 8, 8), "merged": (1, 4, 4), "latent": (1, 8, 8)}
Planted = tuple[House, Compared, dict[str, Look]]


def planted(
    samples: int = 24, *, best: str = "vit.1", grids: dict[str, Any] | None = None, groups: int = 24
) -> Planted:
    """A store in which planted rows stand where random-weights models' latents would, and a chosen point.

    The decoder's latent is a linear map of the token at the same place; 'merged' holds noise.
    """
    asked = q1.Settings(samples=samples, vlm=["qwen2.5-vl-tiny@random0"], points=POINTS)
    asked = asked.model_copy(update={"decoder": "ltx-video-tiny@random0"})
    house = open_house(asked, store.open(asked.store, create=True))
    kept = [replace(s, group=f"video {i % groups}") for i, s in enumerate(house.manifest)]
    house.manifest = replace(house.manifest, samples=tuple(kept))
    compared = next(s for s in q1.stages(asked, house) if isinstance(s, Measure)).compared
    _, looks = run([Ingest(), Model(ref=compared.decoder.ref)], house)
    for extract in (*compared.vlm, compared.decoder):
        looks[extract.name] = fill(house, extract, GRIDS | (grids or {}))
    looks["Q1.7 kernel alignment"] = choose(house, best)
    return house, compared, looks


def fill(house: House, extract: Extract, grids: dict[str, tuple[int, int, int]], seed: int = 0) -> Look:
    recipes = extract.recipes(house, {"weights": f"{seed}" * 64})
    map_ = np.random.default_rng(5).normal(size=(32, 16)).astype(np.float32) / 8
    for point in extract.points:
        with house.store.writer(recipes[point.name], rows_per_shard=8) as writer:
            for i, sample in enumerate(house.manifest):
                told = np.random.default_rng([6 + seed, i]).normal(size=(64, 128)).astype(np.float32)
                if point.name == "merged":
                    told = np.random.default_rng([7 + seed, i]).normal(size=(16, point.width))
                times, rows, cols = grids[point.name]
                values = told[:, :32] @ map_ if extract.ref.card.role == "decoder" else told[:, : point.width]
                side = np.indices((rows, cols)).reshape(2, -1)
                size = extract.framing.size or extract.ref.card.size
                where = (side + 0.5) * np.array([[size[0] / rows], [size[1] / cols]])
                count = len(values)
                writer.put(
                    sample=sample.digest, values=values.astype(np.float32), time_s=np.zeros(count),
                    row=np.resize(where[0], count), col=np.resize(where[1], count),
                    kind=np.zeros(count, np.uint8), tile=np.zeros(count, np.int32), grid=(times, rows, cols),
                )  # fmt: skip
    contents = {p: house.store.content_id(r.id, house.manifest.digests) or "" for p, r in recipes.items()}
    return Look(
        name=extract.name, state="ready", why="planted", outputs=contents,
        values={"recipes": {p: r.id for p, r in recipes.items()}},
    )  # fmt: skip


def choose(house: House, point: str) -> Look:
    measured = {"name": BEST, "model": "qwen2.5-vl-tiny@random0", "point": point, "variant": RANDOM}
    blob = put_json(house, [measured])
    return Look(name="Q1.7 kernel alignment", state="ready", why="planted", outputs={"measurements": blob})


def stage(compared: Compared) -> DecodePrediction:
    return DecodePrediction(compared=compared, kernels=Measure(row="Q1.7", compared=compared, seed=0), seed=0)


def work(house: House, compared: Compared, looks: dict[str, Look]) -> tuple[dict[str, Any], Look]:
    """Return the measurements by what they are of, and the stage's look afterwards."""
    made = stage(compared)
    given = {n: looks[n] for n in made.needs}
    assert made.look(house, given).state == "missing"
    made.run(house, given, lambda *_: None)
    look = made.look(house, given)
    assert look.state == "ready"
    rows = json.loads(house.store.get_blob(look.outputs["measurements"]))
    return {m["name"].removesuffix(f" {OF}"): m for m in rows}, look

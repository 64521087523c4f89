"""Pictures of the decoded prediction: at the decision's point, with real decoding, beside C1's own references."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import store
from flows import q1
from flows.build import open_house
from foresight.metrics.perceptual import UNPUBLISHED, perceptual
from foresight.studies.choice import BEST
from foresight.studies.decoded import OF
from foresight.studies.reconstruction import MEAN_IMAGE, POOLED, RANDOM, ROUND_TRIP, TEST, TOKENS, score
from tasks.decoded import DecodePrediction, read_pictures
from tasks.extract import Extract
from tasks.house import House
from tasks.ingest import Ingest
from tasks.kept import put_json
from tasks.measure import Compared, Measure
from tasks.model import Model
from tasks.reconstruct import Bench
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


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("decoded"))
        house, compared, looks = planted()
        yield house, compared, looks, *work(house, compared, looks)


def test_what_depends_on_place_is_read_in_place_and_lost_in_the_mean(done: Any) -> None:
    _, _, _, rows, look = done
    r2 = rows["latent R²"]
    assert r2["value"] > 0.9 > 0.2 > r2["controls"][POOLED]
    assert rows["PSNR (dB)"]["n"] == 6
    pictures = read_pictures(done[0], look)
    assert {k: len(v) for k, v in pictures.items()} == {"input": 6, ROUND_TRIP: 6, TOKENS: 6}


def test_without_the_published_network_the_distance_is_not_called_lpips(done: Any) -> None:
    assert set(done[3]) == {UNPUBLISHED, "SSIM", "PSNR (dB)", "latent R²"}


def test_a_prediction_that_is_the_same_for_all_scores_what_the_mean_picture_scores(done: Any) -> None:
    house, compared, looks, rows, _ = done
    bench = Bench(house=house, given=looks, decoder=compared.decoder, seed=0)
    known = np.stack([p for _, p in bench.pictures(np.flatnonzero(bench.folds != TEST))])
    truth = np.stack([p for _, p in bench.pictures(bench.scored)])
    mean = np.repeat(known.astype(np.float64).mean(axis=0, keepdims=True), len(truth), axis=0)
    expected = score(mean.astype(np.float32), truth, perceptual())
    assert rows["SSIM"]["controls"][MEAN_IMAGE] == pytest.approx(expected.ssim.mean(), abs=1e-9)
    assert rows[UNPUBLISHED]["controls"][MEAN_IMAGE] == pytest.approx(expected.distance.mean(), abs=1e-6)
    psnr = -10 * np.log10(expected.error.mean())
    assert rows["PSNR (dB)"]["controls"][MEAN_IMAGE] == pytest.approx(psnr, abs=1e-6)


def test_the_point_is_the_one_the_row_before_the_decision_names(workplace: Path) -> None:
    house, compared, looks = planted(8, best="merged")
    rows, _ = work(house, compared, looks)
    assert {m["point"] for m in rows.values()} == {"merged"}
    assert rows["latent R²"]["value"] < 0.2


def test_the_recipe_follows_the_point_the_tokens_and_the_decoder_alone(done: Any) -> None:
    house, compared, looks, *_ = done
    mine = stage(compared)
    key = mine.recipe(house, looks).id
    assert mine.recipe(house, looks | {"Q1.7 kernel alignment": choose(house, "merged")}).id != key
    vlm, decoder = compared.vlm[0].name, compared.decoder.name
    model = f"model {compared.decoder.ref.short}"

    def moved(name: str, point: str) -> dict[str, Look]:
        return looks | {name: replace(looks[name], outputs={**looks[name].outputs, point: "0" * 64})}

    assert mine.recipe(house, moved(vlm, "vit.1")).id != key
    assert mine.recipe(house, moved(decoder, "latent")).id != key
    # another layer of the same model is not read
    assert mine.recipe(house, moved(vlm, "merged")).id == key
    about = {**looks[model].values, "fingerprint": {"weights": "f" * 64}}
    assert mine.recipe(house, looks | {model: replace(looks[model], values=about)}).id != key


def test_a_copy_with_random_weights_stands_beside_the_trained_model(workplace: Path) -> None:
    house, compared, looks = planted(16)
    trained = replace(compared.vlm[0], ref=replace(compared.vlm[0].ref, kind="seed", value="0"))
    both = replace(compared, vlm=(trained,), copies=compared.vlm)
    looks[trained.name] = fill(house, trained, GRIDS, seed=1)
    model = {"name": BEST, "model": trained.ref.short, "point": "vit.1", "variant": "trained"}
    looks["Q1.7 kernel alignment"] = replace(
        looks["Q1.7 kernel alignment"], outputs={"measurements": put_json(house, [model])}
    )
    rows, look = work(house, both, looks)
    # the planted decoder follows from the copy's tokens, not from the model's
    assert rows["latent R²"]["controls"][RANDOM] > 0.9 > rows["latent R²"]["value"]
    assert rows["SSIM"]["variant"] == "trained"
    assert len(read_pictures(house, look)[RANDOM]) == 4


@pytest.mark.parametrize(
    ("groups", "grids", "why"),
    [
        (3, {}, "scored on 4 parts of the groups, but there are 3"),
        (8, {"latent": (1, 4, 8)}, "the decoder's latent fills no grid: 64 tokens for [1, 4, 8] cells"),
    ],
)
def test_what_cannot_be_decoded_is_undefined_with_the_reason(
    workplace: Path, groups: int, grids: dict[str, Any], why: str
) -> None:
    house, compared, looks = planted(8, grids=grids, groups=groups)
    rows, look = work(house, compared, looks)
    assert len(rows) == 4
    for m in rows.values():
        assert m["value"] is None
        assert why in m["why"]
        assert (m["n"], m["n_effective"]) == (8, groups)
    assert read_pictures(house, look) == {}

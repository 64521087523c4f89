"""Pictures of the decoded prediction: at the decision's point, with real decoding, beside C1's own references."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foresight.metrics.perceptual import UNPUBLISHED, perceptual
from foresight.studies.choice import BEST
from foresight.studies.reconstruction import MEAN_IMAGE, POOLED, RANDOM, ROUND_TRIP, TEST, TOKENS, score
from tasks.decoded import read_pictures
from tasks.kept import put_json
from tasks.reconstruct import Bench
from tasks.stages import Look
from tests.tasks.planted import GRIDS, choose, fill, planted, stage, work


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

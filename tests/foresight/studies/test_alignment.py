"""The alignment study on planted spaces: what is aligned is found, what is not is told apart from chance."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.metrics import Space
from foresight.studies import alignment, pictures
from foresight.studies.alignment import RANDOM, TRAINED, Latent, Spaces
from foresight.studies.position import GAIN, POSITION

N = 60


def planted(*, labels: tuple[str | None, ...] | None = None, n: int = N) -> Spaces:
    """A decoder space, a VLM point that is a noisy rotation of it, and one that has nothing to do with it."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(n, 6)) + 3 * np.eye(6)[np.arange(n) % 3]

    def latent(model: str, point: str, values: np.ndarray, variant: str = TRAINED) -> Latent:
        return Latent(model=model, point=point, variant=variant, space=Space(values.astype(np.float32)))

    near = hidden @ np.linalg.qr(rng.normal(size=(6, 6)))[0] + 0.1 * rng.normal(size=(n, 6))
    return Spaces(
        vlm=(
            latent("vlm", "near", near),
            latent("vlm", "far", rng.normal(size=(n, 6))),
            latent("vlm", "near", rng.normal(size=(n, 6)), RANDOM),
            latent("vlm", "far", rng.normal(size=(n, 6)), RANDOM),
        ),
        decoder=latent("vae", "latent", hidden),
        labels=labels or tuple("abc"[i % 3] for i in range(n)),
    )


@pytest.fixture(scope="module")
def measured() -> list[alignment.Measurement]:
    spaces = planted()
    return [m for row in alignment.ROWS.values() for m in row(spaces)]


def value(measured: list[alignment.Measurement], name: str, point: str, variant: str = TRAINED) -> float:
    (found,) = [
        m
        for m in measured
        if (m["name"], m["point"], m["variant"]) == (name, point, variant) and not m.get("target")
    ]
    return float(found["value"])


def test_the_aligned_point_stands_out_in_every_measure(measured: list[alignment.Measurement]) -> None:
    for _, name in alignment.PRIMARY.values():
        assert value(measured, name, "near") > 0.5, name
        assert abs(value(measured, name, "far")) < 0.35, name
        assert value(measured, name, "near") > value(measured, name, "near", RANDOM) + 0.3


def test_the_decision_rests_on_the_best_trained_point(measured: list[alignment.Measurement]) -> None:
    composites, parts = alignment.decide(measured, "latent")
    assert parts["best_point"] == "near"
    assert parts["chosen_from"] == 2
    assert parts["r2"]["value"] == value(measured, "ridge R² VLM→decoder", "near")
    assert parts["random_weights"]["q1.cka"]["variant"] == RANDOM
    (near,) = [c for c in composites if c["point"] == "near" and c["variant"] == TRAINED]
    expected = 0.3 * parts["r2"]["value"] + 0.3 * parts["spearman"]["value"]
    expected += 0.2 * parts["recall"]["value"] + 0.2 * parts["cka"]["value"]
    assert near["value"] == pytest.approx(expected)


def test_the_decision_reads_the_position_probe_at_the_best_point(
    measured: list[alignment.Measurement],
) -> None:
    assert "vlm_spatial" not in alignment.decide(measured, "latent")[1]
    probed = [
        {**m, "row": "Q1.4", "name": POSITION, "value": 0.1 * i}
        for i, m in enumerate(x for x in measured if x["name"] == alignment.PRIMARY["cka"][1])
    ]
    parts = alignment.decide([*measured, *probed], "latent")[1]
    chosen = parts["vlm_spatial"]
    assert (chosen["name"], chosen["point"], chosen["variant"]) == (POSITION, "near", TRAINED)
    assert "q1.fail.spatial" not in parts["random_weights"]
    gain = {"value": -0.1, "low": -0.2, "high": 0.0}
    beside = [{**m, "controls": {RANDOM: 0.4}, "detail": {GAIN: gain}} for m in probed]
    copy = alignment.decide([*measured, *beside], "latent")[1]["random_weights"]["q1.fail.spatial"]
    assert copy == {"value": 0.4, "difference": gain}


def test_numbers_without_labels_or_with_too_few_samples_are_undefined_with_a_reason() -> None:
    unlabelled = alignment.categories(planted(labels=(None,) * N))
    assert {m["value"] for m in unlabelled} == {None}
    assert {m["why"] for m in unlabelled} == {f"{N} of {N} samples have no label"}
    one_class = alignment.categories(planted(labels=("a",) * N))
    assert "all samples are 'a'" in one_class[0]["why"]
    few = {m["name"]: m for m in alignment.neighbours(planted(n=30)) if m["point"] == "near"}
    assert few["Recall@50"]["value"] is None
    assert "50 neighbours need more than 51 samples, but there are 30" in few["Recall@50"]["why"]
    assert few["Recall@5"]["value"] is not None


def test_a_projection_keeps_the_first_two_components_and_their_shares() -> None:
    space = planted().decoder.space
    found = pictures.projection(space)
    xy = np.array(found["xy"])
    assert xy.shape == (N, 2)
    centred = space.values - space.values.mean(axis=0)
    share = xy.var(axis=0).sum() / centred.var(axis=0).sum()
    assert sum(found["explained"]) == pytest.approx(share, rel=1e-5)
    constant = pictures.projection(Space(np.ones((5, 3), np.float32)))
    assert constant["explained"] == [None, None]


def test_nearest_neighbours_leave_the_query_out() -> None:
    space = planted().decoder.space
    assert 7 not in pictures.nearest(space, 7, N)
    assert len(pictures.nearest(space, 7, 5)) == 5

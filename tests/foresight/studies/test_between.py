"""Kinds of pairs, halves of channels, and the choice of a point: planted truth is found, noise is not."""

from __future__ import annotations

import numpy as np
import pytest

from foresight import metrics
from foresight.metrics import Space
from foresight.studies import alignment
from foresight.studies.between import HALVES, channel_halves
from foresight.studies.choice import BEST, UNFLATTERED, best_point
from foresight.studies.pairs import kinds_of_pairs, usable_attributes, within_pairs
from foresight.studies.rows import RANDOM, TRAINED, Latent, Spaces

N = 64


def spaces(*points: np.ndarray, decoder: np.ndarray, **more: object) -> Spaces:
    latents = tuple(
        Latent(model="vlm", point=f"p{i}", variant=TRAINED, space=Space(v)) for i, v in enumerate(points)
    )
    held = Latent(model="vae", point="latent", variant=TRAINED, space=Space(decoder), cells=(1, 1, 1))
    given = {"labels": tuple("abcd"[i % 4] for i in range(len(decoder)))} | more
    return Spaces(vlm=latents, decoder=held, **given)  # type: ignore[arg-type]


def test_pairs_of_two_labels_agree_where_only_the_classes_are_shared() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 6)) * 4
    x, y = (centres[np.arange(N) % 4] + rng.normal(size=(N, 6)) for _ in range(2))
    given = spaces(x, decoder=y)
    kinds = kinds_of_pairs(given)
    inside = within_pairs(Space(x), Space(y), kinds["pairs of one label"], seed=0)
    across = within_pairs(Space(x), Space(y), kinds["pairs of two labels"], seed=0)
    assert abs(inside.value) < 0.25
    assert inside.p > 0.05
    assert across.value > 0.4
    # moved within their classes, samples keep what the classes explain: little is left beyond it
    assert across.null > 0.4
    assert inside.detail["pairs"] + across.detail["pairs"] == N * (N - 1) // 2


def test_order_within_classes_is_found_beyond_them() -> None:
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=(N, 5))
    given = spaces(hidden, decoder=hidden)
    for kind in kinds_of_pairs(given).values():
        noisy = hidden + 0.3 * rng.normal(size=hidden.shape)
        found = within_pairs(Space(hidden), Space(noisy), kind, seed=0)
        assert found.value > 0.6
        assert found.p == pytest.approx(0.01)
        assert found.low > found.null


def test_noise_is_significant_about_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(2)
    kind = kinds_of_pairs(spaces(np.zeros((40, 2)), decoder=rng.normal(size=(40, 3))))["pairs of one label"]
    p = [
        within_pairs(Space(rng.normal(size=(40, 3))), Space(rng.normal(size=(40, 3))), kind, seed=i).p
        for i in range(100)
    ]
    assert np.mean(np.array(p) <= 0.05) < 0.13


def test_attributes_that_follow_from_the_label_make_no_kind() -> None:
    labels = tuple("abcd"[i % 4] for i in range(N))
    attributes = {
        "same": labels,
        "unique": [str(i) for i in range(N)],
        "finer": [f"{v}{i % 8 // 4}" for i, v in enumerate(labels)],
        "scene": ["xyz"[i % 3] for i in range(N)],
        "one": ["x"] * N,
    }
    assert list(usable_attributes(attributes, labels)) == ["scene"]
    given = spaces(np.eye(N), decoder=np.eye(N), attributes=attributes)
    assert list(kinds_of_pairs(given)) == [
        "pairs of one label",
        "pairs of two labels",
        "one scene, two labels",
        "one label, two of scene",
    ]
    assert kinds_of_pairs(spaces(np.eye(N), decoder=np.eye(N), labels=(None,) * N)) == {}


def test_too_few_pairs_of_a_kind_are_undefined_with_their_count() -> None:
    labels = tuple("abcdefghij"[i // 2] for i in range(20))
    values = np.random.default_rng(3).normal(size=(20, 4))
    kind = kinds_of_pairs(spaces(values, decoder=values, labels=labels))["pairs of one label"]
    found = within_pairs(Space(values), Space(values), kind, seed=0)
    assert not found.defined
    assert "10 are of this kind" in found.why


def test_halves_of_the_decoder_share_no_channel_and_lose_none() -> None:
    values = np.arange(3 * 4 * 5, dtype=np.float32).reshape(3, 20) + 1
    decoder = Latent(model="v", point="l", variant=TRAINED, space=Space(values), cells=(1, 2, 2))
    first, second = channel_halves(decoder, seed=0) or pytest.fail("no halves")
    assert (first.width, second.width) == (8, 12)
    assert sorted([*first.values[0], *second.values[0]]) == sorted(values[0])
    single = Latent(model="v", point="l", variant=TRAINED, space=Space(values[:, :4]), cells=(1, 2, 2))
    assert channel_halves(single, seed=0) is None


def test_the_best_of_many_points_of_noise_is_not_significant() -> None:
    rng = np.random.default_rng(4)
    given = spaces(*(rng.normal(size=(N, 6)) for _ in range(12)), decoder=rng.normal(size=(N, 6)))
    found = {
        i: metrics.linear_cka(v.space, given.decoder.space, keep_null=True, permutations=199)
        for i, v in enumerate(given.vlm)
    }
    best, other_half = best_point(given, found)
    assert best["name"] == BEST
    assert best["value"] == max(e.value for e in found.values())
    assert best["detail"]["correction"] == "max-T"
    assert best["p"] > min(e.p for e in found.values())
    assert best["p"] > 0.05
    assert other_half["name"] == UNFLATTERED
    assert other_half["n"] == N // 2
    assert abs(other_half["value"]) < 0.2
    assert "null draws" not in best["detail"]


def test_the_planted_point_is_chosen_on_either_half() -> None:
    rng = np.random.default_rng(5)
    hidden = rng.normal(size=(N, 6))
    given = spaces(rng.normal(size=(N, 6)), hidden + 0.1 * rng.normal(size=(N, 6)), decoder=hidden)
    rows = alignment.kernels(given)
    best, other_half = (next(m for m in rows if m["name"] == n) for n in (BEST, UNFLATTERED))
    assert best["point"] == other_half["point"] == "p1"
    assert best["p"] <= 0.01
    assert other_half["value"] > 0.8


def test_every_number_between_the_spaces_has_what_it_takes_to_doubt_it() -> None:
    rng = np.random.default_rng(6)
    hidden = rng.normal(size=(N, 8))
    given = spaces(hidden[:, :4], decoder=hidden + 0.5 * rng.normal(size=(N, 8)))
    for row in ("Q1.4", "Q1.5", "Q1.6", "Q1.7"):
        for m in alignment.ROWS[row](given):
            if m["value"] is None:
                assert m["why"], m["name"]
                continue
            assert m["low"] is not None, m["name"]
            assert m["low"] <= m["value"] <= m["high"], m["name"]
            assert m["null"] is not None, m["name"]
            assert m["n"] >= m["n_effective"] > 0
            assert m["controls"], m["name"]
    halves = [
        m
        for row in ("Q1.4", "Q1.5", "Q1.6", "Q1.7")
        for m in alignment.ROWS[row](given)
        if HALVES in m["name"]
    ]
    assert len(halves) == 4
    assert {m["point"] for m in halves} == {"latent"}
    assert RANDOM not in {m["variant"] for m in halves}


@pytest.mark.parametrize("n", [3, 5])
def test_three_samples_and_a_constant_column_give_reasons_and_no_numbers(n: int) -> None:
    values = np.random.default_rng(7).normal(size=(n, 4))
    values[:, 1] = 2.0
    given = spaces(values, decoder=np.ones((n, 4)), labels=("a", "b") * (n // 2) + ("a",) * (n % 2))
    for row in alignment.ROWS.values():
        for m in row(given):
            if m["value"] is None:
                assert m["why"]
            else:
                assert np.isfinite(m["value"])
                assert m["low"] is not None or m["why"] or m["row"] in ("Q1.1", "Q1.3"), (m["row"], m["name"])

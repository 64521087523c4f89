"""Layouts of a space in two dimensions: neighbours stay neighbours, equal spaces give equal pictures."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from foresight.metrics import Space
from foresight.studies.layouts import FEWEST, METHODS, layouts
from foresight.studies.rows import place_names

CLASSES = 4


def clusters(n: int = 80, width: int = 30) -> tuple[Space, np.ndarray]:
    """Return a space of four well-separated classes, and the class of every sample."""
    rng = np.random.default_rng(5)
    labels = np.arange(n) % CLASSES
    values = 6 * rng.normal(size=(CLASSES, width))[labels] + rng.normal(size=(n, width))
    return Space(values.astype(np.float32), groups=[str(i) for i in range(n)]), labels


def test_neighbours_in_the_space_are_neighbours_in_every_layout() -> None:
    space, labels = clusters()
    found = layouts(space, seed=0)
    assert set(found) == set(METHODS)
    for layout in found.values():
        xy = np.array(layout["xy"])
        assert xy.shape == (80, 2)
        assert layout["trustworthiness"] > 0.8
        assert KNeighborsClassifier(5).fit(xy[:40], labels[:40]).score(xy[40:], labels[40:]) == 1


def test_noise_is_laid_out_with_less_trust_than_clusters() -> None:
    noise = np.random.default_rng(0).normal(size=(80, 30)).astype(np.float32)
    loose = layouts(Space(noise, groups=[str(i) for i in range(80)]), seed=0)
    tight = layouts(clusters()[0], seed=0)
    for method in METHODS:
        assert loose[method]["trustworthiness"] < tight[method]["trustworthiness"]


def test_equal_spaces_and_seeds_give_equal_layouts() -> None:
    assert layouts(clusters(40)[0], seed=3) == layouts(clusters(40)[0], seed=3)


@pytest.mark.parametrize(
    "values",
    [
        np.ones((40, 8), np.float32),
        np.random.default_rng(0).normal(size=(FEWEST - 1, 8)).astype(np.float32),
        np.arange(40, dtype=np.float32)[:, None],
    ],
    ids=["constant", "too few", "one dimension"],
)
def test_what_has_no_plane_is_not_laid_out(values: np.ndarray) -> None:
    assert layouts(Space(values, groups=[str(i) for i in range(len(values))]), seed=0) == {}


def test_the_fewest_samples_are_laid_out() -> None:
    assert set(layouts(clusters(FEWEST)[0], seed=0)) == set(METHODS)


def test_a_point_of_several_models_is_named_with_its_model() -> None:
    names = place_names([("a", "vit.1"), ("b", "vit.1"), ("b", "llm.2"), ("a", "vit.1")])
    assert names == {("a", "vit.1"): "a vit.1", ("b", "vit.1"): "b vit.1", ("b", "llm.2"): "llm.2"}

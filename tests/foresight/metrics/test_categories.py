"""Category measures against scikit-learn, planted classes, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from foresight.metrics import cluster_purity, intra_class_variance, knn_accuracy, silhouette
from foresight.metrics.categories import _kmeans
from foresight.metrics.space import Space
from tests.foresight.metrics.planted import frames_of_videos, gaussians

FAST = {"permutations": 99, "resamples": 20}
MEASURES = [silhouette, cluster_purity, knn_accuracy, intra_class_variance]


def classes(n: int = 120, d: int = 10, *, apart: float = 3.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    return apart * rng.standard_normal((4, d))[labels] + rng.standard_normal((n, d)), labels


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_silhouette_is_scikit_learns(metric: str) -> None:
    x, labels = classes(apart=0.7)
    labels[:1] = 9  # a class of one counts 0
    got = silhouette(x, labels, metric=metric, **FAST)
    assert got.value == pytest.approx(silhouette_score(x, labels, metric=metric), abs=1e-9)
    assert got.detail["metric"] == metric


def test_knn_accuracy_is_scikit_learns_leave_one_out_vote() -> None:
    x, labels = classes(apart=0.5)
    want = cross_val_predict(KNeighborsClassifier(5), x, labels, cv=LeaveOneOut())
    assert knn_accuracy(x, labels, k=5, **FAST).value == pytest.approx(np.mean(want == labels))


def test_k_means_is_as_tight_as_scikit_learns() -> None:
    x, _ = classes(apart=0.8, seed=3)
    ours = _kmeans(np.square(Space(x).distances()), 4, seed=0)
    inertia = sum(np.square(x[ours == c] - x[ours == c].mean(axis=0)).sum() for c in range(4))
    assert inertia <= 1.01 * KMeans(4, n_init=10, random_state=0).fit(x).inertia_


def test_variance_within_and_between_classes_add_to_the_total() -> None:
    x, labels = classes(apart=0.7)
    within = sum(np.square(x[labels == c] - x[labels == c].mean(0)).sum() for c in range(4))
    got = intra_class_variance(x, labels, **FAST)
    assert got.value == pytest.approx(within / np.square(x - x.mean(0)).sum())
    one = x[labels == 2]
    assert got.detail["per class"]["2"] == pytest.approx(np.square(one - one.mean(0)).sum(1).mean())
    assert got.null == pytest.approx(got.controls["chance"], abs=0.005)


def test_classes_far_apart_are_found_by_every_measure() -> None:
    x, labels = classes(apart=20.0)
    assert cluster_purity(x, labels, **FAST).value == 1.0
    assert cluster_purity(x, labels, **FAST).detail["nmi"] == pytest.approx(1.0)
    assert knn_accuracy(x, labels, **FAST).value == 1.0
    assert silhouette(x, labels, **FAST).value > 0.8
    spread = intra_class_variance(x, labels, **FAST)
    assert spread.value < 0.02
    assert spread.p == pytest.approx(0.01)
    assert spread.controls["calibrated"] > 0.98


@pytest.mark.parametrize("measure", MEASURES)
def test_random_labels_read_chance_and_their_p_is_uniform(measure) -> None:  # type: ignore[no-untyped-def]
    p = []
    for seed in range(60):
        (x,) = gaussians(40, (5,), seed=seed)
        labels = np.random.default_rng(seed).permutation(np.arange(40) % 4)
        p.append(measure(x, labels, permutations=39, resamples=0).p)
    assert np.mean(np.array(p) <= 0.05) <= 0.14
    assert np.mean(p) > 0.4  # purity takes few values: its ties push p up, never down
    estimate = measure(*classes(apart=0.0), **FAST)
    assert estimate.low <= estimate.null <= estimate.high


@pytest.mark.parametrize("measure", MEASURES)
def test_rotation_scale_names_and_order_of_labels_do_not_matter(measure) -> None:  # type: ignore[no-untyped-def]
    x, labels = classes(apart=0.8)
    names = np.array(["d", "a", "c", "b"])[labels]
    want = measure(x, labels, **FAST).value
    assert measure(3.0 * x[:, ::-1] + 1.0, labels, **FAST).value == pytest.approx(want, abs=0.02)
    assert measure(x, names, **FAST).value == pytest.approx(want, abs=0.02)


@pytest.mark.parametrize("measure", MEASURES)
def test_frames_of_a_video_count_once(measure) -> None:  # type: ignore[no-untyped-def]
    x, _, videos = frames_of_videos(40, 4, (10, 3))
    labels = (np.arange(40) % 4)[videos]
    more = {"clusters": 25} if measure is cluster_purity else {}
    naive, honest = measure(x, labels, **more, **FAST), measure(x, labels, groups=videos, **more, **FAST)
    assert honest.n_effective == 40
    assert naive.p == pytest.approx(0.01)
    assert honest.p > 0.02


@pytest.mark.parametrize("measure", MEASURES)
def test_what_has_no_class_structure_to_measure_is_undefined(measure) -> None:  # type: ignore[no-untyped-def]
    x, labels = classes(20)
    assert measure(x, np.zeros(20)).why == "there is one class, so nothing to tell apart"
    assert "class of its own" in measure(x, np.arange(20)).why
    flat = measure(np.ones((20, 3)), np.arange(20) % 6, groups=np.arange(20))
    assert "class of its own" in flat.why  # equal rows of one class are one observation
    assert "at least 4 groups" in measure(x[:3], [0, 0, 1]).why
    with pytest.raises(ValueError, match="sample 3 has none"):
        measure(x, [0, 1, 0, None, *labels[4:]])
    with pytest.raises(ValueError, match="20 samples and 3 labels"):
        measure(x, [0, 1, 0])
    with pytest.raises(ValueError, match="the group of sample 0 has several"):
        measure(x, np.arange(20) % 2, groups=np.zeros(20))


def test_more_neighbours_or_clusters_than_samples_are_undefined() -> None:
    x, labels = classes(20)
    assert knn_accuracy(x, labels, k=19).why == "k = 19 needs more than k + 1 groups, but got 20"
    assert "but got 20 for 20 groups" in cluster_purity(x, labels, clusters=20).why
    few = np.vstack([np.eye(3), np.eye(3)])
    assert "4 clusters need as many different rows, but there are 3" in (
        cluster_purity(few, [0, 0, 0, 1, 1, 1], clusters=4).why
    )


def test_exact_copies_of_a_sample_do_not_vote_for_themselves() -> None:
    (x,) = gaussians(30, (6,))
    labels = np.random.default_rng(0).integers(0, 6, 30)
    twice = knn_accuracy(np.vstack([x, x, x]), np.tile(labels, 3), k=2, **FAST)
    assert twice.n_effective == 30
    assert twice.value == knn_accuracy(x, labels, k=2, **FAST).value

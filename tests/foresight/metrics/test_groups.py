"""Near-duplicate frames: the plans' protocol finds alignment between unrelated videos, ours does not."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.metrics import (
    composite_score,
    knn_accuracy,
    knn_overlap,
    linear_cka,
    ridge_probe,
    rsa_spearman,
)
from tests.foresight.metrics.planted import frames_of_videos

FAST = {"permutations": 19, "resamples": 10}


def plans_protocol(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return the plan's own numbers: random split, naive neighbours, biased CKA, all frames as samples."""
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score
    from sklearn.neighbors import NearestNeighbors

    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[: len(x) * 4 // 5], order[len(x) * 4 // 5 :]
    r2 = r2_score(y[test], Ridge(alpha=1.0).fit(x[train], y[train]).predict(x[test]))
    near = [
        NearestNeighbors(n_neighbors=11).fit(s).kneighbors(s, return_distance=False)[:, 1:] for s in (x, y)
    ]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*near, strict=True)])
    xc, yc = x - x.mean(0), y - y.mean(0)
    cka = np.linalg.norm(xc.T @ yc) ** 2 / np.linalg.norm(xc.T @ xc) / np.linalg.norm(yc.T @ yc)
    rho = spearmanr(pdist(x), pdist(y)).statistic
    return {"r2": float(r2), "recall": float(recall), "cka": float(cka), "spearman": float(rho)}


def test_unrelated_videos_score_like_a_finding_in_the_plans_protocol_and_nothing_in_ours() -> None:
    x, y, videos = frames_of_videos(200, 5, (256, 128))
    theirs = plans_protocol(x, y)
    score = 0.3 * theirs["r2"] + 0.3 * theirs["spearman"] + 0.2 * theirs["recall"] + 0.2 * theirs["cka"]
    assert 0.4 < score < 0.5
    assert theirs["r2"] > 0.8
    assert theirs["recall"] == pytest.approx(0.40, abs=0.02)

    r2 = ridge_probe(x, y, groups=videos, permutations=19, shuffles=1)["r2"]
    recall = knn_overlap(x, y, groups=videos, ks=(10,), metric="euclidean", **FAST)["recall@10"]
    spearman = rsa_spearman(x, y, groups=videos, **FAST)
    cka = linear_cka(x, y, groups=videos, **FAST)
    ours = composite_score(r2=r2, spearman=spearman, recall=recall, cka=cka)
    assert abs(ours.value) < 0.05
    assert r2.value < 0.01
    assert abs(cka.value) < 0.05
    assert recall.value == pytest.approx(recall.controls["chance"], abs=0.02)
    assert (cka.n, cka.n_effective) == (1000, 200)
    # the same measures without groups see the frames, which the reader is told
    assert cka.controls["ignoring groups"] > 0.05
    assert recall.controls["ignoring groups"] > 0.35


def test_no_frame_is_classified_by_its_own_video() -> None:
    x, _, videos = frames_of_videos(60, 5, (64, 8))
    labels = np.random.default_rng(1).integers(0, 8, 60)[videos]
    assert knn_accuracy(x, labels, permutations=19, resamples=0).value > 0.99
    honest = knn_accuracy(x, labels, groups=videos, permutations=199, resamples=0)
    assert honest.value < 0.35
    assert honest.p > 0.01


def test_groups_may_be_any_ids_in_any_order() -> None:
    x, y, videos = frames_of_videos(12, 3, (6, 5), seed=3)
    order = np.random.default_rng(0).permutation(len(x))
    names = np.array([f"video {v}" for v in videos])
    one = linear_cka(x, y, groups=videos, **FAST)
    other = linear_cka(x[order], y[order], groups=names[order], **FAST)
    assert other.value == pytest.approx(one.value, abs=1e-10)

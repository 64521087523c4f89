"""Block by block gives the number of the whole, from blocks only."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import dask
import numpy as np
import pytest

from foresight.metrics import (
    blocks,
    cka_blockwise,
    cka_minibatch,
    knn_blockwise,
    knn_overlap,
    linear_cka,
    rsa_blockwise,
    rsa_spearman,
)
from foresight.metrics.blocks import in_order
from foresight.metrics.blockwise import nearest
from foresight.metrics.rows import Rows
from tests.foresight.metrics.planted import frames_of_videos, gaussians, shared

FAST: dict[str, Any] = {"permutations": 9, "resamples": 4, "part": 60}
BARE: dict[str, Any] = {"permutations": 0, "resamples": 0}


class Sliced:
    """Rows that can only be asked for by slice, and remember the longest one."""

    def __init__(self, values: np.ndarray) -> None:
        self._values, self.shape, self.longest = values, values.shape, 0

    def __getitem__(self, at: slice) -> np.ndarray:
        assert isinstance(at, slice)
        self.longest = max(self.longest, at.stop - at.start)
        return self._values[at]


@pytest.mark.parametrize("block", [7, 64, 500])
@pytest.mark.parametrize(("widths", "dtype"), [((8, 6), "f8"), ((300, 250), "f8"), ((300, 250), "f4")])
def test_cka_in_blocks_is_cka(widths: tuple[int, int], dtype: str, block: int) -> None:
    x, y = (s.astype(dtype) + 3.0 for s in shared(150, widths, noise=2.0))
    whole, parts = linear_cka(x, y, **BARE), cka_blockwise(x, y, block=block, **FAST)
    tolerance = 1e-10 if dtype == "f8" else 2e-6
    assert parts.value == pytest.approx(whole.value, abs=tolerance)
    assert parts.controls["biased"] == pytest.approx(whole.controls["biased"], abs=tolerance)
    biased = cka_blockwise(x, y, block=block, debiased=False, **FAST)
    assert biased.value == pytest.approx(whole.controls["biased"], abs=tolerance)
    assert biased.null == pytest.approx(whole.controls["biased null"], abs=tolerance)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("block", [16, 100, 999])
def test_neighbours_in_blocks_are_the_neighbours(metric: Any, block: int) -> None:
    x, y = shared(130, (9, 7), noise=1.0)
    whole = knn_overlap(x, y, ks=(3, 20), metric=metric, **BARE)
    parts = knn_blockwise(x, y, ks=(3, 20), metric=metric, block=block, **FAST)
    assert set(parts) == {"recall@3", "recall@20", "jaccard@3", "jaccard@20"}
    for name, estimate in parts.items():
        assert estimate.value == pytest.approx(whole[name].value, abs=1e-12)
        assert estimate.null == whole[name].controls["chance"]


def test_the_neighbours_are_scikit_learns() -> None:
    from sklearn.neighbors import NearestNeighbors

    (x,) = gaussians(90, (5,))
    want = NearestNeighbors(n_neighbors=8).fit(x).kneighbors(return_distance=False)
    np.testing.assert_array_equal(nearest(x, 8, metric="euclidean", block=32), want)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("block", [16, 999])
def test_rsa_in_blocks_is_rsa_to_the_width_of_a_bin(metric: Any, block: int) -> None:
    x, y = shared(130, (9, 7), noise=1.0)
    whole = rsa_spearman(x, y, metric=metric, **BARE).value
    assert rsa_blockwise(x, y, metric=metric, block=block, **FAST).value == pytest.approx(whole, abs=1e-6)


def test_groups_are_averaged_block_by_block() -> None:
    x, y, videos = frames_of_videos(50, 3, (20, 10))
    whole = linear_cka(x, y, groups=videos, **BARE)
    parts = cka_blockwise(x, y, groups=videos, block=8, **FAST)
    assert parts.value == pytest.approx(whole.value, abs=1e-10)
    assert (parts.n, parts.n_effective) == (150, 50)
    with pytest.raises(ValueError, match="row 3 returns to an earlier group; sort the samples by group"):
        cka_blockwise(x, y, groups=[0, 0, 1, 0, *videos[4:]], **FAST)


def test_only_blocks_are_read_and_memory_does_not_grow_with_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "KEEP_BYTES", 0)
    x, y = (s.astype("f4") for s in gaussians(2000, (24, 16)))
    a, b = Sliced(x), Sliced(y)
    options: dict[str, Any] = {"block": 128, "part": 50, "permutations": 0, "resamples": 0}
    tracemalloc.start()
    with dask.config.set(num_workers=2):
        cka_blockwise(a, b, **options)
        knn_blockwise(a, b, ks=(5,), **options)
        linear, _ = tracemalloc.get_traced_memory()[1], tracemalloc.reset_peak()
        rsa_blockwise(a, b, **options)
    ranks = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(a.longest, b.longest) == 128
    assert linear < 8e6  # an n x n matrix of float64 is 32 MB
    assert ranks < 100e6  # tables of 2**20 bins, a few for each of two threads, whatever n is


def test_results_are_gathered_in_order_and_few_wait_whatever_the_number_of_threads() -> None:
    made, waiting, gathered = [0], [0], []

    def work(i: int) -> int:
        made[0] += 1
        waiting[0] = max(waiting[0], made[0] - len(gathered))
        time.sleep(0.001 * (i % 3))
        return i

    with dask.config.set(num_workers=3):
        in_order(work, range(150), gathered.append)
    assert gathered == list(range(150))
    assert 1 < waiting[0] <= 9  # of 150


@pytest.mark.parametrize("measure", [cka_blockwise, rsa_blockwise])
def test_the_number_of_threads_does_not_change_a_bit(measure: Any) -> None:
    x, y = (s.astype("f4") for s in shared(300, (40, 30), noise=2.0))
    values = []
    for workers in (1, 4):
        with dask.config.set(num_workers=workers):
            values.append(measure(x, y, block=32, **FAST).value)
    assert values[0] == values[1]


def test_equal_distances_are_neighbours_in_the_order_of_the_rows() -> None:
    corners = np.tile(np.eye(4), (30, 1)) + 1.0  # 30 copies each of 4 points that are equally far apart
    want = [[j for j in range(120) if j % 4 == i % 4 and j != i][:6] for i in range(120)]
    for block in (16, 999):
        assert nearest(corners, 6, metric="euclidean", block=block).tolist() == want


def test_dask_arrays_and_memory_maps_are_read_as_they_are(tmp_path: Any) -> None:
    import dask.array as da

    x, y = shared(120, (12, 10))
    whole = linear_cka(x, y, **BARE).value
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    lazy = da.from_array(y, chunks=(50, 10))
    assert cka_blockwise(mapped, lazy, block=40, **FAST).value == pytest.approx(whole, abs=1e-10)


def test_the_interval_is_about_that_of_the_whole_and_p_comes_from_the_part() -> None:
    x, y = shared(400, (10, 8), noise=2.0)
    whole = linear_cka(x, y, permutations=99)
    parts = cka_blockwise(x, y, part=200, permutations=99)
    assert (parts.high - parts.low) == pytest.approx(whole.high - whole.low, rel=0.5)
    assert parts.detail["interval and p from"] == 200
    assert parts.p == pytest.approx(0.01)
    for independent in (cka_blockwise, rsa_blockwise):
        estimate = independent(*gaussians(300, (10, 8)), part=150, permutations=99)
        assert estimate.low < 0 < estimate.high
        assert estimate.p > 0.01


def test_bad_blocks_are_refused_with_their_rows_and_small_input_is_undefined() -> None:
    x, y = gaussians(50, (4, 3))
    assert "at least 4 groups" in cka_blockwise(x[:3], y[:3]).why
    assert "constant" in cka_blockwise(x, np.ones((50, 3)), **FAST).why
    assert "but got 6" in knn_blockwise(x[:6], y[:6], ks=(2, 9), **BARE)["recall@9"].why
    x[33] = np.inf
    with pytest.raises(
        ValueError, match=r"rows 30 to 39: latents must be finite, but 1 of 10 rows .* first row 3"
    ):
        cka_blockwise(x, y, block=10, **FAST)
    with pytest.raises(ValueError, match="but got 50 and 49 rows"):
        rsa_blockwise(x, y[:49])
    with pytest.raises(ValueError, match=r"but got shape \[50, 2, 2\]"):
        Rows(x.reshape(50, 2, 2))
    with pytest.raises(ValueError, match="got 50 for 50 rows"):
        nearest(y, 50)


def test_one_batch_is_plain_cka_and_sums_of_batches_stay_unbiased() -> None:
    x, y = shared(60, (8, 6), noise=1.0)
    for debiased in (True, False):
        whole = linear_cka(x, y, debiased=debiased, **BARE).value
        assert cka_minibatch(x, y, batch=60, debiased=debiased, permutations=9).value == pytest.approx(whole)
    many = [cka_minibatch(x, y, batch=8, permutations=0, seed=s).value for s in range(60)]
    assert np.mean(many) == pytest.approx(linear_cka(x, y, **BARE).value, abs=0.02)
    biased = [cka_minibatch(x, y, batch=8, permutations=0, debiased=False, seed=s).value for s in range(60)]
    assert np.mean(biased) > np.mean(many) + 0.03


def test_minibatch_cka_has_a_valid_p_and_an_interval_once_there_are_eight_batches() -> None:
    got = cka_minibatch(*gaussians(120, (50, 40)), batch=12, permutations=99)
    assert got.low < 0 < got.high
    assert got.detail["batches"] == 10
    p = [cka_minibatch(*gaussians(24, (4, 3), seed=s), batch=8, permutations=39).p for s in range(100)]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.06)
    assert "8 are needed" in cka_minibatch(*gaussians(40, (5, 4)), batch=20, permutations=0).why
    with pytest.raises(ValueError, match="a batch holds at least 4 groups, but got 3"):
        cka_minibatch(*gaussians(40, (5, 4)), batch=3)

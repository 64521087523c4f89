"""Blocks: no cell is lost, and what is at a place stays there; the ridge agrees with the textbook's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from foresight.data.fitting import fit
from foresight.nouns import Frames, Tokens
from foresight.studies.blocks import Field, Layout, counts_in, field, layout, place, shuffled
from foresight.studies.ridge_blocks import Sums, fit_on, fit_out_of_fold

RNG = np.random.default_rng(0)
WHOLE = Field(top=0, bottom=64, left=0, right=64, size=(64, 64))


def tokens(values: np.ndarray, grid: tuple[int, int, int], *, size: tuple[int, int] = (64, 64)) -> Tokens:
    t, r, c = (a.reshape(-1) for a in np.meshgrid(*(np.arange(n) for n in grid), indexing="ij"))
    return Tokens(
        values=values,
        time_s=t * 0.5,
        row=(r + 0.5) * size[0] / grid[1],
        col=(c + 0.5) * size[1] / grid[2],
        kind=np.zeros(len(t), np.uint8),
        tile=np.zeros(len(t), np.int32),
        grid=grid,
    )


def frames(height: int, width: int) -> Frames:
    return Frames(pixels=np.zeros((1, height, width, 3), np.uint8), times_s=np.zeros(1))


@pytest.mark.parametrize("grid", [(1, 4, 4), (1, 8, 8), (1, 16, 16), (1, 4, 16), (2, 8, 4)])
def test_splitting_cells_and_joining_them_changes_nothing(grid: tuple[int, int, int]) -> None:
    where = layout(grid, (grid[0], 8, 8))
    cells = RNG.normal(size=(3, grid[0] * 64, 5))
    assert np.array_equal(where.join_cells(where.split_cells(cells)), cells)


def test_a_block_holds_the_tokens_and_the_cells_of_one_place() -> None:
    where = Layout(tokens=(1, 2, 2), cells=(1, 4, 4))
    rows, cols = np.mgrid[:4, :4]
    cells = np.stack([rows, cols], axis=-1).reshape(1, 16, 2)
    corner = where.split_cells(cells)[0, 3].reshape(4, 2)
    assert corner.tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]
    assert where.split_tokens(np.arange(4.0).reshape(1, 4, 1))[0].ravel().tolist() == [0, 1, 2, 3]
    finer = Layout(tokens=(1, 4, 4), cells=(1, 2, 2))
    assert finer.split_tokens(cells)[0, 3].reshape(4, 2).tolist() == corner.tolist()


def test_tokens_that_fit_the_cells_are_not_touched() -> None:
    values = RNG.normal(size=(16, 3)).astype(np.float32)
    given = tokens(values, (1, 4, 4))
    where = layout(counts_in(given, WHOLE), (1, 8, 8))
    assert where.tokens == (1, 4, 4)
    assert place(given, WHOLE, where, [0.0]) == pytest.approx(values)


@pytest.mark.parametrize(("count", "expected"), [(3, 4), (5, 4), (7, 8), (9, 8), (23, 24), (60, 32)])
def test_tokens_that_do_not_fit_go_to_the_nearest_count_that_does(count: int, expected: int) -> None:
    assert layout((1, count, count), (1, 8, 8)).tokens == (1, expected, expected)


def test_wide_tokens_are_averaged_before_a_block_grows_too_large() -> None:
    assert layout((1, 16, 16), (1, 8, 8), width=1280).tokens == (1, 16, 16)
    assert layout((1, 16, 16), (1, 8, 8), width=3584).tokens == (1, 8, 8)


def test_the_decoder_sees_the_middle_of_a_wide_picture_that_the_vlm_sees_whole() -> None:
    wide = frames(100, 300)
    _, kept = fit(wide, size=None)
    _, cropped = fit(wide, size=(64, 64), how="crop")
    seen = field(kept, cropped)
    assert (seen.top, seen.bottom, seen.left, seen.right) == pytest.approx((0, 100, 100, 200))
    ramp = np.repeat(np.arange(30.0)[None], 10, axis=0).reshape(-1, 1).astype(np.float32)
    given = tokens(ramp, (1, 10, 30), size=(100, 300))
    assert counts_in(given, seen) == (1, 10, 10)
    placed = place(given, seen, Layout(tokens=(1, 2, 2), cells=(1, 8, 8)), [0.0])
    assert placed.ravel() == pytest.approx([12, 17, 12, 17])


def test_one_time_step_stands_for_all_and_several_are_averaged_for_one() -> None:
    still = tokens(np.arange(4.0, dtype=np.float32)[:, None], (1, 2, 2))
    clip = tokens(np.arange(8.0, dtype=np.float32)[:, None], (2, 2, 2))
    many, one = Layout(tokens=(3, 2, 2), cells=(3, 2, 2)), Layout(tokens=(1, 2, 2), cells=(1, 2, 2))
    assert place(still, WHOLE, many, [0.0, 0.5, 1.0]).ravel().tolist() == [0, 1, 2, 3] * 3
    assert place(clip, WHOLE, one, [0.0]).ravel().tolist() == [2, 3, 4, 5]


def test_steps_of_a_clip_go_to_the_steps_of_the_decoder() -> None:
    clip = tokens(np.repeat([0.0, 1.0, 2.0, 3.0], 4)[:, None].astype(np.float32), (4, 2, 2))
    where = Layout(tokens=(2, 2, 2), cells=(2, 2, 2))
    found = place(clip, WHOLE, where, [0.0, 1.2]).reshape(2, 4)
    assert (found[0] < 1).all()
    assert (found[1] > 1.5).all()


def test_shuffling_keeps_the_tokens_and_loses_their_places() -> None:
    values = np.arange(64.0)[:, None]
    a, b = (shuffled(values, seed=0, digest=d * 64) for d in "ab")
    assert sorted(a.ravel()) == values.ravel().tolist()
    assert a.tolist() != values.tolist() != b.tolist()
    assert a.tolist() != b.tolist()
    assert a.tolist() == shuffled(values, seed=0, digest="a" * 64).tolist()


def planted(n: int = 60, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    x = RNG.normal(2, 1, (n, 4, 6)).astype(np.float32)
    y = x @ RNG.normal(size=(6, 3)) + np.arange(4)[None, :, None] + RNG.normal(0, noise, (n, 4, 3))
    return x, y.astype(np.float32)


def test_the_ridge_is_the_textbooks_on_the_same_penalty() -> None:
    x, y = planted()
    parts = [Sums.of(x[i::3], y[i::3]) for i in range(3)]
    ours = fit_out_of_fold(parts, penalties=[0.01])[0]
    train = np.concatenate([np.arange(60)[i::3] for i in (1, 2)])
    centred = [v[train].astype(float) - v[train].mean(axis=0, dtype=float) for v in (x, y)]
    flat = [v.reshape(-1, v.shape[-1]) for v in centred]
    alpha = 0.01 * np.trace(flat[0].T @ flat[0]) / 6
    theirs = Ridge(alpha=alpha, fit_intercept=False).fit(*flat)
    assert ours.weights == pytest.approx(theirs.coef_.T, rel=1e-6)


def test_it_finds_a_linear_map_and_nothing_in_noise() -> None:
    x, y = planted()
    for truth, r2_range in ((y, (0.95, 1.0)), (RNG.permutation(y), (-0.1, 0.1))):
        maps = fit_out_of_fold([Sums.of(x[i::4], truth[i::4]) for i in range(4)])
        error = sum(float(np.square(maps[i].predict(x[i::4]) - truth[i::4]).sum()) for i in range(4))
        r2 = 1 - error / float(np.square(truth - truth.mean(axis=0)).sum())
        assert r2_range[0] < r2 < r2_range[1]


def test_the_validation_score_is_that_of_the_map_without_the_validation_fold() -> None:
    x, y = planted()
    parts = [Sums.of(x[i::3], y[i::3]) for i in range(3)]
    told = fit_on(parts[:2], parts[2], penalties=[0.01]).validation_r2
    alone = fit_on([parts[0]], parts[1], penalties=[0.01])  # the same samples, fitted without the third part
    error = np.square(alone.predict(x[2::3]) - y[2::3]).sum()
    mean = np.concatenate([y[0::3], y[1::3]]).mean(axis=0)
    assert told == pytest.approx(1 - error / np.square(y[2::3] - mean).sum(), abs=1e-4)


def test_sums_do_not_depend_on_how_samples_are_split() -> None:
    x, y = planted()
    whole, parts = Sums.of(x, y), Sums.of(x[:7], y[:7]) + Sums.of(x[7:], y[7:])
    assert parts.n == whole.n
    assert parts.xx == pytest.approx(whole.xx)
    assert parts.xy == pytest.approx(whole.xy)


def test_a_constant_source_predicts_the_mean_and_not_nan() -> None:
    x, y = np.ones((12, 4, 6), np.float32), planted(12)[1]
    maps = fit_out_of_fold([Sums.of(x[i::3], y[i::3]) for i in range(3)])
    kept = np.concatenate([y[1::3], y[2::3]]).mean(axis=0)
    assert maps[0].predict(x[:1])[0] == pytest.approx(kept, abs=1e-5)


def test_fewer_than_three_folds_are_refused() -> None:
    x, y = planted(6)
    with pytest.raises(ValueError, match="three are needed"):
        fit_out_of_fold([Sums.of(x[:3], y[:3]), Sums.of(x[3:], y[3:])])

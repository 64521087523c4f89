"""Regridding: the laws it keeps, checked against a brute-force supersampling of both grids."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foresight.grids import Grid, coarsest, coverage, edges_between, hybrid, overlap, regrid, side_by_side
from foresight.nouns import Tokens

# float64 throughout; sums of at most a few hundred terms of size 1
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


@st.composite
def whole_edges(draw: st.DrawFn, *, low: int = 0, high: int = 24) -> tuple[float, ...]:
    """Edges on whole numbers from `low` to `high`, of cells of differing size."""
    inner = draw(st.sets(st.integers(low + 1, high - 1), max_size=6))
    return (float(low), *map(float, sorted(inner)), float(high))


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    return Grid(rows=draw(whole_edges()), cols=draw(whole_edges(high=18)), times=draw(whole_edges(high=6)))


def values_on(grid: Grid, *, features: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(int(np.prod(grid.counts)), features))


def supersampled(values: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Regrid by painting unit cells one by one; the grids' edges are whole numbers."""
    block = values.reshape(*source.counts, -1)

    def cell(edges: tuple[float, ...], place: float) -> int:
        return int(np.searchsorted(edges, place, side="right")) - 1

    sums = np.zeros((*target.counts, values.shape[-1]))
    hits = np.zeros(target.counts)
    for t in range(int(target.times[0]), int(target.times[-1])):
        for r in range(int(target.rows[0]), int(target.rows[-1])):
            for c in range(int(target.cols[0]), int(target.cols[-1])):
                at = cell(target.times, t + 0.5), cell(target.rows, r + 0.5), cell(target.cols, c + 0.5)
                from_ = cell(source.times, t + 0.5), cell(source.rows, r + 0.5), cell(source.cols, c + 0.5)
                sums[at] += block[from_]
                hits[at] += 1
    return (sums / hits[..., None]).reshape(-1, values.shape[-1])


@settings(max_examples=25, deadline=None)
@given(source=grids(), target=grids(), seed=st.integers(0, 99))
def test_regridding_equals_painting_both_grids_cell_by_cell(source: Grid, target: Grid, seed: int) -> None:
    values = values_on(source, seed=seed)
    np.testing.assert_allclose(regrid(values, source, target), supersampled(values, source, target), **CLOSE)


@settings(max_examples=50, deadline=None)
@given(source=grids(), target=grids(), seed=st.integers(0, 99))
def test_the_integral_over_the_frames_is_kept(source: Grid, target: Grid, seed: int) -> None:
    values = values_on(source, seed=seed)
    before = (values * source.volumes[:, None]).sum(axis=0)
    after = (regrid(values, source, target) * target.volumes[:, None]).sum(axis=0)
    np.testing.assert_allclose(after, before, rtol=1e-10, atol=1e-8)


@settings(max_examples=50, deadline=None)
@given(source=grids(), target=grids(), level=st.floats(-1e6, 1e6))
def test_a_constant_stays_that_constant(source: Grid, target: Grid, level: float) -> None:
    flat = np.full((int(np.prod(source.counts)), 1), level)
    np.testing.assert_allclose(regrid(flat, source, target), level, rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(source=grids(), target=grids(), a=st.floats(-5, 5), b=st.floats(-5, 5))
def test_regridding_is_linear(source: Grid, target: Grid, a: float, b: float) -> None:
    x, y = values_on(source, seed=1), values_on(source, seed=2)
    together = regrid(a * x + b * y, source, target)
    apart = a * regrid(x, source, target) + b * regrid(y, source, target)
    np.testing.assert_allclose(together, apart, rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(grid=grids())
def test_the_same_grid_changes_nothing(grid: Grid) -> None:
    values = values_on(grid)
    np.testing.assert_array_equal(regrid(values, grid, grid), values)


def test_refining_and_coarsening_again_gives_the_values_back() -> None:
    coarse = Grid.over((2, 4, 5), size=(60, 70), duration_s=2.0)
    fine = Grid.over((6, 12, 10), size=(60, 70), duration_s=2.0)
    values = values_on(coarse)
    np.testing.assert_allclose(regrid(regrid(values, coarse, fine), fine, coarse), values, **CLOSE)


def test_cells_that_do_not_align_are_shared_by_area() -> None:
    three = Grid.over((1, 1, 3), size=(10, 30))
    two = Grid.over((1, 1, 2), size=(10, 30))
    # the first half holds the first cell and half of the second: (1 * 10 + 4 * 5) / 15
    found = regrid(np.array([[1.0], [4.0], [10.0]]), three, two)
    np.testing.assert_allclose(found[:, 0], [2.0, 8.0])


def test_a_planted_cell_lands_on_the_cells_that_cover_its_place() -> None:
    patches, latents = Grid.over((1, 16, 16), size=(224, 224)), Grid.over((1, 7, 7), size=(224, 224))
    values = np.zeros((256, 1))
    values[5 * 16 + 11] = 1.0  # rows 70-84 px, columns 154-168 px
    found = regrid(values, patches, latents).reshape(7, 7)
    # latent cells of 32 px: row 2 covers 64-96, columns 4 and 5 cover 128-160 and 160-192
    np.testing.assert_allclose(found[2, 4], 14 * 6 / 32**2)
    np.testing.assert_allclose(found[2, 5], 14 * 8 / 32**2)
    np.testing.assert_allclose(found.sum() * 32**2, 14 * 14)


def test_a_smaller_extent_takes_only_what_it_covers_and_a_partly_covered_cell_the_mean_of_its_cover() -> None:
    source = Grid(rows=(0, 10), cols=(0, 10, 20))
    values = np.array([[1.0], [3.0]])
    np.testing.assert_allclose(regrid(values, source, Grid(rows=(2, 4), cols=(5, 15)))[:, 0], [2.0])
    partly = Grid(rows=(0, 10), cols=(15, 35))
    np.testing.assert_allclose(regrid(values, source, partly)[:, 0], [3.0])
    np.testing.assert_allclose(coverage(source, partly), [0.25])


def test_a_cell_outside_the_source_is_refused_not_made_up() -> None:
    source = Grid.over((1, 2, 2), size=(20, 20))
    with pytest.raises(ValueError, match="source reaches from 0 to 20 and the target from 0 to 40"):
        regrid(np.ones((4, 1)), source, Grid.over((1, 2, 2), size=(40, 40)))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)]
)
def test_torch_and_numpy_agree_in_every_type_and_keep_it(dtype: torch.dtype, tolerance: float) -> None:
    source, target = (
        Grid.over((2, 5, 7), size=(50, 70), duration_s=1.0),
        Grid(rows=(0, 11, 50), cols=(0, 33, 70), times=(0.0, 0.3, 1.0)),
    )
    exact = np.random.default_rng(0).normal(size=(3, 70, 4))
    tensor = torch.from_numpy(exact).to(dtype)
    found = regrid(tensor, source, target)
    assert found.dtype == dtype
    assert found.shape == (3, 8, 4)
    np.testing.assert_allclose(
        found.double().numpy(), regrid(exact, source, target), rtol=tolerance, atol=tolerance
    )


def test_half_precision_arrays_stay_half_precision() -> None:
    source, target = Grid.over((1, 4, 4), size=(8, 8)), Grid.over((1, 2, 2), size=(8, 8))
    for dtype in (np.float16, ml_dtypes.bfloat16):
        assert regrid(np.ones((16, 1), dtype), source, target).dtype == dtype


def test_gradients_reach_every_source_cell_by_its_share() -> None:
    source, target = Grid.over((1, 1, 3), size=(1, 3)), Grid.over((1, 1, 2), size=(1, 3))
    values = torch.zeros(3, 1, requires_grad=True)
    regrid(values, source, target)[0].sum().backward()
    np.testing.assert_allclose(values.grad[:, 0], [2 / 3, 1 / 3, 0.0], atol=1e-6)


def test_what_is_no_float_or_not_finite_or_of_another_count_is_refused() -> None:
    grid = Grid.over((1, 2, 2), size=(4, 4))
    with pytest.raises(TypeError, match="floats, but got int64"):
        regrid(np.ones((4, 1), np.int64), grid, grid)
    with pytest.raises(TypeError, match=r"floats, but got torch\.int64"):
        regrid(torch.ones(4, 1, dtype=torch.int64), grid, grid)
    for bad in (np.full((4, 1), np.nan), torch.full((4, 1), float("inf"))):
        with pytest.raises(ValueError, match="finite"):
            regrid(bad, grid, grid)
    with pytest.raises(ValueError, match="has 4 tokens, but got values of shape"):
        regrid(np.ones((5, 1)), grid, grid)


def test_a_still_and_a_clip_are_not_mixed() -> None:
    still, clip = Grid.over((1, 2, 2), size=(4, 4)), Grid.over((2, 2, 2), size=(4, 4), duration_s=1.0)
    with pytest.raises(ValueError, match="the source is a still and the target is not"):
        regrid(np.ones((4, 1)), still, clip)
    with pytest.raises(ValueError, match="the target is a still and the source is not"):
        regrid(np.ones((8, 1)), clip, still)


def test_edges_must_rise_and_be_finite() -> None:
    for edges in [(0, 0), (3, 1), (0,), (0, float("nan"))]:
        with pytest.raises(ValueError, match="rising, finite edges"):
            Grid(rows=edges, cols=(0, 1))
    with pytest.raises(ValueError, match="give duration_s"):
        Grid.over((2, 1, 1), size=(4, 4))


def tokens_of(grid: tuple[int, int, int], *, size: tuple[int, int], step_s: float = 0.5) -> Tokens:
    t, h, w = grid
    time, row, col = np.meshgrid(
        (np.arange(t) + 0.5) * step_s,
        (np.arange(h) + 0.5) * size[0] / h,
        (np.arange(w) + 0.5) * size[1] / w,
        indexing="ij",
    )
    n = t * h * w
    # one class token after the grid, which has no place
    places = [np.append(a.reshape(-1), np.nan).astype(np.float32) for a in (time, row, col)]
    return Tokens(
        values=np.zeros((n + 1, 3), np.float32),
        time_s=places[0],
        row=places[1],
        col=places[2],
        kind=np.append(np.zeros(n), 1).astype(np.uint8),
        tile=np.zeros(n + 1, np.int32),
        grid=grid,
    )


def test_a_grid_is_read_off_the_places_its_tokens_tell() -> None:
    found = Grid.of(tokens_of((3, 4, 5), size=(61, 83)))
    np.testing.assert_allclose(found.rows, np.linspace(0, 61, 5), atol=1e-4)  # places are float32
    np.testing.assert_allclose(found.cols, np.linspace(0, 83, 6), atol=1e-4)
    np.testing.assert_allclose(found.times, [0, 0.5, 1.0, 1.5], atol=1e-6)
    assert Grid.of(tokens_of((1, 4, 5), size=(61, 83))).times is None


def test_a_single_cell_needs_the_extent_to_be_told() -> None:
    lone = tokens_of((1, 1, 4), size=(32, 64))
    with pytest.raises(ValueError, match="a single row does not tell how far it reaches"):
        Grid.of(lone)
    found = Grid.of(lone, size=(32, 64), duration_s=2.0)
    assert found.rows == (0.0, 32.0)
    assert found.times == (0.0, 2.0)


def test_overlap_and_edges_by_hand() -> None:
    np.testing.assert_allclose(overlap((0, 2, 4), (1, 3, 9)), [[1, 1], [0, 1]])
    np.testing.assert_allclose(edges_between([1.0, 3.0, 7.0]), [0, 2, 5, 9])


def test_a_hybrid_sets_features_of_two_models_side_by_side_on_one_grid() -> None:
    fine, coarse = Grid.over((1, 4, 4), size=(64, 64)), Grid.over((1, 2, 2), size=(64, 64))
    a, b = values_on(fine, features=3), values_on(coarse, features=5, seed=1)
    joined = hybrid([(a, fine), (b, coarse)], coarse)
    assert joined.shape == (4, 8)
    np.testing.assert_allclose(joined[:, :3], regrid(a, fine, coarse))
    np.testing.assert_array_equal(joined[:, 3:], b)
    tensors = hybrid([(torch.from_numpy(a), fine), (torch.from_numpy(b), coarse)], coarse)
    np.testing.assert_allclose(tensors.numpy(), joined, **CLOSE)
    with pytest.raises(TypeError, match="but got both"):
        hybrid([(a, fine), (torch.from_numpy(b), coarse)], coarse)
    with pytest.raises(ValueError, match="same samples"):
        hybrid([(a, fine), (np.stack([b, b]), coarse)], coarse)
    with pytest.raises(ValueError, match="got none"):
        hybrid([], coarse)


def evenly(cells: int) -> np.ndarray:
    return (np.arange(cells) + 0.5) / cells


def test_a_model_that_merges_two_frames_stands_beside_the_mean_of_both() -> None:
    times = np.arange(8) * 0.25
    apart, merged = side_by_side(
        [(times, evenly(8), evenly(8)), (times.reshape(4, 2).mean(axis=1), evenly(4), evenly(4))]
    )
    target = coarsest([apart, merged])
    assert target.counts == (4, 4, 4)
    values = values_on(apart)
    blocks = values.reshape(4, 2, 4, 2, 4, 2, -1).mean(axis=(1, 3, 5))
    joined = hybrid([(values, apart), (np.zeros((64, 1)), merged)], target)
    np.testing.assert_allclose(joined[:, :2], blocks.reshape(64, -1), **CLOSE)


def test_the_coarsest_grid_takes_each_axis_from_the_one_with_the_fewest_cells() -> None:
    wide, tall = Grid.over((1, 2, 6), size=(1, 1)), Grid.over((1, 5, 3), size=(1, 1))
    assert coarsest([wide, tall]).counts == (1, 2, 3)
    assert coarsest([wide, tall]).cols == tall.cols


def test_one_step_lasts_as_long_as_the_steps_beside_it_and_stills_have_no_duration() -> None:
    several, one = side_by_side([([0.0, 0.5], evenly(2), evenly(2)), ([0.25], evenly(2), evenly(1))])
    assert (one.times, one.cols) == ((-0.25, 0.75), (0.0, 1.0))
    np.testing.assert_allclose(regrid(np.array([[1.0]] * 4 + [[3.0]] * 4), several, one), 2.0)
    assert all(g.times is None for g in side_by_side([([0.0], evenly(2), evenly(2))] * 2))


def test_models_that_see_another_part_of_the_frames_are_not_set_side_by_side() -> None:
    whole = ([0.0], evenly(4), evenly(8))
    with pytest.raises(ValueError, match=r"their cols reach from 0 to 1 and 0\.25 to 0\.75 of the frame"):
        side_by_side([whole, ([0.0], evenly(4), 0.25 + evenly(4) / 2)])
    with pytest.raises(ValueError, match=r"their times reach from -0\.25 to 0\.75 and -0\.25 to 1\.75 s"):
        side_by_side([([0.0, 0.5], evenly(4), evenly(8)), ([0.0, 0.5, 1.0, 1.5], evenly(4), evenly(8))])

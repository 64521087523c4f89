"""Moran's I and the radial spectrum: brute force, known maps, chance levels."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.metrics import morans_i, radial_power_spectrum
from foresight.metrics.spatial import radial_power

MEASURES = [morans_i, radial_power_spectrum]


def noise(n: int, size: int, features: int = 1, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, size, size, features))


def waves(n: int, size: int, k: int, *, seed: int = 0) -> np.ndarray:
    """Return maps that hold one frequency of k cycles, at random phases and in either direction."""
    rng = np.random.default_rng(seed)
    at = 2 * np.pi * k * np.arange(size) / size
    return np.stack(
        [np.add.outer(np.cos(at + rng.uniform(0, 7)), np.cos(at + rng.uniform(0, 7))) for _ in range(n)]
    )


@pytest.mark.parametrize("contiguity", ["rook", "queen"])
def test_morans_i_is_its_definition(contiguity: str) -> None:
    x = np.random.default_rng(0).standard_normal((4, 5))
    z, top, count = x - x.mean(), 0.0, 0
    for r in range(4):
        for c in range(5):
            for dr in (-1, 0, 1):
                for dc in (-1, 0, 1):
                    near = abs(dr) + abs(dc) == 1 if contiguity == "rook" else (dr, dc) != (0, 0)
                    if near and 0 <= r + dr < 4 and 0 <= c + dc < 5:
                        top += z[r, c] * z[r + dr, c + dc]
                        count += 1
    got = morans_i(x[None], contiguity=contiguity, permutations=9)
    assert got.value == pytest.approx(20 / count * top / np.square(z).sum())


def test_a_ramp_is_near_one_and_a_chessboard_is_minus_one() -> None:
    ramp = np.add.outer(np.arange(16.0), np.arange(16.0))
    assert 0.9 < morans_i(ramp[None]).value < 1.0
    board = (np.indices((8, 8)).sum(0) % 2).astype(float)
    assert morans_i(board[None]).value == pytest.approx(-1.0)


def test_noise_reads_its_chance_level_and_its_p_is_uniform() -> None:
    got = morans_i(noise(200, 8, 3), permutations=400)
    assert got.controls["chance"] == pytest.approx(-1 / 63)
    assert got.null == pytest.approx(-1 / 63, abs=0.004)
    assert got.low < -1 / 63 < got.high
    p = np.array([morans_i(noise(5, 6, 2, seed=s), permutations=99, resamples=0).p for s in range(120)])
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.055)
    assert p.mean() == pytest.approx(0.5, abs=0.08)


def test_copies_of_one_map_are_no_more_evidence_than_the_map() -> None:
    one = noise(1, 6)
    assert morans_i(np.repeat(one, 50, axis=0)).p == pytest.approx(morans_i(one).p, abs=0.02)


def test_groups_weigh_the_same_and_constant_maps_are_left_out() -> None:
    x = noise(6, 6)
    mixed = np.concatenate([x, np.repeat(x[:1], 10, axis=0), np.ones((2, 6, 6, 1))])
    groups = [0, 1, 2, 3, 4, 5, *[0] * 10, 7, 8]
    got, want = morans_i(mixed, groups=groups), morans_i(x)
    assert got.value == pytest.approx(want.value)
    assert got.null == pytest.approx(want.null, abs=1e-6)
    assert (got.detail["constant maps"], got.n, got.n_effective) == (2, 18, 6)


def test_per_feature_values_separate_smooth_from_rough() -> None:
    both = np.concatenate([waves(10, 8, 1)[..., None], noise(10, 8)], axis=3)
    smooth, rough = morans_i(both).detail["per feature"]
    assert smooth > 0.5
    assert abs(rough) < 0.15
    centroids = radial_power_spectrum(both).detail["centroid per feature"]
    assert centroids[0] < 0.45 < centroids[1]


def test_power_lands_in_the_ring_of_its_frequency() -> None:
    for k in (1, 3, 7):
        power = radial_power(waves(5, 16, k)[..., None], window="none").mean(axis=(0, 1))
        assert power.argmax() + 1 == k
        assert power[k - 1] > 0.99 * power.sum()


def test_without_a_window_all_power_is_the_variance() -> None:
    x = noise(3, 8)
    spectrum = np.abs(np.fft.fft2(x[..., 0])) ** 2 / 64**2
    assert (spectrum.sum((1, 2)) - spectrum[:, 0, 0]).sum() == pytest.approx(x[..., 0].var(axis=(1, 2)).sum())
    ring = np.round(np.hypot(*np.meshgrid(np.fft.fftfreq(8) * 8, np.fft.fftfreq(8) * 8)))
    want = [spectrum[:, ring == r].mean() for r in (1, 2, 3, 4)]
    np.testing.assert_allclose(radial_power(x, window="none").mean((0, 1)), want)


def test_a_window_keeps_the_edges_of_a_ramp_from_looking_like_detail() -> None:
    ramp = np.add.outer(np.arange(16.0), np.zeros(16))[None]
    bare = radial_power_spectrum(ramp, window="none").value
    assert radial_power_spectrum(ramp).value < 0.75 * bare
    assert radial_power_spectrum(ramp).detail["power"][-1] < 1e-3
    assert radial_power_spectrum(ramp, window="none").detail["power"][-1] > 3e-3


def test_white_noise_reads_its_control_and_a_falling_spectrum_its_slope() -> None:
    white = radial_power_spectrum(noise(300, 16))
    assert white.value == pytest.approx(white.null, abs=0.01)
    assert white.low < white.null < white.high
    assert white.detail["slope"] == pytest.approx(0.0, abs=0.15)
    rng, size = np.random.default_rng(0), 32
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(size) * size, np.fft.fftfreq(size) * size))
    shape = np.where(k > 0, np.maximum(k, 1) ** -1.0, 0.0)
    pink = np.fft.ifft2(np.fft.fft2(rng.standard_normal((100, size, size))) * shape).real
    got = radial_power_spectrum(pink, window="none")
    assert got.detail["slope"] == pytest.approx(-2.0, abs=0.2)
    assert got.value < got.null


def test_a_small_grid_claims_no_slope_and_a_tiny_one_nothing() -> None:
    assert radial_power_spectrum(noise(5, 8)).detail["slope"] is None
    assert "at least 4 rows and columns, but got 3 x 3" in radial_power_spectrum(noise(5, 3)).why
    assert "at least 4 cells" in morans_i(noise(5, 1)).why


@pytest.mark.parametrize("measure", MEASURES)
def test_scale_and_offset_do_not_matter_and_constant_maps_are_undefined(measure) -> None:  # type: ignore[no-untyped-def]
    x = noise(12, 8)
    assert measure(5.0 * x + 100.0).value == pytest.approx(measure(x).value, rel=1e-6)
    assert measure(np.ones((5, 8, 8))).why == "every map is constant"
    with pytest.raises(ValueError, match=r"but got shape \[8, 8\]"):
        measure(np.ones((8, 8)))
    with pytest.raises(ValueError, match="must be finite"):
        measure(np.full((3, 8, 8), np.nan))


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="'rook' or 'queen', but got 'bishop'"):
        morans_i(noise(3, 8), contiguity="bishop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'hann' or 'none', but got 'box'"):
        radial_power_spectrum(noise(3, 8), window="box")  # type: ignore[arg-type]

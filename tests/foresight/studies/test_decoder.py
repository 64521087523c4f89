"""Q1.2 on planted latents: flat and peaked channels, smooth and noisy maps, channels that know the class."""

from __future__ import annotations

import numpy as np
import pytest

from foresight.metrics import Space
from foresight.studies.bands import channel_bands
from foresight.studies.decoder import (
    autocorrelation,
    class_share,
    decoder_latent,
    effective_channels,
    excess_kurtosis,
    part,
)
from foresight.studies.rows import RANDOM, TRAINED, Latent, Spaces

N, ROWS, COLS = 48, 8, 8


def latent(maps: np.ndarray, variant: str = TRAINED, *, grid: bool = True) -> Latent:
    n, rows, cols, _ = maps.shape
    values = maps.reshape(n, -1).astype(np.float32)
    cells = (1, rows, cols) if grid else None
    return Latent(model="vae", point="latent", variant=variant, space=Space(values), cells=cells)


def planted(seed: int = 0) -> np.ndarray:
    """Channel 0 a wave over the picture, 1 noise from cell to cell, 2 constant, 3 rare and large."""
    rng = np.random.default_rng(seed)
    across = np.cos(2 * np.pi * (np.arange(COLS) / COLS + rng.random((N, 1))))
    maps = np.zeros((N, ROWS, COLS, 4))
    maps[..., 0] = across[:, None, :] * 3
    maps[..., 1] = rng.normal(size=(N, ROWS, COLS))
    maps[..., 2] = 5.0
    maps[..., 3] = rng.normal(size=(N, ROWS, COLS)) * (rng.random((N, ROWS, COLS)) < 0.05)
    return maps


def found(maps: np.ndarray) -> dict[str, dict]:
    spaces = Spaces(vlm=(), decoder=latent(maps), labels=tuple("ab"[i % 2] for i in range(N)))
    return {m["name"]: m for m in decoder_latent(spaces)}


def test_channels_are_described_as_they_were_planted() -> None:
    rows = found(planted())
    assert all(m["low"] <= m["value"] <= m["high"] and m["n"] == N for m in rows.values())
    channels = rows["effective channels"]["detail"]
    assert int(np.argmax(channels["variance share"])) == 0
    assert channels["constant channels"] == 1
    assert channels["quantiles"][2] == pytest.approx([5.0] * 7)
    kurtosis = rows["channel excess kurtosis"]["detail"]["per channel"]
    assert kurtosis[2] is None
    assert abs(kurtosis[1]) < 0.5 < 5 < kurtosis[3]


def test_the_smooth_channel_is_coarse_and_the_noisy_one_fine() -> None:
    centroids = found(planted())["spectral centroid"]["detail"]["centroid per feature"]
    assert centroids[0] < 0.6 < centroids[1]
    held = latent(np.delete(planted(), 2, axis=-1))
    bands = channel_bands(held, seed=0)
    assert list(bands) == ["band 1 (coarsest)", "band 2", "band 3 (finest)"]
    assert bands["band 1 (coarsest)"].values == pytest.approx(
        held.space.values.reshape(N, 64, 3)[:, :, 0].astype(np.float32)
    )


def test_equal_channels_of_noise_count_each_and_one_alone_counts_one() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(N, 6, 6, 5))
    groups = np.arange(N)
    assert effective_channels(noise, groups, samples=N).value == pytest.approx(5, abs=0.2)
    one = noise * np.array([100, 1, 1, 1, 1])
    assert effective_channels(one, groups, samples=N).value == pytest.approx(1, abs=0.01)
    assert excess_kurtosis(noise, groups, samples=N).value == pytest.approx(0, abs=0.15)


def test_autocorrelation_is_that_of_a_wave() -> None:
    cells = np.arange(32)
    wave = np.cos(2 * np.pi * cells / 8)[None, None, :, None] * np.ones((3, 32, 1, 1))
    table = autocorrelation(wave, reach=8)
    centre = table.shape[1] // 2
    assert table[0, centre] == pytest.approx(1)
    assert table[5, centre] == pytest.approx(1)
    assert table[0, centre + 4] == pytest.approx(-1, abs=0.05)
    assert table[0, centre + 8] == pytest.approx(1, abs=0.05)
    assert np.isnan(autocorrelation(np.ones((2, 4, 4, 1)))).all()


def test_channels_that_know_the_class_are_counted_and_noise_is_not() -> None:
    rng = np.random.default_rng(2)
    labels = [str(i % 4) for i in range(N)]
    maps = rng.normal(size=(N, 4, 4, 6))
    blind = class_share(latent(maps), labels)
    assert blind.low <= blind.null <= blind.high or blind.p > 0.01
    maps[..., 3] += 3 * (np.arange(N) % 4)[:, None, None]
    told = class_share(latent(maps), labels)
    assert told.p <= 0.01
    assert told.detail["above chance"] == 1
    assert int(np.argmax(told.detail["per channel"])) == 3


def test_the_random_copy_stands_beside_it_and_constant_latents_say_so() -> None:
    spaces = Spaces(
        vlm=(),
        decoder=latent(np.full((N, 4, 4, 2), 7.0)),
        decoder_copy=latent(planted(), RANDOM),
        labels=(None,) * N,
    )
    rows = decoder_latent(spaces)
    assert {m["variant"] for m in rows} == {TRAINED, RANDOM}
    trained = [m for m in rows if m["variant"] == TRAINED]
    assert all(m["value"] is None and m["why"] for m in trained)


def test_tokens_without_a_grid_and_three_samples_are_undefined_with_a_reason() -> None:
    spaces = Spaces(vlm=(), decoder=latent(planted(), grid=False), labels=("a",) * N)
    assert {m["why"] for m in decoder_latent(spaces)} == {
        "the decoder's tokens fill no regular grid, so channels have no maps"
    }
    few = Spaces(vlm=(), decoder=latent(planted()[:3]), labels=("a", "b", "a"))
    assert all(m["low"] is None and m["why"] for m in decoder_latent(few))


def test_a_part_of_a_large_latent_keeps_groups_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foresight.studies.decoder.MOST_VALUES", 10 * 64 * 4)
    maps = planted()
    groups = np.repeat(np.arange(N // 2), 2)
    whole = latent(maps)
    clip = Latent(
        model="v",
        point="p",
        variant=TRAINED,
        space=Space(whole.space.values, groups=groups),
        cells=whole.cells,
    )
    kept, of, samples = part(clip, seed=0)
    assert len(kept) == len(of) == samples <= 10
    assert (np.bincount(of)[np.unique(of)] == 2).all()

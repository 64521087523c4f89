"""SSIM, PSNR and the perceptual distance: published references, ranges, and the name each number may bear."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from foresight.metrics import perceptual as measure
from foresight.metrics.perceptual import mean_over_groups, perceptual, psnr_db, squared_error, ssim

RNG = np.random.default_rng(0)
SHARP = RNG.uniform(0.2, 0.8, (3, 1, 48, 48, 3)).astype(np.float32)


def noisy(strength: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, strength, SHARP.shape)
    return np.clip(SHARP + noise, 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def distance() -> measure.Perceptual:
    return perceptual()


def test_equal_pictures_are_at_the_best_value(distance: measure.Perceptual) -> None:
    assert ssim(SHARP, SHARP) == pytest.approx([1, 1, 1])
    assert squared_error(SHARP, SHARP).tolist() == [0, 0, 0]
    assert distance(SHARP, SHARP) == pytest.approx([0, 0, 0], abs=1e-7)


def test_more_noise_is_further_by_every_measure(distance: measure.Perceptual) -> None:
    little, much = noisy(0.02), noisy(0.2)
    assert (ssim(SHARP, little) > ssim(SHARP, much)).all()
    assert (squared_error(SHARP, little) < squared_error(SHARP, much)).all()
    assert (distance(SHARP, little) < distance(SHARP, much)).all()


def test_ssim_is_that_of_the_definition() -> None:
    """Against the formula of the paper, written out with SciPy's Gaussian, away from the border."""
    from scipy.ndimage import gaussian_filter

    x, y = SHARP[0, 0, :, :, 0].astype(float), noisy(0.1)[0, 0, :, :, 0].astype(float)

    def blur(v: np.ndarray) -> np.ndarray:
        return gaussian_filter(v, 1.5, truncate=3.5)

    mx, my = blur(x), blur(y)
    sx, sy, sxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    whole = (2 * mx * my + 1e-4) * (2 * sxy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (sx + sy + 9e-4))
    grey = [np.repeat(v[None, None, :, :, None], 3, axis=-1) for v in (x, y)]
    assert ssim(*grey)[0] == pytest.approx(whole[5:-5, 5:-5].mean(), abs=1e-6)


def test_a_blank_picture_scores_high_by_ssim_on_a_small_shape() -> None:
    """Why SSIM never stands without a constant picture beside it."""
    white = np.ones((1, 1, 224, 224, 3), np.float32)
    rows, cols = np.mgrid[:224, :224]
    shape = white.copy()
    shape[0, 0, (rows - 100) ** 2 + (cols - 90) ** 2 < 30**2] = (1.0, 0.0, 0.0)
    assert 0.9 < ssim(white, shape)[0] < 0.99


def test_psnr_is_taken_of_the_mean_error() -> None:
    assert psnr_db(0.01) == pytest.approx(20)
    found = mean_over_groups(np.array([0.0, 0.02] * 8), list(range(16)), as_psnr=True)
    assert found.value == pytest.approx(20)
    assert found.low < 20 < found.high
    same = mean_over_groups(np.zeros(16), list(range(16)), as_psnr=True)
    assert math.isnan(same.value)
    assert "unbounded" in same.why


def test_frames_of_one_video_are_one_observation() -> None:
    videos = np.repeat(np.random.default_rng(3).normal(size=20), 10)
    grouped = mean_over_groups(videos, np.repeat(np.arange(20), 10))
    naive = mean_over_groups(videos, np.arange(200))
    assert grouped.n_effective == 20
    assert grouped.high - grouped.low > 2 * (naive.high - naive.low)


def test_a_clip_is_the_mean_over_its_frames(distance: measure.Perceptual) -> None:
    a, b = SHARP.transpose(1, 0, 2, 3, 4), noisy(0.1).transpose(1, 0, 2, 3, 4)
    assert ssim(a, b)[0] == pytest.approx(ssim(SHARP, noisy(0.1)).mean())
    assert distance(a, b)[0] == pytest.approx(distance(SHARP, noisy(0.1)).mean(), rel=1e-5)


def test_without_the_published_trunk_the_number_has_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    found = perceptual()
    assert not found.published
    assert "LPIPS" not in found.name
    assert found.trunk == measure.trunk_identity() == "random0"
    again = perceptual()
    assert again(SHARP, noisy(0.1)).tolist() == found(SHARP, noisy(0.1)).tolist()


def test_with_the_trunk_on_the_machine_the_number_is_lpips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trunk's file is read from torch's own folder, where torchvision puts it; here its values are drawn."""
    import torch
    import torchvision

    (tmp_path / "checkpoints").mkdir()
    torch.manual_seed(5)
    alex = torchvision.models.alexnet(weights=None)
    torch.save(alex.state_dict(), tmp_path / "checkpoints" / measure.TRUNK_FILE)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    found = perceptual()
    assert found.published
    assert found.name == "LPIPS"
    assert found.trunk == "7be5be79"
    first = next(p for n, p in found.net.named_parameters() if n.startswith("net.slice1"))
    assert torch.equal(first, alex.features[0].weight)


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        (SHARP, SHARP[:2], "pair by pair"),
        (SHARP, SHARP * 2, "clamp the decoder"),
        (SHARP[:, :, :8], SHARP[:, :, :8], "window is 11 px"),
    ],
)
def test_what_cannot_be_compared_is_refused(a: np.ndarray, b: np.ndarray, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ssim(a, b)


def test_pictures_too_small_for_the_network_are_refused(distance: measure.Perceptual) -> None:
    with pytest.raises(ValueError, match="at least 32 px"):
        distance(SHARP[:, :, :16], SHARP[:, :, :16])

"""How far rebuilt pictures are from the true ones: SSIM, PSNR and a perceptual distance, sample by sample.

Pictures are [sample time row col 3], floats in [0, 1]; a clip's number is the mean over its frames.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from foresight.metrics.estimate import Estimate
from foresight.metrics.space import group_codes
from foresight.metrics.statistics import FEWEST_FOR_INTERVAL, cluster_bootstrap

Pictures = Float[np.ndarray, "sample time row col 3"]

WINDOW = 11
"""Side of SSIM's Gaussian window in pixels (σ = 1.5, cut at 3.5 σ)."""
FEWEST_PX = 32
"""AlexNet's last layer needs at least this side."""
TRUNK_FILE = "alexnet-owt-7be5be79.pth"
"""torchvision's ImageNet weights of AlexNet, under torch's hub folder."""
UNPUBLISHED = "perceptual distance (random AlexNet)"
"""What the distance is called without the published trunk: a number of its own, never 'LPIPS'."""


def ssim(a: Pictures, b: Pictures) -> Float[np.ndarray, " sample"]:
    """Return the structural similarity of each pair, at most 1.

    Gaussian weights, σ = 1.5, data range 1, colour channels apart: Wang et al. (2004). A blank picture against
    a small shape scores above 0.9, so it is only read beside a constant picture. `ValueError` below 11 px.
    """
    from skimage.metrics import structural_similarity

    _check(a, b)
    if min(a.shape[2:4]) < WINDOW:
        raise ValueError(f"SSIM's window is {WINDOW} px wide, but pictures are {a.shape[2]} x {a.shape[3]}")
    found = [
        [
            structural_similarity(
                x,
                y,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=1.0,
                channel_axis=-1,
            )
            for x, y in zip(one, other, strict=True)
        ]
        for one, other in zip(a, b, strict=True)
    ]
    return np.asarray(found, np.float64).mean(axis=1)


def squared_error(a: Pictures, b: Pictures) -> Float[np.ndarray, " sample"]:
    """Return the mean squared error of each pair."""
    _check(a, b)
    found: np.ndarray = np.square(a.astype(np.float64) - b).reshape(len(a), -1).mean(axis=1)
    return found


def psnr_db(error: Any) -> Any:
    """Return the peak signal-to-noise ratio in dB of mean squared errors; infinite for 0."""
    with np.errstate(divide="ignore"):
        return -10.0 * np.log10(error)


@dataclass(frozen=True, kw_only=True, eq=False)
class Perceptual:
    """A perceptual distance, lower is better; `name` says with which network."""

    name: str
    published: bool
    """True when both the trunk and the linear weights are the published ones: only then it is LPIPS."""
    trunk: str
    """Identity of the trunk: the digest in its file's name, or the seed it was drawn from."""
    net: Any

    def __call__(self, a: Pictures, b: Pictures, *, at_once: int = 32) -> Float[np.ndarray, " sample"]:
        """Return the distance of each pair, from 0. `ValueError` for sides below 32 px."""
        import torch

        _check(a, b)
        samples, frames = a.shape[:2]
        if min(a.shape[2:4]) < FEWEST_PX:
            raise ValueError(
                f"{self.name} needs sides of at least {FEWEST_PX} px, but pictures are {a.shape[2]} x {a.shape[3]}"
            )
        device = next(self.net.parameters()).device
        # the network takes [-1, 1]; fed [0, 1] it gives distances several times too small, silently
        flat = [
            torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).flatten(0, 1).permute(0, 3, 1, 2) * 2
            - 1
            for x in (a, b)
        ]
        with torch.no_grad():
            parts = [
                self.net(x.to(device), y.to(device)).reshape(-1).cpu()
                for x, y in zip(flat[0].split(at_once), flat[1].split(at_once), strict=True)
            ]
        found: np.ndarray = torch.cat(parts).double().numpy().reshape(samples, frames).mean(axis=1)
        return found


def published_trunk() -> Path | None:
    """Return the file of the published AlexNet trunk when it is on this machine; nothing is downloaded."""
    import torch

    file = Path(torch.hub.get_dir()) / "checkpoints" / TRUNK_FILE
    return file if file.is_file() else None


def perceptual(*, device: str = "cpu", seed: int = 0) -> Perceptual:
    """Return LPIPS v0.1 (AlexNet) when its published trunk is on this machine, else the same distance without it.

    Without the trunk its weights are drawn from `seed` and the layers count equally, because the published linear
    weights mean nothing on another trunk. That number ranks pictures roughly and has a name of its own; no
    threshold for LPIPS applies to it. Zhang et al. (2018), arXiv:1801.03924.
    """
    import lpips
    import torch

    file = published_trunk()
    with warnings.catch_warnings(), torch.random.fork_rng():
        # lpips 0.1.4 calls torchvision the way of 2021 (PerceptualSimilarity issue 132)
        warnings.simplefilter("ignore", UserWarning)
        torch.manual_seed(seed)
        if file is None:
            net = lpips.LPIPS(net="alex", lpips=False, pretrained=False, pnet_rand=True, verbose=False)
        else:
            net = lpips.LPIPS(net="alex", version="0.1", verbose=False)
    net = net.eval().requires_grad_(False).to(device)
    if file is None:
        return Perceptual(name=UNPUBLISHED, published=False, trunk=f"random{seed}", net=net)
    return Perceptual(name="LPIPS", published=True, trunk=file.stem.rpartition("-")[2], net=net)


def trunk_identity(*, seed: int = 0) -> str:
    """Return the `trunk` that `perceptual` would use here, without loading it."""
    file = published_trunk()
    return f"random{seed}" if file is None else file.stem.rpartition("-")[2]


def mean_over_groups(
    values: Float[np.ndarray, " sample"],
    groups: Sequence[Any] | np.ndarray,
    *,
    seed: int = 0,
    as_psnr: bool = False,
    null: float = math.nan,
    controls: Mapping[str, float] | None = None,
    detail: Mapping[str, Any] | None = None,
) -> Estimate:
    """Return the mean of per-sample numbers with its 95 % interval over groups.

    With `as_psnr` the values are squared errors: their mean is taken first, then turned into dB. The interval is
    nan below 8 groups, and `why` then says so.
    """
    values = np.asarray(values, np.float64)
    codes = group_codes(groups, len(values))
    g = int(codes.max()) + 1
    totals = np.stack([np.bincount(codes, weights=values), np.bincount(codes)], axis=1)

    def ratio(sums: np.ndarray) -> np.ndarray:
        mean: np.ndarray = sums[:, 0] / sums[:, 1]
        return psnr_db(mean) if as_psnr else mean  # type: ignore[no-any-return]

    value = float(ratio(totals.sum(axis=0, keepdims=True))[0])
    low, high = cluster_bootstrap(totals, ratio, seed=seed)
    few = (
        f"an interval needs {FEWEST_FOR_INTERVAL} groups, but there are {g}"
        if g < FEWEST_FOR_INTERVAL
        else ""
    )
    if not math.isfinite(value):
        same = "the pictures are equal, so PSNR is unbounded" if as_psnr else "a sample's number is undefined"
        return Estimate.undefined(same, n=len(values), n_effective=g, detail=detail)
    return Estimate(
        value=value, low=low, high=high, null=null, n=len(values), n_effective=g,
        controls=dict(controls or {}), why=few, detail=dict(detail or {}),
    )  # fmt: skip


def _check(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape or a.ndim != 5 or a.shape[-1] != 3 or not len(a):
        raise ValueError(
            "pictures are compared pair by pair as [sample time row col 3], but got "
            f"{list(a.shape)} and {list(b.shape)}"
        )
    for x in (a, b):
        if not np.isfinite(x).all() or x.min() < 0 or x.max() > 1:
            raise ValueError(
                f"pictures are finite and in [0, 1], but got {float(np.min(x)):g} to {float(np.max(x)):g}; "
                "clamp the decoder's output first"
            )

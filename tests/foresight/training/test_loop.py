"""A training that is killed goes on bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from foresight.training.loop import fit

X = torch.linspace(-1, 1, 64)[:, None]


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))


def train(net: nn.Module, scratch: Path | None, *, stop_at: int | None = None) -> list[float]:
    def loss(generator: torch.Generator) -> torch.Tensor:
        rows = torch.randint(len(X), (16,), generator=generator)
        return (net(X[rows]) - X[rows].sin()).square().mean()

    def progress(done: int, _whole: int, _text: str) -> None:
        if done == stop_at:
            raise KeyboardInterrupt

    return fit(net, loss, steps=60, learning_rate=1e-2, seed=3, scratch=scratch, every=10, progress=progress)


def test_training_lowers_the_loss() -> None:
    losses = train(model(), None)
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])


@pytest.mark.parametrize("stop_at", [15, 30, 59])
def test_a_killed_training_goes_on_bit_for_bit(tmp_path: Path, stop_at: int) -> None:
    whole = model()
    expected = train(whole, None)
    with pytest.raises(KeyboardInterrupt):
        train(model(), tmp_path, stop_at=stop_at)
    resumed = model()
    assert train(resumed, tmp_path) == expected
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_leaves_the_numbers_is_an_error() -> None:
    net = model()
    with pytest.raises(FloatingPointError, match="at step 0 of 5"):
        fit(net, lambda _: net(X).sum() * float("nan"), steps=5, learning_rate=1e-2, seed=0)

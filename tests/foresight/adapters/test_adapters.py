"""Every adapter of the folder: learns eight samples by heart, survives saving, and has the parameters it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from foresight import adapters
from foresight.adapters import Design, Scale
from foresight.decisions import mlp_parameters
from foresight.training.loop import fit

SAMPLES, BLOCKS, SOURCE, TARGET = 8, 4, 48, 6
RNG = np.random.default_rng(0)
X = torch.from_numpy(RNG.normal(3, 2, (SAMPLES, BLOCKS, SOURCE)).astype(np.float32))
Y = torch.from_numpy(RNG.normal(-1, 0.5, (SAMPLES, BLOCKS, TARGET)).astype(np.float32))
SCALE = Scale(
    source_mean=X.mean(0).numpy(),
    source_std=X.std((0, 1)).numpy(),
    target_mean=Y.mean(0).numpy(),
    target_std=Y.std((0, 1)).numpy(),
)
EVERY = [str(Design(kind=k, width=64 if m.SIZED else 0)) for k, m in adapters.kinds().items()]


def fresh(text: str) -> torch.nn.Module:
    return adapters.build(adapters.parse(text), SCALE, seed=1)


@pytest.mark.parametrize("text", EVERY)
def test_it_learns_eight_samples_by_heart(text: str) -> None:
    net = fresh(text)
    losses = fit(net, lambda _: (net(X) - Y).square().mean(), steps=300, learning_rate=2e-2, seed=0)
    assert losses[-1] < 0.02 * losses[0]


@pytest.mark.parametrize("text", EVERY)
def test_untrained_it_answers_with_the_mean_of_the_targets(text: str) -> None:
    assert torch.allclose(fresh(text)(X), Y.mean(0).expand_as(Y), atol=1e-6)


@pytest.mark.parametrize("text", EVERY)
def test_saved_and_loaded_it_gives_the_same_bits(text: str) -> None:
    net, other = fresh(text), adapters.build(adapters.parse(text), SCALE, seed=2)
    fit(net, lambda _: (net(X) - Y).square().mean(), steps=5, learning_rate=1e-2, seed=0)
    other.load_state_dict(load(save(net.state_dict())))
    assert torch.equal(net(X), other(X))


def test_it_has_as_many_parameters_as_the_budget_counts() -> None:
    count = sum(p.numel() for p in fresh("mlp:64").parameters())
    assert count == mlp_parameters([SOURCE, 64, 64, TARGET])


def test_the_seed_alone_decides_the_weights() -> None:
    torch.manual_seed(99)
    first = [p.clone() for p in fresh("residual:16").parameters()]
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(first, fresh("residual:16").parameters(), strict=True))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("transformer:8", "an adapter is one of linear, mlp, residual"),
        ("linear:8", "leave the number out"),
        ("mlp", "as in mlp:256"),
        ("mlp:-3", "as in mlp:256"),
        ("mlp:0", "from 1 to 65536"),
    ],
)
def test_a_name_that_fits_no_adapter_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        adapters.parse(text)

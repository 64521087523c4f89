"""Recording modules during one forward pass: under the right name, whole or not at all, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from foresight.models.tap import record


class Chain(nn.Module):
    """Three linear layers; the second returns a tuple, as decoder layers of some releases do."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), Tupled(), nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)
        self.ran: list[str] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in "abc":
            x = getattr(self, name)(x)
            x = x[0] if isinstance(x, tuple) else x
            self.ran.append(name)
        return x


class Tupled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.inner(x), None


def run(model: Chain, paths: dict[str, str]) -> dict[str, torch.Tensor]:
    x = torch.ones(2, 4)
    return record(model, paths, lambda: model(x))


def test_values_come_under_the_name_asked_for_whatever_the_order() -> None:
    model = Chain()
    x = torch.ones(2, 4)
    seen = run(model, {"deep": "c", "shallow": "a"})
    assert torch.equal(seen["shallow"], model.a(x))
    assert torch.equal(seen["deep"], model.c(model.b(model.a(x))[0]))


def test_a_module_that_returns_a_tuple_is_recorded_not_skipped() -> None:
    model = Chain()
    assert torch.equal(run(model, {"b": "b"})["b"], model.b(model.a(torch.ones(2, 4)))[0])


def test_the_pass_stops_after_the_deepest_point() -> None:
    model = Chain()
    run(model, {"a": "a"})
    assert model.ran == []
    run(model, {"a": "a", "b": "b"})
    assert model.ran == ["a"]


def test_a_point_the_pass_never_reaches_is_an_error_not_an_empty_result() -> None:
    with pytest.raises(RuntimeError, match=r"never reached lost \(unused\)"):
        run(Chain(), {"a": "a", "lost": "unused"})


def test_an_unknown_module_is_refused_before_the_pass() -> None:
    model = Chain()
    with pytest.raises(KeyError, match=r"Chain has no module d\.e"):
        run(model, {"x": "d.e"})
    assert model.ran == []


def test_a_module_that_runs_twice_is_refused() -> None:
    model = Chain()
    twice = nn.Sequential(model.a, model.a, model.c)
    with pytest.raises(RuntimeError, match="runs once in a forward pass, but 0 ran twice"):
        record(twice, {"x": "0", "y": "2"}, lambda: twice(torch.ones(1, 4)))


def test_no_hook_stays_also_after_a_failure() -> None:
    model = Chain()

    def broken() -> None:
        model(torch.ones(2, 4))
        raise ZeroDivisionError

    run(model, {"a": "a"})
    with pytest.raises(ZeroDivisionError):
        record(model, {"x": "unused"}, broken)
    assert all(not m._forward_hooks for m in model.modules())
    assert model(torch.ones(2, 4)).shape == (2, 4)

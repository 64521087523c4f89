"""A multilayer perceptron with two hidden layers, applied to every block."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

NAME = "mlp"
SIZED = True


def build(source: int, target: int, width: int) -> nn.Module:
    """Return [… source] → `width` → `width` → [… target] with GELU between the layers."""
    from torch import nn

    return nn.Sequential(
        nn.Linear(source, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, target)
    )

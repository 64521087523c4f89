"""A linear adapter: one matrix for every block."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

NAME = "linear"
SIZED = False
"""Whether a width is part of the adapter's name."""


def build(source: int, target: int, width: int) -> nn.Module:
    """Return a map [… source] → [… target]; `width` is not used."""
    from torch import nn

    return nn.Linear(source, target)

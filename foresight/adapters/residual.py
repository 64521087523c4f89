"""A residual perceptron: a stream of `width` features that four blocks add to, applied to every block of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

NAME = "residual"
SIZED = True
DEPTH = 4


def build(source: int, target: int, width: int) -> nn.Module:
    """Return [… source] → `width`, four times x + W₂ GELU(W₁ LayerNorm(x)), → [… target]."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
            )

        def forward(self, x: Any) -> Any:
            return x + self.inner(x)

    return nn.Sequential(nn.Linear(source, width), *(Block() for _ in range(DEPTH)), nn.Linear(width, target))

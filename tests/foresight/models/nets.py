"""A model of no library, for the tests of declared cards: what a user's own file looks like."""

import torch
from torch import nn


class Patches(nn.Module):
    """Cuts pictures into patches and gives them column after column, with a token on either side."""

    def __init__(self, width: int = 12, patch: int = 8):
        super().__init__()
        self.cut = nn.Conv2d(3, width, patch, patch)
        self.before, self.after = nn.Parameter(torch.randn(2, width)), nn.Parameter(torch.randn(1, width))
        self.mix = nn.Linear(width, width)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        columns = self.cut(pixels).transpose(2, 3).flatten(2).transpose(1, 2)
        n = len(columns)
        return self.mix(torch.cat([self.before.expand(n, -1, -1), columns, self.after.expand(n, -1, -1)], 1))


def build(width: int = 12) -> nn.Module:
    return Patches(width)


def no_model() -> str:
    return "no model"

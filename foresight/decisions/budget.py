"""Real parameter counts of the adapters the plans name, and the width that meets a budget."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def mlp_parameters(widths: Sequence[int]) -> int:
    """Return the parameters of linear layers between consecutive `widths`, biases included.

    >>> mlp_parameters([1536, 2048, 128])
    3410048
    """
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"an MLP needs at least two positive widths, but got {list(widths)}")
    return sum((a + 1) * b for a, b in pairwise(widths))


def cross_attention_parameters(*, source: int, width: int, layers: int, queries: int, target: int) -> int:
    """Return the parameters of a cross-attention adapter.

    Input projection, learnt queries, `layers` blocks of self-attention, cross-attention and a feed-forward
    part four times as wide with three LayerNorms, and an output projection when `width` is not `target`.
    The number of heads changes nothing.
    """
    attention = 4 * (width * width + width)
    feed_forward = 2 * 4 * width * width + 5 * width
    block = 2 * attention + feed_forward + 3 * 2 * width
    out = 0 if width == target else (width + 1) * target
    return (source + 1) * width + queries * width + layers * block + out


def mlp_width_for(parameters: int, *, source: int, target: int) -> int:
    """Return the hidden width h for which [source, h, h, target] is closest to `parameters`.

    `ValueError` when no width comes within 5 %: then the budget and the spaces do not fit together.
    """

    def count(h: int) -> int:
        return mlp_parameters([source, h, h, target])

    low, high = 1, 1
    while count(high) < parameters:
        high *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < parameters else (low, middle)
    best = min((low, high), key=lambda h: abs(count(h) - parameters))
    if abs(count(best) - parameters) > 0.05 * parameters:
        raise ValueError(
            f"no MLP from {source} to {target} features has {parameters:,} parameters within 5 %; "
            f"the nearest has {count(best):,} at width {best}; choose another budget"
        )
    return best

"""What the tests of the image encoders share: pictures with one changed place, and the reference values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foresight import models
from foresight.models.encoders import FrameEncoder
from foresight.nouns import KINDS, Frames, Tokens


def drawn(card: str, **options: str) -> FrameEncoder:
    """Return a tiny card with random weights; register tokens, which start as zeros, are drawn too."""
    ref = models.parse_ref(card)
    given: dict[str, Any] = {"device": "cpu", "dtype": "float32", "attention": "sdpa"} | options
    found: FrameEncoder = models.family(ref.card).load(ref, None, **given)
    if hasattr(found.model.embeddings, "register_tokens"):
        with torch.no_grad():
            found.model.embeddings.register_tokens.normal_(generator=torch.Generator().manual_seed(0))
    return found


def with_block(frames: Frames, row: float, col: float, *, half: int = 3, frame: int = 0) -> Frames:
    """Return `frames` with the pixels within `half` px of a place inverted, in one frame."""
    pixels = frames.pixels.copy()
    here = (frame, *(slice(max(round(at) - half, 0), round(at) + half) for at in (row, col)))
    pixels[here] = 255 - pixels[here]
    return Frames(pixels=pixels, times_s=frames.times_s)


def assert_the_place_responds(encoder: FrameEncoder, batch: Sequence[Frames], points: Sequence[str]) -> None:
    """Change one place after another; the patch that claims it must move most, and no other sample at all."""
    before = encoder.extract(batch, points)
    for index, frames in enumerate(batch):
        for point in points:
            grid = before[index][point].grid
            tokens = before[index][point]
            cells = np.arange(int(np.prod(grid))).reshape(grid)
            for row, col in [(0, 0), (1, grid[2] // 2), (grid[1] - 1, 2), (grid[1] // 2, grid[2] - 1)]:
                frame = (row + col) % grid[0]
                token = int(cells[frame, row, col])
                changed = [*batch]
                changed[index] = with_block(frames, tokens.row[token], tokens.col[token], frame=frame)
                after = encoder.extract(changed, [point])
                for other, (a, b) in enumerate(zip(before, after, strict=True)):
                    moved = (a[point].values - b[point].values).norm(dim=1)[: int(np.prod(a[point].grid))]
                    if other == index:
                        assert int(moved.argmax()) == token, (point, frames.size, row, col)
                    else:
                        assert float(moved.max()) < 1e-4  # another sample of the batch: rounding at most


def assert_kinds(tokens: Tokens, leading: Sequence[str], times_s: Sequence[float]) -> None:
    """Patches fill the grid and have places; then, frame by frame, the leading tokens, which have only a time."""
    patches = int(np.prod(tokens.grid))
    assert [KINDS[k] for k in tokens.kind[:patches]] == ["patch"] * patches
    assert [KINDS[k] for k in tokens.kind[patches:]] == [*leading] * len(times_s)
    assert np.isfinite(tokens.row[:patches]).all()
    assert np.isnan(tokens.row[patches:]).all()
    assert np.isnan(tokens.col[patches:]).all()
    np.testing.assert_allclose(tokens.time_s[:patches].reshape(tokens.grid)[:, 0, 0], times_s)
    np.testing.assert_allclose(tokens.time_s[patches:], np.repeat(times_s, len(leading)))
    assert not tokens.tile.any()


def layer_calls(encoder: FrameEncoder, layers: Any, batch: Sequence[Frames], asked: Sequence[str]) -> int:
    """Return how many of `layers` ran while `asked` points were read."""
    calls: list[int] = []
    handles = [m.register_forward_hook(lambda *_: calls.append(1)) for m in layers]
    try:
        encoder.extract(batch, asked)
    finally:
        for handle in handles:
            handle.remove()
    return len(calls)


def reloaded(encoder: FrameEncoder, folder: Path) -> FrameEncoder:
    """Return the model after saving it into `folder` and loading it from there."""
    encoder.save(folder)
    ref = models.parse_ref(f"{encoder.card.name}@path:{folder}")
    found: FrameEncoder = models.family(ref.card).load(
        ref, folder, device="cpu", dtype="float32", attention="sdpa"
    )
    return found

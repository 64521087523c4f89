"""Small PNG pictures of samples, for reports."""

from __future__ import annotations

import io

from PIL import Image

from foresight.nouns import Frames


def thumbnail_png(frames: Frames, size: int) -> bytes:
    """Return the middle frame as PNG, shrunk to at most `size` px on its longer side, never enlarged."""
    if size < 1:
        raise ValueError(f"a thumbnail is at least 1 px wide, but got size={size}")
    image = Image.fromarray(frames.pixels[len(frames.pixels) // 2])
    image.thumbnail((size, size), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, format="PNG")
    return out.getvalue()

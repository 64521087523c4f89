"""What image encoders share: each frame is an image of its own, and its tokens go back to their place and time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from foresight.data.fitting import Fit
from foresight.models.card import Card, Point, resolve_points
from foresight.models.device import without_bars
from foresight.nouns import KINDS, Frames, Tokens

if TYPE_CHECKING:
    from torch import Tensor


def vit_points(
    depth: int, width: int, *, patch: str, blocks: str, final: str | None = None
) -> tuple[Point, ...]:
    """Return the points of a vision transformer: what enters the blocks, each block, and the final norm.

    `patch`, `blocks` and `final` are module paths; `final=None` for a tower whose last norm is not applied to
    patches.
    """
    found = [Point(name="patch", path=patch, width=width, about="patch embedding with positions")]
    found += [
        Point(
            name=f"vit.{layer}",
            path=f"{blocks}.{layer - 1}",
            width=width,
            about=f"after {layer} of {depth} blocks",
        )
        for layer in range(1, depth + 1)
    ]
    if final:
        found.append(Point(name="vit.final", path=final, width=width, about="after the final norm"))
    return tuple(found)


def stretched(size: tuple[int, int], to: tuple[int, int] | None = None, *, multiple_of: int = 1) -> Fit:
    """Return the map of frames of `size` (height, width) px stretched `to` a size.

    Without one, each side goes to the nearest multiple of `multiple_of` px, at least one of them.
    """
    height, width = to or (max(1, round(side / multiple_of)) * multiple_of for side in size)
    return Fit(
        size_out=(height, width),
        scale_row=height / size[0],
        scale_col=width / size[1],
        offset_row=0.0,
        offset_col=0.0,
    )


class FrameEncoder:
    """A loaded vision transformer that sees one image at a time and reads any of its points in one pass.

    A clip is its frames: the time axis of a grid counts frames, each encoded without the others. The tokens of
    a frame come out of the model as `leading` kinds, then patches in raster order. They are given back
    with the patches of all frames first, then the leading tokens frame by frame, which have a time and no place.
    """

    def __init__(
        self,
        card: Card,
        model: Any,
        processor: Any,
        *,
        points: tuple[Point, ...],
        leading: tuple[str, ...],
        patch: int,
        view: Callable[[tuple[int, int]], Fit],
        options: Callable[[Fit], dict[str, Any]] = lambda _: {},
    ):
        """`view` maps a frame's (height, width) to the pixels the model sees, and `options` says how the
        processor is asked for them when that is not its own way."""
        self.card, self.model, self.processor = card, model, processor
        self.points, self.leading, self.patch = points, leading, patch
        self.view, self.options = view, options
        self.forwards = 0
        """Forward passes so far."""

    def extract(self, batch: Sequence[Frames], asked: Sequence[str]) -> list[dict[str, Tokens]]:
        """Return one `{point: Tokens}` per entry of `batch`; all points of a size from one forward pass.

        Sizes, stills and clips may be mixed: frames that the model sees at one size go through it together. The
        pass ends after the deepest point asked for.
        """
        import torch

        from foresight.models.tap import record

        wanted = resolve_points(self.points, asked, model=self.card.name)
        views = [self.view(frames.size) for frames in batch]
        found: list[dict[str, Tokens]] = [{} for _ in batch]
        for size in dict.fromkeys(view.size_out for view in views):
            here = [i for i, view in enumerate(views) if view.size_out == size]
            inputs = self.prepare([batch[i] for i in here])
            with torch.no_grad():
                seen = record(self.model, {p.name: p.path for p in wanted}, partial(self.model, **inputs))
            self.forwards += 1
            counts = [len(batch[i].pixels) for i in here]
            for point in wanted:
                for i, values in zip(here, seen[point.name].split(counts), strict=True):
                    found[i][point.name] = self._tokens(values, views[i], batch[i])
        return found

    def prepare(self, batch: Sequence[Frames]) -> dict[str, Any]:
        """Return the model's own inputs for frames that it sees at one size, on its device.

        `pixel_values` is [frame 3 row col], the frames of all samples end to end.
        """
        import torch

        parts = []
        for frames in batch:
            pixels = torch.from_numpy(frames.pixels.copy()).permute(0, 3, 1, 2)
            options = self.options(self.view(frames.size))
            parts.append(self.processor(list(pixels), return_tensors="pt", **options)["pixel_values"])
        return {"pixel_values": torch.cat(parts).to(self.model.device, self.model.dtype)}

    def save(self, folder: Path) -> None:
        """Write an ordinary checkpoint folder: safetensors, configuration and image processor."""
        with without_bars():
            self.model.save_pretrained(folder, safe_serialization=True)
        self.processor.save_pretrained(folder)

    def _tokens(self, values: Tensor, view: Fit, frames: Frames) -> Tokens:
        count = len(self.leading)
        height, width = (side // self.patch for side in view.size_out)
        rows, cols = view.to_input(
            (np.arange(height) + 0.5) * self.patch, (np.arange(width) + 0.5) * self.patch
        )
        return placed(
            values[:, count:].reshape(len(values), height, width, -1),
            times_s=frames.times_s,
            rows=rows,
            cols=cols,
            others=values[:, :count].flatten(0, 1),
            other_kinds=self.leading * len(values),
            other_times_s=np.repeat(frames.times_s, count),
        )


def placed(
    patches: Tensor,
    *,
    times_s: Any,
    rows: Any,
    cols: Any,
    others: Tensor,
    other_kinds: Sequence[str],
    other_times_s: Any,
) -> Tokens:
    """Return tokens with their places: the grid `patches` [time row col feature] first, then `others`.

    `times_s`, `rows` and `cols` are the centres of the cells along each axis, in seconds and in pixels of the
    frames. `others` [token feature] have no place; `other_times_s` is nan for one that has no time either.
    """
    import torch

    grid = tuple(patches.shape[:3])
    time, row, col = (a.reshape(-1) for a in np.meshgrid(np.asarray(times_s), rows, cols, indexing="ij"))
    nowhere = np.full(len(other_kinds), np.nan)
    n = len(time)
    return Tokens(
        values=torch.cat([patches.reshape(n, patches.shape[-1]), others]).cpu(),
        time_s=_float32(time, other_times_s),
        row=_float32(row, nowhere),
        col=_float32(col, nowhere),
        kind=np.array([KINDS.index("patch")] * n + [KINDS.index(k) for k in other_kinds], np.uint8),
        tile=np.zeros(n + len(other_kinds), np.int32),
        grid=grid,  # type: ignore[arg-type]
    )


def _float32(patches: Any, others: Any) -> Float[np.ndarray, " token"]:
    return np.concatenate([patches, others]).astype(np.float32)

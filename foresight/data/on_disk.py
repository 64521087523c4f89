"""What every data set of files has in common: one lazy scan, and frames found by a sample's digest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from foresight.data.files import Files
from foresight.data.sampling import Sampling
from foresight.data.source import Progress
from foresight.data.thumbnails import thumbnail_png
from foresight.nouns import Frames, Manifest, Sample


class OnDisk(ABC):
    """A data source over `files`; a kind of data says how they are scanned."""

    def __init__(self, files: Files, *, samples: int | None, seed: int) -> None:
        self.scan_progress: Progress | None = None
        self.ignored: dict[str, int] = {}
        self._files = files
        self._samples = samples
        self._seed = seed
        self._manifest: Manifest | None = None

    @abstractmethod
    def _scan(self) -> Manifest:
        """List the samples and what cannot be used; raises `NoUsableData` when nothing can."""

    @property
    def manifest(self) -> Manifest:
        if self._manifest is None:
            self._manifest = self._scan()
        return self._manifest

    def facts(self, sample: Sample) -> dict[str, Any]:
        """Return what the scan saw of a file: `size`, and `pictures` or `frames`, `duration_s`, `decoder`.

        Nothing where the scan did not decode.
        """
        _ = self.manifest
        return self._files.facts(sample.digest)

    def frames(self, sample: Sample, sampling: Sampling) -> Frames:
        _ = self.manifest
        return self._files.frames(sample, sampling)

    def thumbnail(self, sample: Sample, size: int = 96) -> bytes:
        return thumbnail_png(self.frames(sample, Sampling(frames=1)), size)


def folder_at(location: str, spelling: str) -> Path:
    """Return the folder a data set was opened with. Raises ValueError when it is not there."""
    root = Path(location)
    if not location or not root.is_dir():
        raise ValueError(f"{spelling} names a folder that is there, but got {location!r}; check the path")
    return root

"""Real media for the tests: clips encoded with PyAV, stills saved with Pillow."""

from __future__ import annotations

import shutil
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import skimage
import sklearn
from PIL import Image


def picture(height: int = 48, width: int = 64, *, seed: int = 0) -> np.ndarray:
    """Return a blocky colour picture, uint8 [row col 3]: it compresses, and no two seeds look alike."""
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3))
    return np.ascontiguousarray(np.kron(blocks, np.ones((8, 8, 1)))[:height, :width].astype(np.uint8))


def save_picture(path: Path, *, height: int = 48, width: int = 64, seed: int = 0, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(height, width, seed=seed)).save(path, **options)
    return path


def save_clip(
    path: Path,
    *,
    codec: str = "libvpx-vp9",
    frames: int = 20,
    height: int = 48,
    width: int = 64,
    fps: int = 10,
    seed: int = 0,
    times_ms: list[int] | None = None,
    options: dict[str, str] | None = None,
    pixel_format: str = "yuv420p",
) -> Path:
    """Encode a picture that moves two pixels a frame; with `times_ms`, frames come at these times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    base = picture(height, width, seed=seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(base, 2 * i, 1)), format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[i], Fraction(1, 1000)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def rotate_mp4(path: Path, *, turn: int) -> None:
    """Set the rotation of an MP4's only track, in degrees, in place: nine numbers in its track header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    matrix = at + (40 if data[at] == 0 else 52)
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[turn]
    one = 1 << 16
    values = [cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30]
    data[matrix : matrix + 36] = struct.pack(">9i", *values)
    path.write_bytes(bytes(data))


def photographs(folder: Path) -> Path:
    """Copy the photographs shipped inside scikit-image and scikit-learn to `folder`, in two labels."""
    for label, package, inside in (("image", skimage, "data"), ("learn", sklearn, "datasets/images")):
        (folder / label).mkdir(parents=True)
        for path in (Path(package.__file__).parent / inside).iterdir():
            if path.suffix in (".png", ".jpg"):
                shutil.copy(path, folder / label)
    return folder


def independent_frames(path: Path) -> tuple[np.ndarray, list[float]]:
    """Return every frame [time row col 3] and its time, by a plain PyAV loop: no code of ours."""
    with av.open(str(path)) as container:
        decoded = [(frame.to_ndarray(format="rgb24"), frame.time) for frame in container.decode(video=0)]
    return np.stack([pixels for pixels, _ in decoded]), [float(time) for _, time in decoded]

"""Both readers give the frames that an independent decode gives."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from foresight.data import Sampling, decord_reader, pyav_reader
from foresight.data.clips import ClipError, probe_clip, read_clip

from .media import independent_frames, rotate_mp4, save_clip

READERS = [decord_reader.read, pyav_reader.read]
FILES = {
    "vp9.webm": {},
    "h264.mp4": {"codec": "libx264"},
    "b_frames.mkv": {"codec": "libx264", "frames": 60, "options": {"bf": "3", "g": "20"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "odd_width.webm": {"width": 63},
    "444.mkv": {"codec": "libx264", "pixel_format": "yuv444p"},
    "full_range.mkv": {"codec": "libx264", "pixel_format": "yuvj420p"},
    "one_frame.webm": {"frames": 1},
    "one_frame.mp4": {"codec": "libx264", "frames": 1},
    "uneven.webm": {"times_ms": [0, 100, 200, 900, 1000, 1033, 2000], "frames": 7},
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("read", READERS)
def test_every_reader_gives_the_frames_of_an_independent_decode(tmp_path, name, read):
    path = save_clip(tmp_path / name, **FILES[name])
    expected, times = independent_frames(path)
    pixels, starts_s, chosen = read(str(path), Sampling(frames=len(expected)))
    assert chosen.tolist() == list(range(len(expected)))
    # the same FFmpeg conversion on the same decoded planes: bit for bit
    np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_allclose(starts_s, times, atol=1e-5)


def planes_by_libvpx(path: Path) -> list[np.ndarray]:
    """Return the planes of every frame, Y above U above V, uint8 [1.5 row, col], by VP9's own library."""
    decoder = av.CodecContext.create("libvpx-vp9", "r")
    with av.open(str(path)) as container:
        frames = [frame for packet in container.demux(video=0) for frame in decoder.decode(packet)]
    assert decoder.codec.name == "libvpx-vp9"
    return [frame.to_ndarray() for frame in frames]


def rgb_of(planes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return BT.601's RGB of 4:2:0 planes of limited range, in real numbers; colour is repeated two by two."""
    luma = (planes[:height] - 16.0) * 255 / 219
    chroma = planes[height:].reshape(2, height // 2, width // 2).repeat(2, axis=1).repeat(2, axis=2)
    blue, red = (chroma - 128.0) * 255 / 224
    green = luma - (0.114 * 1.772 * blue + 0.299 * 1.402 * red) / 0.587
    return np.stack([luma + 1.402 * red, green, luma + 1.772 * blue], axis=-1).clip(0, 255)


@pytest.mark.skipif("libvpx-vp9" not in av.codecs_available, reason="this PyAV is built without libvpx")
@pytest.mark.parametrize("read", READERS)
def test_vp9_frames_are_those_of_a_decoder_and_a_formula_that_neither_reader_uses(tmp_path, read):
    path = save_clip(tmp_path / "clip.webm", frames=40, height=96, width=128)
    expected = [rgb_of(planes, 96, 128) for planes in planes_by_libvpx(path)]
    pixels, _, _ = read(str(path), Sampling(frames=40))
    assert len(expected) == 40
    # FFmpeg converts by tables of whole numbers, and cuts off where it should round
    assert np.abs(pixels - np.stack(expected)).max() < 3


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "sampling", [Sampling(frames=5), Sampling(frames=3, rate_hz=2), Sampling(times_s=(0.3, 1.7))]
)
def test_sampled_frames_are_the_ones_that_the_rule_names(tmp_path, read, sampling):
    path = save_clip(tmp_path / "clip.mkv", codec="libx264", frames=40, options={"bf": "2", "g": "12"})
    expected, times = independent_frames(path)
    pixels, _, _ = read(str(path), sampling)
    np.testing.assert_array_equal(pixels, expected[sampling.indices(np.array(times))])


def test_times_count_in_seconds_from_the_first_frame(tmp_path):
    frames = read_clip(str(save_clip(tmp_path / "clip.webm", fps=10)), Sampling(frames=4))
    np.testing.assert_allclose(frames.times_s, [0.2, 0.7, 1.2, 1.7], atol=1e-6)
    assert frames.decoder.startswith("decord ")


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_the_rotation_in_a_container_is_applied(tmp_path, turn):
    path = save_clip(tmp_path / "clip.mp4", codec="libx264", frames=3)
    upright, _ = independent_frames(path)
    rotate_mp4(path, turn=turn)
    frames = read_clip(str(path), Sampling(frames=3))
    by_pyav, _, _ = pyav_reader.read(str(path), Sampling(frames=3))
    np.testing.assert_array_equal(frames.pixels, by_pyav)
    # decord cannot do quarter turns of a clip that is not square; PyAV then reads it
    assert frames.decoder.startswith("pyav" if turn in (90, 270) else "decord")
    # a display matrix of 90 degrees asks for a clockwise turn
    np.testing.assert_array_equal(by_pyav, np.rot90(upright, -turn // 90, axes=(1, 2)))


def test_the_second_reader_takes_over_and_says_why(tmp_path, monkeypatch):
    path = save_clip(tmp_path / "clip.webm")

    def broken(path: str, sampling: Sampling) -> None:
        raise ClipError("cannot open it")

    monkeypatch.setattr(decord_reader, "read", broken)
    frames = read_clip(str(path), Sampling(frames=20))
    np.testing.assert_array_equal(frames.pixels, independent_frames(path)[0])
    assert frames.decoder.startswith("pyav ")
    assert "(decord 0.6.0: cannot open it)" in frames.decoder


@pytest.mark.parametrize(
    "options",
    [
        {"height": 47, "width": 63},
        {"codec": "libx264", "pixel_format": "yuv420p10le"},
    ],
)
def test_where_the_readers_would_differ_only_one_reads(tmp_path, options):
    path = save_clip(tmp_path / "clip.mkv", **options)
    frames = read_clip(str(path), Sampling(frames=20))
    np.testing.assert_array_equal(frames.pixels, independent_frames(path)[0])
    assert frames.decoder.startswith("pyav")
    assert "in another way" in frames.decoder


def test_a_probe_tells_frames_duration_and_size(tmp_path):
    facts = probe_clip(str(save_clip(tmp_path / "clip.webm", frames=15, fps=5)))
    assert (facts.frames, facts.size) == (15, (48, 64))
    assert facts.duration_s == pytest.approx(3.0, abs=1e-6)


@pytest.mark.parametrize("content", [b"", b"\x1a\x45\xdf\xa3 nothing", b"RIFF\0\0\0\0AVI ", b"text" * 100])
def test_what_is_no_clip_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "clip.webm"
    path.write_bytes(content)
    with pytest.raises(ClipError) as caught:
        probe_clip(str(path))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert len(str(caught.value)) < 250

"""The header read from the first bytes is PyAV's, or nothing is said."""

from __future__ import annotations

import av
import numpy as np
import pytest

from foresight import data
from foresight.data import clips, pyav_reader, vp9_header

from .media import save_clip
from .test_hostile import add_sound

PLAIN = {
    "even.webm": {},
    "odd.webm": {"height": 47, "width": 63},
    "low.webm": {"height": 18, "width": 300},
    "one_frame.webm": {"frames": 1},
    "a.mkv": {},
    "full_range.webm": {"options": {"color_range": "pc"}},
}
OTHER = {
    "444.webm": {"pixel_format": "yuv444p"},
    "422.webm": {"pixel_format": "yuv422p"},
    "rgb.webm": {"pixel_format": "gbrp"},
    "h264.mkv": {"codec": "libx264"},
    "vp8.webm": {"codec": "libvpx"},
    "vp9.mp4": {},
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_vp9_has_the_header_that_pyav_reads(tmp_path, name):
    path = str(save_clip(tmp_path / name, **PLAIN[name]))
    assert vp9_header.read(path) == pyav_reader.header(path)


@pytest.mark.parametrize("name", OTHER)
def test_of_other_clips_nothing_is_said_and_pyav_is_asked(tmp_path, name):
    path = str(save_clip(tmp_path / name, **OTHER[name]))
    assert vp9_header.read(path) is None
    assert clips.read_header(path) == pyav_reader.header(path)


def test_a_live_recording_leaves_its_sizes_open(tmp_path):
    path = tmp_path / "live.webm"
    whole = save_clip(tmp_path / "whole.webm")
    with av.open(str(whole)) as source, av.open(str(path), "w", options={"live": "1"}) as live:
        stream = live.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                live.mux(packet)
    assert b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff" in path.read_bytes()
    assert vp9_header.read(str(path)) == pyav_reader.header(str(path))


def test_a_clip_with_sound_is_left_to_pyav(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        add_sound(container)
        for packet in stream.encode(av.VideoFrame(64, 48, "yuv420p")):
            container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    assert vp9_header.read(str(path)) is None


@pytest.mark.parametrize("seed", range(4))
def test_bytes_that_make_no_sense_never_break_it(tmp_path, seed):
    whole = save_clip(tmp_path / "a.webm", frames=2).read_bytes()
    rng = np.random.default_rng(seed)
    path = tmp_path / "bad.webm"
    said = 0
    for _ in range(200):
        content = bytearray(whole[: int(rng.integers(1, len(whole)))])
        for at in rng.integers(0, min(len(content), 600), 4):
            content[at] = rng.integers(0, 256)
        path.write_bytes(content)
        said += vp9_header.read(str(path)) is not None
    assert 0 < said < 200
    path.write_bytes(b"")
    assert vp9_header.read(str(path)) is None
    assert vp9_header.read(str(tmp_path / "nowhere.webm")) is None


def test_the_frames_do_not_depend_on_who_read_the_header(tmp_path, monkeypatch):
    path = str(save_clip(tmp_path / "a.webm"))
    mine = clips.read_clip(path, data.Sampling(frames=5))
    monkeypatch.setattr(vp9_header, "read", lambda path: None)
    pyavs = clips.read_clip(path, data.Sampling(frames=5))
    assert mine.decoder == pyavs.decoder
    np.testing.assert_array_equal(mine.pixels, pyavs.pixels)


def test_a_cluster_of_open_size_is_entered_too(tmp_path):
    content = save_clip(tmp_path / "a.webm", frames=2).read_bytes()
    at = content.index(b"\x1f\x43\xb6\x75") + 4
    width = 9 - content[at].bit_length()
    path = tmp_path / "open.webm"
    path.write_bytes(content[:at] + b"\xff" + content[at + width :])
    assert vp9_header.read(str(path)) == pyav_reader.header(str(path))

"""A decoder that crashes or hangs costs its own clip and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from foresight import data
from foresight.data import isolated
from foresight.data.clips import ClipError, probe_clip, read_clip
from foresight.data.stills import read_still

from .media import save_clip, save_picture

# a module that Python imports at start-up, standing in for a decoder with a memory error in it
SABOTAGE = """
import sys
if "foresight.data.decode_worker" in sys.orig_argv:
    import os, signal, time
    import foresight.data.clips as clips
    real = clips.read_clip
    def read_clip(path, *args, **kwargs):
        name = os.path.basename(path)
        if "crash" in name:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "exit" in name:
            os._exit(3)
        if "hang" in name:
            time.sleep(1000)
        if "noise" in name:
            print("a library prints to standard output", flush=True)
            os.write(1, b"also from C")
        if "bug" in name:
            raise KeyError("ours")
        return real(path, *args, **kwargs)
    clips.read_clip = read_clip
    import foresight.data.stills as stills
    real_still = stills.read_still
    def read_still(file):
        if "crash" in os.path.basename(file.name) or os.path.exists(file.name + ".crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        return real_still(file)
    stills.read_still = read_still
"""


@pytest.fixture
def sabotaged(tmp_path, monkeypatch):
    """Decoding processes started now fail on clips whose names say so."""
    folder = tmp_path / "sabotage"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SABOTAGE)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    isolated.stop_idle()
    yield
    isolated.stop_idle()


@pytest.mark.parametrize(
    "sampling",
    [data.Sampling(frames=5), data.Sampling(frames=3, rate_hz=4), data.Sampling(times_s=(0.25, 0.5))],
)
def test_another_process_gives_the_same_frames(tmp_path, sampling):
    path = str(save_clip(tmp_path / "clip.webm"))
    here, (there, header) = read_clip(path, sampling), isolated.read(path, sampling)
    np.testing.assert_array_equal(there.pixels, here.pixels)
    np.testing.assert_array_equal(there.times_s, here.times_s)
    assert there.decoder == here.decoder
    assert isolated.probe(path) == probe_clip(path)
    assert header == probe_clip(path).header


def test_answers_of_growing_and_shrinking_size_do_not_mix(tmp_path):
    paths = [
        str(save_clip(tmp_path / f"{i}.webm", height=h, width=2 * h, frames=6, seed=i))
        for i, h in enumerate((32, 96, 48, 128, 32))
    ]
    taken = [isolated.read(p, data.Sampling(frames=n))[0] for p in paths for n in (1, 6, 2)]
    again = [read_clip(p, data.Sampling(frames=n)) for p in paths for n in (1, 6, 2)]
    for a, b in zip(taken, again, strict=True):
        np.testing.assert_array_equal(a.pixels, b.pixels)


def test_a_clip_that_crashes_the_decoder_is_one_unreadable_sample(tmp_path, sabotaged, monkeypatch):
    root = tmp_path / "clips"
    for name in ("a", "b-crash", "c", "d-exit", "e", "f-noise", "g"):
        save_clip(root / f"{name}.webm", frames=6, seed=ord(name[0]))
    src = data.open(f"folder:{root}")
    whys = {skip.key: skip.why for skip in src.manifest.skipped}
    assert whys == {}, "a probe does not read frames by `read_clip`, so the scan passes"
    for workers in (0, 2):
        got = list(data.prefetch(src, src.manifest, data.Sampling(frames=3), workers=workers))
        assert [s.key[0] for s, _ in got] == list("abcdefg")
        failed = {s.key: f.why for s, f in got if isinstance(f, data.Unreadable)}
        assert failed == {
            "b-crash.webm": "the decoder crashed: its process was ended by SIGSEGV",
            "d-exit.webm": "the decoder crashed: its process ended with status 3",
        }
        for sample, frames in got:
            if isinstance(frames, data.Unreadable):
                continue
            expected = read_clip(str(root / sample.key), data.Sampling(frames=3))
            np.testing.assert_array_equal(frames.pixels, expected.pixels)


def test_a_still_that_crashes_the_decoder_is_a_skip_or_one_unreadable_sample(tmp_path, sabotaged):
    root = tmp_path / "stills"
    for name in ("a", "b-crash", "c"):
        save_picture(root / f"{name}.png", seed=ord(name[0]))
    crashed = "the decoder crashed: its process was ended by SIGSEGV"
    src = data.open(f"folder:{root}")
    assert {skip.key: skip.why for skip in src.manifest.skipped} == {"b-crash.png": crashed}
    (root / "c.png.crash").touch()
    (_, a), (_, c) = data.prefetch(src, src.manifest, data.Sampling())
    assert a.size == (48, 64)
    assert isinstance(c, data.Unreadable)
    assert c.why == crashed


def test_another_process_gives_the_same_still(tmp_path):
    for i, options in enumerate(({}, {"height": 1, "width": 1}, {"height": 300, "width": 500})):
        path = save_picture(tmp_path / f"{i}.png", seed=i, **options)
        with path.open("rb") as file:
            here, pictures = read_still(file)
        there = isolated.read_still(str(path))
        np.testing.assert_array_equal(there.pixels, here.pixels)
        assert there.decoder == here.decoder
        assert there.times_s.tolist() == [0.0]
        assert isolated.probe_still(str(path)) == {"size": list(here.size), "pictures": pictures}
    with pytest.raises(FileNotFoundError):
        isolated.read_still(str(tmp_path / "gone.png"))


def test_a_decoder_that_hangs_is_given_up(tmp_path, sabotaged):
    path = str(save_clip(tmp_path / "hang.webm", frames=3))
    start = time.monotonic()
    with pytest.raises(ClipError, match=r"did not answer within 2 s"):
        isolated.read(path, data.Sampling(), wait_s=2)
    assert time.monotonic() - start < 30
    good = str(save_clip(tmp_path / "good.webm", frames=3))
    assert isolated.read(good, data.Sampling())[0].size == (48, 64)


def test_a_mistake_of_ours_is_not_blamed_on_the_clip(tmp_path, sabotaged):
    path = str(save_clip(tmp_path / "bug.webm", frames=3))
    with pytest.raises(RuntimeError, match=r"not the file's: KeyError: 'ours'"):
        isolated.read(path, data.Sampling())


def test_a_process_killed_while_idle_is_replaced(tmp_path):
    path = str(save_clip(tmp_path / "clip.webm", frames=3))
    isolated.stop_idle()
    isolated.read(path, data.Sampling())
    (child,) = _decoders()
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert isolated.read(path, data.Sampling())[0].size == (48, 64)


def test_threads_share_processes_and_none_outlives_its_use(tmp_path):
    paths = [str(save_clip(tmp_path / f"{i}.webm", frames=4, seed=i)) for i in range(3)]
    isolated.stop_idle()
    seen: list[int] = []

    def work() -> None:
        for path in paths:
            seen.append(isolated.read(path, data.Sampling())[0].pixels.sum())

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == sorted(int(read_clip(p, data.Sampling()).pixels.sum()) for p in paths * 3)
    assert 1 <= len(_decoders()) <= 3
    isolated.stop_idle()
    assert _decoders() == []


def test_decoders_end_with_the_process_that_started_them(tmp_path):
    path = save_clip(tmp_path / "clip.webm", frames=3)
    script = (
        "import os, psutil\n"
        "from foresight import data\n"
        "from foresight.data import isolated\n"
        f"isolated.read({str(path)!r}, data.Sampling())\n"
        "print(psutil.Process().children()[0].pid, flush=True)\n"
        "os._exit(0)\n"
    )
    root = Path(__file__).resolve().parents[3]
    out = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    pid = int(out.stdout)
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the decoder still runs"
        time.sleep(0.05)


def test_a_forked_child_starts_its_own_decoders(tmp_path):
    path = str(save_clip(tmp_path / "clip.webm", frames=3))
    isolated.read(path, data.Sampling())
    assert isolated._idle.qsize() >= 1
    if (pid := os.fork()) == 0:
        os._exit(isolated._idle.qsize())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _decoders() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [c for c in children if any("decode_worker" in word for word in c.cmdline())]

"""An operation whose numbers move must raise its version: pinned toy inputs, pinned numbers.

After raising a version, `python -m tests.tasks.test_versions OPERATION …` pins the new numbers in operations.json.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foresight import models
from foresight.metrics import Space
from foresight.models import ModelRef, zoo
from foresight.studies import alignment
from foresight.studies.alignment import RANDOM, TRAINED, Latent, Spaces
from foresight.studies.position import Placed, position_probe
from tasks import adapt, c1, decoded, extract, locate, measure, position, publish, reconstruct, spatial
from tests.conftest import frames_of, quickly_trained
from tests.tasks.planted import planted, work
from tests.tasks.studied import STUDIES, ran, studied

pytestmark = pytest.mark.slow

PINNED = Path(__file__).with_name("operations.json")
UNPINNED = {"latents", "weights", "run", "q1.1.layouts", "q1.report", "q2.report", "c1.report"}
"""Records of what is there, pictures that no number is read off, and a page made of numbers pinned elsewhere."""

CLOSE = {"rel_tol": 2e-3, "abs_tol": 2e-4}
"""Other processors add up in another order; three training steps make that about 1e-4."""

Numbers = dict[str, float | None]


def spaces() -> Spaces:
    """Two related clouds of points in five classes, and a third that is noise."""
    rng = np.random.default_rng(7)
    n, classes = 60, 5
    centres = rng.normal(size=(classes, 6)) * 2
    hidden = centres[np.arange(n) % classes] + rng.normal(size=(n, 6))
    vlm = hidden @ rng.normal(size=(6, 12)) + 0.3 * rng.normal(size=(n, 12))
    decoder = np.tanh(hidden) @ rng.normal(size=(6, 20)) + 0.3 * rng.normal(size=(n, 20))

    def latent(variant: str, values: np.ndarray, model: str = "v", point: str = "p") -> Latent:
        groups = [str(i) for i in range(n)]
        space = Space(values.astype(np.float32), groups=groups)
        return Latent(model=model, point=point, variant=variant, space=space)

    return Spaces(
        vlm=(latent(TRAINED, vlm), latent(RANDOM, rng.normal(size=(n, 12)))),
        decoder=latent(TRAINED, decoder, "d", "q"),
        labels=tuple(str(i % classes) for i in range(n)),
        seed=3,
    )


def numbers_of(measured: list[Mapping[str, Any]]) -> Numbers:
    return {
        f"{' → '.join(filter(None, (m['name'], m.get('target'))))} | {m['point']} {m['variant']} | {field}": m[
            field
        ]
        for m in measured
        for field in ("value", "low", "high", "null")
    }


def gridded() -> Spaces:
    """The same, but the decoder's rows are maps of 4 x 4 cells in three channels, smooth to rough."""
    given = spaces()
    place = np.linspace(0, np.pi, 16).reshape(4, 4)
    shapes = np.stack([np.cos(place), np.cos(3 * place), np.cos(7 * place)], axis=-1)
    strength = given.decoder.space.values[:, None, None, :3] + np.float32(1)
    noise = np.random.default_rng(8).normal(size=(len(given.decoder.space), 4, 4, 3)) / 4
    maps = (strength * shapes + noise).reshape(len(noise), -1)
    held = replace(
        given.decoder,
        space=Space(maps.astype(np.float32), groups=given.decoder.space.groups),
        cells=(1, 4, 4),
    )
    return replace(given, decoder=held)


def row(name: str) -> Callable[[], Numbers]:
    given = gridded if name == "Q1.2" else spaces
    return lambda: numbers_of(alignment.ROWS[name](given()))


def positions() -> Numbers:
    """Return what the probe says of tokens that hold some of their place and much noise."""
    rng = np.random.default_rng(9)
    places = (np.indices((4, 4)).reshape(2, -1).T + 0.5) / 4
    axes = rng.normal(size=(2, 6))
    tokens = [
        Placed(values=(places @ axes + 0.4 * rng.normal(size=(16, 6))).astype(np.float32), places=places)
        for _ in range(24)
    ]
    found = position_probe(tokens, [str(i) for i in range(24)], seed=3)
    return {"value": found.value, "low": found.low, "high": found.high, "p": found.p, **found.controls}


def decoded_prediction() -> Numbers:
    """Return what is scored of pictures from planted tokens, through a decoder with random weights."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        rows, _ = work(*planted(16))
    return numbers_of(list(rows.values())) | {
        f"{m['name']} | {control}": value for m in rows.values() for control, value in m["controls"].items()
    }


def composite() -> Numbers:
    given = spaces()
    measured = [m for r in measure.TITLES for m in alignment.ROWS[r](given)]
    return numbers_of(alignment.decide(measured, "q")[0])


def read(card: str) -> Callable[[], Numbers]:
    """Return numbers of every default point of a tiny model with random weights, on one picture of noise."""

    def numbers() -> Numbers:
        model, about = loaded(card)
        frames = frames_of(*(about.size or (56, 56)), seed=11)
        (tokens,) = model.extract([frames], list(about.default_points))
        found: Numbers = {}
        for point, got in tokens.items():
            values = extract.as_numpy(got.values).astype(np.float64)
            found |= {f"{point} mean": values.mean(), f"{point} deviation": values.std()}
            found |= {f"{point} first": float(values[0, 0]), f"{point} last": float(values[-1, -1])}
            found |= {f"{point} {a}": float(np.nansum(getattr(got, a))) for a in ("row", "col", "time_s")}
        return found

    return numbers


def decode() -> Numbers:
    model, about = loaded("ltx-video-tiny")
    (tokens,) = model.extract([frames_of(*about.size, seed=11)], list(about.default_points))
    pixels = model.decode([tokens[about.default_points[0]]])[0].astype(np.float64)
    return {"mean": pixels.mean(), "deviation": pixels.std(), "corner": float(pixels[0, 0, 0, 0])}


def train() -> Numbers:
    """Return the size of the weights after three steps of training."""
    from safetensors.numpy import load_file

    found: Numbers = {}
    for card in ("qwen2.5-vl-tiny", "ltx-video-tiny"):
        with quickly_trained(), tempfile.TemporaryDirectory() as folder:
            zoo.train(models.parse_ref(card), Path(folder))
            for file in sorted(Path(folder).glob("*.safetensors")):
                whole = [v.astype(np.float64).ravel() for _, v in sorted(load_file(file).items())]
                found[f"{card} {file.name}"] = float(np.abs(np.concatenate(whole)).mean())
    return found


def loaded(card: str) -> tuple[Any, models.Card]:
    ref: ModelRef = models.parse_ref(f"{card}@random0")
    model = models.family(ref.card).load(ref, None, device="cpu", dtype="float32", attention="sdpa")
    return model, ref.card


SPATIAL = {
    **{name.lower(): version for name, version in spatial.VERSIONS.items()},
    **{f"{name.lower()}.patches": spatial.VERSIONS[name] for name in spatial.TITLES},
    **{name.lower(): version for name, version in c1.VERSIONS.items()},
    "c1.references": reconstruct.REFERENCES_VERSION,
    "c1.rebuild": reconstruct.REBUILD_VERSION,
    "c1.4": locate.VERSION,
    "c1.4.patches": locate.VERSION,
    "c1.adapter": adapt.TRAIN_VERSION,
    "c1.adapted": adapt.ADAPTED_VERSION,
}
"""Versions of the operations of Q2 and C1."""

OPERATIONS: dict[str, tuple[int, Callable[[], Numbers]]] = {
    **{r.lower(): (measure.VERSIONS[r], row(r)) for r in measure.TITLES},
    "q1.4.positions": (position.VERSION, positions),
    "q1.4.decoded": (decoded.VERSION, decoded_prediction),
    "q1.d": (measure.VERSIONS["Q1.D"], composite),
    "extract qwen2.5-vl-tiny": (extract.VERSION, read("qwen2.5-vl-tiny")),
    "extract ltx-video-tiny": (extract.VERSION, read("ltx-video-tiny")),
    **{name: (version, studied(name)) for name, version in SPATIAL.items()},
    "decode-examples": (publish.EXAMPLES_VERSION, decode),
    "zoo": (zoo.VERSION, train),
}


def moved(pinned: Numbers, now: Numbers) -> list[str]:
    """Return the numbers that are not what they were."""
    told = [f"{n} is {'gone' if n in pinned else 'new'}" for n in sorted(pinned.keys() ^ now.keys())]
    for name in pinned.keys() & now.keys():
        was, is_ = pinned[name], now[name]
        if (was is None) != (is_ is None) or (
            was is not None and is_ is not None and not math.isclose(was, is_, **CLOSE)
        ):
            told.append(f"{name}: {was} → {is_}")
    return told


@pytest.mark.parametrize("operation", OPERATIONS)
def test_numbers_move_only_with_the_version(operation: str) -> None:
    pinned = json.loads(PINNED.read_text())[operation]
    version, compute = OPERATIONS[operation]
    changes = moved(pinned["numbers"], compute())
    if version == pinned["version"]:
        assert not changes, (
            f"{operation} gives other numbers: raise its version, or undo the change: {changes[:5]}"
        )
    else:
        raise AssertionError(
            f"{operation} is at version {version}: pin it with `python -m tests.tasks.test_versions {operation}`"
        )


def test_a_moved_number_is_noticed() -> None:
    pinned: Numbers = {"a": 1.0, "b": None, "c": 2.0}
    assert moved(pinned, {"a": 1.0005, "b": None, "c": 2.0}) == []
    told = moved(pinned, {"a": 1.01, "b": 0.0, "d": 1.0})
    assert sorted(told) == ["a: 1.0 → 1.01", "b: None → 0.0", "c is gone", "d is new"]


def test_every_operation_a_run_records_is_pinned(workplace: Path, quick_zoo: None) -> None:
    import store
    from flows import q1
    from flows.engine import perform

    perform(q1, q1.Settings(samples=16, points=["vit.1"]))
    recorded = {r.operation for r in store.open("runs/store").recipes()}
    assert recorded - UNPINNED <= {name.split()[0] for name in OPERATIONS}


def test_every_operation_of_q2_and_c1_is_pinned() -> None:
    assert {operation for study in STUDIES for operation in ran(study)} == set(SPATIAL)


if __name__ == "__main__":
    pinned = json.loads(PINNED.read_text())
    for name in sys.argv[1:] or OPERATIONS:
        version, compute = OPERATIONS[name]
        pinned[name] = {"version": version, "numbers": compute()}
    kept = {name: pinned[name] for name in OPERATIONS}
    PINNED.write_text(json.dumps(kept, indent=1, ensure_ascii=False, sort_keys=True) + "\n")

"""Adapters on stored latents: what they learn, how a killed training ends, and which samples they see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foresight.adapters import parse
from foresight.studies import adapted, reconstruction

RNG = np.random.default_rng(0)
GROUPS = [f"video {i // 2}" for i in range(80)]


def planted(n: int = 96) -> tuple[np.ndarray, np.ndarray]:
    x = RNG.normal(0, 2, (n, 4, 6)).astype(np.float32)
    y = np.tanh(x @ RNG.normal(size=(6, 5)) / 6) + np.arange(4)[None, :, None]
    return x, y.astype(np.float32)


@pytest.mark.parametrize("design", ["linear", "mlp:32", "residual:32"])
def test_an_adapter_learns_what_its_tokens_tell(design: str) -> None:
    x, y = planted()
    model, losses = adapted.train(parse(design), x[:64], y[:64], seed=0, steps=300)
    error = np.square(adapted.predictor(model)(x[64:]) - y[64:]).mean()
    assert error < 0.25 * np.square(y[64:] - y[:64].mean(axis=0)).mean()
    assert np.mean(losses[-20:]) < 0.25 * losses[0]


def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    x, y = planted()
    whole, _ = adapted.train(parse("mlp:16"), x, y, seed=3, steps=160)

    class Killed(Exception):
        pass

    def die(done: int, *_: object) -> None:
        if done == 130:  # after the checkpoint at 100, before the next
            raise Killed

    with pytest.raises(Killed):
        adapted.train(parse("mlp:16"), x, y, seed=3, steps=160, scratch=tmp_path, progress=die)
    assert list(tmp_path.iterdir())
    steps: list[int] = []
    resumed, losses = adapted.train(
        parse("mlp:16"),
        x,
        y,
        seed=3,
        steps=160,
        scratch=tmp_path,
        progress=lambda done, *_: steps.append(done),
    )
    assert steps[0] == 101
    assert len(losses) == 160
    assert adapted.saved(resumed) == adapted.saved(whole)


def test_saved_weights_come_back_with_their_scale() -> None:
    x, y = planted()
    model, _ = adapted.train(parse("residual:8"), x, y, seed=0, steps=5)
    again = adapted.loaded(parse("residual:8"), adapted.saved(model))
    assert np.array_equal(adapted.predictor(model)(x), adapted.predictor(again)(x))


def test_fewer_training_samples_are_a_part_of_more_and_never_scored_ones() -> None:
    folds = reconstruction.parted(GROUPS, seed=0)
    parts = [set(adapted.training_part(folds, GROUPS, share=s, seed=0).tolist()) for s in (0.25, 0.5, 1.0)]
    assert parts[0] < parts[1] < parts[2]
    assert parts[2] == set(np.flatnonzero(folds != reconstruction.TEST).tolist())
    held = {GROUPS[i] for i in parts[0]}
    assert parts[0] == {i for i in range(80) if GROUPS[i] in held}


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"lies in \(0, 1\]"):
        adapted.training_part(reconstruction.parted(GROUPS, seed=0), GROUPS, share=share, seed=0)


def test_a_constant_feature_does_no_harm() -> None:
    x, y = planted()
    x[..., 2] = 7.0
    model, losses = adapted.train(parse("linear"), x, y, seed=0, steps=50)
    assert np.isfinite(losses).all()
    assert np.isfinite(adapted.predictor(model)(x + 1)).all()

"""The set probe: one prediction an object, whatever their order."""

from __future__ import annotations

import numpy as np
import torch

from foresight.probes import Objects, average_precision, constant_set, set_probe
from foresight.probes.sets import match, set_loss
from tests.foresight.probes.toy import grids, pictures


def predictions(
    boxes: list[list[float]], kinds: list[int], classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.full((1, len(boxes), classes + 1), -5.0)
    for i, kind in enumerate(kinds):
        logits[0, i, kind] = 5.0
    return logits, torch.tensor([boxes])


BOXES = [[0.0, 0.0, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9], [0.1, 0.6, 0.3, 0.8]]


def test_every_object_gets_its_own_prediction_in_any_order() -> None:
    logits, boxes = predictions(BOXES, [1, 0, 2], classes=2)
    wanted = (torch.tensor([BOXES[1], BOXES[0]]), torch.tensor([0, 1]))
    ((query, found),) = match(logits, boxes, [wanted])
    assert dict(zip(found.tolist(), query.tolist(), strict=True)) == {0: 1, 1: 0}


def test_the_loss_does_not_know_the_order_of_the_annotations_and_is_small_when_all_is_right() -> None:
    right = predictions(BOXES, [1, 0, 2], classes=2)
    a = (torch.tensor(BOXES[:2]), torch.tensor([1, 0]))
    b = (torch.tensor(BOXES[:2][::-1]), torch.tensor([0, 1]))
    empty = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert torch.isclose(set_loss([right], [a]), set_loss([right], [b]))
    wrong = predictions(BOXES[::-1], [1, 0, 2], classes=2)
    assert set_loss([right], [a]) < 0.01 < set_loss([wrong], [a])
    assert torch.isfinite(set_loss([right], [empty]))


def test_pictures_with_and_without_objects_train_together_and_repeat_from_the_seed() -> None:
    manifest, pixels = pictures("synthetic", samples=24)
    tokens = grids(pixels, fitted_on=20)
    truth = [Objects(boxes=np.array(s.annotations["boxes"]) / 64, classes=np.zeros(1, int)) for s in manifest]
    truth[3] = Objects(boxes=np.zeros((0, 4)), classes=np.zeros(0, int))
    train, test = np.arange(16), np.arange(16, 24)
    found = [
        set_probe(tokens.take(train), truth[:16], tokens.take(test), classes=1, steps=3) for _ in range(2)
    ]
    assert all(np.array_equal(a.boxes, b.boxes) for a, b in zip(*found, strict=True))
    assert 0 <= average_precision(truth[16:], found[0]).value <= 1


def test_the_constant_guess_leaves_crowds_out() -> None:
    one = Objects(
        boxes=np.array([[0, 0, 1, 1], [0.2, 0.2, 0.4, 0.4]]),
        classes=np.array([0, 0]),
        crowd=np.array([True, False]),
    )
    guess = constant_set([one], images=2)
    assert len(guess) == 2
    assert np.allclose(guess[0].boxes, [[0.2, 0.2, 0.4, 0.4]])

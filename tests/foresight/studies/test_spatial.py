"""The spatial study: places are found where tokens are in order, and the controls catch it where they are not."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from foresight import probes
from foresight.data import open as open_data
from foresight.nouns import Manifest, Sample
from foresight.probes import CONTROLS, FLOORS, TokenGrids, shuffled
from foresight.studies import spatial, spatial_truth
from foresight.studies.spatial import ROWS, Split, measure, split
from foresight.studies.spatial_truth import Truth
from tests.foresight.probes.toy import boxes, grids, pictures

N = 160


@pytest.fixture(scope="module")
def seen() -> tuple[Manifest, np.ndarray, TokenGrids]:
    manifest, pixels = pictures("synthetic", samples=N)
    return manifest, pixels, grids(pixels)


def untrained(tokens: TokenGrids) -> TokenGrids:
    """Return the tokens through a random map and a kink, as random weights would give them."""
    mix = np.random.default_rng(5).standard_normal((tokens.values.shape[-1],) * 2) / 8
    return TokenGrids(
        values=np.maximum(tokens.values.astype(np.float32) @ mix, 0).astype(np.float32),
        rows=tokens.rows, cols=tokens.cols, times_s=tokens.times_s,
    )  # fmt: skip


def truth_and_split(manifest: Manifest, values: object) -> tuple[Truth, Split]:
    truth = Truth(indices=np.arange(len(manifest)), values=values)
    return truth, split(manifest.groups, truth, seed=0)


@pytest.mark.slow
def test_boxes_and_edges_beat_every_control_by_a_quarter_of_the_scale(
    seen: tuple[Manifest, np.ndarray, TokenGrids], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spatial, "box_probe", functools.partial(probes.box_probe, steps=120))
    manifest, pixels, tokens = seen
    for row, values in (("Q2.1", boxes(manifest)), ("Q2.3", pixels)):
        truth, where = truth_and_split(manifest, values)
        most = spatial.ceiling(ROWS[row], tokens, truth, where, seed=0)
        found, _ = measure(ROWS[row], tokens, untrained(tokens), truth, where, ceiling=most, seed=0)
        number = found[ROWS[row].lead]
        assert set(number.controls) == set(CONTROLS)
        assert number.value > max(number.controls[name] for name in FLOORS) + 0.25
        assert number.knows_places
        assert number.value == most[ROWS[row].lead]


def test_a_scrambled_grid_is_caught_by_the_controls(seen: tuple[Manifest, np.ndarray, TokenGrids]) -> None:
    manifest, pixels, tokens = seen
    truth, where = truth_and_split(manifest, pixels)
    row = ROWS["Q2.3"]
    most = spatial.ceiling(row, tokens, truth, where, seed=0)
    scrambled = shuffled(tokens, seed=9)
    found, _ = measure(row, scrambled, untrained(tokens), truth, where, ceiling=most, seed=0)
    number = found["edge F1"]
    assert number.knows_places is False
    assert number.value < most["edge F1"] - 0.25


def test_the_seed_gives_the_same_numbers_again(
    seen: tuple[Manifest, np.ndarray, TokenGrids], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spatial, "box_probe", functools.partial(probes.box_probe, steps=5))
    manifest, _, tokens = seen
    truth, where = truth_and_split(manifest, boxes(manifest))
    row = ROWS["Q2.1"]
    most = {"box IoU": 1.0, "heat-map IoU": 1.0}
    found = [
        measure(row, tokens, untrained(tokens), truth, where, ceiling=most, seed=seed)[0][
            "box IoU"
        ].estimate()
        for seed in (1, 1, 2)
    ]
    assert found[0].to_json() == found[1].to_json()
    assert found[0].value != found[2].value


def test_no_group_is_on_both_sides_and_rows_share_the_split() -> None:
    groups = [f"video {i // 4}" for i in range(80)]
    whole = split(groups, Truth(indices=np.arange(80), values=np.zeros(80)), seed=3)
    assert not {groups[i] for i in whole.train} & {groups[i] for i in whole.test}
    odd = Truth(indices=np.arange(1, 80, 2), values=np.zeros(40))
    part = split(groups, odd, seed=3)
    assert set(odd.indices[part.test]) <= set(whole.test)
    assert part.groups == [groups[i] for i in odd.indices[part.test]]


def test_annotations_on_one_side_only_are_refused() -> None:
    with pytest.raises(ValueError, match="give it more samples"):
        split(list(range(10)), Truth(indices=np.array([4]), values=np.zeros(1)), seed=0)


def test_three_samples_give_numbers_without_an_interval_that_say_so(
    seen: tuple[Manifest, np.ndarray, TokenGrids],
) -> None:
    manifest, pixels, tokens = seen
    few = manifest.take([0, 1, 2])
    truth, where = truth_and_split(few, pixels[:3])
    part = tokens.take(np.arange(3))
    most = spatial.ceiling(ROWS["Q2.3"], part, truth, where, seed=0)
    found, _ = measure(ROWS["Q2.3"], part, untrained(part), truth, where, ceiling=most, seed=0)
    estimate = found["edge F1"].estimate()
    assert "no interval from 1 test groups" in estimate.why
    assert estimate.detail["knows places"] is None


def sample(key: str, **annotations: object) -> Sample:
    media = "clip" if annotations.pop("clip", False) else "image"
    label = annotations.pop("label", None)
    return Sample(
        digest=f"{int(key):064x}", key=key, media=media, label=label, annotations=annotations  # type: ignore[arg-type]
    )  # fmt: skip


def test_boxes_follow_the_crop_and_what_is_cropped_away_is_not_looked_for() -> None:
    wide = sample(
        "1",
        size=[100, 200],
        boxes=[[50, 0, 100, 50], [0, 0, 40, 100]],
        classes=["cat", "dog"],
        crowd=[False, False],
    )
    found = spatial_truth.objects(
        Manifest(source="coco", samples=(wide, sample("2", size=[10, 10], boxes=[], classes=[]))),
        size=(64, 64), how="crop", time_s=0.0,
    )  # fmt: skip
    assert found.indices.tolist() == [0]
    assert found.names == ("cat", "dog")
    (objects,) = found.values
    assert objects.boxes == pytest.approx(np.array([[0, 0, 0.5, 0.5]]))
    assert objects.classes.tolist() == [0]


def test_the_largest_object_is_no_crowd() -> None:
    one = sample(
        "1", size=[10, 10], boxes=[[0, 0, 9, 9], [0, 0, 4, 4], [5, 5, 7, 7]], classes=["a"] * 3,
        crowd=[True, False, False],
    )  # fmt: skip
    found = spatial_truth.objects(
        Manifest(source="coco", samples=(one,)), size=(10, 10), how="crop", time_s=0
    )
    assert spatial_truth.largest(found).values == pytest.approx(np.array([[0, 0, 0.4, 0.4]]))


def test_a_moving_object_is_looked_for_where_it_is_then() -> None:
    manifest = open_data("synthetic:moving", samples=4, seed=0).manifest
    early, late = (
        spatial_truth.largest(spatial_truth.objects(manifest, size=(64, 64), how="crop", time_s=t)).values
        for t in (0.0, 2.0)
    )
    for i, s in enumerate(manifest):
        moved = late[i, :2] - early[i, :2]
        axis, sign = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}[
            s.annotations["direction"]
        ]
        assert moved[axis] * sign > 0.05
        assert moved[1 - axis] == pytest.approx(0, abs=1e-6)


def test_class_names_tell_directions_and_camera_motion_does_not() -> None:
    names = [
        "Pushing something from left to right", "Pulling something from left to right",
        "Moving something down", "Moving something down", "Turning the camera left while filming something",
        "Moving something closer to something", "Pushing something from right to left",
    ]  # fmt: skip
    manifest = Manifest(
        source="ssv2", samples=tuple(sample(str(i), clip=True, label=name) for i, name in enumerate(names))
    )
    found = spatial_truth.directions(manifest)
    assert found.names == ("down", "right")  # a single clip to the left is no class
    assert found.indices.tolist() == [0, 1, 2, 3]
    assert spatial_truth.without_directions(manifest, 4) == ""
    assert "clips of ssv2 have no boxes" in spatial_truth.without_boxes(manifest)
    held = Manifest(source="ssv2", samples=(sample("1", clip=True, label="Holding something"),))
    assert "fewer than two directions" in spatial_truth.without_directions(held, 4)


def test_pictures_without_boxes_say_so() -> None:
    assert "no sample of folder has an annotated box" in spatial_truth.without_boxes(
        Manifest(source="folder", samples=(sample("1"),))
    )

"""A data set and its options in one text, for the command line and the form."""

from __future__ import annotations

import pytest

from foresight import data
from foresight.data.spec import split_spec

from .benchmarks_on_disk import TEMPLATES, coco, plain, something
from .media import save_picture


def canonical(spec: str, **options: object) -> bytes:
    return data.open(spec, **options).manifest.canonical()


def test_options_behind_the_location_are_the_options_beside_it(tmp_path):
    ssv2, images = something(tmp_path / "ssv2"), coco(tmp_path / "coco")
    holding, moving = plain(TEMPLATES[0]), plain(TEMPLATES[1])
    asked = canonical(f"ssv2:{ssv2}", split="all", classes=(holding, moving), per_class=2, seed=4)
    written = f"ssv2:{ssv2}?split=all&classes={holding}&classes={moving}&per_class=2"
    assert canonical(written, seed=4) == asked
    assert canonical(f"ssv2:{ssv2}?split=all", seed=4) != asked
    dogs = canonical(f"coco:{images}", categories=("dog",))
    assert canonical(f"coco:{images}?categories=dog&split=val2017") == dogs
    assert canonical("synthetic?size=48", samples=4) == canonical("synthetic", size=48, samples=4)


def test_a_check_takes_them_too(tmp_path):
    root = something(tmp_path / "ssv2")
    assert set(data.check(f"ssv2:{root}?split=train").splits) == {"train"}
    assert data.check(f"ssv2:{root}?split=test&verify=true").samples == 2


def test_a_question_mark_in_a_name_belongs_to_the_name(tmp_path):
    save_picture(tmp_path / "who?" / "a.png")
    assert len(data.open(f"folder:{tmp_path}/who?").manifest) == 1
    assert split_spec("folder:who?workers=1") == ("folder", "who", {"workers": ["1"]})
    assert split_spec("folder:who??workers=1") == ("folder", "who?", {"workers": ["1"]})


@pytest.mark.parametrize(
    ("written", "rule"),
    [
        ("?split=train&split=test", "'split' is given once"),
        ("?per_class=many", "'per_class' is a whole number, but got 'many'"),
        ("?verify=yes", "'verify' is true or false, but got 'yes'"),
        ("?split=train&", "written .name=value&name=value, but got ''"),
        ("?split=", "but got 'split='"),
        ("?quota=3", r"takes the options \['classes', 'per_class', 'split', 'verify', 'workers'\]"),
        ("?seed=3", "takes the options"),
        ("?split=everything", "a split is one of"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(tmp_path, written, rule):
    root = something(tmp_path / "ssv2", train=1, validation=1, test=0)
    with pytest.raises(ValueError, match=rule):
        data.open(f"ssv2:{root}{written}")


def test_an_option_is_given_in_one_place(tmp_path):
    root = something(tmp_path / "ssv2", train=1, validation=1, test=0)
    with pytest.raises(ValueError, match="an option is given once"):
        data.open(f"ssv2:{root}?split=train", split="train")

"""Digests, recipes and what tells two apart."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import store
from tests.store.helpers import manifest, recipe

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


def same(a: object, b: object) -> bool:
    """Equality that tells 1 from 1.0, True from 1 and 0.0 from -0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b)


@given(PLAIN, PLAIN)
def test_two_values_share_an_encoding_only_when_they_are_the_same(a, b):
    assert (store.canonical(a) == store.canonical(b)) == same(a, b)


@given(PLAIN)
def test_an_encoding_reads_back_as_the_value_it_was_made_from(value):
    assert same(json.loads(store.canonical(value)), value)


def test_digests_are_pinned():
    assert store.digest("manifest", {"b": [1, 1.0, None, True], "a": "é"}) == (
        "ccb663b054178a151f05d010f60630e190ae34398cd9f0fad878c3c123757f22"
    )
    assert recipe().id == "9526cdcb3326148f8cee37c8e05195baafc3db932254bdf9b00b4f18c351818a"
    assert store.short("ab" * 32) == "abababababab"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, {1, 2}, b"x", object(), "\ud800"])
def test_what_is_not_plain_has_no_digest(value):
    with pytest.raises((TypeError, ValueError), match=r"must|lone surrogate"):
        store.digest("manifest", {"deep": [value]})


def test_kinds_keep_equal_values_apart():
    assert store.digest("manifest", {}) != store.digest("recipe", {})
    with pytest.raises(ValueError, match="lower-case word"):
        store.digest("no good\n", {})


def test_a_recipe_is_its_plain_values_whatever_their_order():
    a = store.Recipe(operation="extract", version=1, settings={"a": 1, "b": {"c": (1, 2)}})
    b = store.Recipe(operation="extract", version=1, settings={"b": {"c": [1, 2]}, "a": 1})
    assert a == b
    assert a.id == b.id
    assert store.Recipe.from_canonical(a.canonical()) == a
    settings = {"a": [1]}
    kept = store.Recipe(operation="extract", version=1, settings=settings)
    settings["a"].append(2)
    assert kept.settings == {"a": [1]}


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"operation": "../x", "version": 1}, "operation"),
        ({"operation": "extract", "version": 0}, "version"),
        ({"operation": "extract", "version": True}, "version"),
        ({"operation": "extract", "version": 1, "inputs": {"data": "/home/me"}}, "64 lower-case hex"),
    ],
)
def test_a_recipe_refuses_what_would_not_name_content(bad, match):
    with pytest.raises(ValueError, match=match):
        store.Recipe(**bad)


def test_a_change_is_explained_field_by_field():
    old = store.Recipe(
        operation="extract",
        version=3,
        settings={"model": {"weights": "3f2a" + "0" * 60}, "n": 1},
        inputs={"manifest": "aa" * 32},
    )
    new = store.Recipe(
        operation="extract",
        version=4,
        settings={"model": {"weights": "9bc1" + "0" * 60}, "s": 2},
        inputs={"manifest": "bb" * 32},
    )
    assert store.explain_change(old, new) == [
        "extract version 3 → 4",
        "model.weights 3f2a… → 9bc1…",
        "n removed: was 1",
        "s added: 2",
        "input manifest aaaa… → bbbb…",
    ]
    assert store.explain_change(old, old) == []


def test_a_manifest_change_is_told_in_samples():
    old = manifest(range(10))
    assert store.manifest_change(old, manifest(range(2, 15))) == "manifest +5 −2 samples"
    assert store.manifest_change(old, manifest(reversed(range(10)))) == "manifest reordered"
    assert store.manifest_change(None, old) == "manifest of 10 samples is new"
    assert store.manifest_change(old, old) == ""
    new = manifest(range(10))
    for s in new["samples"][:3]:
        s["label"] = "other"
    assert store.manifest_change(old, new) == "labels of 3 samples changed"

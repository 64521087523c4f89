"""Sweep, pins, show, export and import: what is kept, what may go, and what is said of it."""

from __future__ import annotations

import os

import numpy as np
import pytest

import store
from tests.store.helpers import fill, manifest, recipe, row, sample


def recorded(catalog: store.Store, indices: range, of: store.Recipe) -> store.Recipe:
    """Record a metric that reads the latents of `indices` and gives a blob."""
    content = catalog.latents(of.id, catalog.put_manifest(manifest(indices))).content_id
    assert content is not None
    made = store.Recipe(
        operation="metric.cka", version=1, inputs={"latents": content}, settings={"of": of.id}
    )
    catalog.record(made, outputs={"json": catalog.put_blob(f"numbers of {of.id}".encode())})
    return made


def test_sweep_keeps_what_results_and_pins_need_and_takes_the_rest(catalog):
    used, pinned, idle = recipe(), recipe(point="vit.8"), recipe(point="vit.9")
    for of in (used, pinned, idle):
        fill(catalog, range(6), of=of)
    made = recorded(catalog, range(6), used)
    catalog.pin("paper", pinned.id)
    loose = catalog.put_blob(b"nobody's")
    catalog.place.put("staging/" + "0" * 32, [b"half a shard"])
    dry = catalog.sweep(grace_s=0)
    assert not dry.applied
    assert dry.bytes > 0
    assert catalog.sweep(grace_s=3600).items == []
    assert catalog.has(loose)
    swept = catalog.sweep(grace_s=0, apply=True)
    assert {name for name, _, _ in swept.items} >= {"staging/" + "0" * 32, f"blobs/{loose[:2]}/{loose}"}
    assert swept.bytes >= dry.bytes
    digests = [sample(i) for i in range(6)]
    assert catalog.missing(used.id, digests) == catalog.missing(pinned.id, digests) == []
    assert catalog.missing(idle.id, digests) == digests
    assert catalog.result(made.id) is not None
    assert not catalog.has(loose)
    assert catalog.verify().ok
    assert catalog.sweep(grace_s=0).items == []
    catalog.unpin("paper")
    assert catalog.sweep(grace_s=0).bytes > 0
    with pytest.raises(store.Missing, match="no pin is called"):
        catalog.unpin("paper")


@pytest.mark.parametrize("folder", ["results", "latents", "manifests", "pins", "recipes"])
def test_sweep_takes_nothing_while_a_record_it_marks_from_is_damaged(local, folder):
    fill(local, range(4))
    recorded(local, range(4), recipe())
    local.pin("paper", recipe().id)
    local.put_blob(b"nobody's")
    name = next(name for name, _ in local.place.walk(folder))
    path = local.place.path(name)
    path.write_bytes(path.read_bytes().replace(b"e", b"f", 1))
    before = sorted(name for name, _ in local.place.walk(""))
    damaged = store.open(local.url)
    if folder == "recipes" and damaged.verify().ok:
        pytest.fail("the damage was not found")
    with pytest.raises(store.StoreError, match="nothing was removed"):
        damaged.sweep(grace_s=0, apply=True)
    assert sorted(name for name, _ in local.place.walk("")) == before


def test_what_only_a_forgotten_result_needed_is_swept(catalog):
    fill(catalog, range(4))
    made = recorded(catalog, range(4), recipe())
    assert catalog.sweep(grace_s=0).items == []
    catalog.forget(made.id)
    catalog.sweep(grace_s=0, apply=True)
    assert catalog.missing(recipe().id, [sample(0)]) == [sample(0)]
    assert catalog.du() == []
    assert catalog.manifests() == []


def test_a_reader_that_is_open_while_its_rows_are_swept_reads_on(local):
    fill(local, range(40))
    identity = local.put_manifest(manifest(range(40)))
    reader = local.reader(recipe=recipe().id, manifest=identity, seed=None, batch_rows=2, prefetch=1)
    batches = iter(reader)
    first = next(batches)
    store.open(local.url).sweep(grace_s=0, apply=True)
    np.testing.assert_array_equal(first.values[1], row(1)["values"])
    # the rest of an open shard is still there; what was swept before it was opened is said to be gone
    np.testing.assert_array_equal(next(batches).values[0], row(2)["values"])
    with pytest.raises(store.Missing, match="swept or never written"):
        list(batches)


def test_ages_are_by_the_clock_of_the_place(local, monkeypatch):
    fill(local, range(2))
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert local.sweep(grace_s=3600).items == []
    old = 1_000_000_000
    for path in local.place.root.rglob("*"):
        os.utime(path, (old, old))
    monkeypatch.setattr("time.time", lambda: float(old))
    assert local.sweep(grace_s=3600).items != []


def test_no_clock_decides_which_of_two_rows_counts(local, monkeypatch):
    monkeypatch.setattr("store.shards.now", lambda: "2100-01-01T00:00:00.000+00:00")
    fill(local, range(3))
    monkeypatch.setattr("store.shards.now", lambda: "1970-01-01T00:00:00.000+00:00")
    blind = store.open(local.url)
    blind._contents.index(recipe().id)._where.clear()  # as if it had looked before the first was in sight
    other = row(1)
    other["values"] = other["values"] + 1
    with blind.writer(recipe()) as writer:
        writer.put(**other)
    assert writer.rows_written == 1
    again = store.open(local.url)
    np.testing.assert_array_equal(again.row(recipe().id, sample(1)).values, row(1)["values"])
    recorded(again, range(3), recipe())
    assert [name for name, _, why in again.sweep(grace_s=0).items if "elsewhere" in why]


def test_an_exported_folder_is_a_store_with_just_those_rows_and_goes_in_again(catalog, tmp_path):
    fill(catalog, range(10))
    fill(catalog, range(10), of=recipe(point="vit.8"))
    fill(catalog, range(3), of=recipe(point="vit.9"))
    part = manifest([8, 1, 5])
    identity = catalog.put_manifest(part)
    out = catalog.export(identity, tmp_path / "out")
    carried = store.open(out)
    assert sorted((u.point, u.rows) for u in carried.du()) == [("vit.4", 3), ("vit.8", 3)]
    assert carried.verify().ok
    content = catalog.latents(recipe().id, identity).content_id
    assert carried.latents(recipe().id, identity).content_id == content
    with pytest.raises(store.StoreError, match="there already"):
        catalog.export(identity, tmp_path / "out")
    home = store.open(tmp_path / "home", create=True)
    fill(home, [5])
    took = home.import_from(out)
    assert (took.manifests, took.rows_written, took.rows_reused, took.conflicts) == (1, 5, 1, [])
    assert home.latents(recipe().id, identity).content_id == content
    assert home.has(content)
    with pytest.raises(store.NotAStore, match="no store"):
        home.import_from(tmp_path / "nowhere")


def test_show_explains_an_id_by_its_first_digits(catalog):
    fill(catalog, range(4))
    made = recorded(catalog, range(4), recipe())
    content = made.inputs["latents"]
    shown = catalog.show(content[:10])
    assert (shown.kind, shown.id, shown.read_by, shown.made_by) == ("latents", content, [made.id], [])
    assert shown.about["present"] is True
    assert shown.about["of"][0]["recipe"] == recipe().id
    blob = catalog.result(made.id).outputs["json"]
    assert (catalog.show(blob).kind, catalog.show(blob).made_by) == ("blob", [made.id])
    catalog.pin("mine", recipe().id)
    shown = catalog.show(recipe().id[:12])
    assert (shown.kind, shown.about["rows"], shown.pinned_as) == ("recipe", 4, ["mine"])
    with pytest.raises(store.Missing, match="nothing with the id"):
        catalog.show("0" * 64)
    with pytest.raises(ValueError, match="6 to 64"):
        catalog.show("../../etc")

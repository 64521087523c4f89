"""Opening, results, artifacts and verify, as their users meet them."""

from __future__ import annotations

import json

import pytest

import store
from store.records import sealed
from tests.store.helpers import fill, manifest, recipe, sample


def test_reading_never_makes_a_store(tmp_path):
    with pytest.raises(store.NotAStore, match="no store"):
        store.open(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(store.NotAStore, match=r"not empty \(it has thesis.txt\)"):
        store.open(tmp_path, create=True)
    (tmp_path / "format.json").write_text('{"format": "other"}')
    with pytest.raises(store.NotAStore, match="not what a store writes"):
        store.open(tmp_path)


def test_a_newer_store_is_refused_with_the_version_it_needs(catalog):
    catalog.place.put("format.json", [sealed({"format": "foresight-store", "version": 2})])
    with pytest.raises(store.NewerFormat, match="reads format 2"):
        store.open(catalog.url)


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(store.StoreError, match="is a file; choose a folder"):
        store.open(tmp_path / "file" / "store", create=True)


def test_a_manifest_comes_back_under_the_digest_of_its_value(catalog):
    value = manifest(range(5))
    value["samples"][0]["key"] = "../../x/" + "ü" * 5000
    identity = catalog.put_manifest(value)
    assert identity == store.digest("manifest", value) == catalog.put_manifest(value)
    assert store.open(catalog.url).manifest(identity) == value
    (listed,) = catalog.manifests()
    assert (listed.id, listed.n, listed.source) == (identity, 5, "folder")


@pytest.mark.parametrize(
    ("samples", "match"),
    [
        ([{"sample": "../../x"}], "64 lower-case hex"),
        ([{"key": "x"}], "64 lower-case hex"),
        ([{"sample": sample(1)}, {"sample": sample(1)}], "stands twice"),
        (None, "list `samples`"),
    ],
)
def test_a_manifest_of_bad_samples_is_refused(catalog, samples, match):
    with pytest.raises(ValueError, match=match):
        catalog.put_manifest({"source": "folder", "samples": samples})
    assert catalog.manifests() == []


def test_a_result_is_a_hit_only_while_its_content_is_here(local):
    fill(local, range(4))
    latents = local.latents(recipe().id, local.put_manifest(manifest(range(4)))).content_id
    blob = local.put_blob(b'{"cka": 0.5}')
    tree = local.put_tree({"a/b.bin": b"weights"})
    made = store.Recipe(operation="metric.cka", version=1, inputs={"latents": latents})
    outputs = {"latents": latents, "json": blob, "tree": tree}
    assert local.result(made.id) is None
    local.record(made, outputs=outputs, values={"cka": 0.5}, provenance={"host": "a"})
    local.record(made, outputs=outputs, values={"cka": 0.5}, provenance={"host": "b"})
    hit = store.open(local.url).result(made.id)
    assert (hit.outputs, hit.values, hit.recipe, hit.provenance) == (
        outputs,
        {"cka": 0.5},
        made,
        {"host": "a"},
    )
    for victim in (
        f"blobs/{blob[:2]}/{blob}",
        next(n for n, _ in local.place.walk("shards") if "values/c." in n),
    ):
        path = local.place.path(victim)
        data = path.read_bytes()
        path.write_bytes(data[:-1])
        assert store.open(local.url).result(made.id) is None
        path.write_bytes(data)
        assert store.open(local.url).result(made.id) is not None


def test_the_nearest_recipe_explains_why_a_key_is_missing(catalog):
    for weights in ("3f", "aa"):
        of = recipe(
            model={"card": "tiny", "weights": weights * 32}, point="vit.4" if weights == "3f" else "vit.9"
        )
        catalog.record(of, values={})
    new = recipe(model={"card": "tiny", "weights": "9b" * 32})
    assert store.explain_change(catalog.nearest(new), new) == ["model.weights 3f3f… → 9b9b…"]
    assert catalog.nearest(store.Recipe(operation="report", version=1)) is None


def test_a_tree_is_exported_whole_and_never_outside_its_folder(catalog, tmp_path):
    (tmp_path / "w.bin").write_bytes(b"weights")
    tree = catalog.put_tree({"config.json": b"{}", "deep/w.bin": tmp_path / "w.bin"})
    out = catalog.export_tree(tree, tmp_path / "out")
    assert (out / "deep" / "w.bin").read_bytes() == b"weights"
    with pytest.raises(store.StoreError, match="there already"):
        catalog.export_tree(tree, tmp_path / "out")
    for name in ("../x", "/etc/x", "a/../../x", "", "a\\b", "a//b", "."):
        with pytest.raises(ValueError, match="relative and plain"):
            catalog.put_tree({name: b""})


def test_verify_names_a_damaged_row_and_the_next_run_writes_just_that_one(local):
    fill(local, range(10))
    before = local.latents(recipe().id, local.put_manifest(manifest(range(10)))).content_id
    assert local.verify().ok
    victim = sorted(local.place.root.glob("shards/*/*/values/c.0.0.0"))[0]
    data = bytearray(victim.read_bytes())
    data[5] ^= 1
    victim.write_bytes(data)
    report = local.verify()
    ((problem,)) = report.problems
    assert problem.row == 0
    assert local.missing(recipe().id, [sample(i) for i in range(10)]) == [problem.sample]
    assert report.dropped == 1
    assert fill(local, range(10)).rows_written == 1
    after = local.latents(recipe().id, local.put_manifest(manifest(range(10)))).content_id
    assert after == before


def test_du_and_ls_say_what_is_here(local):
    fill(local, range(5))
    local.put_manifest(manifest(range(5)))
    (used,) = local.du()
    assert (used.model, used.point, used.recipe, used.rows, used.shards) == (
        "tiny",
        "vit.4",
        recipe().id,
        5,
        2,
    )
    on_disk = sum(p.stat().st_size for p in local.place.root.glob("shards/**/*") if p.is_file())
    assert used.bytes == on_disk
    assert local.ls()["latents"] == [used]
    json.dumps(local.recipe(recipe().id).canonical())

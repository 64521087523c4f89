"""Views: lazy, labelled, in manifest order, equal to the rows they show; and shards that plain tools read."""

from __future__ import annotations

import subprocess
import sys
import time

import ml_dtypes
import numpy as np
import pytest
import xarray as xr
import zarr

import store
from tests.store.helpers import fill, manifest, recipe, row, sample


def test_a_view_shows_rows_in_manifest_order_with_their_labels(catalog):
    fill(catalog, range(10))
    order = [7, 0, 3, 9, 1]
    m = catalog.put_manifest(manifest(order))
    view = catalog.view(model="tiny", point="vit.4", manifest=m)
    assert view["values"].dims == ("sample", "token", "feature")
    np.testing.assert_array_equal(view["values"].values, np.stack([row(i)["values"] for i in order]))
    for name in ("time_s", "row", "col", "kind", "tile"):
        np.testing.assert_array_equal(view[name].values, np.stack([row(i)[name] for i in order]))
    assert view.sample.values.tolist() == [sample(i) for i in order]
    assert view.label.values.tolist() == ["b", "a", "b", "b", "b"]
    assert view.attrs["recipe_id"] == recipe().id
    assert view.attrs["content_id"] == catalog.latents(recipe().id, m).content_id
    np.testing.assert_array_equal(view.sel(sample=sample(9))["values"].values, row(9)["values"])


def test_rows_as_they_were_written_make_one_chunk_per_shard(catalog):
    fill(catalog, range(40), rows_per_shard=8)
    in_order = catalog.view(recipe=recipe().id, manifest=catalog.put_manifest(manifest(range(40))))
    assert in_order["values"].chunks[0] == (8,) * 5
    shuffled = manifest(np.random.default_rng(0).permutation(40).tolist())
    gathered = catalog.view(recipe=recipe().id, manifest=catalog.put_manifest(shuffled))
    assert len(gathered["values"].chunks[0]) <= 8


def test_a_grid_view_has_space_and_time_as_axes(catalog):
    fill(catalog, range(3), dtype=ml_dtypes.bfloat16)
    m = catalog.put_manifest(manifest(range(3)))
    view = catalog.view(recipe=recipe().id, manifest=m, grid=True)
    assert view["values"].dims == ("sample", "time", "row", "col", "feature")
    assert view["values"].dtype == ml_dtypes.bfloat16
    expected = row(2, dtype=ml_dtypes.bfloat16)["values"].reshape(1, 3, 4, 8)
    assert view["values"][2].values.tobytes() == expected.tobytes()
    assert view["time_s"].shape == (3, 1, 3, 4)


def test_tokens_that_stand_for_no_place_are_no_part_of_a_grid_nor_of_a_mean(catalog):
    """Fourteen tokens: a grid of 3 x 4, then a class token and a line break."""
    kind = np.array([0] * 12 + [1, 3], np.uint8)
    with catalog.writer(recipe(), rows_per_shard=2) as writer:
        for i in range(3):
            put = row(i, tokens=14, grid=(1, 3, 4))
            writer.put(**put | {"kind": kind, "row": np.where(kind > 0, np.nan, put["row"])})
    m = catalog.put_manifest(manifest(range(3)))
    first = row(1, tokens=14)["values"]
    view = catalog.view(recipe=recipe().id, manifest=m, grid=True)
    np.testing.assert_array_equal(view["values"][1].values, first[:12].reshape(1, 3, 4, 8))
    assert view["kind"].shape == (3, 1, 3, 4)
    assert catalog.view(recipe=recipe().id, manifest=m)["values"].shape == (3, 14, 8)
    pooled = catalog.pooled(recipe=recipe().id, manifest=m)
    np.testing.assert_allclose(pooled.values[1], first[:12].mean(0), rtol=1e-5)


def test_unequal_token_counts_lie_end_to_end(catalog):
    counts = [3, 12, 5, 7]
    with catalog.writer(recipe(), rows_per_shard=3) as writer:
        for i, tokens in enumerate(counts):
            writer.put(**row(i, tokens=tokens))
    m = catalog.put_manifest(manifest(range(4)))
    view = catalog.view(recipe=recipe().id, manifest=m)
    assert view["values"].dims == ("token", "feature")
    assert view["row_sizes"].values.tolist() == counts
    np.testing.assert_array_equal(
        view["values"].values, np.concatenate([row(i, tokens=n)["values"] for i, n in enumerate(counts)])
    )
    np.testing.assert_array_equal(
        view["col"].values[view["sample_index"].values == 2], row(2, tokens=5)["col"]
    )
    pooled = catalog.pooled(recipe=recipe().id, manifest=m)
    np.testing.assert_allclose(pooled.values[1], row(1, tokens=12)["values"].mean(0), rtol=1e-5)
    with pytest.raises(ValueError, match="regular grid"):
        catalog.view(recipe=recipe().id, manifest=m, grid=True)
    with pytest.raises(ValueError, match="equal token counts"):
        catalog.pooled(recipe=recipe().id, manifest=m, how="flatten")


@pytest.mark.parametrize("how", ["mean", "max", "flatten"])
def test_pooling_is_the_reduction_of_each_row(catalog, how):
    fill(catalog, range(9), dtype=ml_dtypes.bfloat16)
    pooled = catalog.pooled(recipe=recipe().id, manifest=catalog.put_manifest(manifest(range(9))), how=how)
    values = np.stack([row(i, dtype=ml_dtypes.bfloat16)["values"].astype(np.float64) for i in range(9)])
    expected = {"mean": values.mean(1), "max": values.max(1), "flatten": values.reshape(9, -1)}[how]
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled.values, expected, rtol=1e-6)


def test_two_recipes_that_fit_a_name_are_listed_not_chosen(catalog):
    other = recipe(dtype="float16")
    fill(catalog, range(3))
    fill(catalog, range(3), of=other)
    m = catalog.put_manifest(manifest(range(3)))
    with pytest.raises(store.StoreError, match=r"2 recipes fit") as error:
        catalog.view(model="tiny", point="vit.4", manifest=m)
    assert recipe().id in str(error.value)
    assert other.id in str(error.value)
    with pytest.raises(store.Missing, match=r"no rows of tiny at vit\.5"):
        catalog.view(model="tiny", point="vit.5", manifest=m)


def test_plain_zarr_and_xarray_read_shards_without_our_code(local):
    program = (
        "import sys, zarr, xarray\n"
        "for shard in sys.argv[1:]:\n"
        "    group = zarr.open_group(shard, mode='r')\n"
        "    data = xarray.open_zarr(shard, consolidated=False)\n"
        "    name = 'values' if 'values' in group else 'values_bits'\n"
        "    assert group[name][...].tobytes() == data[name].values.tobytes()\n"
        "    assert 'store' not in sys.modules\n"
        "    print(name, group[name].dtype, data[name].dims[-1], group[name][...].tobytes().hex())\n"
    )
    shards, expected = [], []
    for dtype in (np.float32, np.float16, ml_dtypes.bfloat16):
        for tokens in ([12, 12, 12], [5, 12, 2]):
            of = recipe(dtype=np.dtype(dtype).name, tokens=tokens)
            with local.writer(of) as writer:
                for i, n in enumerate(tokens):
                    writer.put(**row(i, tokens=n, dtype=dtype))
            (shard,) = local.place.root.glob(f"shards/{of.id}/*")
            shards.append(shard)
            seen = "values_bits uint16" if dtype is ml_dtypes.bfloat16 else f"values {np.dtype(dtype).name}"
            values = [row(i, tokens=n, dtype=dtype)["values"].tobytes() for i, n in enumerate(tokens)]
            expected.append(f"{seen} feature {b''.join(values).hex()}")
            about = zarr.open_group(shard, mode="r").attrs["foresight"]
            assert about["samples"] == [sample(i) for i in range(3)]
            assert about["row_sizes"] == tokens
            tiles = np.concatenate([row(i, tokens=n)["tile"] for i, n in enumerate(tokens)])
            data = xr.open_zarr(shard, consolidated=False)
            np.testing.assert_array_equal(np.ravel(data["tile"].values), tiles)
    command = [sys.executable, "-c", program, *shards]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == expected


def test_points_stack_and_models_join_by_sample(catalog):
    for point in ("vit.2", "vit.4"):
        fill(catalog, range(6), of=recipe(point=point))
    other = recipe(model={"card": "vae"}, point="latent")
    fill(catalog, reversed(range(6)), of=other, tokens=4, features=3, grid=(1, 2, 2))
    m = catalog.put_manifest(manifest([4, 1, 3]))
    stacked = catalog.stacked(model="tiny", points=["vit.4", "vit.2"], manifest=m)
    assert stacked.dims == ("point", "sample", "token", "feature")
    assert stacked.point.values.tolist() == ["vit.4", "vit.2"]
    np.testing.assert_array_equal(stacked.sel(point="vit.2")[1].values, row(1)["values"])
    assert catalog.stacked(model="tiny", points=["vit.2"], manifest=m, how="mean").shape == (1, 3, 8)
    joined = catalog.joined(sides={"vlm": recipe(point="vit.4").id, "vae": other.id}, manifest=m)
    assert joined["vae"].dims == ("sample", "vae_token", "vae_feature")
    expected = row(3, tokens=4, features=3)["values"]
    np.testing.assert_array_equal(joined["vae"].sel(sample=sample(3)).values, expected)
    assert joined["vlm"].shape == (3, 12, 8)
    fill(catalog, range(6), of=recipe(point="vit.6"), tokens=4, grid=(1, 2, 2))
    with pytest.raises(ValueError, match="need one shape"):
        catalog.stacked(model="tiny", points=["vit.4", "vit.6"], manifest=m)


@pytest.mark.slow
def test_a_view_of_thousands_of_shards_opens_in_a_second_and_a_plan_looks_rows_up_as_fast(local):
    many = 1000
    fill(local, range(many), rows_per_shard=1, tokens=2, features=2, grid=(1, 1, 2))
    m = local.put_manifest(manifest(range(many)))
    again = store.open(local.url)
    start = time.process_time()
    assert again.missing(recipe().id, [sample(i) for i in range(many)]) == []
    view = again.view(recipe=recipe().id, manifest=m)
    # processor time, for other work on the machine must not fail this; the bar is 5,000 shards in 1 s
    assert time.process_time() - start < 0.5
    assert len(view["values"].data.__dask_graph__()) <= many + 1
    np.testing.assert_array_equal(view["values"][-1].values, row(many - 1, tokens=2, features=2)["values"])


@pytest.mark.slow
def test_pooling_holds_a_few_shards_at_a_time(local):
    count, tokens, features = 512, 256, 512
    values = np.random.RandomState(0).standard_normal((tokens, features)).astype(np.float32)
    about = {name: value for name, value in row(0, tokens=tokens).items() if name not in ("sample", "values")}
    with local.writer(recipe(), rows_per_shard=16) as writer:
        for i in range(count):
            values[0, 0] = i
            writer.put(sample=sample(i), values=values, **about)
    m = local.put_manifest(manifest(range(count)))
    program = (
        "import resource, sys, store\n"
        "s = store.open(sys.argv[1])\n"
        "s.pooled(recipe=sys.argv[2], manifest=sys.argv[3])[:32].compute()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(s.pooled(recipe=sys.argv[2], manifest=sys.argv[3]).compute().shape[0])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", program, local.url, recipe().id, m]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(said[0]) == count
    # the whole is 256 MiB; two threads hold a row each, and its float32 copy
    assert int(said[1]) * 1024 < 64 << 20

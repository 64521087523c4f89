"""Rows: put once, read back bit for bit, found again whatever the order, subset or shard size."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import store
from tests.store.helpers import fill, manifest, recipe, row, sample


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_every_bit_of_a_row_comes_back(catalog, dtype):
    about = row(0, tokens=4096, features=16, dtype=dtype)
    bits = np.arange(4096 * 16, dtype=np.uint64)
    if np.dtype(dtype).itemsize == 2:  # all 65,536 patterns, with every NaN payload
        about["values"] = bits.astype(np.uint16).view(dtype).reshape(4096, 16)
    else:
        about["values"] = (bits * 0x9E3779B1 & 0xFFFFFFFF).astype(np.uint32).view(dtype).reshape(4096, 16)
    with catalog.writer(recipe()) as writer:
        writer.put(**about)
    back = store.open(catalog.url).row(recipe().id, sample(0))
    assert back.values.dtype == np.dtype(dtype)
    assert back.values.tobytes() == about["values"].tobytes()
    for name in ("time_s", "row", "col", "kind", "tile"):
        np.testing.assert_array_equal(getattr(back, name), about[name])
    assert back.grid == (0, 0, 0)


def test_a_second_run_writes_nothing_and_a_larger_one_only_what_is_new(catalog):
    assert fill(catalog, range(10)).rows_written == 10
    again = fill(catalog, range(10))
    assert (again.rows_written, again.rows_reused, again.conflicts) == (0, 10, [])
    more = fill(catalog, reversed(range(13)))
    assert (more.rows_written, more.rows_reused) == (3, 10)
    assert catalog.missing(recipe().id, [sample(i) for i in (12, 99, 3, 98)]) == [sample(99), sample(98)]


def test_the_first_of_two_different_rows_is_kept_and_the_second_reported(catalog):
    fill(catalog, range(3))
    other = row(1)
    other["values"] = other["values"] + 1
    with catalog.writer(recipe()) as writer:
        writer.put(**other)
    assert [c.sample for c in writer.conflicts] == [sample(1)]
    assert writer.conflicts[0].kept != writer.conflicts[0].refused
    np.testing.assert_array_equal(catalog.row(recipe().id, sample(1)).values, row(1)["values"])


@given(order=st.permutations(range(7)), rows_per_shard=st.integers(1, 8), runs=st.integers(1, 3))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_order_and_shard_size_do_not_change_content(tmp_path_factory, order, rows_per_shard, runs):
    catalog = store.open(tmp_path_factory.mktemp("s") / "store", create=True)
    for part in range(runs):
        fill(catalog, order[part::runs], rows_per_shard=rows_per_shard)
    there = catalog.latents(recipe().id, catalog.put_manifest(manifest(range(7))))
    assert there.content_id == "62359c002fb322a70357945bce5ea691abd9fd2bb194dd97009c85dcfc47c845"


def test_a_layer_whose_bytes_did_not_change_keeps_its_content_id(catalog):
    other = recipe(model={"card": "tiny", "weights": "9b" * 32})
    fill(catalog, range(5))
    fill(catalog, range(5), of=other)
    m = catalog.put_manifest(manifest(range(5)))
    assert other.id != recipe().id
    assert catalog.latents(other.id, m).content_id == catalog.latents(recipe().id, m).content_id


def test_content_id_is_none_while_rows_are_missing(catalog):
    fill(catalog, range(4))
    there = catalog.latents(recipe().id, catalog.put_manifest(manifest([3, 9, 1, 8])))
    assert (there.content_id, there.missing, there.n_rows) == (None, [sample(9), sample(8)], 4)


def test_rows_put_before_an_exception_are_kept_and_half_a_row_never_is(catalog):
    def extract():
        with catalog.writer(recipe(), rows_per_shard=4) as writer:
            for i in range(6):
                writer.put(**row(i))
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        extract()
    assert catalog.missing(recipe().id, [sample(i) for i in range(8)]) == [sample(6), sample(7)]
    assert catalog.verify().ok


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"values": np.zeros((12, 8))}, "float32, float16, bfloat16"),
        ({"values": np.zeros(12, "f4")}, "token, feature"),
        ({"kind": np.zeros(11, np.uint8)}, "one entry per token"),
        ({"kind": np.full(12, 300)}, "must fit uint8"),
        ({"grid": (2, 3, 4)}, "multiply to at most 12"),
        ({"sample": "../../x"}, "64 lower-case hex"),
        ({"values": np.zeros((12, 9), "f4")}, "share dtype and features"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_before_anything_is_written(catalog, change, match):
    fill(catalog, [0])
    with catalog.writer(recipe()) as writer, pytest.raises(ValueError, match=match):
        writer.put(**{**row(1), **change})
    assert writer.rows_written == 0


def test_what_is_no_digest_is_never_looked_up(catalog):
    fill(catalog, range(2))
    for odd in ("../../x", "a" * 63, "Ü" * 64, "g" * 64, ""):
        with pytest.raises(ValueError, match="64 lower-case hex"):
            catalog.missing(recipe().id, [sample(0), odd])
        with pytest.raises(ValueError, match="64 lower-case hex"):
            catalog.row(recipe().id, odd)
        with pytest.raises(ValueError, match="64 lower-case hex"):
            catalog.result(odd)


def test_a_row_that_is_not_here_is_an_error_and_not_zeros(catalog):
    fill(catalog, range(3))
    with pytest.raises(store.Missing, match="1 of 1 rows are missing"):
        catalog.row(recipe().id, sample(7))
    with pytest.raises(store.Missing, match="2 of 5 rows are missing"):
        catalog.view(recipe=recipe().id, manifest=catalog.put_manifest(manifest(range(5))))


def test_flushed_rows_are_in_sight_of_others_at_once(catalog):
    other = store.open(catalog.url)
    with catalog.writer(recipe(), rows_per_shard=64) as writer:
        writer.put(**row(0))
        assert other.missing(recipe().id, [sample(0)]) == [sample(0)]
        writer.flush()
        assert other.missing(recipe().id, [sample(0)]) == []

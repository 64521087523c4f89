"""The training reader: every row once an epoch, the same order for ever, resumable, shared among ranks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import store
from store.training import order
from tests.store.helpers import fill, manifest, recipe, row, sample

N = 23


@pytest.fixture
def full(catalog):
    fill(catalog, range(N), dtype=ml_dtypes.bfloat16)
    identity = catalog.put_manifest(manifest(range(N)))

    def reader(**changes):
        return catalog.reader(**{"recipe": recipe().id, "manifest": identity, "batch_rows": 4, **changes})

    return reader


def test_every_row_comes_once_an_epoch_in_another_order_each(full):
    reader = full(seed=7)
    epochs = [np.concatenate([batch.index for batch in reader]) for _ in range(2)]
    assert all(sorted(epoch.tolist()) == list(range(N)) for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()
    again = np.concatenate([batch.index for batch in full(seed=7)])
    assert again.tolist() == epochs[0].tolist()
    assert np.concatenate([batch.index for batch in full(seed=8)]).tolist() != epochs[0].tolist()
    for batch in full(seed=7):
        for i, values in zip(batch.index, batch.values, strict=True):
            assert values.tobytes() == row(int(i), dtype=ml_dtypes.bfloat16)["values"].tobytes()


def test_the_order_is_pinned():
    assert order(8, 0, 0).tolist() == [4, 0, 1, 7, 6, 2, 5, 3]
    assert order(8, 5, 3).tolist() == [5, 1, 7, 0, 2, 4, 3, 6]
    assert order(4, None, 9).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("stop", [0, 1, 3, 6])
def test_a_resumed_reader_goes_on_with_the_next_batch(full, stop):
    whole = [batch.index.tolist() for batch in full(seed=3)]
    first = full(seed=3)
    batches = iter(first)
    done = [next(batches).index.tolist() for _ in range(stop)]
    state = first.state()
    batches.close()
    second = full(seed=3)
    second.resume(state)
    assert done + [batch.index.tolist() for batch in second] == whole
    assert second.state()["epoch"] == 1
    with pytest.raises(ValueError, match="seed differ"):
        full(seed=4).resume(state)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_ranks_share_an_epoch_and_take_the_same_number_of_steps(full, ranks):
    parts = [list(full(seed=1, rank=rank, ranks=ranks)) for rank in range(ranks)]
    assert len({len(part) for part in parts}) == 1
    seen = [int(i) for part in parts for batch in part for i in batch.index]
    assert sorted(seen) == list(range(N))


def test_torch_takes_the_bits_without_a_copy(full):
    batch = next(iter(full(seed=None)))
    tensor = batch.torch()
    assert tensor.dtype == torch.bfloat16
    assert tensor.data_ptr() == batch.values.ctypes.data
    expected = row(2, dtype=ml_dtypes.bfloat16)["values"].astype(np.float32)
    np.testing.assert_array_equal(tensor[2].float().numpy(), expected)


def test_a_data_loader_takes_the_reader(full):
    loader = DataLoader(full(), batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(0))
    batches = list(loader)
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    assert batches[0].dtype == torch.bfloat16


def test_unequal_counts_come_as_lists(catalog):
    with catalog.writer(recipe()) as writer:
        for i, tokens in enumerate((3, 7, 5)):
            writer.put(**row(i, tokens=tokens))
    reader = catalog.reader(recipe=recipe().id, manifest=catalog.put_manifest(manifest(range(3))), seed=None)
    (batch,) = reader
    assert [len(values) for values in batch.values] == [3, 7, 5]
    np.testing.assert_array_equal(batch.torch()[1].numpy(), row(1, tokens=7)["values"])


def test_a_damaged_row_stops_the_reader_with_its_name_and_no_thread_stays(local):
    fill(local, range(8))
    victim = sorted(local.place.root.glob("shards/*/*/values/c.0.0.0"))[0]
    data = bytearray(victim.read_bytes())
    data[400] ^= 64
    victim.write_bytes(data)
    reader = local.reader(recipe=recipe().id, manifest=local.put_manifest(manifest(range(8))), batch_rows=2)
    with pytest.raises(store.Damaged, match="is not what was written"):
        list(reader)
    assert not [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


@pytest.mark.parametrize("change", [{"batch_rows": 0}, {"rank": 2, "ranks": 2}, {"prefetch": 0}])
def test_a_reader_that_cannot_be_is_refused(full, change):
    with pytest.raises(ValueError, match="a reader needs"):
        full(**change)


def test_gather_and_token_read_by_place(catalog):
    fill(catalog, range(9))
    order_ = [7, 2, 2, 0]
    gathered = catalog.gather(recipe().id, [row(i)["sample"] for i in order_])
    np.testing.assert_array_equal(gathered, np.stack([row(i)["values"] for i in order_]))
    np.testing.assert_array_equal(catalog.token(recipe().id, row(4)["sample"], 11), row(4)["values"][11])
    with pytest.raises(IndexError, match="has 12 tokens"):
        catalog.token(recipe().id, row(4)["sample"], 12)


def test_a_batch_that_is_kept_is_never_written_over(full):
    kept = list(full(seed=None, batch_rows=2, prefetch=1))
    tensors = [batch.torch() for batch in full(seed=None, batch_rows=2, prefetch=1)]
    views = [batch.values[1:] for batch in full(seed=None, batch_rows=2, prefetch=1)]
    for k, batch in enumerate(kept):
        for j, i in enumerate(batch.index):
            expected = row(int(i), dtype=ml_dtypes.bfloat16)["values"]
            assert batch.values[j].tobytes() == expected.tobytes()
            assert tensors[k][j].view(torch.int16).numpy().tobytes() == expected.tobytes()
            if j:
                assert views[k][j - 1].tobytes() == expected.tobytes()


def test_threads_that_share_a_store_never_read_another_file(local, monkeypatch):
    # one file kept open: every read of another thread closes it, and its number is given to the next file
    monkeypatch.setattr("store.places._OPEN_FILES", 1)
    fill(local, range(24), rows_per_shard=1)
    expected = [row(i)["values"].tobytes() for i in range(24)]

    def read(seed: int) -> list[bool]:
        picks = np.random.RandomState(seed).randint(24, size=400)
        tokens = [local.token(recipe().id, row_of(i), 5).tobytes() for i in picks]
        return [got == expected[i][5 * 32 : 6 * 32] for i, got in zip(picks, tokens, strict=True)]

    def row_of(i: int) -> str:
        return sample(int(i))

    with ThreadPoolExecutor(8) as pool:
        assert all(all(right) for right in pool.map(read, range(8)))

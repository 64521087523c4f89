"""A store driven at random against a plain dict: put, damage, verify, sweep, reopen, read."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import store
from tests.store.helpers import manifest, recipe, row, sample

SAMPLES = st.lists(st.integers(0, 11), min_size=1, max_size=6, unique=True)


class StoreMachine(RuleBasedStateMachine):
    """`model` says which bytes each sample's row has; `needed` what a recorded result reads."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "store"
        self.catalog = store.open(self.path, create=True)
        self.model: dict[int, float] = {}
        self.needed: set[int] = set()
        self.damaged: set[int] = set()

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(indices=SAMPLES, rows_per_shard=st.integers(1, 4), shift=st.sampled_from([0.0, 1.0]))
    def put(self, indices: list[int], rows_per_shard: int, shift: float) -> None:
        with self.catalog.writer(recipe(), rows_per_shard=rows_per_shard) as writer:
            for i in indices:
                about = row(i, tokens=3 + i % 2)
                writer.put(**{**about, "values": about["values"] + np.float32(shift)})
        known = [i for i in indices if i in self.model]
        assert writer.rows_written == len(indices) - len(known)
        assert {c.sample for c in writer.conflicts} == {sample(i) for i in known if self.model[i] != shift}
        for i in indices:
            self.model.setdefault(i, shift)

    @rule()
    def reopen(self) -> None:
        self.catalog = store.open(self.path)

    @precondition(lambda self: set(self.model) - self.damaged)
    @rule(data=st.data())
    def record(self, data: st.DataObject) -> None:
        usable = sorted(set(self.model) - self.damaged)
        indices = data.draw(st.lists(st.sampled_from(usable), min_size=1, unique=True))
        identity = self.catalog.put_manifest(manifest(indices))
        content = self.catalog.latents(recipe().id, identity).content_id
        assert content is not None
        self.catalog.record(store.Recipe(operation="metric", version=1, inputs={"latents": content}))
        self.needed |= set(indices)

    @precondition(lambda self: set(self.model) - self.damaged)
    @rule(data=st.data())
    def damage_and_verify(self, data: st.DataObject) -> None:
        i = data.draw(st.sampled_from(sorted(set(self.model) - self.damaged)))
        table, position = self.catalog._contents.index(recipe().id).locate([sample(i)])[0]
        shard = self.catalog._contents.rows.shard(table)
        path = self.path / shard.folder / shard.values_file
        bytes_ = bytearray(path.read_bytes())
        bytes_[int(shard.offsets[position]) + data.draw(st.integers(0, int(shard.sizes[position]) - 1))] ^= 4
        path.write_bytes(bytes_)
        report = self.catalog.verify()
        assert sample(i) in {p.sample for p in report.problems}
        del self.model[i]
        # a result that read the row is no hit until the row is back
        assert self.catalog.missing(recipe().id, [sample(i)]) == [sample(i)]

    @rule()
    def sweep(self) -> None:
        self.catalog.sweep(grace_s=0, apply=True)
        gone = set(self.catalog.missing(recipe().id, [sample(i) for i in self.model]))
        lost = {i for i in self.model if sample(i) in gone}
        assert not lost & self.needed
        for i in lost:
            del self.model[i]

    @invariant()
    def reads_what_was_put(self) -> None:
        everything = [sample(i) for i in range(12)]
        missing = set(self.catalog.missing(recipe().id, everything))
        assert missing == {sample(i) for i in range(12) if i not in self.model}
        for i, shift in self.model.items():
            expected = row(i, tokens=3 + i % 2)["values"] + np.float32(shift)
            np.testing.assert_array_equal(self.catalog.row(recipe().id, sample(i)).values, expected)


StoreMachine.TestCase.settings = settings(max_examples=6, stateful_step_count=12, deadline=None)
TestStoreMachine = StoreMachine.TestCase

"""Sealed records: every byte counts, wherever the check stands among the fields."""

from __future__ import annotations

import pytest

import store
from store.records import sealed, unsealed


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": 1},
        {"z": {"check": "x", "deep": [1.5, None]}},
        {"a": 'quote " and , } brace', "z": "é"},
        {"checked": True},
        {"a": {"check": "0" * 64, "z": 1}, "z": {"check": "1" * 64}},
        {"a": '"check":"' + "0" * 64 + '",'},
    ],
)
def test_a_record_comes_back_and_every_changed_byte_is_noticed(value):
    data = sealed(value)
    assert unsealed(data, "it") == value
    for at in range(len(data)):
        for bit in (1, 128):
            hurt = bytearray(data)
            hurt[at] ^= bit
            with pytest.raises(store.Damaged, match="it is not what was written"):
                unsealed(bytes(hurt), "it")
    for cut in range(len(data)):
        with pytest.raises(store.Damaged):
            unsealed(data[:cut], "it")

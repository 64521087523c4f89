"""Small trainings keep to one thread, and nothing else does."""

from __future__ import annotations

import pytest
import torch

from foresight.training.threads import one_torch_thread


def failing() -> None:
    with one_torch_thread():
        assert torch.get_num_threads() == 1
        with one_torch_thread():
            pass
        assert torch.get_num_threads() == 1
        raise LookupError


def test_torch_has_one_thread_inside_and_what_it_had_before_after_an_error() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(LookupError):
            failing()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)

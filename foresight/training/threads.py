"""One thread of torch while a small model is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Keep torch to one thread inside, for the calling thread; what held before holds again after.

    Steps of a probe take well under a millisecond a product, which more threads do not shorten, and on a busy
    machine they wait for each other: 100 steps of the box probe took 10 s of CPU on two cores that others
    used too, and 0.6 s with one thread. Rounding then also is the same whatever the number of cores.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

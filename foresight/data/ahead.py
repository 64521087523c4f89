"""Work ahead of whoever consumes it: in order, bounded in memory, on threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from foresight.data.errors import Unreadable
from foresight.data.sampling import Sampling
from foresight.nouns import Frames, Sample

if TYPE_CHECKING:
    from foresight.data.source import DataSource

A = TypeVar("A")
B = TypeVar("B")


def ahead_of(
    work: Callable[[A], B], items: Iterable[A], *, workers: int, ahead: int
) -> Iterator[tuple[A, B]]:
    """Yield (item, work(item)) in the order of `items`, with at most `ahead` results waiting.

    An exception of `work` comes out at its item's place. Closing the iterator early cancels what has not
    begun. `workers=0` works in the calling thread, one item at a time.
    """
    if workers < 0 or ahead < 1:
        raise ValueError(
            f"workers is 0 or more and ahead 1 or more, but got workers={workers}, ahead={ahead}"
        )
    if workers == 0:
        for item in items:
            yield item, work(item)
        return
    pending: deque[tuple[A, Future[B]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ahead")
    try:
        for item in items:
            pending.append((item, pool.submit(work, item)))
            if len(pending) >= ahead:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def prefetch(
    src: DataSource, samples: Iterable[Sample], sampling: Sampling, *, workers: int = 2, ahead: int = 8
) -> Iterator[tuple[Sample, Frames | Unreadable]]:
    """Yield (sample, its frames) in the order of `samples`, decoding ahead of the consumer.

    A sample that cannot be read comes as its `Unreadable`, at its own place; any other exception is raised.
    At most `ahead` decoded samples wait, so memory is bounded by `ahead + workers` clips.
    """

    def read(sample: Sample) -> Frames | Unreadable:
        try:
            return src.frames(sample, sampling)
        except Unreadable as error:
            return error

    return ahead_of(read, samples, workers=workers, ahead=ahead)

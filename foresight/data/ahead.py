"""Work ahead of whoever consumes it: in order, bounded in memory, on threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
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
    work: Callable[[A], B],
    items: Iterable[A],
    *,
    workers: int,
    ahead: int,
    known: Callable[[A], B | None] = lambda item: None,
) -> Generator[tuple[A, B], None, None]:
    """Yield (item, work(item)) in the order of `items`, with at most `ahead` results waiting.

    An exception of `work` comes out at its item's place. Closing the iterator early cancels what has not
    begun. `workers=0` works in the calling thread, one item at a time. `known(item)`, when it is not None, is
    taken instead of `work(item)`: a look-up costs less than handing it to a thread.
    """
    if workers < 0 or ahead < 1:
        raise ValueError(
            f"workers is 0 or more and ahead 1 or more, but got workers={workers}, ahead={ahead}"
        )
    pending: deque[tuple[A, B | Future[B]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ahead") if workers else None
    try:
        for item in items:
            result = known(item)
            if result is not None:
                pending.append((item, result))
            else:
                pending.append((item, work(item) if pool is None else pool.submit(work, item)))
            if pool is None or len(pending) >= ahead:
                yield _settled(pending.popleft())
        while pending:
            yield _settled(pending.popleft())
    finally:
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)


def _settled(waiting: tuple[A, B | Future[B]]) -> tuple[A, B]:
    item, result = waiting
    return item, result.result() if isinstance(result, Future) else result


def prefetch(
    src: DataSource, samples: Iterable[Sample], sampling: Sampling, *, workers: int = 2, ahead: int = 8
) -> Generator[tuple[Sample, Frames | Unreadable], None, None]:
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

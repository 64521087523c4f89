"""Where lazy arrays are computed: in this process, or on a Dask cluster that reaches the same store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tasks.house import WrongRequest

CONNECT_S = 20
"""How long a scheduler may take to answer, and to have a first worker."""


@contextmanager
def analyses_on(address: str) -> Iterator[None]:
    """Have every lazy array of this process computed on the cluster at `address`; '' changes nothing.

    Its workers open the store by its URL, so they need the same folder or the same credentials, and this
    project installed. A worker that dies is made up for by the others. Raises `WrongRequest` when no scheduler
    answers, or none of its workers.
    """
    if not address:
        yield
        return
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        raise WrongRequest(
            f"analyses were to be computed on a Dask cluster, but no scheduler answers at {address} ({error}); "
            "start one with `dask scheduler`, and workers with `dask worker ADDRESS`"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_S)
        except TimeoutError as error:
            raise WrongRequest(
                f"the Dask scheduler at {address} has no worker; start some with `dask worker {address}`"
            ) from error
        yield

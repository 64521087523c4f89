"""A place in an S3-compatible object store: objects are put whole, the one that shows the rest last."""

from __future__ import annotations

import contextlib
import datetime
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import obstore
from obstore import exceptions
from obstore.store import S3Store

from store.errors import Missing, NotAStore, NotWritable, StoreError
from store.places import STAGING, Entry, Parts

_RETRY: Any = {
    "max_retries": 10,
    "retry_timeout": datetime.timedelta(seconds=120),
    "backoff": {
        "init_backoff": datetime.timedelta(milliseconds=100),
        "max_backoff": datetime.timedelta(seconds=5),
        "base": 2,
    },
}


class ObjectPlace:
    """`s3://bucket/prefix`, with credentials, region and endpoint from the usual AWS_* environment."""

    def __init__(self, url: str) -> None:
        bucket, _, prefix = url.removeprefix("s3://").strip("/").partition("/")
        if not bucket:
            raise StoreError(f"an object store is s3://bucket/prefix, but got {url!r}")
        self.url = self.address = url.rstrip("/")
        self.at_once = 16
        self._prefix = prefix.rstrip("/")
        try:
            # plain http is used only where the endpoint itself says so
            self._bucket = S3Store(bucket, client_options={"allow_http": True}, retry_config=_RETRY)
        except exceptions.BaseError as error:
            raise StoreError(f"{self.url} cannot be opened: {_first_line(error)}") from error

    def path(self, name: str) -> Path | None:
        return None

    def get(self, name: str) -> bytes:
        with self._doing("reading", name):
            return bytes(obstore.get(self._bucket, self._key(name)).bytes())

    def get_range(self, name: str, start: int, length: int) -> bytes:
        with self._doing("reading", name):
            return bytes(obstore.get_range(self._bucket, self._key(name), start=start, length=length))

    def read_into(self, name: str, start: int, buffers: Parts) -> int:
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        data = memoryview(self.get_range(name, start, sum(view.nbytes for view in views)))
        at = 0
        for view in views:
            part = data[at : at + view.nbytes]
            view[: part.nbytes] = part
            at += part.nbytes
        return at

    def expect(self, name: str, start: int, length: int) -> None:
        return None

    def size(self, name: str) -> int | None:
        entry = self._head(name)
        return None if entry is None else entry.size

    def entry(self, name: str) -> Entry | None:
        found = self._head(name)
        if found is None and (self.entries(name)):
            return Entry(name=name.rsplit("/", 1)[-1], size=0, modified=0.0, is_folder=True)
        return found

    def put(self, name: str, parts: Parts) -> None:
        data = b"".join(bytes(memoryview(part).cast("B")) for part in parts)
        with self._doing("writing", name):
            obstore.put(self._bucket, self._key(name), data)

    def put_folder(self, name: str, files: Mapping[str, Parts]) -> None:
        *others, last = files.items()
        with ThreadPoolExecutor(self.at_once) as pool:
            for done in [pool.submit(self.put, f"{name}/{path}", parts) for path, parts in others]:
                done.result()
        self.put(f"{name}/{last[0]}", last[1])

    def names(self, folder: str) -> list[str]:
        return [entry.name for entry in self.entries(folder)]

    def entries(self, folder: str) -> list[Entry]:
        with self._doing("listing", folder):
            found = obstore.list_with_delimiter(self._bucket, self._key(folder) or None)
        here = [_entry(meta) for meta in found["objects"]]
        folders = [path.rstrip("/").rsplit("/", 1)[-1] for path in found["common_prefixes"]]
        return here + [Entry(name=name, size=0, modified=0.0, is_folder=True) for name in folders]

    def walk(self, folder: str) -> Iterator[tuple[str, Entry]]:
        with self._doing("listing", folder):
            listed = [meta for page in obstore.list(self._bucket, self._key(folder) or None) for meta in page]
        cut = len(self._prefix) + 1 if self._prefix else 0
        for meta in sorted(listed, key=lambda meta: meta["path"]):
            yield meta["path"][cut:], _entry(meta)

    def remove(self, name: str) -> None:
        with self._doing("removing", name):
            keys = [self._key(name)] + [self._key(inside) for inside, _ in self.walk(name)]
            for at in range(0, len(keys), 1000):
                obstore.delete(self._bucket, keys[at : at + 1000])

    def check_writable(self) -> None:
        probe = f"{STAGING}/{secrets.token_hex(16)}"
        self.put(probe, [b""])
        self.remove(probe)

    def _head(self, name: str) -> Entry | None:
        with self._doing("reading", name):
            try:
                return _entry(obstore.head(self._bucket, self._key(name)))
            except (exceptions.NotFoundError, FileNotFoundError):
                return None

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self._prefix, name) if part)

    @contextlib.contextmanager
    def _doing(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except (exceptions.NotFoundError, FileNotFoundError) as error:
            if verb == "writing":
                raise NotAStore(
                    f"{self.url}: there is no such bucket; create it, or check its name"
                ) from error
            raise Missing(f"{self.url} has no {name}; it was swept or never written") from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError) as error:
            raise NotWritable(
                f"{verb} {name} in {self.url}: access denied; check AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY and what they may do"
            ) from error
        except (exceptions.BaseError, OSError) as error:
            if "NoSuchBucket" in str(error):
                raise NotAStore(
                    f"{self.url}: there is no such bucket; create it, or check its name"
                ) from error
            raise StoreError(
                f"{verb} {name} in {self.url} failed after retries: {_first_line(error)}; "
                "nothing half-written is visible, run again"
            ) from error


def _entry(meta: Any) -> Entry:
    return Entry(
        name=meta["path"].rsplit("/", 1)[-1], size=meta["size"], modified=meta["last_modified"].timestamp()
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]

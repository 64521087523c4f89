"""A place holds named bytes: put whole or not at all, read by range, listed. Here: a local folder.

Names are relative, '/'-separated and made by the store from digests, never from data.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from store.errors import Missing, StoreError, explained

STAGING = "staging"
_OPEN_FILES = 256
Parts = Sequence[Any]
"""Bytes-like objects that make one file, in order."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file or folder of a listing."""

    name: str
    """The last part of its name."""
    size: int
    """Bytes; 0 for a folder."""
    modified: float
    """By the clock of the place, seconds since 1970."""
    is_folder: bool = False


class Place(Protocol):
    """What the store needs from where it lives. Errors are StoreErrors; what is absent is Missing."""

    url: str
    """As it was given, for people."""
    address: str
    """The same place from any process and folder, for tasks that run elsewhere."""
    at_once: int
    """How many reads are worth doing at the same time."""

    def get(self, name: str) -> bytes:
        """Return all bytes."""

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Return exactly `length` bytes from `start`; Missing when the file is absent, short when it ends."""

    def read_into(self, name: str, start: int, buffers: Parts) -> int:
        """Fill writable buffers, in order, from `start`; return the bytes read, fewer when the file ends."""

    def expect(self, name: str, start: int, length: int) -> None:
        """Say that these bytes will be read soon, where the place can use that."""

    def size(self, name: str) -> int | None:
        """Return the size in bytes of a file, None when absent."""

    def entry(self, name: str) -> Entry | None:
        """Return one file's or folder's entry, None when absent."""

    def put(self, name: str, parts: Parts) -> None:
        """Write one file, whole and durable before it can be seen."""

    def put_folder(self, name: str, files: Mapping[str, Parts]) -> None:
        """Write a folder of files, durable when this returns. A folder that is there already stays."""

    def entries(self, folder: str) -> list[Entry]:
        """Return what is directly in `folder`, unordered; empty when it is absent."""

    def names(self, folder: str) -> list[str]:
        """Return the names directly in `folder`, unordered; empty when it is absent."""

    def walk(self, folder: str) -> Iterator[tuple[str, Entry]]:
        """Yield (name from the root, entry) of every file under `folder`."""

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all in it; absent is fine."""

    def check_writable(self) -> None:
        """Raise NotWritable when nothing can be put here."""

    def path(self, name: str) -> Path | None:
        """Return the path to map or open directly, None where there is no such thing."""


class _Handle:
    """A file descriptor that closes with its last reference."""

    def __init__(self, path: Path) -> None:
        self.number = -1
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


class LocalPlace:
    """A folder of the local file system. What is put is staged, synced, then renamed into sight."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()
        self.url = str(root)
        self.address = str(self.root)
        self.at_once = 1
        self._open: OrderedDict[str, _Handle] = OrderedDict()

    def path(self, name: str) -> Path:
        return self.root / name

    def get(self, name: str) -> bytes:
        with self._doing("reading", name):
            return (self.root / name).read_bytes()

    def get_range(self, name: str, start: int, length: int) -> bytes:
        with self._doing("reading", name):
            handle = self._opened(name)  # held by name here, or another thread's turn could close it
            return os.pread(handle.number, length, start)

    def read_into(self, name: str, start: int, buffers: Parts) -> int:
        with self._doing("reading", name):
            handle = self._opened(name)
            return os.preadv(handle.number, buffers, start)

    def expect(self, name: str, start: int, length: int) -> None:
        with self._doing("reading", name):
            handle = self._opened(name)
            os.posix_fadvise(handle.number, start, length, os.POSIX_FADV_WILLNEED)

    def size(self, name: str) -> int | None:
        try:
            return (self.root / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put(self, name: str, parts: Parts) -> None:
        staged = self.root / STAGING / secrets.token_hex(16)
        with self._doing("writing", name), _removed_on_error(staged):
            self._folder(staged.parent)
            with _written(staged, parts) as file:
                os.fsync(file.fileno())
            self._folder((self.root / name).parent)
            staged.rename(self.root / name)
            _sync_folder((self.root / name).parent)

    def put_folder(self, name: str, files: Mapping[str, Parts]) -> None:
        staged = self.root / STAGING / secrets.token_hex(16)
        with self._doing("writing", name), _removed_on_error(staged):
            folders = sorted({(staged / relative).parent for relative in files} | {staged})
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as stack:
                opened = [
                    stack.enter_context(_written(staged / path, parts)) for path, parts in files.items()
                ]
                # the disk takes many waits at once for about the price of one
                with ThreadPoolExecutor(len(opened)) as pool:
                    list(pool.map(os.fsync, [file.fileno() for file in opened]))
                    list(pool.map(_sync_folder, folders))
            self._folder((self.root / name).parent)
            try:
                staged.rename(self.root / name)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                shutil.rmtree(staged)
            _sync_folder((self.root / name).parent)

    def entry(self, name: str) -> Entry | None:
        path = self.root / name
        with self._doing("reading", name):
            try:
                stat, is_folder = path.stat(), path.is_dir()
            except (FileNotFoundError, NotADirectoryError):
                return None
        size = 0 if is_folder else stat.st_size
        return Entry(name=path.name, size=size, modified=stat.st_mtime, is_folder=is_folder)

    def entries(self, folder: str) -> list[Entry]:
        found = []
        with self._doing("listing", folder):
            try:
                scan = os.scandir(self.root / folder)
            except FileNotFoundError:
                return []
            with scan:
                for item in scan:
                    with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                        stat, is_folder = item.stat(), item.is_dir()
                        found.append(
                            Entry(
                                name=item.name,
                                size=0 if is_folder else stat.st_size,
                                modified=stat.st_mtime,
                                is_folder=is_folder,
                            )
                        )
        return found

    def names(self, folder: str) -> list[str]:
        with self._doing("listing", folder):
            try:
                return os.listdir(self.root / folder)  # noqa: PTH208 - names alone, no paths
            except FileNotFoundError:
                return []

    def walk(self, folder: str) -> Iterator[tuple[str, Entry]]:
        for entry in sorted(self.entries(folder), key=lambda e: e.name):
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_folder:
                yield from self.walk(name)
            else:
                yield name, entry

    def remove(self, name: str) -> None:
        path = self.root / name
        with self._doing("removing", name):
            try:
                if path.is_dir():
                    # out of sight first, so that a reader never meets half of it
                    gone = self.root / STAGING / secrets.token_hex(16)
                    self._folder(gone.parent)
                    path.rename(gone)
                    shutil.rmtree(gone)
                else:
                    path.unlink(missing_ok=True)
            except FileNotFoundError:
                pass

    def check_writable(self) -> None:
        with self._doing("writing", STAGING):
            self._folder(self.root / STAGING)
            probe = self.root / STAGING / secrets.token_hex(16)
            with _removed_on_error(probe):
                probe.write_bytes(b"")
                probe.unlink()

    def _opened(self, name: str) -> _Handle:
        """Return a handle kept open: what it names is immutable, and stays readable while it is swept."""
        handle = self._open.get(name)
        if handle is None:
            handle = self._open[name] = _Handle(self.root / name)
            while len(self._open) > _OPEN_FILES:
                # whoever still reads from it holds the last reference
                with contextlib.suppress(KeyError):
                    self._open.popitem(last=False)
        return handle

    def _folder(self, folder: Path) -> None:
        """Make `folder` and every parent it lacks, durably."""
        if folder.is_dir():
            return
        if folder.parent != folder:
            self._folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)

    @contextlib.contextmanager
    def _doing(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if verb == "writing":
                raise explained(error, f"{verb} {name} in {self.url}") from error
            raise Missing(f"{self.url} has no {name}; it was swept or never written") from error
        except OSError as error:
            raise explained(error, f"{verb} {name} in {self.url}") from error


def place_of(url: str | os.PathLike[str]) -> Place:
    """Return the place a URL or path names: a local folder, or `s3://bucket/prefix`."""
    text = os.fspath(url)
    if "://" in text and not text.startswith("file://"):
        scheme = text.split("://", 1)[0]
        if scheme == "s3":
            from store.objects import ObjectPlace  # only who uses it needs its library

            return ObjectPlace(text)
        raise StoreError(f"a store is a local folder or s3://bucket/prefix, but got a {scheme}:// URL")
    return LocalPlace(text.removeprefix("file://"))


@contextlib.contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        raise


def _written(path: Path, parts: Parts) -> io.FileIO:
    """Return a new file with `parts` written to it, still open and not yet synced."""
    file = io.FileIO(path, "w")
    try:
        for part in parts:
            view = memoryview(part).cast("B")
            while view.nbytes:
                view = view[file.write(view) :]
    except BaseException:
        file.close()
        raise
    return file


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

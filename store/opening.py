"""Opening a store: what is there is checked, and only an explicit wish makes a new one."""

from __future__ import annotations

import os

from store.catalog import Store
from store.errors import Damaged, Missing, NewerFormat, NotAStore
from store.places import STAGING, Place, place_of
from store.records import sealed, unsealed
from store.shards import FORMAT

_FORMAT_FILE = "format.json"


def open_store(url: str | os.PathLike[str], *, create: bool = False) -> Store:
    """Return the store at a local folder or URL.

    NotAStore when there is none and `create` is not set, or when something else is there; NewerFormat when
    this code is too old for it; NotWritable when `create` is set and nothing can be written.
    """
    place = place_of(url)
    try:
        said = place.get(_FORMAT_FILE)
    except Missing:
        said = b""
    if not said:
        _initialise(place, create)
        return Store(place)
    _check_format(place.url, said)
    if create:
        place.check_writable()
    return Store(place)


def _check_format(url: str, said: bytes) -> None:
    try:
        record = unsealed(said, _FORMAT_FILE)
        name, version = record["format"], record["version"]
    except (Damaged, KeyError) as error:
        raise NotAStore(
            f"{url}/{_FORMAT_FILE} is not what a store writes; restore it or choose another place"
        ) from error
    if name != "foresight-store":
        raise NotAStore(f"{url} holds {name!r}, not a Foresight store; choose another place")
    if version > FORMAT:
        raise NewerFormat(
            f"{url} has store format {version}, but this code reads up to {FORMAT}; "
            f"install a version of foresight-pipeline that reads format {version}"
        )


def _initialise(place: Place, create: bool) -> None:
    others = sorted(set(place.names("")) - {STAGING})
    if _FORMAT_FILE in others:  # another process made it meanwhile
        return _check_format(place.url, place.get(_FORMAT_FILE))
    if not create:
        raise NotAStore(
            f"{place.url} is no store: it has no {_FORMAT_FILE}; check the path, "
            "or make one with store.open(…, create=True)"
        )
    if others:
        raise NotAStore(
            f"{place.url} is no store and not empty (it has {', '.join(others[:3])}); "
            "choose an empty or new folder"
        )
    place.check_writable()
    place.put(_FORMAT_FILE, [sealed({"format": "foresight-store", "version": FORMAT})])

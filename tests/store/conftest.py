"""Places to test on: a local folder, and a real S3-speaking server on loopback."""

from __future__ import annotations

import logging
import os
import urllib.request
from collections.abc import Iterator

import pytest

import store


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Start the server; yield its address."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint, monkeypatch) -> str:
    """Return the URL of an empty bucket, with the environment set to reach it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    urllib.request.urlopen(urllib.request.Request(f"{s3_endpoint}/moto-api/reset", method="POST")).close()
    urllib.request.urlopen(urllib.request.Request(f"{s3_endpoint}/bucket", method="PUT")).close()
    return "s3://bucket/some/prefix"


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def url(request, tmp_path) -> str:
    """Return where a store may be made: the conformance tests run on every kind of place."""
    return str(tmp_path / "store") if request.param == "local" else request.getfixturevalue("s3")


@pytest.fixture
def catalog(url) -> store.Store:
    """Return a new store on every kind of place."""
    return store.open(url, create=True)


@pytest.fixture
def local(tmp_path) -> store.Store:
    """Return a new store in a local folder, whose files a test may damage."""
    return store.open(tmp_path / "store", create=True)

"""An object store: one quick round trip, and a server that fails."""

from __future__ import annotations

import http.client
import http.server
import threading
import urllib.parse

import numpy as np
import pytest

import store
from tests.store.helpers import fill, manifest, recipe, row, sample


class Unreliable(http.server.BaseHTTPRequestHandler):
    """Forwards to a real server; of every five requests one is answered 500 and one dropped."""

    protocol_version = "HTTP/1.1"
    target = ""
    count = 0
    failed = 0
    lock = threading.Lock()

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.lock:
            type(self).count += 1
            turn = self.count % 5
            type(self).failed += turn in (1, 3)
        if turn == 1:
            self.send_response(500)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif turn == 3:
            self.close_connection = True  # no answer at all
        else:
            connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.target).netloc, timeout=30)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in (
                    "transfer-encoding",
                    "connection",
                    "server",
                    "date",
                    "content-length",
                ):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            self.wfile.write(data)
            connection.close()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward  # noqa: N815 - the base class's names

    def log_message(self, *_: object) -> None:
        pass


def test_a_store_in_a_bucket_reads_and_writes_as_one_in_a_folder(s3, tmp_path):
    far, near = store.open(s3, create=True), store.open(tmp_path / "store", create=True)
    for catalog in (far, near):
        fill(catalog, range(6))
    m = manifest([5, 2, 3])
    contents = {c.latents(recipe().id, c.put_manifest(m)).content_id for c in (far, near)}
    assert len(contents) == 1
    np.testing.assert_array_equal(store.open(s3).row(recipe().id, sample(5)).values, row(5)["values"])
    assert far.verify().ok
    kinds = [sorted(name.split("/", 3)[3] for name, _ in c.place.walk("shards")) for c in (far, near)]
    assert kinds[0] == kinds[1]


def test_a_bucket_that_is_not_there_is_one_clear_error(s3):
    with pytest.raises(store.NotAStore, match="no such bucket"):
        store.open("s3://elsewhere/prefix", create=True)
    with pytest.raises(store.NotAStore, match="no store"):
        store.open("s3://bucket/other")
    with pytest.raises(store.StoreError, match="local folder or s3"):
        store.open("gs://bucket/prefix")


@pytest.mark.slow
def test_a_server_that_answers_500_and_drops_connections_loses_nothing(s3, s3_endpoint, monkeypatch):
    Unreliable.target = s3_endpoint
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Unreliable) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        shaky = store.open(s3, create=True)
        assert fill(shaky, range(8)).rows_written == 8
        identity = shaky.put_manifest(manifest(range(8)))
        got = shaky.gather(recipe().id, [sample(i) for i in range(8)])
        np.testing.assert_array_equal(got, np.stack([row(i)["values"] for i in range(8)]))
        assert shaky.latents(recipe().id, identity).content_id is not None
        server.shutdown()
    assert Unreliable.failed > 20
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    assert store.open(s3).verify().ok


@pytest.mark.slow
def test_a_server_that_is_gone_half_way_leaves_whole_shards_only(s3, monkeypatch):
    catalog = store.open(s3, create=True)
    fill(catalog, range(4))
    real, puts = type(catalog.place).put, []

    def put(self, name, parts):
        puts.append(name)
        if len(puts) == 9:
            raise store.StoreError("the network is gone")
        real(self, name, parts)

    with monkeypatch.context() as broken:
        broken.setattr(type(catalog.place), "put", put)
        with pytest.raises(store.StoreError, match="network is gone"):
            fill(catalog, range(8))
    again = store.open(s3)
    assert again.verify().ok
    assert again.du()[0].rows == 4
    assert fill(again, range(8)).rows_written == 4

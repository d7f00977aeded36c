"""A loopback registry with one layer, a giant of zeros: generated when it is read, discarded when it comes.

Two of them, one to read from and one to push to, let gigabytes pass through blobflow without a disk. The one
that is pushed to is strict: it hashes what comes and takes only what its digest says. What was pushed can be
asked for by HEAD, but is gone.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

ZEROS = memoryview(bytes(4 << 20))
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Arriving:
    """An upload session: the hash and the length, in bytes, of what has come."""

    def __init__(self) -> None:
        self.hashed = hashlib.sha256()
        self.size = 0

    def take(self, chunk: bytes) -> None:
        self.hashed.update(chunk)
        self.size += len(chunk)


class Giant(ThreadingHTTPServer):
    """The registry. `held`: contents by digest; `sizes`: of giants and what was pushed, in bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.held: dict[str, bytes] = {}
        self.sizes: dict[str, int] = {}
        self.tags: dict[str, str] = {}
        self.uploads: dict[str, Arriving] = {}
        self.lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say what went wrong, unless it was only that the peer has gone."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def hold_image(self, layer_size: int) -> str:
        """Put an image of one layer of `layer_size` zeros here as `giant:1`; returns the layer's digest."""
        config = b"{}"
        hashed = hashlib.sha256()
        for length in pieces(layer_size):
            hashed.update(ZEROS[:length])
        layer = f"sha256:{hashed.hexdigest()}"
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest_of(config),
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": layer,
                    "size": layer_size,
                }
            ],
        }
        raw = json.dumps(manifest).encode()
        self.held |= {digest_of(config): config, digest_of(raw): raw}
        self.sizes[layer] = layer_size
        self.tags["1"] = digest_of(raw)
        return layer


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def pieces(size: int) -> Iterator[int]:
    """`size` in parts of at most the length of ZEROS."""
    for start in range(0, size, len(ZEROS)):
        yield min(len(ZEROS), size - start)


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Giant

    def do_HEAD(self) -> None:
        self._send_content(with_body=False)

    def do_GET(self) -> None:
        if urlsplit(self.path).path == "/v2/":
            return self._answer(200)
        return self._send_content(with_body=True)

    def do_POST(self) -> None:
        with self.server.lock:
            session = str(len(self.server.uploads))
            self.server.uploads[session] = Arriving()
        self._answer(202, Location=f"/v2/giant/blobs/uploads/{session}")

    def do_PATCH(self) -> None:
        self._take(self.server.uploads[self._name()])
        self._answer(202, Location=urlsplit(self.path).path)

    def do_PUT(self) -> None:
        if "/manifests/" in self.path:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.held[digest_of(raw)] = raw
            self.server.tags[self._name()] = digest_of(raw)
            return self._answer(201)
        arriving = self.server.uploads[self._name()]
        self._take(arriving)
        [digest] = parse_qs(urlsplit(self.path).query)["digest"]
        if digest != f"sha256:{arriving.hashed.hexdigest()}":
            return self._answer(400)
        self.server.sizes[digest] = arriving.size
        return self._answer(201)

    def _name(self) -> str:
        return urlsplit(self.path).path.rpartition("/")[2]

    def _answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content_Length": "0"} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _send_content(self, *, with_body: bool) -> None:
        digest = self.server.tags.get(self._name(), self._name())
        content = self.server.held.get(digest)
        size = len(content) if content is not None else self.server.sizes.get(digest)
        if size is None:
            return self._answer(404)
        start = int(found[1]) if (found := re.match(r"bytes=(\d+)-", self.headers["Range"] or "")) else 0
        part = {"Content_Range": f"bytes {start}-{size - 1}/{size}"} if start else {}
        self._answer(
            206 if start else 200,
            **part,
            Content_Length=str(size - start),
            Content_Type=MANIFEST if "/manifests/" in self.path else "application/octet-stream",
            Docker_Content_Digest=digest,
        )
        if with_body and content is not None:
            self.wfile.write(content[start:])
        elif with_body:
            for length in pieces(size - start):
                self.wfile.write(ZEROS[:length])
        return None

    def _take(self, arriving: Arriving) -> None:
        """Read the request's body away."""
        for length in self._parts():
            while length and (chunk := self.rfile.read1(min(length, len(ZEROS)))):
                arriving.take(chunk)
                length -= len(chunk)

    def _parts(self) -> Iterator[int]:
        """The lengths of the body's parts: one, or its chunks where the length was not told before."""
        if self.headers["Transfer-Encoding"] != "chunked":
            yield int(self.headers["Content-Length"])
            return
        while length := int(self.rfile.readline(), 16):
            yield length
            self.rfile.readline()
        self.rfile.readline()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the tests look at what arrived."""


@contextmanager
def giant() -> Iterator[Giant]:
    """A giant that serves until the context ends."""
    with Giant() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

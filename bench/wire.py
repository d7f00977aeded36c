"""A registry with nothing behind it: blobs of zeros generated as they are read, uploads discarded unread.

    python -m bench.wire [--layers N --size BYTES] [--cert FILE --key FILE]

Says `listening on HOST:PORT` and serves until it is ended. It has one image, `giant:1`, of N layers of at
least BYTES bytes, each some bytes longer than the one before, so that no two are equal. It hashes nothing and
copies as little as Python can, so that on a small machine it takes little from what is measured: blocking
threads, recv_into and sendall of 4 MiB. What was pushed can be asked for by HEAD, but is gone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import socketserver
import ssl
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from bench.plainhttp import BUFFER, Head, read_head

ZEROS = memoryview(bytes(BUFFER))
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
STEP = 64  # bytes that each layer is longer than the one before


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def zeros(sizes: list[int]) -> list[str]:
    """The digests of so many zeros; sizes ascend, and each byte is hashed once."""
    hashed, done, found = hashlib.sha256(), 0, []
    for size in sizes:
        while done < size:
            piece = min(len(ZEROS), size - done)
            hashed.update(ZEROS[:piece])
            done += piece
        found.append(f"sha256:{hashed.hexdigest()}")
    return found


class Wire(socketserver.ThreadingTCPServer):
    """`held`: contents by digest or tag; `sizes`: bytes of what is generated, and of what was discarded."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, layers: int, size: int, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Exchanges)
        self.tls = tls
        self.held: dict[str, bytes] = {}
        self.sizes: dict[str, int] = {}
        sizes = [size + number * STEP for number in range(layers)]
        described = []
        for digest, length in zip(zeros(sizes), sizes, strict=True):
            self.sizes[digest] = length
            described.append(
                {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": length}
            )
        if layers:
            self._hold_image(described)

    def _hold_image(self, layers: list[dict[str, object]]) -> None:
        config = b"{}"
        described = {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest_of(config),
            "size": len(config),
        }
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers}
        raw = json.dumps(manifest).encode()
        self.held = {digest_of(config): config, digest_of(raw): raw, "1": raw}


class _Exchanges(socketserver.BaseRequestHandler):
    """One connection, for as many exchanges as the client likes."""

    server: Wire

    def handle(self) -> None:
        if self.server.tls is not None:
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        self._uploads = 0
        self._buffer = memoryview(bytearray(BUFFER))
        try:
            while (head := read_head(self.request, self._buffer)) is not None:
                self._exchange(head)
        except (ConnectionError, ssl.SSLError):
            return

    def _exchange(self, head: Head) -> None:
        length = int(head.headers.get("content-length", "0"))
        body = self._take(length, head.early, keep=b"/manifests/" in head.target.encode())
        method, url = head.first.split(" ")[0], urlsplit(head.target)
        name = url.path.rpartition("/")[2]
        if method in ("GET", "HEAD"):
            self._give(name, whole=method == "GET")
        elif method == "POST":
            self._uploads += 1
            self._answer("202 Accepted", f"Location: {url.path}{id(self)}-{self._uploads}")
        elif method == "PATCH":
            self._answer("202 Accepted", f"Location: {url.path}")
        elif "/manifests/" in url.path:
            self.server.held |= {name: body, digest_of(body): body}
            self._answer("201 Created", f"Docker-Content-Digest: {digest_of(body)}")
        else:
            [digest] = parse_qs(url.query)["digest"]
            self.server.sizes[digest] = length
            self._answer("201 Created", f"Docker-Content-Digest: {digest}")

    def _take(self, length: int, early: bytes, *, keep: bool) -> bytes:
        """Read a body away; it is returned if it is to be kept."""
        kept = bytearray(early if keep else b"")
        left = length - len(early)
        while left:
            size = self.request.recv_into(self._buffer[: min(left, BUFFER)])
            if not size:
                raise ConnectionError("the client went away in mid-body")
            if keep:
                kept += self._buffer[:size]
            left -= size
        return bytes(kept)

    def _give(self, name: str, *, whole: bool) -> None:
        content = self.server.held.get(name)
        size = self.server.sizes.get(name) if content is None else len(content)
        if name == "":
            content, size = b"{}", 2
        if size is None:
            self._answer("404 Not Found")
            return
        kind = (
            MANIFEST if content and content[:1] == b"{" and len(content) > 2 else "application/octet-stream"
        )
        digest = digest_of(content) if content is not None else name
        self._head("200 OK", f"Content-Type: {kind}", f"Docker-Content-Digest: {digest}", length=size)
        if not whole:
            return
        if content is not None:
            self.request.sendall(content)
            return
        for start in range(0, size, len(ZEROS)):
            self.request.sendall(ZEROS[: size - start])

    def _answer(self, status: str, *headers: str) -> None:
        self._head(status, *headers, length=0)

    def _head(self, status: str, *headers: str, length: int) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {length}", *headers, "", ""]
        self.request.sendall("\r\n".join(lines).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description="A registry that generates and discards.")
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--size", type=int, default=1 << 30, metavar="BYTES")
    parser.add_argument("--cert", type=Path)
    parser.add_argument("--key", type=Path)
    chosen = parser.parse_args()
    tls = None
    if chosen.cert:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(chosen.cert, chosen.key)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Wire(chosen.layers, chosen.size, tls) as server:
        print(f"listening on 127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()

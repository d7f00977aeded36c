"""A registry with nothing behind it: it generates blobs of zeros as they are read, and discards uploads.

    python -m tools.registry.zeros [--layers N --size BYTES] [--cert FILE --key FILE]

Two of them, one to read from and one to push to, let gigabytes pass through blobflow without a disk. As a
program it says `listening on HOST:PORT` and serves until it is ended; its image `giant:1` has N layers of at
least BYTES bytes, each some bytes longer than the one before, so that no two are equal. It copies as little
as Python can, so that on a small machine it takes little from what is measured: blocking threads, recv_into
and sendall of 4 MiB. As a program it hashes nothing; `zero_registry` gives one that verifies what is pushed.
What was pushed can be asked for by HEAD.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import re
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tools.checkout import TOP
from tools.registry.http_head import BUFFER, Head, NotHTTP, read_head

ZEROS = memoryview(bytes(BUFFER))
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
STEP = 64  # bytes that each layer is longer than the one before


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def digests_of_zeros(sizes: Sequence[int]) -> list[str]:
    """The digests of so many zeros each; sizes ascend, and each byte is hashed once."""
    hashed, done, found = hashlib.sha256(), 0, []
    for size in sizes:
        while done < size:
            piece = min(len(ZEROS), size - done)
            hashed.update(ZEROS[:piece])
            done += piece
        found.append(f"sha256:{hashed.hexdigest()}")
    return found


class Upload:
    """An upload session: how many bytes have come, and their hash if they are verified."""

    def __init__(self, verify: bool) -> None:
        self.size = 0
        self.hashed = hashlib.sha256() if verify else None

    def take(self, piece: memoryview) -> None:
        self.size += len(piece)
        if self.hashed is not None:
            self.hashed.update(piece)

    def is_not(self, digest: str) -> bool:
        """Whether what has come is known to have another digest."""
        return self.hashed is not None and digest != f"sha256:{self.hashed.hexdigest()}"


class ZeroRegistry(socketserver.ThreadingTCPServer):
    """The registry. `tags` name digests in whatever repository; `manifests`: contents by digest, configs too;
    `sizes`: bytes of the layers that are generated and of the blobs that were pushed, by digest."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, *, verify: bool = False, tls: ssl.SSLContext | None = None) -> None:
        """`verify`: hash what is pushed, and refuse a blob that is not what its digest says."""
        super().__init__(("127.0.0.1", 0), _Connection)
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.verify = verify
        self.tls = tls
        self.tags: dict[str, str] = {}
        self.manifests: dict[str, bytes] = {}
        self.sizes: dict[str, int] = {}
        self.uploads: dict[str, Upload] = {}
        self.numbers = itertools.count()

    def hold_image(self, *sizes: int) -> str:
        """Put an image whose layers are so many zeros each here as `giant:1`; returns the first one's digest.
        Sizes ascend."""
        digests = digests_of_zeros(sizes)
        self.sizes |= zip(digests, sizes, strict=True)
        config = b"{}"
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": [
                {"mediaType": LAYER, "digest": digest, "size": size}
                for digest, size in zip(digests, sizes, strict=True)
            ],
        }
        raw = json.dumps(document).encode()
        self.manifests |= {digest_of(config): config, digest_of(raw): raw}
        self.tags["1"] = digest_of(raw)
        return digests[0]


class _Body:
    """A request's body, read piece by piece into one buffer; `early`: what of it came with the head."""

    def __init__(self, connection: socket.socket, buffer: memoryview, early: bytes) -> None:
        self._connection = connection
        self._buffer = buffer
        self._early = memoryview(early)

    def pieces(self, head: Head) -> Iterator[memoryview]:
        """The body by its head: as long as that says, or in chunks. A piece is good until the next one."""
        if head.headers.get("transfer-encoding") != "chunked":
            yield from self._bytes(int(head.headers.get("content-length", "0")))
            return
        while size := int(self._line(), 16):
            yield from self._bytes(size)
            self._line()
        self._line()

    def _bytes(self, left: int) -> Iterator[memoryview]:
        while left:
            if self._early:
                piece, self._early = self._early[:left], self._early[left:]
            else:
                piece = self._buffer[: self._receive(self._buffer[:left])]
            yield piece
            left -= len(piece)

    def _line(self) -> bytes:
        early = bytes(self._early)
        while b"\n" not in early:
            early += self._buffer[: self._receive(self._buffer[:4096])]
        line, _, rest = early.partition(b"\n")
        self._early = memoryview(rest)
        return line.rstrip(b"\r")

    def _receive(self, into: memoryview) -> int:
        size = self._connection.recv_into(into)
        if not size:
            raise ConnectionError("the client went away in mid-body")
        return size


class _Connection(socketserver.BaseRequestHandler):
    """One connection, for as many exchanges as the client likes."""

    server: ZeroRegistry

    def handle(self) -> None:
        if self.server.tls is not None:
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        self._buffer = memoryview(bytearray(BUFFER))
        try:
            while (head := read_head(self.request, self._buffer)) is not None:
                self._exchange(head)
                if head.first.endswith("HTTP/1.0") or head.headers.get("connection", "").lower() == "close":
                    return
        except NotHTTP:
            answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            self.request.sendall(answer)
        except (ConnectionError, ssl.SSLError):
            return

    def _exchange(self, head: Head) -> None:
        if head.headers.get("expect"):
            self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = _Body(self.request, self._buffer, head.early).pieces(head)
        method, url = head.first.split(" ")[0], urlsplit(head.target)
        name = url.path.rpartition("/")[2]
        match method:
            case "GET" | "HEAD":
                self._give(url.path, name, head)
            case "POST":
                session = str(next(self.server.numbers))
                self._take(self.server.uploads.setdefault(session, Upload(self.server.verify)), body)
                self._answer("202 Accepted", f"Location: {url.path}{session}")
            case "PATCH":
                self._take(self.server.uploads[name], body)
                self._answer("202 Accepted", f"Location: {url.path}")
            case "PUT" if "/manifests/" in url.path:
                self._put_manifest(name, b"".join(map(bytes, body)))
            case "PUT":
                self._take(self.server.uploads[name], body)
                self._complete(name, parse_qs(url.query)["digest"][0])
            case _:
                self._answer("405 Method Not Allowed")

    def _take(self, upload: Upload, body: Iterator[memoryview]) -> None:
        for piece in body:
            upload.take(piece)

    def _complete(self, session: str, digest: str) -> None:
        upload = self.server.uploads.pop(session)
        if upload.is_not(digest):
            self._answer("400 Bad Request")
            return
        self.server.sizes[digest] = upload.size
        self._answer("201 Created", f"Docker-Content-Digest: {digest}")

    def _put_manifest(self, name: str, raw: bytes) -> None:
        self.server.manifests[digest_of(raw)] = raw
        self.server.tags[name] = digest_of(raw)
        self._answer("201 Created", f"Docker-Content-Digest: {digest_of(raw)}")

    def _give(self, path: str, name: str, head: Head) -> None:
        """Answer a GET or HEAD, with the range that it asks for."""
        digest = self.server.tags.get(name, name)
        content = b"{}" if path == "/v2/" else self.server.manifests.get(digest)
        size = self.server.sizes.get(digest) if content is None else len(content)
        if size is None:
            self._answer("404 Not Found")
            return
        found = re.match(r"bytes=(\d+)-(\d*)$", head.headers.get("range", ""))
        start, stop = (int(found[1]), min(int(found[2] or size) + 1, size)) if found else (0, size)
        part = [f"Content-Range: bytes {start}-{stop - 1}/{size}"] if found else []
        kind = MANIFEST if "/manifests/" in path else "application/octet-stream"
        self._head(
            "206 Partial Content" if found else "200 OK",
            f"Content-Type: {kind}",
            f"Docker-Content-Digest: {digest}",
            *part,
            length=stop - start,
        )
        if head.first.startswith("HEAD"):
            return
        if content is not None:
            self.request.sendall(content[start:stop])
            return
        for at in range(start, stop, len(ZEROS)):
            self.request.sendall(ZEROS[: stop - at])

    def _answer(self, status: str, *headers: str) -> None:
        self._head(status, *headers, length=0)

    def _head(self, status: str, *headers: str, length: int) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {length}", *headers, "", ""]
        self.request.sendall("\r\n".join(lines).encode())


@contextmanager
def zero_registry() -> Iterator[ZeroRegistry]:
    """One that verifies what is pushed, and serves from threads of this process until the context ends."""
    with ZeroRegistry(verify=True) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def zero_registry_process(
    layers: int = 0, size: int = 0, tls: tuple[Path, Path] | None = None
) -> Iterator[str]:
    """The host of one in a process of its own that verifies nothing, with so many layers of `size` bytes."""
    command = [sys.executable, "-m", "tools.registry.zeros", "--layers", str(layers), "--size", str(size)]
    if tls:
        command += ["--cert", str(tls[0]), "--key", str(tls[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=TOP) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


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
    with ZeroRegistry(tls=tls) as server:
        if chosen.layers:
            server.hold_image(*(chosen.size + number * STEP for number in range(chosen.layers)))
        print(f"listening on {server.host}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()

"""The floor for moving a blob in Python: blocking threads, recv_into 4 MiB, sha256, sendall; no HTTP library.

    python -m bench.pump --from HOST --to HOST [--streams N] [--ca FILE]     registry to registry
    python -m bench.pump --from HOST --folder DIR [--streams N]              into files
    python -m bench.pump --files DIR --to HOST [--streams N]                 out of files, by sendfile

Moves the layers of `giant:1` (tools/registry/zeros.py), each with one GET, one POST and one PUT; so many at
once. As much as any client has to do, and nothing else: no retries, no timeouts, no limits, one page of code.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from io import FileIO
from pathlib import Path

from tools.registry.http_head import BUFFER, Head, read_head, send_head

REPOSITORY = "giant"


class Line:
    """A connection to a registry."""

    def __init__(self, host: str, tls: ssl.SSLContext | None) -> None:
        name, _, port = host.rpartition(":")
        self.host = host
        self.buffer = memoryview(bytearray(BUFFER))
        plain = socket.create_connection((name, int(port)))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = tls.wrap_socket(plain, server_hostname=name) if tls else plain

    def ask(self, first: str, *headers: str) -> Head:
        """Send a request without a body, and read the answer's head."""
        send_head(self.socket, first, self.host, *headers)
        return self.answer()

    def close(self) -> None:
        self.socket.close()

    def answer(self) -> Head:
        found = read_head(self.socket, self.buffer)
        if found is None or found.status >= 300:
            raise SystemExit(f"{self.host} answered {found.first if found else 'nothing'}")
        return found

    def open_upload(self, digest: str, size: int, repository: str = REPOSITORY) -> None:
        """Begin to send a blob: POST, then the head of PUT."""
        answer = self.ask(f"POST /v2/{repository}/blobs/uploads/", "Content-Length: 0")
        location = answer.headers["location"]
        target = f"{location}{'&' if '?' in location else '?'}digest={digest}"
        send_head(self.socket, f"PUT {target}", self.host, f"Content-Length: {size}")


Put = Callable[[memoryview], object]


def pump(source: Line, digest: str, size: int, put: Put) -> None:
    """Read a blob, hash it, and put it on piece by piece; the last piece when the digest has matched."""
    answer = source.ask(f"GET /v2/{REPOSITORY}/blobs/{digest}")
    hashed = hashlib.sha256(answer.early)
    if answer.early:
        put(memoryview(answer.early))
    left = size - len(answer.early)
    buffer = source.buffer
    while left:
        got = source.socket.recv_into(buffer[: min(left, BUFFER)])
        if not got:
            raise SystemExit("the source went away")
        piece = buffer[:got]
        hashed.update(piece)
        left -= got
        if not left and f"sha256:{hashed.hexdigest()}" != digest:
            raise SystemExit(f"{digest} is not what came")
        put(piece)


def across(source: str, target: str, tls: ssl.SSLContext | None, blob: tuple[str, int]) -> None:
    digest, size = blob
    with closing(Line(source, tls)) as reading, closing(Line(target, tls)) as writing:
        writing.open_upload(digest, size)
        pump(reading, digest, size, writing.socket.sendall)
        writing.answer()


def into(source: str, folder: Path, blob: tuple[str, int]) -> None:
    """Into a file that is on the disk in the end, as a store's has to be."""
    digest, size = blob
    path = folder / digest.partition(":")[2]
    with closing(Line(source, None)) as reading, path.open("wb", buffering=0) as file:
        pump(reading, digest, size, partial(write_all, file))
        os.fsync(file.fileno())


def write_all(file: FileIO, piece: memoryview) -> None:
    while piece:
        piece = piece[file.write(piece) :]


def out(folder: Path, target: str, blob: tuple[str, int]) -> None:
    digest, size = blob
    with closing(Line(target, None)) as line, (folder / digest.partition(":")[2]).open("rb") as file:
        line.open_upload(digest, size)
        line.socket.sendfile(file)
        line.answer()


def layers_of(host: str, tls: ssl.SSLContext | None) -> list[tuple[str, int]]:
    """Digests and sizes of the layers of `giant:1`."""
    with closing(Line(host, tls)) as line:
        answer = line.ask(f"GET /v2/{REPOSITORY}/manifests/1")
        raw = bytearray(answer.early)
        while len(raw) < int(answer.headers["content-length"]):
            raw += line.socket.recv(BUFFER)
    return [(layer["digest"], layer["size"]) for layer in json.loads(raw)["layers"]]


def held_in(folder: Path) -> list[tuple[str, int]]:
    return [(f"sha256:{file.name}", file.stat().st_size) for file in sorted(folder.iterdir())]


def main() -> None:
    parser = argparse.ArgumentParser(description="Move blobs with as little as possible.")
    parser.add_argument("--from", dest="source", metavar="HOST")
    parser.add_argument("--to", metavar="HOST")
    parser.add_argument("--folder", type=Path, help="write the blobs into files there")
    parser.add_argument("--files", type=Path, help="send the files of this folder")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--ca", type=Path, help="speak TLS, and trust these certificates")
    chosen = parser.parse_args()
    tls = ssl.create_default_context(cafile=chosen.ca) if chosen.ca else None
    if chosen.files:
        blobs, move = held_in(chosen.files), partial(out, chosen.files, chosen.to)
    elif chosen.folder:
        chosen.folder.mkdir(parents=True, exist_ok=True)
        blobs, move = layers_of(chosen.source, tls), partial(into, chosen.source, chosen.folder)
    else:
        blobs, move = layers_of(chosen.source, tls), partial(across, chosen.source, chosen.to, tls)
    with ThreadPoolExecutor(chosen.streams) as threads:
        list(threads.map(move, blobs))


if __name__ == "__main__":
    main()

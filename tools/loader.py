"""How fast a registry answers: requests of one kind on many connections, and what they cost the server.

    python -m tools.loader [--seconds 3] [--rounds 3] [--serve ARGUMENTS] [--only blobflow]

Starts `blobflow serve` and Debian's docker-registry, gives both the same content on the same disk, and asks
them in turns, so that whatever else the machine does meets both. What it prints are medians over the rounds,
and the ratio of the two; read ratios, and read CPU seconds where the machine is busy.

Small requests come from one uvloop with raw protocols; large bodies from threads with blocking sockets and
large buffers. That is several times cheaper than what is asked, so that the server is what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import secrets
import shlex
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import msgspec
import uvloop

from tests.e2e.processes import Registry, blobflow_serve, docker_registry

CONNECTIONS = 16  # small requests in flight
STREAMS = 4  # large bodies in flight
LARGE = 75_000_000
CHUNK = 1024 * 1024
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
REPOSITORY = "bench/app"


class _Content(msgspec.Struct, frozen=True):
    body: bytes
    digest: str

    @classmethod
    def of(cls, body: bytes) -> _Content:
        return cls(body, f"sha256:{hashlib.sha256(body).hexdigest()}")


class Figure(msgspec.Struct, frozen=True):
    """`amount` of something in so many seconds; `cpu` is what the server used meanwhile, in seconds."""

    amount: float
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        return self.amount / self.seconds


class _Asking(asyncio.Protocol):
    """One connection that asks the same thing again and again; answers have a Content-Length."""

    def __init__(self, request: bytes, until: float) -> None:
        self._request = request
        self._until = until
        self._left = -1  # of the answer's body; -1: its headers are awaited
        self._head = b""
        self.answered = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.write(self._request)

    def data_received(self, received: bytes) -> None:
        if self._left < 0:
            self._head += received
            head, blank, rest = self._head.partition(b"\r\n\r\n")
            if not blank:
                return
            if b" 200 " not in head[:16]:
                self.done.set_exception(RuntimeError(head.decode()))
                self._transport.close()
                return
            lines = head.lower().split(b"\r\n")
            length = next(line for line in lines if line.startswith(b"content-length:"))
            self._left, self._head, received = int(length[15:]), b"", rest
        self._left -= len(received)
        if not self._left:
            self._answer_ended()

    def _answer_ended(self) -> None:
        self._left = -1
        self.answered += 1
        if time.monotonic() < self._until:
            self._transport.write(self._request)
        else:
            self.done.set_result(None)
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionResetError("the server hung up"))


def small_gets(registry: Registry, path: str, accept: str, seconds: float) -> float:
    """GETs of `path` on CONNECTIONS connections; how many were answered."""
    host, _, port = registry.host.rpartition(":")
    request = f"GET {path} HTTP/1.1\r\nHost: {registry.host}\r\nAccept: {accept}\r\n\r\n".encode()

    async def ask() -> int:
        loop, until = asyncio.get_running_loop(), time.monotonic() + seconds
        asking = [
            (await loop.create_connection(lambda: _Asking(request, until), host, int(port)))[1]
            for _ in range(CONNECTIONS)
        ]
        await asyncio.gather(*(each.done for each in asking))
        return sum(each.answered for each in asking)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(ask())


class _Line:
    """A blocking connection for large bodies."""

    def __init__(self, host: str) -> None:
        name, _, port = host.rpartition(":")
        self._socket = socket.create_connection((name, int(port)))
        self._host = host
        self._buffer = bytearray(CHUNK)

    def exchange(self, method: str, path: str, body: bytes = b"") -> tuple[str, int]:
        """Send, and read the answer to its end; its head, and the bytes of its body."""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(body)}\r\n"
        head += "Content-Type: application/octet-stream\r\n" if method != "GET" else ""
        self._socket.sendall(head.encode() + b"\r\n")
        for at in range(0, len(body), CHUNK):
            self._socket.sendall(memoryview(body)[at : at + CHUNK])
        answer = b""
        while b"\r\n\r\n" not in answer:
            received = self._socket.recv(65536)
            if not received:
                raise ConnectionResetError(f"{method} {path}: the server hung up")
            answer += received
        text, _, rest = answer.partition(b"\r\n\r\n")
        told = [line for line in text.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        length = int(told[0][15:]) if told else 0
        left = length - len(rest)
        while left:
            left -= self._socket.recv_into(self._buffer, min(CHUNK, left))
        return text.decode(), length

    def push(self, content: _Content) -> None:
        """POST, then PUT with the whole."""
        head, _ = self.exchange("POST", f"/v2/{REPOSITORY}/blobs/uploads/")
        location = next(line for line in head.split("\r\n") if line.lower().startswith("location:"))[9:]
        path = "/" + location.strip().removeprefix(f"http://{self._host}").lstrip("/")
        joint = "&" if "?" in path else "?"
        head, _ = self.exchange("PUT", f"{path}{joint}digest={content.digest}", content.body)
        if " 201 " not in head[:16]:
            raise RuntimeError(head)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def _line(registry: Registry) -> Iterator[_Line]:
    line = _Line(registry.host)
    try:
        yield line
    finally:
        line.close()


def large_gets(registry: Registry, path: str, seconds: float) -> float:
    """GETs of a large body on STREAMS connections; the GB that came."""
    until = time.monotonic() + seconds

    def read(_: int) -> int:
        total = 0
        with _line(registry) as line:
            while time.monotonic() < until:
                total += line.exchange("GET", path)[1]
        return total

    with ThreadPoolExecutor(STREAMS) as threads:
        return sum(threads.map(read, range(STREAMS))) / 1e9


def pushes(registry: Registry, contents: list[_Content]) -> float:
    """Push each, STREAMS at once; how many were."""

    def push(part: int) -> None:
        with _line(registry) as line:
            for content in contents[part::STREAMS]:
                line.push(content)

    with ThreadPoolExecutor(STREAMS) as threads:
        list(threads.map(push, range(STREAMS)))
    return len(contents)


def fresh(count: int, size: int) -> list[_Content]:
    """Blobs that nobody has yet, made before the clock runs."""
    return [_Content.of(secrets.token_bytes(size)) for _ in range(count)]


# What is made ready for a registry, and then measured; it returns an amount.
Work = Callable[[Registry], Callable[[], float]]


def measured(registry: Registry, work: Work) -> Figure:
    ready = work(registry)
    cpu, begun = registry.cpu_seconds(), time.monotonic()
    amount = ready()
    return Figure(amount, time.monotonic() - begun, registry.cpu_seconds() - cpu)


def works(seconds: float, small: str, large: str) -> dict[str, Work]:
    """What is measured, by name; the digests are those of content that `fill` put there."""
    root = f"/v2/{REPOSITORY}"
    blob, tag, layer = f"{root}/blobs/{small}", f"{root}/manifests/1.0", f"{root}/blobs/{large}"
    return {
        "GET 1 KiB blob, 1/s": lambda at: partial(small_gets, at, blob, "*/*", seconds),
        "GET manifest by tag, 1/s": lambda at: partial(small_gets, at, tag, MANIFEST, seconds),
        "GET 75 MB blob, GB/s": lambda at: partial(large_gets, at, layer, seconds),
        "push 4 KiB blobs, 1/s": lambda at: partial(pushes, at, fresh(200, 4096)),
        "push 20 MB blobs, 1/s": lambda at: partial(pushes, at, fresh(12, 20_000_000)),
    }


def fill(registry: Registry, contents: list[_Content]) -> None:
    """Blobs and one image of them, tagged 1.0."""
    listed = [
        {
            "mediaType": "application/octet-stream",
            "digest": content.digest,
            "size": len(content.body),
        }
        for content in contents
    ]
    config = {**listed[0], "mediaType": "application/vnd.oci.image.config.v1+json"}
    image = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": listed[1:]}
    with _line(registry) as line:
        for content in contents:
            line.push(content)
    path = f"/v2/{REPOSITORY}/manifests/1.0"
    status, _, body = registry.ask("PUT", path, {"Content-Type": MANIFEST}, json.dumps(image).encode())
    if status != 201:
        raise RuntimeError(body.decode())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", default="--access-log combined", help="arguments of `blobflow serve`")
    parser.add_argument("--only", choices=("blobflow", "docker"), help="one of the two")
    parser.add_argument("--work", default="", help="only works whose name has this in it")
    wish = parser.parse_args()
    contents = fresh(1, 1024) + fresh(1, LARGE)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loader-")))
        registries: dict[str, Callable[[], AbstractContextManager[Registry]]] = {
            "blobflow": lambda: blobflow_serve(folder / "ours", *shlex.split(wish.serve)),
            "docker": lambda: docker_registry(folder / "docker"),
        }
        running = {
            name: stack.enter_context(start())
            for name, start in registries.items()
            if wish.only in (None, name)
        }
        for registry in running.values():
            fill(registry, contents)
        for name, work in works(wish.seconds, *(content.digest for content in contents)).items():
            if wish.work in name:
                print(compared(name, work, running, wish.rounds), flush=True)


def compared(name: str, work: Work, running: dict[str, Registry], rounds: int) -> str:
    """One line: each registry's median rate and CPU milliseconds for one, and the ratio."""
    figures: dict[str, list[Figure]] = {each: [] for each in running}
    for _ in range(rounds):
        for each, registry in running.items():
            figures[each].append(measured(registry, work))
    rates = {each: statistics.median(figure.rate for figure in found) for each, found in figures.items()}
    cpu = {
        each: statistics.median(1e3 * figure.cpu / figure.amount for figure in found)
        for each, found in figures.items()
    }
    told = "  ".join(f"{each} {rates[each]:9,.2f} ({cpu[each]:7,.2f} ms CPU each)" for each in running)
    ratio = f"  ratio {rates['blobflow'] / rates['docker']:.2f}" if len(running) == 2 else ""
    return f"{name:26} {told}{ratio}"


if __name__ == "__main__":
    main()

"""Large bodies on blocking sockets in threads, with large buffers: several times cheaper than what is
asked."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tools.loads.requests import Content, completing, request

STREAMS = 4  # in flight
CHUNK = 1024 * 1024


class _Line:
    """A blocking connection."""

    def __init__(self, host: str) -> None:
        name, _, port = host.rpartition(":")
        self._socket = socket.create_connection((name, int(port)))
        self._host = host
        self._buffer = bytearray(CHUNK)

    def exchange(self, method: str, path: str, body: bytes | None = None) -> tuple[str, int]:
        """Send, and read the answer to its end; its head, and the bytes of its body."""
        message = memoryview(request(self._host, method, path, body))
        for at in range(0, len(message), CHUNK):
            self._socket.sendall(message[at : at + CHUNK])
        answer = b""
        while b"\r\n\r\n" not in answer:
            received = self._socket.recv(65536)
            answer += received
            self._check(len(received), path)
        text, _, rest = answer.partition(b"\r\n\r\n")
        told = [line for line in text.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        length = int(told[0][15:]) if told else 0
        left = length - len(rest)
        while left:
            came = self._socket.recv_into(self._buffer, min(CHUNK, left))
            left -= came
            self._check(came, path)
        return text.decode(), length

    @staticmethod
    def _check(came: int, path: str) -> None:
        if not came:
            raise ConnectionResetError(f"{path}: the server hung up")

    def push(self, repository: str, content: Content) -> None:
        """POST, then PUT with the whole."""
        head, _ = self.exchange("POST", f"/v2/{repository}/blobs/uploads/")
        location = next(line for line in head.split("\r\n") if line.lower().startswith("location:"))[9:]
        head, _ = self.exchange("PUT", completing(location.strip(), content.digest), content.body)
        if " 201 " not in head[:16]:
            raise RuntimeError(head)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def _line(host: str) -> Iterator[_Line]:
    line = _Line(host)
    try:
        yield line
    finally:
        line.close()


def large_gets(host: str, path: str, seconds: float) -> float:
    """GETs of a large body on STREAMS connections; the GB that came."""
    until = time.monotonic() + seconds

    def read(_: int) -> int:
        total = 0
        with _line(host) as line:
            while time.monotonic() < until:
                total += line.exchange("GET", path)[1]
        return total

    with ThreadPoolExecutor(STREAMS) as threads:
        return sum(threads.map(read, range(STREAMS))) / 1e9


def pushes(host: str, repository: str, contents: Sequence[Content]) -> float:
    """Push each, STREAMS at once; how many were."""

    def push(part: int) -> None:
        with _line(host) as line:
            for content in contents[part::STREAMS]:
                line.push(repository, content)

    with ThreadPoolExecutor(STREAMS) as threads:
        list(threads.map(push, range(STREAMS)))
    return len(contents)

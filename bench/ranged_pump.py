"""The floor for one large blob over a slow line: so many connections, each with every so-manieth range of it.

    python -m bench.ranged_pump --from HOST --to HOST --repository NAME --digest DIGEST --size BYTES
        [--connections N]

The pump's way of moving a blob (bench/pump.py), fed by several connections: each asks for its next range
before it has read the one before, so that no round trip is waited for, and the ranges go on in order, hashed,
in one PUT. As much as any client has to do that leaves no connection idle, and nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from contextlib import closing
from queue import SimpleQueue
from threading import Semaphore, Thread

from bench.pump import Line
from tools.registry.http_head import send_head

# Bytes of a range, of large blobs; half a second of the line that is measured.
RANGE = 8 * 1024 * 1024
# Ranges that a connection may have read and nobody taken.
AHEAD = 2

Range = tuple[int, int]


class Feeder:
    """One connection and its ranges, which `take` gives in order; b"" after the last, or where it failed."""

    def __init__(self, host: str, path: str, ranges: Sequence[Range]) -> None:
        self._host = host
        self._path = path
        self._ranges = ranges
        self._ready: SimpleQueue[bytes | bytearray] = SimpleQueue()
        self._free = Semaphore(AHEAD)

    def run(self) -> None:
        """Read all ranges; whoever takes them is waited for."""
        try:
            with closing(Line(self._host, None)) as line:
                ahead = iter(self._ranges)
                self._ask(line, next(ahead))
                for begin, end in self._ranges:
                    if (following := next(ahead, None)) is not None:
                        self._ask(line, following)
                    self._free.acquire()
                    self._ready.put(read_range(line, end - begin))
        finally:
            self._ready.put(b"")

    def take(self) -> bytes | bytearray:
        piece = self._ready.get()
        self._free.release()
        return piece

    def _ask(self, line: Line, wanted: Range) -> None:
        begin, end = wanted
        send_head(line.socket, f"GET {self._path}", line.host, f"Range: bytes={begin}-{end - 1}")


def read_range(line: Line, size: int) -> bytearray:
    """The answer to a request for a range of `size` bytes."""
    answer = line.answer()
    if answer.status != 206 or int(answer.headers["content-length"]) != size:
        raise ConnectionError(f"{line.host} does not answer with the range: {answer.first}")
    content = bytearray(size)
    got = len(answer.early)
    content[:got] = answer.early
    view = memoryview(content)
    while got < size:
        read = line.socket.recv_into(view[got:])
        if not read:
            raise ConnectionError("the source went away")
        got += read
    return content


def ranges_of(size: int, connections: int) -> list[Range]:
    """A blob cut into ranges: one a connection, or all of the same length but the blob's last, so that what
    comes with the head of an answer is never the next one's.
    """
    length = max(1, min(RANGE, -(-size // connections)))
    return [(begin, min(begin + length, size)) for begin in range(0, size, length)]


def move(source: str, target: str, repository: str, digest: str, size: int, connections: int) -> None:
    """Read the blob by ranges and put it on; the last piece when the digest has matched."""
    ranges = ranges_of(size, connections)
    path = f"/v2/{repository}/blobs/{digest}"
    at_once = min(connections, len(ranges))
    feeders = [Feeder(source, path, ranges[place::at_once]) for place in range(at_once)]
    hashed = hashlib.sha256()
    with closing(Line(target, None)) as line:
        for feeder in feeders:
            Thread(target=feeder.run, daemon=True).start()
        line.open_upload(digest, size, repository)
        for place, (_, end) in enumerate(ranges):
            piece = feeders[place % at_once].take()
            hashed.update(piece)
            if not piece or (end == size and f"sha256:{hashed.hexdigest()}" != digest):
                raise SystemExit(f"{digest} is not what came")
            line.socket.sendall(piece)
        line.answer()


def main() -> None:
    parser = argparse.ArgumentParser(description="Move one blob by ranges, with as little as possible.")
    parser.add_argument("--from", dest="source", required=True, metavar="HOST")
    parser.add_argument("--to", required=True, metavar="HOST")
    parser.add_argument("--repository", required=True)
    parser.add_argument("--digest", required=True)
    parser.add_argument("--size", type=int, required=True, metavar="BYTES")
    parser.add_argument("--connections", type=int, default=8)
    chosen = parser.parse_args()
    move(chosen.source, chosen.to, chosen.repository, chosen.digest, chosen.size, chosen.connections)


if __name__ == "__main__":
    main()

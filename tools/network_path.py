"""A TCP relay that makes a short way long: it delays, paces, and cuts the connections that go through it.

    python -m tools.network_path --listen 127.0.0.1:5009 --to 127.0.0.1:5000 --rtt 0.04 --rate 16000000
    python -m tools.network_path --listen 127.0.0.1:5009 --to 127.0.0.1:5000 --cut-mean 12000000 --seed 7

In a test:

    async with long_path(registry.host, Shape(rate=2_000_000)) as path:
        ...  # path.host stands for registry.host
        assert path.cuts == 0

Delay: half of the round trip each way, and a whole one before a connection's first byte, as its handshake
would take. Pace: so many bytes a second for each connection, or for all of them together, each way. Cut: a
connection ends by a TCP reset on both sides after a number of bytes, both ways together, that is drawn from
an exponential distribution: every byte has the same chance to be the last. The draw depends on nothing but
the seed and the number of the connection. What has passed is counted when the kernel has taken it for the
other side.

A registry that answers with absolute Locations keeps its client on the relay as long as it makes them from
the Host header, as docker-registry 2.8.2 does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import random
import signal
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import uvloop

Sleep = Callable[[float], Awaitable[object]]
Put = Callable[[memoryview], Awaitable[None]]
Send = Callable[[socket.socket, memoryview], Awaitable[None]]

# One read at most. The kernel rarely has more to give at once, and smaller ones cost by the call.
BUFFER = 1024 * 1024
# A paced connection is served in pieces of so many seconds, at least of so many bytes.
_STEP = 0.02
_SMALLEST = 4 * 1024
# Bytes under way in one direction of a delayed connection; a paced one has twice what fills it, or more.
WINDOW = 4 * 1024 * 1024


class Shape(msgspec.Struct, frozen=True):
    """What a path is like.

    `rtt` in seconds. `rate`: bytes a second for each connection each way, 0: unbounded; `total_rate`: for all
    connections together, as a line has it. `cut_mean`: how many bytes a connection lives on average, 0: for
    ever; `seed` for the draws. `dies_after`: when so many bytes have passed over all connections, the path is
    gone: they are reset and no new one is taken; 0: never.
    """

    rtt: float = 0.0
    rate: float = 0.0
    total_rate: float = 0.0
    cut_mean: float = 0.0
    seed: int = 0
    dies_after: int = 0

    def life_of(self, connection: int) -> float:
        """How many bytes that connection (0, 1, …) lives; infinity: for ever."""
        if not self.cut_mean:
            return math.inf
        return 1 + int(random.Random(f"{self.seed}/{connection}").expovariate(1 / self.cut_mean))


class Bucket:
    """A token bucket: how long to wait so that bytes keep to a rate. Pure; the time is an argument.

    It holds one step's tokens at most, so what an idle connection did not use is not saved up.
    """

    def __init__(self, rate: float) -> None:
        """`rate` in bytes a second; 0: nothing ever waits."""
        self._rate = rate
        self._free_at = -math.inf
        self.step = max(int(rate * _STEP), _SMALLEST) if rate else BUFFER

    def take(self, size: int, now: float) -> float:
        """Let `size` bytes pass at `now` (seconds): the seconds to wait before the next may."""
        if not self._rate:
            return 0.0
        self._free_at = max(self._free_at, now - _STEP) + size / self._rate
        return max(0.0, self._free_at - now)


class _Cut(Exception):
    """The connection's last byte has passed."""


class LongPath:
    """A running relay. Made by `long_path`.

    `connections`, `cuts`: how many there were; `up`, `down`: bytes that passed to the far side and back.
    `dead`: it has died of its shape.
    """

    def __init__(
        self, to: str, shape: Shape, clock: Callable[[], float], sleep: Sleep, line: Bucket | None = None
    ) -> None:
        self.connections = 0
        self.cuts = 0
        self.up = 0
        self.down = 0
        self.dead = False
        self.host = ""
        self._to = _address(to)
        self._shape = shape
        self._both = (line or Bucket(shape.total_rate), line or Bucket(shape.total_rate))
        self._clock = clock
        self._sleep = sleep
        self._listener: socket.socket | None = None
        self._living: set[asyncio.Task[None]] = set()

    @property
    def passed(self) -> int:
        """Bytes that passed in both directions."""
        return self.up + self.down

    def listen(self, host: str) -> None:
        """Take connections at `host` (`address:port`; port 0: any) from now on."""
        self._listener = listener = socket.create_server(_address(host))
        listener.setblocking(False)
        self.host = "{}:{}".format(*listener.getsockname()[:2])
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    async def idle(self) -> None:
        """Wait until no connection lives."""
        while self._living:
            await asyncio.wait(self._living)

    async def close(self) -> None:
        """Take no more connections, and reset those that live."""
        self._stop()
        await self.idle()

    def _stop(self) -> None:
        for task in self._living:
            task.cancel()
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        """A connection is there. Not by a task of its own: one that is cancelled at the same moment would
        keep the connection, and whoever made it waiting."""
        try:
            near, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # it is gone again
        task = asyncio.create_task(self._carry(near, self._shape.life_of(self.connections)))
        self.connections += 1
        self._living.add(task)

        def over(task: asyncio.Task[None]) -> None:
            self._living.discard(task)
            if near.fileno() >= 0:  # it was cancelled before it began
                _end(near, reset=True)

        task.add_done_callback(over)

    async def _carry(self, near: socket.socket, life: float) -> None:
        """One connection, from its handshake to its end. A reset on one side is a reset on the other."""
        far = socket.socket(near.family)
        wire = _Wire(self, life)
        whole = False
        try:
            for side in (near, far):
                side.setblocking(False)
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._shape.rtt:
                await self._sleep(self._shape.rtt)
            await asyncio.get_running_loop().sock_connect(far, self._to)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._direction(near, far, wire.send_up, self._both[0]))
                both.create_task(self._direction(far, near, wire.send_down, self._both[1]))
            whole = True
        except* _Cut:
            self.cuts += 1
        except* OSError:
            pass  # one side is gone; the other is told below
        finally:
            for side in (near, far):
                _end(side, reset=not whole)

    async def _direction(
        self, source: socket.socket, sink: socket.socket, send: Send, shared: Bucket
    ) -> None:
        """Carry bytes one way until their end, and pass the end on. `shared` by all that go this way."""

        async def put(piece: memoryview) -> None:
            await send(sink, piece)

        if not self._shape.rtt:
            await self._read(source, put, shared)
        else:
            line = Line(put, self._shape, self._clock, self._sleep)
            async with asyncio.TaskGroup() as ends:
                ends.create_task(line.deliver())
                await self._read(source, line.put, shared)
                await line.put(None)
        sink.shutdown(socket.SHUT_WR)

    async def _read(self, source: socket.socket, put: Put, shared: Bucket) -> None:
        loop = asyncio.get_running_loop()
        buckets = (Bucket(self._shape.rate), shared)
        buffer = memoryview(bytearray(min(BUFFER, *(bucket.step for bucket in buckets))))
        while size := await loop.sock_recv_into(source, buffer):
            await put(buffer[:size])
            if (wait := max(bucket.take(size, self._clock()) for bucket in buckets)) > 0:
                await self._sleep(wait)

    def count(self, up: int, down: int) -> None:
        """So many bytes pass; they may be the path's last."""
        self.up += up
        self.down += down
        if self._shape.dies_after and self.passed >= self._shape.dies_after and not self.dead:
            self.dead = True
            self._stop()


class _Wire:
    """The two directions of one connection, which share its life."""

    def __init__(self, path: LongPath, life: float) -> None:
        """`life` in bytes; infinity: for ever."""
        self._path = path
        self._left = life

    async def send_up(self, sink: socket.socket, piece: memoryview) -> None:
        piece = self._spend(piece)
        await asyncio.get_running_loop().sock_sendall(sink, piece)
        self._path.count(len(piece), 0)
        self._check()

    async def send_down(self, sink: socket.socket, piece: memoryview) -> None:
        piece = self._spend(piece)
        await asyncio.get_running_loop().sock_sendall(sink, piece)
        self._path.count(0, len(piece))
        self._check()

    def _spend(self, piece: memoryview) -> memoryview:
        """What of the piece may still pass."""
        piece = piece[: int(min(self._left, len(piece)))]
        self._left -= len(piece)
        return piece

    def _check(self) -> None:
        if self._left <= 0:
            raise _Cut


class Line:
    """One direction of a delayed connection: what is put in comes out half a round trip later, in order."""

    def __init__(self, put: Put, shape: Shape, clock: Callable[[], float], sleep: Sleep) -> None:
        self._put = put
        self._delay = shape.rtt / 2
        self._window = max(WINDOW, int(2 * shape.rate * shape.rtt))
        self._clock = clock
        self._sleep = sleep
        self._held: deque[tuple[float, bytes | None]] = deque()
        self._size = 0
        self._changed = asyncio.Event()

    async def put(self, piece: memoryview | None) -> None:
        """Take a piece, or the end (None); returns when the window has room for more."""
        self._held.append((self._clock() + self._delay, None if piece is None else bytes(piece)))
        self._size += 0 if piece is None else len(piece)
        self._changed.set()
        while self._size >= self._window:
            self._changed.clear()
            await self._changed.wait()

    async def deliver(self) -> None:
        """Let the pieces out when their time has come, until the end."""
        while True:
            while not self._held:
                self._changed.clear()
                await self._changed.wait()
            due, piece = self._held.popleft()
            if (wait := due - self._clock()) > 0:
                await self._sleep(wait)
            if piece is None:
                return
            await self._put(memoryview(piece))
            self._size -= len(piece)
            self._changed.set()


def _end(side: socket.socket, *, reset: bool) -> None:
    if reset:
        # Linger for no time: close(2) then sends RST, whatever is still to be read or sent.
        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.close()


def _address(host: str) -> tuple[str, int]:
    name, _, port = host.rpartition(":")
    return name.strip("[]"), int(port)


@contextlib.asynccontextmanager
async def long_path(
    to: str,
    shape: Shape,
    *,
    listen: str = "127.0.0.1:0",
    clock: Callable[[], float] | None = None,
    sleep: Sleep = asyncio.sleep,
    line: Bucket | None = None,
) -> AsyncIterator[LongPath]:
    """A relay to `to` (`address:port`) while inside. `clock` (seconds) and `sleep` are what it delays by.

    With `line` it keeps to that pace, both ways together and with all other paths over it, not to
    `total_rate`.
    """
    path = LongPath(to, shape, clock or asyncio.get_running_loop().time, sleep, line)
    path.listen(listen)
    try:
        yield path
    finally:
        await path.close()


async def _run(to: str, listen: str, shape: Shape) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with long_path(to, shape, listen=listen) as path:
        print(f"listening on {path.host}", flush=True)
        await stopped.wait()
    print(
        f"{path.connections} connections, {path.cuts} cut; {path.up} bytes up, {path.down} down", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="A TCP relay that delays, paces and cuts connections.")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--rtt", type=float, default=0.0, metavar="SECONDS", help="round trip")
    parser.add_argument(
        "--rate", type=float, default=0.0, metavar="BYTES", help="a second, each connection, each way"
    )
    parser.add_argument(
        "--total-rate",
        type=float,
        default=0.0,
        metavar="BYTES",
        help="a second, all connections together, each way",
    )
    parser.add_argument(
        "--cut-mean",
        type=float,
        default=0.0,
        metavar="BYTES",
        help="reset connections after so many, on average",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="for the cuts")
    parser.add_argument(
        "--dies-after",
        type=int,
        default=0,
        metavar="BYTES",
        help="be gone after so many, over all connections",
    )
    chosen = vars(parser.parse_args())
    to, listen = chosen.pop("to"), chosen.pop("listen")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(to, listen, Shape(**chosen)))


if __name__ == "__main__":
    main()

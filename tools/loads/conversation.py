"""One HTTP/1.1 connection that says what a generator yields: the cheapest client that Python can be.

A `Script` yields a request and is sent the answer to it. It runs inside of the protocol's callbacks: no
task and no future a request, so that a request costs the client some 20 µs on uvloop, and the server is
what is measured.

    script yields                 and is sent
    bytes                         the answer to this request
    Timed(request, due)           the same; it is sent at `due`, or at once if that is past
    Cut(request)                  NO_ANSWER: the connection is aborted a moment later
    Cut(request, reading=True)    NO_ANSWER: it is aborted when the answer begins

A connection that the server closes is made anew for the next request. If it was closed before an answer had
come, the script is sent NO_ANSWER: what that means, only the script knows. There is one request in flight
at a time.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Generator, Sequence
from typing import TypeAlias, cast

import msgspec
import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)
# HTTP/1.0 ends a connection with the answer unless that says otherwise: aiohttp's parser refuses so.
_CLOSE = re.compile(rb"^HTTP/1\.0 |\r\nconnection: *close\r\n", re.IGNORECASE)
_LOCATION = re.compile(rb"\r\nlocation: *([^\r\n]+)\r\n", re.IGNORECASE)
_LAST_CHUNK = b"0\r\n\r\n"
_BODILESS = (204, 304)


class Answer(msgspec.Struct, frozen=True):
    """`status` 0: there was none. `head` is the status line and the headers, each with its CR LF. `body`:
    of a chunked one with its framing. `sent`: when the request went out, in seconds of time.monotonic."""

    status: int
    head: bytes
    body: bytes
    sent: float

    @property
    def location(self) -> str:
        """Where the answer points, as a path or a URL; "" if nowhere."""
        found = _LOCATION.search(self.head)
        return found[1].decode() if found else ""


NO_ANSWER = Answer(0, b"", b"", 0.0)


class Timed(msgspec.Struct, frozen=True):
    """A request that is sent at `due`, in seconds of time.monotonic."""

    request: bytes
    due: float


class Cut(msgspec.Struct, frozen=True):
    """Bytes after which the client hangs up: a moment later, or (`reading`) when the answer begins."""

    request: bytes
    reading: bool = False


Step: TypeAlias = bytes | Timed | Cut
Script: TypeAlias = Generator[Step, Answer, None]


class BrokenAnswer(RuntimeError):
    """What came is no HTTP/1.1 answer of a form that is known here."""


def converse_all(host: str, scripts: Sequence[Script]) -> None:
    """Run every script to its end, each on its connection, on a uvloop of their own.

    Raises what a script raised, BrokenAnswer, or OSError if nobody listens at `host`; the others end with it.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(converse_each(host, scripts))


async def converse_each(host: str, scripts: Sequence[Script]) -> None:
    """As `converse_all`, on the running loop. When cancelled, the connections are aborted."""
    async with asyncio.TaskGroup() as tasks:
        for script in scripts:
            tasks.create_task(converse(host, script))


async def converse(host: str, script: Script) -> None:
    """Run one script to its end; see `converse_all`."""
    name, _, port = host.rpartition(":")
    step: Step | None = next(script, None)
    while step is not None:
        line = _Line(script, step)
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda line=line: line,  # type: ignore[misc]
            name,
            int(port),
        )
        try:
            step = await line.done
        finally:
            transport.abort()


class _Line(asyncio.Protocol):
    """One connection. `done`: the step to go on with on another one; None: the script has ended."""

    def __init__(self, script: Script, step: Step) -> None:
        self._script = script
        self._step = step
        self._asked = False  # a request is out, and its answer is not all here
        self._sent = 0.0
        self._received = b""
        self._head: bytes | None = None
        self._left = 0  # bytes of the body; -1: it is chunked
        self.done: asyncio.Future[Step | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._take()

    def _take(self) -> None:
        """Do the step, now or when it is due."""
        step = self._step
        if isinstance(step, Timed):
            wait = step.due - time.monotonic()
            if wait > 0.001:
                asyncio.get_running_loop().call_later(wait, self._write, step.request)
                return
            self._write(step.request)
        elif isinstance(step, Cut):
            self._write(step.request)
            if not step.reading:  # not before the loop has written the bytes
                asyncio.get_running_loop().call_later(0.001, self._cut)
        else:
            self._write(step)

    def _write(self, request: bytes) -> None:
        if self.done.done():
            return  # the server hung up while this waited to be due; another connection has it
        self._asked = True
        self._sent = time.monotonic()
        self._transport.write(request)

    def _cut(self) -> None:
        if not self.done.done():
            self._transport.abort()
            self._tell(NO_ANSWER, over=True)

    def data_received(self, received: bytes) -> None:
        if self.done.done():
            return
        if not self._asked:
            self._fail(BrokenAnswer(f"{received[:200]!r} came, and nothing was asked"))
        elif isinstance(self._step, Cut):
            self._cut()
        else:
            self._received = self._received + received if self._received else received
            self._read()

    def _read(self) -> None:
        """Tell the script as soon as the answer is whole."""
        if self._head is None:
            head, blank, rest = self._received.partition(b"\r\n\r\n")
            if not blank:
                return
            self._head, self._received = head + b"\r\n", rest
            try:
                self._left = self._length(self._head)
            except (BrokenAnswer, ValueError) as error:
                self._fail(error)
                return
        if self._left < 0:
            if not self._received.endswith(_LAST_CHUNK):
                return
        elif len(self._received) < self._left:
            return
        elif len(self._received) > self._left:
            self._fail(BrokenAnswer(f"more than its body came after {self._head!r}"))
            return
        head, body = self._head, self._received
        self._head, self._received, self._asked = None, b"", False
        self._tell(Answer(int(head[9:12]), head, body, self._sent), over=bool(_CLOSE.search(head)))

    def _length(self, head: bytes) -> int:
        """How many bytes of body follow; -1: it is chunked."""
        request = self._step.request if isinstance(self._step, Timed) else self._step
        if (isinstance(request, bytes) and request.startswith(b"HEAD ")) or int(head[9:12]) in _BODILESS:
            return 0
        if found := _LENGTH.search(head):
            return int(found[1])
        if _CHUNKED.search(head):
            return -1
        raise BrokenAnswer(f"no length in {head!r}")

    def _tell(self, answer: Answer, *, over: bool) -> None:
        """Give the script its answer. `over`: this connection takes no further request."""
        try:
            step = self._script.send(answer)
        except StopIteration:
            self.done.set_result(None)
        except Exception as error:  # noqa: BLE001  whatever it is belongs to who waits for the script
            self._fail(error)
        else:
            if over:
                self.done.set_result(step)
            else:
                self._step = step
                self._take()

    def _fail(self, error: Exception) -> None:
        self.done.set_exception(error)

    def connection_lost(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if self._asked:
            self._tell(NO_ANSWER, over=True)
        else:
            self.done.set_result(self._step)

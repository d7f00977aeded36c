"""How a faulty registry's bodies cross the wire: counted, and with the acts applied to what passes."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextvars import ContextVar
from typing import BinaryIO, Literal, NoReturn

from aiohttp import web

from blobflow.server import SocketBodyTransport
from blobflow.server.http.bodies import read_span
from blobflow.server.http.ranges import ByteRange
from tools.registry.fault_state import Pacing
from tools.registry.faults import (
    Act,
    AnyAct,
    Corrupt,
    DropHeader,
    Reset,
    SetHeader,
    Slow,
    Stall,
    Truncate,
    Unsized,
)
from tools.registry.journal import LiveExchange

# Pieces of a paced body, a second.
_STEPS = 20


class _Dropped(Exception):
    """The rest of a request's body is to be lost."""


class Struck:
    """One request and the acts that strike it. Lives in the request's task, which finds it in `current`."""

    def __init__(
        self, request: web.Request, live: LiveExchange, acts: Sequence[AnyAct], pacing: Pacing
    ) -> None:
        self.request = request
        self.live = live
        self.acts = acts
        self.lost = False  # the connection is cut: no answer counts any more
        self._pacing = pacing
        self._inward = request.method in ("POST", "PATCH", "PUT")
        self._at = 0
        self._stops = [act for act in self.acts if isinstance(act, Reset | Truncate | Stall)]

    def on_body(self, *, inward: bool) -> bool:
        """Whether any act is about bytes that pass in this direction."""
        about_bytes = any(isinstance(act, Reset | Truncate | Stall | Corrupt | Slow) for act in self.acts)
        return about_bytes and self._inward == inward

    async def carry(self, chunk: bytes) -> AsyncIterator[bytes]:
        """What of the next bytes may pass, piece by piece. Raises ConnectionError or _Dropped in between."""
        rest = memoryview(self._corrupted(chunk))
        while True:
            due = [act for act in self._stops if act.after <= self._at + len(rest)]
            first = min(due, key=lambda act: act.after, default=None)
            size = len(rest) if first is None else max(first.after - self._at, 0)
            async for piece in self._paced(rest[:size]):
                self._at += len(piece)
                yield piece
            rest = rest[size:]
            if first is None:
                return
            self._stops.remove(first)
            await self._stop(first)

    def note(self, act: Act) -> None:
        self.live.struck.append(type(act).__name__)

    def cut(self, *, how: Literal["reset", "close"]) -> NoReturn:
        """End the connection: by a TCP reset, or in good order after what was written."""
        transport = self.request.transport
        if transport is not None:
            if how == "reset":
                if (plain := transport.get_extra_info("socket")) is not None:
                    # Linger for no time: close(2) then sends RST, whatever is still to be read.
                    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                transport.abort()
            else:
                transport.close()
        raise ConnectionResetError(f"a fault's {how}")

    async def _stop(self, act: Reset | Truncate | Stall) -> None:
        self.note(act)
        match act:
            case Stall():
                if act.reached is not None:
                    act.reached.set()
                await (act.until or asyncio.Event()).wait()
            case Reset():
                self.cut(how="reset")
            case Truncate():
                if self._inward:
                    raise _Dropped
                self.cut(how="close")

    def _corrupted(self, chunk: bytes) -> bytes:
        for act in self.acts:
            if isinstance(act, Corrupt) and 0 <= act.at - self._at < len(chunk):
                self.note(act)
                changed = bytearray(chunk)
                changed[act.at - self._at] ^= 1
                chunk = bytes(changed)
        return chunk

    async def _paced(self, view: memoryview) -> AsyncIterator[bytes]:
        slow = [act for act in self.acts if isinstance(act, Slow)]
        step = min((int(act.bytes_per_second / _STEPS) for act in slow), default=len(view)) or 1
        for start in range(0, len(view), step):
            piece = bytes(view[start : start + step])
            for act in slow:
                await self._pacing.wait(act, len(piece), self)
            yield piece


current: ContextVar[Struck] = ContextVar("current")


class FaultyWire:
    """A `BodyTransport` that counts every byte and lets the acts have their way with it."""

    def __init__(self) -> None:
        self._plain = SocketBodyTransport()

    async def receive(self, request: web.BaseRequest) -> AsyncIterator[bytes]:
        struck = current.get()
        chunks = self._plain.receive(request)
        faulty = struck.on_body(inward=True)
        async for chunk in chunks:
            if not faulty:
                struck.live.received += len(chunk)
                yield chunk
                continue
            try:
                async for piece in struck.carry(chunk):
                    struck.live.received += len(piece)
                    yield piece
            except _Dropped:
                async for _ in chunks:
                    pass

    async def send(
        self, request: web.BaseRequest, response: web.StreamResponse, file: BinaryIO, span: ByteRange
    ) -> None:
        await send_chunks(current.get(), response, read_span(file, span))


async def send_chunks(struck: Struck, response: web.StreamResponse, chunks: AsyncIterator[bytes]) -> None:
    request = struck.request
    if request.transport is not None:
        # A write then returns when the kernel has the bytes, so that a cut loses none that were counted.
        # asyncio's TLS never goes on below a mark of 0.
        secure = request.transport.get_extra_info("sslcontext") is not None
        request.transport.set_write_buffer_limits(high=1 if secure else 0)
    unsized = next((act for act in struck.acts if isinstance(act, Unsized)), None)
    if unsized is not None:
        struck.note(unsized)
        response.content_length = None
        response.enable_chunked_encoding()
    await response.prepare(request)
    faulty = struck.on_body(inward=False)
    async for chunk in chunks:
        if not faulty:
            struck.live.sent += len(chunk)
            await response.write(chunk)
            continue
        async for piece in struck.carry(chunk):
            struck.live.sent += len(piece)
            await response.write(piece)
    if unsized is not None and unsized.longer:
        await response.write(bytes(unsized.longer))


async def answer_small(struck: Struck, response: web.Response) -> web.StreamResponse:
    """Let a small answer's body pass as a large one does, where an act is about it."""
    body = response.body
    if not isinstance(body, bytes) or not body:
        return response
    if not struck.on_body(inward=False):
        struck.live.sent += len(body)
        return response
    streamed = web.StreamResponse(status=response.status, headers=response.headers)
    streamed.content_length = len(body)

    async def once() -> AsyncIterator[bytes]:
        yield body

    await send_chunks(struck, streamed, once())
    await streamed.write_eof()
    return streamed


async def falsify_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Let an answer's headers say what the acts want, and note what was said."""
    struck = current.get()
    if struck.lost:
        return
    for act in struck.acts:
        match act:
            case DropHeader() if act.name in response.headers:
                struck.note(act)
                del response.headers[act.name]
            case SetHeader():
                struck.note(act)
                response.headers[act.name] = act.value
                if act.name.lower() == "content-length":
                    response.force_close()
            case _:
                pass
    struck.live.answer(response.status, response.headers)

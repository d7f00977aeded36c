"""The connection limit: how many connections a server has at once, and which it closes when there are more.

Each connection is a descriptor, and what is sent over one takes more of them (`DESCRIPTORS`): a client that
opens connections and leaves them, or asks for large blobs and reads no more of them, would end everybody's
requests. So there is a limit below that of the system, and beyond it the address that has most connections
loses some of them: those whose TLS handshake is not done first, then those that wait for a request, of these
the oldest.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from blobflow.events import Observer, Warned
from blobflow.server.http.client_network import network_of
from blobflow.server.http.handshakes import Handshake, Handshakes

# New connections between two checks of how many there are, since a check goes through all of them.
_CHECK_EVERY = 8
# One in so many of the connections of the address that has most goes at once.
_CLOSED_PART = 16
# Descriptors of a connection over which a large blob is sent: two of the socket, two of the file. A blob that
# comes in takes no more, also one that is pulled through.
DESCRIPTORS = 4
# Descriptors that are left for sockets to upstreams and the rest: at least so many, and one in so
# many.
_LEAST_LEFT = 64
_PART_LEFT = 4
_MOST = 60_000
# Seconds between two warnings.
_WARNING_INTERVAL = 60.0


def max_connections() -> int:
    """How many connections a process may have, by its limit of open files."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return _MOST
    return max(_CHECK_EVERY, min(_MOST, (limit - max(_LEAST_LEFT, limit // _PART_LEFT)) // DESCRIPTORS))


class ConnectionLimiter:
    """Makes the protocol of each new connection, and closes others where there are too many."""

    def __init__(
        self,
        server: web.Server,
        *,
        most: int,
        observer: Observer,
        handshakes: Handshakes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`handshakes`: those of TLS; None: connections are in the clear."""
        self._server = server
        self._handshakes = handshakes
        self._most = most
        self._observer = observer
        self._clock = clock
        self._came = 0
        self._warned_at = -_WARNING_INTERVAL

    def __call__(self) -> asyncio.Protocol:
        """A protocol, as `asyncio.loop.create_server` asks for one."""
        self._came += 1
        if self._came % min(_CHECK_EVERY, self._most) == 0:
            self._close_some()
        handler = self._server()
        return handler if self._handshakes is None else Handshake(self._handshakes, handler)

    def _close_some(self) -> None:
        connections = [*(self._handshakes or ()), *self._server.connections]  # of each the oldest first
        if len(connections) < self._most:
            return
        by_network: dict[str, list[RequestHandler | Handshake]] = defaultdict(list)
        for each in connections:
            if isinstance(each, Handshake):
                by_network[network_of(each.peer)].append(each)
            elif each.transport is not None:
                peer = each.transport.get_extra_info("peername")
                by_network[network_of(str(peer[0])) if peer else ""].append(each)
        if not by_network:
            return
        network, theirs = max(by_network.items(), key=lambda item: len(item[1]))
        theirs.sort(key=_is_busy)
        for each in theirs[: max(len(connections) - self._most + _CHECK_EVERY, len(theirs) // _CLOSED_PART)]:
            _cut(each)
        if self._clock() - self._warned_at >= _WARNING_INTERVAL:
            self._warned_at = self._clock()
            self._observer(
                Warned(
                    f"{len(connections)} connections are open, and there is room for {self._most}: some of "
                    f"the {len(theirs)} from {network} are closed; raise the limit of open files (ulimit -n) "
                    "if they are wanted"
                )
            )


def _cut(connection: RequestHandler | Handshake) -> None:
    """Close a connection at once, whoever has a duplicate of its socket and waits for the client to read."""
    if isinstance(connection, Handshake):
        connection.cut()
        return
    assert connection.transport is not None
    ours = connection.transport.get_extra_info("socket")
    if ours is not None and ours.fileno() >= 0:
        same = socket.socket(fileno=ours.fileno())
        with suppress(OSError):  # the client is gone
            same.shutdown(socket.SHUT_RDWR)
        same.detach()
    connection.force_close()


def _is_busy(connection: RequestHandler | Handshake) -> bool:
    return getattr(connection, "_current_request", None) is not None

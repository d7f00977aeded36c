"""One request and its answer, as they are told."""

from __future__ import annotations

import time

import msgspec
from aiohttp import web


class AccessRecord(msgspec.Struct, frozen=True):
    """One answered request. `received` and `body_bytes_sent` are body bytes as announced (received: -1 if it
    was not); `seconds` to the end of a streamed answer, or to the handing over of a small one. `at` is when
    it came in (Unix seconds), `user` who was let in with a login."""

    remote: str
    method: str
    path: str
    query: str
    status: int
    received: int
    sent: int
    seconds: float
    user_agent: str
    user: str = ""
    referer: str = ""
    at: float = 0.0


class RequestContext:
    """A request under way: what is learnt of it on its way through the rooms."""

    __slots__ = ("_begun", "client", "endpoint", "request", "user")

    def __init__(self, request: web.Request, client: str) -> None:
        """`client`: the IP address that it comes from."""
        self.request = request
        self.client = client
        self.endpoint = "none"
        self.user = ""
        self._begun = time.monotonic()

    def access(self, response: web.StreamResponse) -> AccessRecord:
        """What there is to tell, once it is answered."""
        request = self.request
        length = request.content_length
        seconds = time.monotonic() - self._begun
        return AccessRecord(
            remote=self.client,
            method=request.method,
            path=request.path,
            query=request.query_string,
            status=response.status,
            received=(-1 if request.can_read_body else 0) if length is None else length,
            sent=body_bytes_sent(request, response),
            seconds=seconds,
            user_agent=request.headers.get("User-Agent", ""),
            user=self.user,
            referer=request.headers.get("Referer", ""),
            at=time.time() - seconds,
        )


def body_bytes_sent(request: web.BaseRequest, response: web.StreamResponse) -> int:
    """Bytes of an answer's body, as announced."""
    return 0 if request.method == "HEAD" else response.content_length or 0

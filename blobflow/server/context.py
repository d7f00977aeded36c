"""The context of one request: its client, its parameters, and the registry that answers it."""

from __future__ import annotations

import time

from aiohttp import web

from blobflow.oci import Digest
from blobflow.server.admin.access_log import AccessRecord
from blobflow.server.auth.access_rules import NOTHING, Permissions
from blobflow.server.registry import Registry
from blobflow.server.routes import Route, parse_digest_parameter


class RequestContext:
    """What every endpoint is given. The application fills in `user` and `permissions` when it has
    authenticated the request, and `route` when it has read the path.

    `client`: the IP address that the request comes from. `user`: its login; "" without one. The application
    has checked that the endpoint's own action is permitted in the route's repository; `permissions` are for
    what an endpoint does elsewhere, and what it lists.
    """

    __slots__ = ("_begun", "client", "permissions", "registry", "request", "route", "user")

    def __init__(self, registry: Registry, request: web.Request) -> None:
        self.registry = registry
        self.request = request
        self.client = registry.addressing.client(request)
        self.user = ""
        self.permissions: Permissions = NOTHING
        self.route = Route("none")
        self._begun = time.monotonic()

    @property
    def repository(self) -> str:
        return self.route.repository

    @property
    def reference(self) -> str:
        """The tag, digest or session that the path names."""
        return self.route.reference

    @property
    def digest(self) -> Digest:
        """The digest that the path names. Raises ApiError (DIGEST_INVALID)."""
        return parse_digest_parameter(self.route.reference)

    def url(self, path: str) -> str:
        """Where a path of ours is for this client; `path` is quoted, and may have a query."""
        return self.registry.addressing.url(self.request, path)

    def upload_url(self, path: str) -> str:
        """As `url`, for what the client has to go on with; a whole URL wherever that can be known."""
        return self.registry.addressing.upload_url(self.request, path)

    def count(self, response: web.StreamResponse) -> None:
        """Count the request and its answer."""
        self.registry.counters.count(
            self.request.method,
            self.route.endpoint,
            response.status,
            received=self.request.content_length or 0,
            sent=_body_bytes_sent(self.request, response),
        )

    def access_record(self, response: web.StreamResponse) -> AccessRecord:
        """The request and its answer, as the access log has them."""
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
            sent=_body_bytes_sent(request, response),
            seconds=seconds,
            user_agent=request.headers.get("User-Agent", ""),
            user=self.user,
            referer=request.headers.get("Referer", ""),
            at=time.time() - seconds,
        )


def _body_bytes_sent(request: web.BaseRequest, response: web.StreamResponse) -> int:
    """Bytes of an answer's body, as announced."""
    return 0 if request.method == "HEAD" else response.content_length or 0

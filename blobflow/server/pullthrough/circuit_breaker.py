"""Circuit breakers: upstreams, and repositories, that are not asked for a while, and the error meanwhile.

What failed is not asked again at once, so that the registry serves what is here without delay, and no client
waits for what will fail again:

- the whole upstream, if no connection to it can be had, or if it wants fewer requests (429), for as long as
  it says;
- one repository, if that failed or was too slow: its trouble says nothing of the others.

An upstream that answers in good order (not found, denied) has not failed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

import msgspec

from blobflow.bounded_cache import BoundedCache
from blobflow.content import Site
from blobflow.errors import (
    BlobflowError,
    ConnectFailed,
    Denied,
    IntegrityError,
    NetworkError,
    NotFound,
    RegistryError,
    Throttled,
    TimedOut,
    Unauthorized,
    Unavailable,
    UnsupportedContent,
)
from blobflow.events import Observer, Warned
from blobflow.oci import Digest
from blobflow.server.errors import ApiError

# Seconds for which what failed is not asked, unless it says how long, and the most that it may say.
OPEN_SECONDS = 5.0
MAX_OPEN_SECONDS = 300.0
# Repositories of which this is remembered; one that is forgotten is asked, and may fail again.
_REPOSITORIES = 10_000

ContentKind = Literal["manifest", "tags", "referrers", "blob"]

_UPSTREAMS_FAULT = (NetworkError, RegistryError, IntegrityError, UnsupportedContent)
_OUT_OF_ORDER = (NetworkError, Throttled, Unavailable)


class _OpenCircuit(msgspec.Struct, frozen=True):
    """Not asked until that time of the clock; `why` and `status` are for clients that ask meanwhile."""

    until: float
    why: str
    status: int


class CircuitBreaker:
    """What is not asked just now. `clock` gives seconds; `failed` hears each failure's site and kind."""

    def __init__(
        self, clock: Callable[[], float], observer: Observer, failed: Callable[[Site, ContentKind], None]
    ) -> None:
        self._clock = clock
        self._observer = observer
        self._failed = failed
        self._hosts: dict[str, _OpenCircuit] = {}  # those that were configured: few
        self._repositories: BoundedCache[Site, _OpenCircuit] = BoundedCache(
            entries=_REPOSITORIES, clock=clock
        )
        self._quiet: dict[str, float] = {}

    def check(self, site: Site) -> None:
        """Raise ApiError while the repository or its upstream is not to be asked."""
        for what, circuit in ((site.registry, self._hosts.get(site.registry)), (str(site), self._of(site))):
            if circuit is not None and (left := circuit.until - self._clock()) > 0:
                raise upstream_error(what, circuit.why, circuit.status, left)

    @asynccontextmanager
    async def guard(self, site: Site, kind: ContentKind, digest: Digest | None = None) -> AsyncIterator[None]:
        """While an upstream is asked for something: its errors leave as ApiError, and what failed is not
        asked again for a while.

        `digest`: of the blob that it is asked for. Raises ApiError at once while it is not to be asked.
        """
        self.check(site)
        try:
            yield
        except _UPSTREAMS_FAULT as error:
            if not isinstance(error, NotFound):
                self._failed(site, kind)
            if isinstance(error, _OUT_OF_ORDER):
                self._trip(site, error)
            raise api_error_of(site, kind, error, digest) from error

    def _of(self, site: Site) -> _OpenCircuit | None:
        return self._repositories.get(site)

    def _trip(self, site: Site, error: NetworkError | RegistryError) -> None:
        asked = error.retry_after if isinstance(error, (Throttled, Unavailable)) else None
        seconds = OPEN_SECONDS if asked is None else min(max(asked, 1.0), MAX_OPEN_SECONDS)
        until = self._clock() + seconds
        if isinstance(error, Throttled):
            self._hosts[site.registry] = _OpenCircuit(until, "it has had too many requests", 429)
        elif isinstance(error, ConnectFailed) and not error.elsewhere:
            self._hosts[site.registry] = _OpenCircuit(until, "it can't be reached", 503)
        else:
            self._repositories.put(site, _OpenCircuit(until, "it failed just now", 503), seconds=seconds)
            if self._clock() < self._quiet.get(site.registry, 0.0):
                return  # a client that asks for many that fail fills no log
            self._quiet[site.registry] = self._clock() + OPEN_SECONDS
            self._warn(f"repository {site} of an upstream", seconds, error)
            return
        self._warn(f"upstream {site.registry}", seconds, error)

    def _warn(self, what: str, seconds: float, error: BlobflowError) -> None:
        self._observer(Warned(f"{what} is left alone for {seconds:.0f} s: {error.message}"))


def api_error_of(
    site: Site, kind: ContentKind, error: BlobflowError, digest: Digest | None = None
) -> ApiError:
    """What a client hears of an upstream's error. Not its words: they may say more than a client should know,
    of this registry's logins there, say."""
    host = site.registry
    match error:
        case NotFound():
            code = {"blob": "BLOB_UNKNOWN", "tags": "NAME_UNKNOWN"}.get(kind, "MANIFEST_UNKNOWN")
            detail = {"digest": digest} if digest else None
            return ApiError(code, f"{host} has no such content", detail=detail)
        case Unauthorized() | Denied():
            return ApiError("DENIED", f"{host} does not let this registry have it")
        case Throttled():
            return upstream_error(host, "it has had too many requests", 429, error.retry_after)
        case IntegrityError() | UnsupportedContent():
            return upstream_error(host, "it gave something else than was asked for", 502)
        case TimedOut():
            return upstream_error(host, "it takes too long to answer", 504)
        case _:
            return upstream_error(host, "it can't be reached, or answers with an error", 502)


def upstream_error(what: str, why: str, status: int, seconds: float | None = None) -> ApiError:
    """The error of a client's request that an upstream is the cause of. After `seconds` the client may ask
    again; it hears that with a status that can say it."""
    code = "TOOMANYREQUESTS" if status == 429 else "UNKNOWN"
    again = min(max(round(OPEN_SECONDS if seconds is None else seconds), 1), round(MAX_OPEN_SECONDS))
    headers = {"Retry-After": str(again)} if status in (429, 503) else {}
    return ApiError(code, f"upstream {what}: {why}", status=status, headers=headers)

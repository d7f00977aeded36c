"""One registry host: its connections, and how anything is asked of it.

All requests to a host pass here, and so all that holds for each of them is here once: one pool of HTTP/1.1
connections, permits (so that a HEAD never queues behind blobs), authorization, redirects followed by hand
under the origin rule, retries, the shared back-off, meters, traces, and the translation of foreign errors.

Every exchange has a permit of the host's `limiter`: the one of the step that it belongs to
(`Request.permit`), or else one of its own, for which it waits in its turn.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import aiohttp
from yarl import URL

from blobflow.content import Allowance, Journal, NullJournal, Sleep
from blobflow.errors import Denied, NetworkError, ProtocolViolation, RegistryError, TimedOut, Unauthorized
from blobflow.events import HostMeter, Observer, Retrying, Warned
from blobflow.permits import Permit, PermitKind
from blobflow.retrying import Failure, retrying
from blobflow.transports.registry.auth.authenticator import Authenticator, Challenge, parse_challenges
from blobflow.transports.registry.auth.credentials import Credentials
from blobflow.transports.registry.auth.redirect_targets import RedirectTargets
from blobflow.transports.registry.capabilities.head_support import HeadSupport
from blobflow.transports.registry.capabilities.referrers_support import ReferrersSupport
from blobflow.transports.registry.capabilities.stale_caches import StaleCaches
from blobflow.transports.registry.http import backoff
from blobflow.transports.registry.http.access import HostAccess
from blobflow.transports.registry.http.aiohttp_client import (
    PROGRESS_SECONDS,
    close_response,
    discard,
    timeout_of,
)
from blobflow.transports.registry.http.aiohttp_errors import translate_error
from blobflow.transports.registry.http.connection_pool import ConnectionPool, Request, Response
from blobflow.transports.registry.http.etags import Etags
from blobflow.transports.registry.http.limiter import HostLimiter, RateLimit, rate_limit_of, throttle_of
from blobflow.transports.registry.http.pull_quota import allowance_of
from blobflow.transports.registry.http.upload_body import UploadBody
from blobflow.transports.registry.origins import follow_location

__all__ = ["Response", "Request", "HostClient"]

# After the last byte of a blob the registry may hash and copy it before it answers: so long, and longer for
# large ones, at the bytes a second that a slow object store copies.
COMMIT_SECONDS = 300.0
COMMIT_BYTES_PER_SECOND = 20_000_000
# A proxy that takes in a whole body before it passes it on answers when the registry has it all. The slowest
# way from our first byte to an answer, seen with bodies from SHOWING on, says how long that may take: twice
# as long is waited, but so many seconds more than without this at most.
RATE_SHOWN_FROM = 1024 * 1024
MAX_COMMIT_SECONDS = 3600.0
MAX_REDIRECTS = 5
# The host has too much to do (408: it gave up waiting for a request that it was slow to read).
_OVERLOADED = frozenset({408, 429, 503})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_METHOD_PRESERVING = frozenset({307, 308})  # the method, and the body
_SAFE_METHODS = ("GET", "HEAD")

T = TypeVar("T")


class RequestRedirected(ProtocolViolation):
    """A request was sent on to `url`, and was not followed there: too often, or its body is spent."""

    def __init__(self, message: str, *, url: str) -> None:
        super().__init__(message)
        self.url = url


class HostClient:
    """Everything that is known of one host, and the way to it. Used from one event loop; `close` it."""

    def __init__(
        self,
        host: str,
        access: HostAccess,
        *,
        observer: Observer,
        meter: HostMeter,
        sleep: Sleep,
        clock: Callable[[], float],
        random: Callable[[], float],
        trace: bool,
        user_agent: str,
        reading: RateLimit | None = None,
        writing: RateLimit | None = None,
        longest_wait: float = backoff.MAX_RETRY_AFTER_SECONDS,
        journal: Journal | None = None,
    ) -> None:
        """`reading` and `writing`: limits on bytes a second that are shared with other hosts. `longest_wait`:
        see `Registries`.

        `allowance` is what the host said last of how many manifests it lets be read.
        """
        self.host = host
        self.meter = meter
        self.limiter = HostLimiter(access.connections, clock)
        requests = rate_limit_of(access.requests_per_second, clock)
        own = rate_limit_of(access.bytes_per_second, clock)
        self._requests = throttle_of((requests,), sleep)
        self.reading = throttle_of((own, reading), sleep)
        self.writing = throttle_of((own, writing), sleep)
        self._access = access
        self._observer = observer
        self._sleep = sleep
        self._clock = clock
        self._random = random
        self._longest_wait = longest_wait
        self._backoff = backoff.Backoff(clock, sleep)
        self._pool = ConnectionPool(
            host,
            access,
            observer=observer,
            meter=meter,
            clock=clock,
            trace=trace,
            user_agent=user_agent,
            reading=self.reading,
        )
        self._auth = Authenticator(self.home, host, self._login, self._fetch, clock)
        self._lack = ""
        self._elsewhere = RedirectTargets(host, self._fetch, clock)
        self._slowest = math.inf  # bytes a second, of bodies that were answered
        self.allowance: Allowance | None = None
        notes = journal or NullJournal()
        self.caches = StaleCaches(host, notes, observer)
        self.manifest_heads, self.blob_heads = (
            HeadSupport(host, "manifests", notes),
            HeadSupport(host, "blobs", notes),
        )
        self.etags = Etags()
        self.pages: dict[str, int] = {}  # by the kind of list, the most names that it gives at once
        self.referrers_support = ReferrersSupport()

    @property
    def home(self) -> URL:
        """The host's origin."""
        return self._pool.home

    def warn(self, sentence: str) -> None:
        """See `ConnectionPool.warn`."""
        self._pool.warn(sentence)

    async def send(self, request: Request) -> Response:
        """Send a request without a body or with a small one, and read the whole answer; retried.

        Raises the error of a status that is not in `request.ok`, NetworkError when no whole answer came.
        """
        return await self._retrying(request, self._send_once, request.permit)

    @asynccontextmanager
    async def stream(
        self, request: Request, *, small: bool = False
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, Permit]]:
        """Open an answer's body, as a stream, or as a `small` request for who reads it to its end without
        waiting for anything; retried up to the headers, not beyond. With it comes its permit, to be released
        when the body has come.

        Leaving before the end closes the connection. What the body raises is aiohttp's: see `lost`.
        """
        kind = PermitKind.REQUEST if small else PermitKind.READ
        async with self.limiter.permit(kind, request.permit) as permit:
            response = await self._retrying(request, self._open_once, permit)
            try:
                yield response, permit
            finally:
                close_response(response)

    async def send_body(self, request: Request, feed: UploadBody) -> Response:
        """Send a blob's bytes as the body, once; the caller holds a permit to write.

        An answer that comes before the body is through ends the sending. What the feed raised goes before
        anything that the connection made of it.
        """
        feed.throttle = self.writing
        try:
            async with asyncio.timeout(None) as deadline:
                feed.watch(deadline, PROGRESS_SECONDS)
                return await self._send_patiently(request, feed, feed.size)
        except (NetworkError, RegistryError) as error:
            if backoff.concerns_host(error):
                self._backoff.hold(
                    min(
                        backoff.retry_after_of(error) or backoff.DEFAULT_RETRY_AFTER,
                        backoff.MAX_RETRY_AFTER_SECONDS,
                    )
                )
            raise feed.error or error from None
        except TimeoutError:
            self._silent()
            raise TimedOut(f"{self.host} took no byte of {request.description} for too long") from None
        finally:
            await feed.stop()

    async def commit(self, request: Request, size: int) -> Response:
        """Send the small request that makes `size` bytes, sent before or with it, content; under the
        caller's permit.

        Asked again after an answer that allows it, but not after none: it may have been done.
        """

        async def once(request: Request) -> Response:
            return await self._send_patiently(request, request.body, size)

        return await self._retrying(request, once, request.permit, retry_unanswered=False)

    def lost(self, error: Exception, description: str, received: int, expected: int | None) -> NetworkError:
        """What aiohttp raised from a streamed body, as an error of ours."""
        failure = translate_error(error, self.host, description, received=received, expected=expected)
        assert isinstance(failure, NetworkError)
        if isinstance(failure, TimedOut):
            self._silent()
        return failure

    def _silent(self) -> None:
        """A stream stood still: what there is to say of it is as old as its last byte."""
        self.limiter.congested(self._clock() - PROGRESS_SECONDS)

    @property
    def wants_login(self) -> bool:
        """Whether the host has asked who we are."""
        return self._auth.wants_login

    async def enter(self) -> bool:
        """Ask whether there is a registry that lets us in [end-1]; False if it lets anybody in.

        Raises Unauthorized, and whatever else the host answers.
        """
        await self.send(Request("GET", URL("/v2/", encoded=True), "registry API"))
        return self.wants_login

    async def close(self) -> None:
        """Close every connection."""
        await self._auth.close()
        await self._elsewhere.close()
        await self._pool.close()

    # One exchange

    async def _send_once(self, request: Request) -> Response:
        async with self.limiter.permit(PermitKind.REQUEST, request.permit):
            response = await self._reach(request)
            try:
                return await self._conclude(request, response)
            finally:
                close_response(response)

    async def _send_patiently(self, request: Request, body: bytes | UploadBody | None, size: int) -> Response:
        """One exchange after which the registry has `size` bytes to commit; a 401 ends it, but is learnt.
        Redirects are followed; where a feed can't be sent again, Redirected says to where."""
        url = await self._absolute(request.url)
        for _ in range(MAX_REDIRECTS + 1):
            sent = await self._permission(request, url)
            began = self._clock()
            response = await self._transmit(request, url, body, sent, timeout_of(self._patience(size)))
            if isinstance(body, UploadBody) and body.done and size >= RATE_SHOWN_FROM:
                self._slowest = min(self._slowest, size / max(self._clock() - began, 0.001))
            try:
                if challenges := self._challenges(response):
                    await self._auth.learn(challenges, request.scopes, sent)
                if response.status not in _METHOD_PRESERVING or "Location" not in response.headers:
                    return await self._conclude(request, response)
                url = follow_location(self.home, url, response.headers["Location"], request.description)
            finally:
                close_response(response)
            if isinstance(body, UploadBody):
                raise self._nowhere(request, url)
        raise self._nowhere(request, url)

    def _nowhere(self, request: Request, url: URL) -> ProtocolViolation:
        said = f"{self.host} answered {request.description} with redirects that lead nowhere"
        return (
            ProtocolViolation(said)
            if request.method in _SAFE_METHODS
            else RequestRedirected(said, url=str(url))
        )

    def _patience(self, size: int) -> float:
        """Seconds after the last of `size` bytes until there is no answer to be expected any more."""
        shown = min(2 * size / self._slowest, MAX_COMMIT_SECONDS)
        return COMMIT_SECONDS + max(size / COMMIT_BYTES_PER_SECOND, shown)

    async def _open_once(self, request: Request) -> aiohttp.ClientResponse:
        response = await self._reach(request)
        if response.status in request.ok:
            return response
        try:
            raise await self._refusal(request, response)
        finally:
            close_response(response)

    async def _conclude(self, request: Request, response: aiohttp.ClientResponse) -> Response:
        if response.status not in request.ok:
            raise await self._refusal(request, response)
        try:
            return await self._pool.whole(request, response)
        except TimedOut:
            self._silent()
            raise

    async def _refusal(self, request: Request, response: aiohttp.ClientResponse) -> RegistryError:
        error = await self._pool.refusal(request, response)
        if isinstance(error, Unauthorized) and not self._pool.is_home(response.url):
            return Unauthorized(self._elsewhere.refusal(response.url, request.description), status=401)
        if self._lack and isinstance(error, Unauthorized | Denied):
            error.message += f"; it was asked without a login, since {self._lack}"
        return error

    async def _reach(self, request: Request) -> aiohttp.ClientResponse:
        """Send the request, get in if asked to, and follow redirects; the answer's body is still unread."""
        url = await self._absolute(request.url)
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._authorized(request, url)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return response
            await discard(response)
            if request.method not in _SAFE_METHODS and response.status not in _METHOD_PRESERVING:
                break
            url = follow_location(self.home, url, location, request.description)
        raise self._nowhere(request, url)

    async def _authorized(self, request: Request, url: URL) -> aiohttp.ClientResponse:
        """Send the request, and once more with what it was refused for the lack of."""
        sent = await self._permission(request, url)
        response = await self._transmit(request, url, request.body, sent)
        if not (challenges := self._challenges(response)):
            return response
        if not self._pool.is_home(url):
            if not await self._elsewhere.learn(url, challenges, request.scopes, sent):
                return response
            await discard(response)
            sent = await self._permission(request, url)
            return await self._transmit(request, url, request.body, sent)
        await discard(response)
        await self._auth.learn(challenges, request.scopes, sent)
        sent = await self._permission(request, url)
        response = await self._transmit(request, url, request.body, sent)
        if challenges := self._challenges(response):
            try:
                await self._auth.learn(challenges, request.scopes, sent)
            except BaseException:
                close_response(response)
                raise
        return response

    async def _permission(self, request: Request, url: URL) -> str:
        """The Authorization for a request: the host's own at its origin; elsewhere, for who reads, what
        anybody gets there."""
        if self._pool.is_home(url):
            return await self._auth.header(request.scopes)
        return await self._elsewhere.header(url, request.scopes) if request.method in _SAFE_METHODS else ""

    def _challenges(self, response: aiohttp.ClientResponse) -> list[Challenge]:
        """What is wanted before the answer is another; elsewhere only who reads has anything to give."""
        if response.status != 401 or not (
            self._pool.is_home(response.url) or response.method in _SAFE_METHODS
        ):
            return []
        return parse_challenges(response.headers.getall("WWW-Authenticate", []))

    async def _transmit(
        self,
        request: Request,
        url: URL,
        body: bytes | UploadBody | None,
        authorization: str,
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> aiohttp.ClientResponse:
        """One HTTP request for this host, when the host may be asked; the limiter learns how it answered."""
        if self._pool.is_home(url):
            await self._turn()
        if isinstance(body, bytes) and self.writing is not None:
            await self.writing.wait(len(body))
        began = self._clock()
        try:
            response = await self._pool.exchange(request, url, body, authorization, timeout)
        except TimedOut:
            self.limiter.congested(began)
            raise
        if self._pool.is_home(url):
            self.allowance = allowance_of(response.headers) or self.allowance
        if response.status in _OVERLOADED:
            self.limiter.congested(began)
        else:
            self.limiter.answered()
        return response

    async def _turn(self) -> None:
        """Return when the host may get one more request."""
        await self._backoff.wait()
        if self._requests is not None:
            await self._requests.wait(1)
            await self._backoff.wait()

    # What surrounds an exchange

    async def _retrying(
        self,
        request: Request,
        once: Callable[[Request], Awaitable[T]],
        held: Permit | None,
        *,
        retry_unanswered: bool = True,
    ) -> T:
        """Do `once` until it succeeds or the table gives up; `retry_unanswered`: also when no answer came.
        `held`: the permit that is held all the while."""
        refused = False

        async def attempt() -> T:
            async with self.limiter.retry(held if refused else None):
                return await once(request)

        async def pause(failure: Failure) -> None:
            nonlocal refused
            self._observer(
                Retrying(request.description, failure.error.message, failure.attempt, failure.delay)
            )
            refused = backoff.concerns_host(failure.error)
            if refused:
                self._backoff.hold(failure.delay)
            else:
                await self._sleep(failure.delay)

        policy = backoff.RequestRetries(
            self._random, fail_fast=request.fail_fast, longest=self._longest_wait, unanswered=retry_unanswered
        )
        return await retrying(policy, attempt, pause)

    async def _fetch(self, url: URL, authorization: str | None, form: bytes | None) -> bytes:
        """Ask a token server; it gets the login that the registry's realm was named for, and no redirect."""
        headers = {} if form is None else {"Content-Type": "application/x-www-form-urlencoded"}
        method = "GET" if form is None else "POST"
        request = Request(method, url, f"a token for {self.host}", headers=headers)
        response = await self._pool.exchange(request, url, form, authorization or "")
        try:
            return (await self._conclude(request, response)).body
        finally:
            close_response(response)

    async def _absolute(self, url: URL) -> URL:
        """`url` at this host, whose origin is settled by then."""
        await self._pool.settle()
        self._auth.home = self.home
        return URL(f"{self.home}{url}", encoded=True) if url.host is None else url

    async def _login(self, repository: str) -> Credentials | None:
        credentials = self._access.credentials
        found = await credentials(repository) if callable(credentials) else credentials
        if found is not None and found.lack and found.lack != self._lack:
            self._lack = found.lack
            self._observer(Warned(f"{self.host} is asked without a login: {found.lack}"))
        return found

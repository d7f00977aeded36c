"""Dispatches one request to a host or its redirect targets: waits until the host may be asked, adds the
authorization, and follows redirects under the origin rule. `host_client` decides about retries."""

from __future__ import annotations

from collections.abc import Callable

import aiohttp
from yarl import URL

from blobflow.content import Allowance, Sleep
from blobflow.errors import BlobflowError, ProtocolViolation, RegistryError, TimedOut
from blobflow.events import HostMeter, Observer
from blobflow.transports.registry.auth.challenges import Challenge
from blobflow.transports.registry.auth.host_authorization import HostAuthorization
from blobflow.transports.registry.http import backoff
from blobflow.transports.registry.http.aiohttp_client import PROGRESS_SECONDS, close_response, discard
from blobflow.transports.registry.http.connection_pool import ConnectionPool
from blobflow.transports.registry.http.host_settings import HostAccess
from blobflow.transports.registry.http.limiter import HostLimiter
from blobflow.transports.registry.http.messages import Request, Response
from blobflow.transports.registry.http.pull_quota import allowance_of
from blobflow.transports.registry.http.rate_limit import Throttle, rate_limit_of, throttle_of
from blobflow.transports.registry.http.upload_body import UploadBody
from blobflow.transports.registry.origins import follow_location
from blobflow.waits import WaitKind

MAX_REDIRECTS = 5
# The host has too much to do (408: it gave up waiting for a request that it was slow to read).
_OVERLOADED = frozenset({408, 429, 503})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_METHOD_PRESERVING = frozenset({307, 308})  # the method, and the body
_SAFE_METHODS = ("GET", "HEAD")


class RequestRedirected(ProtocolViolation):
    """A request was redirected to `url`, and not followed there: too many redirects, or its body is spent."""

    def __init__(self, message: str, *, url: str) -> None:
        super().__init__(message)
        self.url = url


class Dispatcher:
    """Dispatches single requests to one host. `allowance` is the pull quota that the host reported last;
    `backoff` says until when nothing is sent to it. `close` it."""

    def __init__(
        self,
        host: str,
        access: HostAccess,
        limiter: HostLimiter,
        *,
        observer: Observer,
        meter: HostMeter,
        sleep: Sleep,
        clock: Callable[[], float],
        trace: bool,
        user_agent: str,
        reading: Throttle | None,
        writing: Throttle | None,
    ) -> None:
        self.allowance: Allowance | None = None
        self.backoff = backoff.Backoff(clock, sleep, meter.waits)
        self._host = host
        self._limiter = limiter
        self._clock = clock
        self._writing = writing
        self._request_rate = rate_limit_of(access.requests_per_second, clock)
        self._requests = throttle_of((self._request_rate,), sleep, meter.waits)
        self._pool = ConnectionPool(
            host,
            access,
            observer=observer,
            meter=meter,
            clock=clock,
            trace=trace,
            user_agent=user_agent,
            reading=reading,
        )
        self._authorization = HostAuthorization(
            host,
            self.home,
            access.credentials,
            fetch=self._fetch,
            clock=clock,
            observer=observer,
            waits=meter.waits,
        )

    @property
    def home(self) -> URL:
        """The host's origin."""
        return self._pool.home

    def change_request_rate(self, rate: float) -> None:
        """Send so many requests a second at most from now on, where their number was limited at all."""
        if self._request_rate is not None and rate > 0:
            self._request_rate.rate = rate

    @property
    def wants_login(self) -> bool:
        """Whether the host has asked who we are."""
        return self._authorization.wants_login

    async def login(self, repository: str) -> str | None:
        """See `HostAuthorization.identity`."""
        return await self._authorization.identity(repository)

    def warn(self, sentence: str) -> None:
        """See `ConnectionPool.warn`."""
        self._pool.warn(sentence)

    async def explained(self, error: BlobflowError) -> BlobflowError:
        """See `ConnectionPool.explained`."""
        return await self._pool.explained(error)

    async def close(self) -> None:
        """Close every connection."""
        await self._authorization.close()
        await self._pool.close()

    async def exchange(
        self, request: Request, url: URL, body: bytes | UploadBody | None, timeout: aiohttp.ClientTimeout
    ) -> tuple[aiohttp.ClientResponse, str]:
        """One exchange of an upload, with the body as it is; the response, and the Authorization that was
        sent."""
        sent = await self._header(request, url)
        waits_for: WaitKind = "answer" if request.method == "PATCH" else "commit"
        return await self._transmit(request, url, body, sent, timeout, waits_for), sent

    async def finish(
        self, request: Request, url: URL, response: aiohttp.ClientResponse, sent: str
    ) -> Response | URL:
        """The result of an exchange: a whole response, or where a redirect leads. A 401 ends it, and the next
        request answers its challenge. Raises as `conclude`."""
        try:
            if challenges := self._challenges(response):
                await self._authorization.learn(self.home, challenges, request.scopes, sent)
            if response.status not in _METHOD_PRESERVING or "Location" not in response.headers:
                return await self.conclude(request, response)
            return follow_location(self.home, url, response.headers["Location"], request.description)
        finally:
            close_response(response)

    def silent(self) -> None:
        """Record that a stream stalled, at the time of its last byte."""
        self._limiter.congested(self._clock() - PROGRESS_SECONDS)

    async def reach(self, request: Request) -> aiohttp.ClientResponse:
        """Send the request, with a login if one is wanted, and follow redirects. The response's body is
        unread; `close_response` it. Raises NetworkError, ProtocolViolation, Unauthorized."""
        url = await self.absolute(request.url)
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._authorized(request, url)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return response
            await discard(response)
            there = follow_location(self.home, url, location, request.description)
            if request.method not in _SAFE_METHODS and response.status not in _METHOD_PRESERVING:
                raise self._for_pages(request, url, response.status, there)
            url = there
        raise self.nowhere(request, url)

    async def _authorized(self, request: Request, url: URL) -> aiohttp.ClientResponse:
        """Send the request; and once more, with what a 401 asks for."""
        sent = await self._header(request, url)
        response = await self._transmit(request, url, request.body, sent)
        if not (challenges := self._challenges(response)):
            return response
        at_home = self._pool.is_home(url)
        if at_home:
            await discard(response)
        if not await self._authorization.learn(url, challenges, request.scopes, sent):
            return response
        if not at_home:
            await discard(response)
        sent = await self._header(request, url)
        response = await self._transmit(request, url, request.body, sent)
        if at_home and (challenges := self._challenges(response)):
            try:
                await self._authorization.learn(url, challenges, request.scopes, sent)
            except BaseException:
                close_response(response)
                raise
        return response

    async def _header(self, request: Request, url: URL) -> str:
        reads = request.method in _SAFE_METHODS
        return await self._authorization.header(url, request.scopes, reads=reads)

    def _challenges(self, response: aiohttp.ClientResponse) -> list[Challenge]:
        """What is wanted before the response is another."""
        if response.status != 401:
            return []
        wanted = response.headers.getall("WWW-Authenticate", [])
        return self._authorization.challenges(response.url, wanted, reads=response.method in _SAFE_METHODS)

    async def _transmit(
        self,
        request: Request,
        url: URL,
        body: bytes | UploadBody | None,
        authorization: str,
        timeout: aiohttp.ClientTimeout | None = None,
        waits_for: WaitKind = "answer",
    ) -> aiohttp.ClientResponse:
        """One HTTP request for this host, when the host may be asked; the limiter learns how it answered."""
        at_home = self._pool.is_home(url)
        if at_home:
            await self._wait_for_turn()
        if isinstance(body, bytes) and self._writing is not None:
            await self._writing.wait(len(body))
        began = self._clock()
        try:
            response = await self._pool.exchange(request, url, body, authorization, timeout, waits_for)
        except TimedOut:
            self._limiter.congested(began)
            raise
        if at_home:
            self.allowance = allowance_of(response.headers) or self.allowance
        if response.status in _OVERLOADED:
            self._limiter.congested(began)
        elif at_home and request.method in _SAFE_METHODS:
            self._limiter.answered(self._clock() - began)
        else:
            self._limiter.answered()
        return response

    async def _wait_for_turn(self) -> None:
        """Wait until the host may get one more request."""
        await self.backoff.wait()
        if self._requests is not None:
            await self._requests.wait(1)
            await self.backoff.wait()

    def _for_pages(self, request: Request, url: URL, status: int, there: URL) -> ProtocolViolation:
        """The error of a redirect that is followed by GET alone, whatever was asked."""
        if there.origin() == url.origin() or there.raw_path != url.raw_path:  # as to a page to log in at
            return self.nowhere(request, url)
        return RequestRedirected(
            f"{self._host} redirects {request.description} to {there.origin()} with {status}, which only"
            f" reads can follow; name {there.origin()} in place of {url.origin()}",
            url=str(url),
        )

    def nowhere(self, request: Request, url: URL) -> ProtocolViolation:
        """The error of a request that was redirected too often, or whose body is spent."""
        said = f"{self._host} answered {request.description} with redirects that lead nowhere"
        return (
            ProtocolViolation(said)
            if request.method in _SAFE_METHODS
            else RequestRedirected(said, url=str(url))
        )

    async def conclude(self, request: Request, response: aiohttp.ClientResponse) -> Response:
        """The whole response, if its status is one of success; raises the error that it means."""
        if response.status not in request.ok:
            raise await self.refusal(request, response)
        try:
            return await self._pool.read(request, response)
        except TimedOut:
            self.silent()
            raise

    async def refusal(self, request: Request, response: aiohttp.ClientResponse) -> RegistryError:
        """The error that a response means, with what we know of its reason."""
        error = await self._pool.read_error(request, response)
        return self._authorization.explained(error, response.url, request.description)

    async def _fetch(self, url: URL, authorization: str | None, form: bytes | None) -> bytes:
        """Ask a token server; it gets the login that the registry's realm was named for, and no redirect."""
        headers = {} if form is None else {"Content-Type": "application/x-www-form-urlencoded"}
        method = "GET" if form is None else "POST"
        request = Request(method, url, f"a token for {self._host}", headers=headers)
        response = await self._pool.exchange(request, url, form, authorization or "")
        try:
            return (await self.conclude(request, response)).body
        finally:
            close_response(response)

    async def absolute(self, url: URL) -> URL:
        """`url` at this host, whose origin is known by then."""
        await self._pool.detect_scheme()
        self._authorization.home = self.home
        if url.host is not None:
            return url
        if url.raw_query_string:
            return URL(f"{self.home}{url}", encoded=True)
        return self.home.with_path(url.raw_path, encoded=True)  # parses nothing

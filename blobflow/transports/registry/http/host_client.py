"""The HTTP client of one registry host.

All requests to a host go through it, and so whatever applies to each of them is here once: one pool of
HTTP/1.1 connections, permits (so that a HEAD never queues behind blobs), authorization, redirects followed
under the origin rule, retries, the shared back-off, meters, traces, and the translation of foreign errors.

Every exchange has a permit of the host's `limiter`: the one of the step that it belongs to
(`Request.permit`), or else one of its own, for which it waits in its turn.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import TypeVar

import aiohttp
from yarl import URL

from blobflow.content import Allowance, Journal, NullJournal, Sleep
from blobflow.errors import ConnectionLost, NetworkError, ProtocolViolation, RegistryError, Rejected, TimedOut
from blobflow.events import Event, HostMeter, Observer, Retrying
from blobflow.permits import Permit, PermitKind
from blobflow.retrying import MAX_RETRY_AFTER_SECONDS, Failure, begin_wait, retrying
from blobflow.transports.registry.capabilities.host_capabilities import HostCapabilities
from blobflow.transports.registry.http import backoff
from blobflow.transports.registry.http.aiohttp_client import (
    PROGRESS_SECONDS,
    close_response,
    timeout_of,
)
from blobflow.transports.registry.http.aiohttp_errors import translate_error
from blobflow.transports.registry.http.dispatch import MAX_REDIRECTS, Dispatcher
from blobflow.transports.registry.http.etags import Etags
from blobflow.transports.registry.http.host_settings import HostAccess
from blobflow.transports.registry.http.limiter import HostLimiter
from blobflow.transports.registry.http.messages import Request, Response
from blobflow.transports.registry.http.rate_limit import RateLimit, rate_limit_of, throttle_of
from blobflow.transports.registry.http.read_ahead import ReadAhead
from blobflow.transports.registry.http.upload_body import UploadBody

# After the last byte of a blob the registry may hash and copy it before it answers: so long, and longer for
# large ones, at the bytes a second that a slow object store copies.
COMMIT_SECONDS = 300.0
COMMIT_BYTES_PER_SECOND = 20_000_000
# A proxy that takes in a whole body before it passes it on answers when the registry has it all. The slowest
# way from our first byte to an answer, seen with bodies of so many bytes and more, says how long that may
# take: twice as long is waited, but at most so many seconds more than without this.
RATE_SHOWN_FROM = 1024 * 1024
MAX_COMMIT_SECONDS = 3600.0
# Answers with bodies of up to some MiB that are read into memory at once: fewer than small requests may be in
# flight at a far host.
MAX_BODIES = 32

_NO_BODY = nullcontext()

T = TypeVar("T")


class HostClient:
    """The client of one host, with everything that is known about it. Used from one event loop; `close`
    it."""

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
        longest_wait: float = MAX_RETRY_AFTER_SECONDS,
        journal: Journal | None = None,
        read_ahead: ReadAhead | None = None,
    ) -> None:
        """`reading` and `writing`: limits on bytes a second that are shared with other hosts. `longest_wait`:
        see `Registries`. `read_ahead`: shared with other hosts, too.
        """
        self.host = host
        self.meter = meter
        self.limiter = HostLimiter(
            access.connections,
            clock,
            meter.waits,
            far_connections=access.far_connections,
            moved=lambda kind: meter.bytes_read if kind is PermitKind.READ else meter.bytes_written,
        )
        self._byte_rate = rate_limit_of(access.bytes_per_second, clock)
        self.reading = throttle_of((self._byte_rate, reading), sleep, meter.waits)
        self.writing = throttle_of((self._byte_rate, writing), sleep, meter.waits)
        self._observer = observer
        self._sleep = sleep
        self._clock = clock
        self._random = random
        self._longest_wait = longest_wait
        self._dispatcher = Dispatcher(
            host,
            access,
            self.limiter,
            observer=observer,
            meter=meter,
            sleep=sleep,
            clock=clock,
            trace=trace,
            user_agent=user_agent,
            reading=self.reading,
            writing=self.writing,
        )
        self._slowest = math.inf  # bytes a second, of bodies that were answered
        self._bodies = asyncio.Semaphore(MAX_BODIES)
        self.capabilities = HostCapabilities(host, journal or NullJournal(), observer)
        self.etags = Etags()
        self.read_ahead = read_ahead or ReadAhead()
        self.parallel_ranges = access.parallel_ranges
        self.retry_times = access.retry_times

    @property
    def allowance(self) -> Allowance | None:
        """What the host said last of how many manifests it lets be read."""
        return self._dispatcher.allowance

    @property
    def home(self) -> URL:
        """The host's origin."""
        return self._dispatcher.home

    def change_limits(self, access: HostAccess) -> None:
        """Keep the limits of `access` from now on: what is under way ends under the former ones. Rates change
        where there is one already."""
        self.limiter.resize(access.connections, access.far_connections)
        if self._byte_rate is not None and access.bytes_per_second > 0:
            self._byte_rate.rate = access.bytes_per_second
        self._dispatcher.change_request_rate(access.requests_per_second)

    def warn(self, sentence: str) -> None:
        """See `ConnectionPool.warn`."""
        self._dispatcher.warn(sentence)

    async def login(self, repository: str) -> str | None:
        """See `HostAuthorization.identity`."""
        return await self._dispatcher.login(repository)

    def now(self) -> float:
        """Seconds of the clock by which everything here goes."""
        return self._clock()

    def observe(self, event: Event) -> None:
        """Tell who watches the run."""
        self._observer(event)

    def jitter(self) -> float:
        """A random number, 0 ≤ j < 1."""
        return self._random()

    async def pause(self, description: str, failure: Failure) -> None:
        """Wait until the next attempt at what is described."""
        self._tell_retry(description, failure)
        with begin_wait(self.meter.waits, failure, description):
            await self._sleep(failure.delay)

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

    async def send_body(self, request: Request, body: UploadBody) -> Response:
        """Send a blob's bytes as the body, once; the caller holds a permit to write.

        An answer that comes before the body is through ends the sending. What the body raised goes before
        anything that the connection made of it.
        """
        body.throttle = self.writing
        try:
            async with asyncio.timeout(None) as deadline:
                body.watch(deadline, PROGRESS_SECONDS)
                return await self._send_patiently(request, body, body.size)
        except (NetworkError, RegistryError) as error:
            if backoff.concerns_host(error):
                wish = backoff.retry_after_of(error) or backoff.DEFAULT_RETRY_AFTER
                held = min(wish, MAX_RETRY_AFTER_SECONDS)
                self._dispatcher.backoff.hold(Failure(error, 0, held))
            raise body.error or error from None
        except TimeoutError:
            self._dispatcher.silent()
            raise TimedOut(f"{self.host} took no byte of {request.description} for too long") from None
        finally:
            await body.stop()

    async def commit(self, request: Request, size: int) -> Response:
        """Send the small request that makes `size` bytes, sent before or with it, content; under the
        caller's permit.

        Asked again after an answer that allows it, but not after none: it may have been done.
        """

        async def once(request: Request) -> Response:
            return await self._send_patiently(request, request.body, size)

        return await self._retrying(request, once, request.permit, retry_unanswered=False)

    def lost(self, error: Exception, description: str, received: int, expected: int | None) -> NetworkError:
        """The error of ours that aiohttp's, raised by a streamed body, means."""
        failure = translate_error(error, self.host, description, received=received, expected=expected)
        assert isinstance(failure, NetworkError)
        if isinstance(failure, TimedOut):
            self._dispatcher.silent()
        return failure

    @property
    def wants_login(self) -> bool:
        """Whether the host has asked who we are."""
        return self._dispatcher.wants_login

    async def ping(self) -> bool:
        """Ask whether there is a registry that lets us in [end-1]; False if it lets anybody in.

        Raises Unauthorized, and whatever else the host answers.
        """
        await self.send(Request("GET", URL("/v2/", encoded=True), "registry API"))
        return self.wants_login

    async def close(self) -> None:
        """Close every connection."""
        await self._dispatcher.close()

    # One exchange

    async def _send_once(self, request: Request) -> Response:
        room = self._bodies if request.method == "GET" else _NO_BODY
        async with self.limiter.permit(PermitKind.REQUEST, request.permit), room:
            response = await self._dispatcher.reach(request)
            try:
                return await self._dispatcher.conclude(request, response)
            finally:
                close_response(response)

    async def _send_patiently(self, request: Request, body: bytes | UploadBody | None, size: int) -> Response:
        """One exchange after which the registry has `size` bytes to commit; a 401 ends it, but is taken in.
        Redirects are followed; where a body can't be sent again, RequestRedirected says to where."""
        dispatcher = self._dispatcher
        url = await dispatcher.absolute(request.url)
        for _ in range(MAX_REDIRECTS + 1):
            began, timeout = self._clock(), timeout_of(self._patience(size))
            response, sent = await dispatcher.exchange(request, url, body, timeout)
            if isinstance(body, UploadBody) and body.done and size >= RATE_SHOWN_FROM:
                self._slowest = min(self._slowest, size / max(self._clock() - began, 0.001))
            outcome = await dispatcher.finish(request, url, response, sent)
            if isinstance(outcome, Response):
                return outcome
            url = outcome
            if isinstance(body, UploadBody):
                break
        raise dispatcher.nowhere(request, url)

    def _patience(self, size: int) -> float:
        """Seconds after the last of `size` bytes until there is no answer to be expected any more."""
        shown = min(2 * size / self._slowest, MAX_COMMIT_SECONDS)
        return COMMIT_SECONDS + max(size / COMMIT_BYTES_PER_SECOND, shown)

    async def _open_once(self, request: Request) -> aiohttp.ClientResponse:
        response = await self._dispatcher.reach(request)
        if response.status in request.ok:
            return response
        try:
            raise await self._dispatcher.refusal(request, response)
        finally:
            close_response(response)

    # What surrounds an exchange

    def _tell_retry(self, description: str, failure: Failure) -> None:
        error = failure.error.message
        self._observer(Retrying(description, error, failure.attempt, failure.delay, failure.attempts))

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
            if not refused:
                return await once(request)
            async with self.limiter.retry(held):
                return await once(request)

        async def pause(failure: Failure) -> None:
            nonlocal refused
            refused = backoff.concerns_host(failure.error)
            if refused:
                self._tell_retry(request.description, failure)
                self._dispatcher.backoff.hold(failure)
            else:
                await self.pause(request.description, failure)

        policy = backoff.RequestRetries(
            self._random,
            fail_fast=request.fail_fast,
            longest=self._longest_wait,
            unanswered=retry_unanswered,
            times=self.retry_times,
        )
        try:
            return await retrying(policy, attempt, pause)
        except (ConnectionLost, ProtocolViolation, Rejected) as error:
            raise await self._dispatcher.explained(error) from None

"""The connections to one host and its redirect targets, and one HTTP exchange over them.

This module calls aiohttp, applies the origin rule, and translates foreign errors. `dispatch` decides when a
request may be sent, and with what authorization; `host_client` decides about retries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
from yarl import URL

from blobflow.errors import BlobflowError, ConnectFailed, ProtocolViolation, RegistryError, UntrustedPeer
from blobflow.events import HostMeter, Observer, Traced, Warned
from blobflow.oci.reference import is_loopback
from blobflow.transports.registry.http.aiohttp_client import (
    head_limit,
    new_client,
    read_error,
    read_small,
    ssl_for,
)
from blobflow.transports.registry.http.aiohttp_errors import translate_error
from blobflow.transports.registry.http.content_encoding import (
    CODING_BYTES,
    check_codings,
    codings_of,
    decode_body,
    decode_error_body,
)
from blobflow.transports.registry.http.errors import error_of
from blobflow.transports.registry.http.headers import parse_warning
from blobflow.transports.registry.http.host_settings import HostAccess
from blobflow.transports.registry.http.messages import Request, Response
from blobflow.transports.registry.http.proxies import name_of_proxy
from blobflow.transports.registry.http.rate_limit import Throttle
from blobflow.transports.registry.http.scheme_detection import detect_scheme
from blobflow.transports.registry.http.tls_diagnosis import PeerCertificate, read_certificate, speaks_tls
from blobflow.transports.registry.http.upload_body import UploadBody, UploadPayload
from blobflow.transports.registry.origins import GuardedResolver, name_of, origin_of
from blobflow.waits import CURRENT_WAIT, WaitKind

MAX_WARNINGS = 20
_BAD_REQUEST = 400


class ConnectionPool:
    """The connections to one host, and to where it sends us. `home` is its origin. `close` it."""

    def __init__(
        self,
        host: str,
        access: HostAccess,
        *,
        observer: Observer,
        meter: HostMeter,
        clock: Callable[[], float],
        trace: bool,
        user_agent: str,
        reading: Throttle | None,
    ) -> None:
        self.host = host
        self.home = origin_of(host, access.scheme)
        self._scheme_known = access.scheme == "http" or not (access.tls_optional or access.tls is False)
        self._scheme_lock = asyncio.Lock()
        self._access = access
        self._observer = observer
        self._meter = meter
        self._clock = clock
        self._trace = trace
        self._user_agent = user_agent
        self._reading = reading
        self._guard = GuardedResolver(self.home, proxies=access.proxies.hosts)
        self._warned: set[str] = set()
        self._certificate: PeerCertificate | None = None
        self._certificate_asked = False
        self._certificate_lock = asyncio.Lock()
        self._understood = False  # whether the host has answered something that shows that it speaks HTTP
        self._client_session: aiohttp.ClientSession | None = None

    async def detect_scheme(self) -> None:
        """Find out whether the host speaks TLS, where it need not: once, before anything else is sent."""
        if not self._scheme_known:
            async with self._scheme_lock:
                if not self._scheme_known:
                    self._meter.requests += 1
                    with self._meter.waits.begin("answer", "a first answer") as wait:
                        current = CURRENT_WAIT.set(wait)
                        try:
                            self.home = await detect_scheme(self._client, self.home, self._access)
                        finally:
                            CURRENT_WAIT.reset(current)
                    self._scheme_known = True

    async def exchange(
        self,
        request: Request,
        url: URL,
        body: bytes | UploadBody | None,
        authorization: str,
        timeout: aiohttp.ClientTimeout | None = None,
        waits_for: WaitKind = "answer",
    ) -> aiohttp.ClientResponse:
        """One HTTP request, to wherever `url` is and may be. `waits_for`: what the answer says."""
        self._guard.check(url)
        headers = dict(request.headers)
        if authorization:
            headers["Authorization"] = authorization
        if body is not None:
            headers["Content-Length"] = str(body.size if isinstance(body, UploadBody) else len(body))
        began = self._clock()
        timeout = timeout or self._client.timeout
        self._meter.requests += 1
        limit = head_limit(timeout, body)
        wait = self._meter.waits.begin(waits_for, request.description, host=self.name(url))
        if isinstance(body, UploadBody):
            body.watched_by(wait)
        current = CURRENT_WAIT.set(wait)
        proxy = self._access.proxies.of(url)
        try:
            async with limit:
                response = await self._client.request(
                    request.method,
                    url,
                    headers=headers,
                    data=UploadPayload(body) if isinstance(body, UploadBody) else body,
                    allow_redirects=False,
                    proxy=proxy or None,
                    ssl=ssl_for(self._access, url),
                    timeout=timeout,
                )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = await self._failure_of(error, url, proxy, request, late=limit.expired())
            raise failure from None
        finally:
            CURRENT_WAIT.reset(current)
            wait.end()
            if isinstance(body, UploadBody):
                body.answer_limit = None
        if self._trace:
            shown = str(url.with_query(None))
            self._observer(Traced(request.method, shown, response.status, self._clock() - began))
        self._understood = self._understood or (response.status != _BAD_REQUEST and self.is_home(url))
        if "Warning" in response.headers:
            self._report_warnings(response.headers.getall("Warning"))
        return response

    async def read(self, request: Request, response: aiohttp.ClientResponse) -> Response:
        """Read a response's body, whose codings are undone, as far as the request's limit goes."""
        body = bytearray()
        # What is said of something that was sent (a token's form aside) is of no interest: as it may come.
        wanted = request.method == "GET" or (request.method == "POST" and response.status == 200)
        codings = codings_of(response.headers) if wanted else ()
        # What is compressed in spite of being too short for it is longer.
        limit = request.limit + (CODING_BYTES if codings else 0)
        host = self.name(response.url)
        try:
            if response.content.is_eof():  # as most are
                await read_small(response, limit, self._reading, body)
            else:
                with self._meter.waits.begin("answer", request.description, host=host):
                    await read_small(response, limit, self._reading, body)
        except (aiohttp.ClientError, OSError) as error:
            length = response.content_length
            raise translate_error(
                error, host, request.description, received=len(body), expected=length
            ) from None
        content = bytes(body[: limit + 1])
        if codings:
            check_codings(codings, host, request.description)
            content = decode_body(
                content, codings, f"{host}'s answer to {request.description}", request.limit
            )
        return Response(response.status, response.headers, content, response.url)

    async def read_error(self, request: Request, response: aiohttp.ClientResponse) -> RegistryError:
        """The error that a response means, with as much of its words as comes quickly."""
        body = decode_error_body(await read_error(response), response.headers)
        host = self.name(response.url)
        return error_of(
            host,
            request.method,
            request.description,
            response.status,
            response.headers,
            body,
            request.transient_codes,
        )

    async def _failure_of(
        self, error: Exception, url: URL, proxy: str, request: Request, *, late: bool
    ) -> BlobflowError:
        """Why a request to `url` got no answer; `proxy` was to pass it on, "" for none."""
        failure = translate_error(
            error,
            self.name(url),
            request.description,
            late=late,
            certificate=await self._certificate_of(url, error),
            proxy=name_of_proxy(proxy),
        )
        if isinstance(failure, ConnectFailed):
            failure.elsewhere = not self.is_home(url)
        elif isinstance(failure, ProtocolViolation):
            failure.method = request.method
        return failure

    async def _certificate_of(self, url: URL, error: Exception) -> PeerCertificate | None:
        """What the host's own certificate says, if that was not trusted, for the sentence about it.

        It is asked for once. Nothing is asked of hosts that it sends us to: their addresses would have to be
        checked.
        """
        untrusted = isinstance(error, aiohttp.ClientConnectorCertificateError)
        if not (untrusted and self.is_home(url)) or self._access.proxies.of(url):
            return None
        async with self._certificate_lock:
            if not self._certificate_asked:
                self._certificate_asked = True
                self._certificate = await read_certificate(self.home)
        return self._certificate

    async def explained(self, error: BlobflowError) -> BlobflowError:
        """The error; or, if the host was spoken to in plain HTTP and speaks TLS alone, that this is why.

        Such hosts hang up, answer a TLS alert, or 400.
        """
        if self._understood or self.home.scheme == "https" or self._access.proxies.of(self.home):
            return error
        self._understood = True  # this is found out once
        if not await speaks_tls(self.home):
            return error
        local = "a loopback host is spoken to without it; " if is_loopback(self.host) else ""
        return UntrustedPeer(
            f"{self.host} speaks TLS, and was asked in plain HTTP: {local}say --tls {self.host}, or write"
            f" https://{self.host} (and --ca FILE for a CA of your own)"
        )

    def _report_warnings(self, values: list[str]) -> None:
        for value in values:
            text = parse_warning(value)
            if text:
                self.warn(f"{self.host} says: {text}")

    def warn(self, sentence: str) -> None:
        """Report something about the host: each sentence once, and at most `MAX_WARNINGS` of them."""
        if sentence not in self._warned and len(self._warned) < MAX_WARNINGS:
            self._warned.add(sentence)
            self._observer(Warned(sentence))

    def is_home(self, url: URL) -> bool:
        return url.origin() == self.home

    def name(self, url: URL) -> str:
        """Who is asked by a URL, for sentences."""
        return self.host if self.is_home(url) else name_of(url)

    async def close(self) -> None:
        """Close every connection."""
        if self._client_session is not None:
            await self._client_session.close()
        await self._guard.close()

    @property
    def _client(self) -> aiohttp.ClientSession:
        if self._client_session is None:
            self._client_session = new_client(self._access, self._guard, self._user_agent, self._reading)
        return self._client_session

"""The authenticator of one registry: answers its challenges with Basic or with Bearer tokens.

A registry says how with a 401 and WWW-Authenticate (RFC 9110, 11.6.1). Basic sends the login with every
request; a token that is kept for the registry itself goes in the same way. Bearer names a realm: a token
server that gives tokens for scopes, to whoever may have them, often to anybody (distribution's token
specification; OAuth2's form for identity tokens). What the first 401 told serves all later scopes,
so a repository costs one token and no further 401.

Tokens are kept by their sorted scopes, for this origin alone. One fetch a scope set is in flight; who comes
later waits for it. A token is renewed before it would end inside a request, and a 401 that comes nevertheless
renews it once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from yarl import URL

from blobflow.bounded_cache import BoundedCache
from blobflow.errors import NotFound, RegistryError, Unauthorized
from blobflow.printable import one_line
from blobflow.single_flight import result_of
from blobflow.transports.registry.auth.challenges import Challenge
from blobflow.transports.registry.auth.credentials import Credentials
from blobflow.transports.registry.auth.tokens import (
    UNKNOWN_WAY,
    Token,
    TokenRequest,
    read_token,
    repository_of,
    scopes_with,
    token_requests,
)
from blobflow.transports.registry.origins import follow_location, name_of

# Repositories for which something is remembered, and bytes of it: who serves others is asked for any number.
_ENTRIES = 10_000
_MAX_BYTES = 16 * 1024 * 1024


Value = TypeVar("Value")

# Finds the login for a repository ("": for the registry as a whole) when the registry asks for one.
CredentialsGiver = Callable[[str], Awaitable[Credentials | None]]
# Sends a GET (form None) or a form POST to a token server; returns its body. Raises from the error tree.
Fetch = Callable[[URL, str | None, bytes | None], Awaitable[bytes]]


class Authenticator:
    """The Authorization header of one origin. Owned by the origin's host client.

    `names_are_its_own`: else the scopes that are wanted name repositories as another registry does, and only
    the origin's challenges say what to ask for.
    """

    def __init__(
        self,
        home: URL,
        host: str,
        credentials: CredentialsGiver,
        fetch: Fetch,
        clock: Callable[[], float],
        *,
        names_are_its_own: bool = True,
    ) -> None:
        self.home = home
        self._named = names_are_its_own
        self._host = host
        self._credentials = credentials
        self._fetch = fetch
        self._clock = clock
        self._way: Challenge | None = None
        self._basic: BoundedCache[str, str] = _cache(lambda text: len(text), clock)
        self._extra: BoundedCache[tuple[str, ...], str] = _cache(lambda text: len(text), clock)
        self._tokens: BoundedCache[tuple[str, ...], Token] = _cache(lambda token: len(token.header), clock)
        self._fetching: dict[tuple[str, ...], asyncio.Task[Token]] = {}

    async def header(self, scopes: Sequence[str]) -> str:
        """The Authorization for a request that needs `scopes`, "" for none; fetches a token if need be."""
        if self._way is None:
            return ""
        if self._way.scheme == "basic":
            return await self._login_header(repository_of(scopes))
        key = tuple(sorted(scopes))
        if not self._named and self._extra.get(key) is None:
            return ""  # what to ask for is not known yet
        token = self._tokens.get(key)
        if token is None or self._clock() >= token.renew_at:
            token = await self._fetch_once(key, scopes)
        return token.header

    async def learn(self, challenges: Sequence[Challenge], scopes: Sequence[str], sent: str) -> None:
        """Take in the challenges of a 401 to a request that had `sent` as its Authorization ("" for none).

        On return the next `header` is worth a try. Raises Unauthorized where there is no way in.
        """
        ways = {challenge.scheme: challenge for challenge in reversed(challenges)}
        bearer, basic = ways.get("bearer"), ways.get("basic")
        repository = repository_of(scopes)
        login = await self._credentials(repository) or Credentials()
        if login.registry_token and sent == login.header:
            raise self._not_accepted(login)
        if bearer is not None and "realm" in bearer.params:
            key = tuple(sorted(scopes))
            self._way = bearer
            self._extra.put(key, bearer.params.get("scope", ""))
            if (token := self._tokens.get(key)) is not None and token.header == sent:
                self._tokens.pop(key)
        elif basic is not None or login.registry_token:
            if not login.header:
                why = f": {login.lack}" if login.lack else f"; run `blobflow login {self._host}`"
                raise Unauthorized(f"{self._host} wants a login, and there is none{why}", status=401)
            if sent == login.header:
                raise self._not_accepted(login)
            self._way = Challenge("basic")
            self._basic.put(repository, login.header)
        else:
            raise Unauthorized(
                f"{self._host} wants a login of a kind that blobflow does not know"
                f" ({one_line(', '.join(ways) or 'it does not say which', 100)})",
                status=401,
            )

    @property
    def wants_login(self) -> bool:
        """Whether the origin has asked who we are."""
        return self._way is not None

    async def close(self) -> None:
        """Give up the fetches in flight."""
        for task in self._fetching.values():
            task.cancel()
        await asyncio.gather(*self._fetching.values(), return_exceptions=True)

    async def _login_header(self, repository: str) -> str:
        """Basic, for a repository whose login may be its own."""
        basic = self._basic.get(repository)
        if basic is None:
            login = await self._credentials(repository)
            basic = login.header if login else ""
            self._basic.put(repository, basic)
        return basic

    async def _fetch_once(self, key: tuple[str, ...], scopes: Sequence[str]) -> Token:
        task = self._fetching.get(key)
        if task is None:
            task = asyncio.create_task(self._fetch_token(key, scopes))
            self._fetching[key] = task
            task.add_done_callback(lambda done: self._settle(key, done))
        return await result_of(task)

    def _settle(self, key: tuple[str, ...], done: asyncio.Task[Token]) -> None:
        """Forget a fetch that ended; its failure was raised where it was waited for, if anyone still was."""
        self._fetching.pop(key, None)
        if not done.cancelled() and done.exception() is None:
            self._tokens.put(key, done.result())

    async def _fetch_token(self, key: tuple[str, ...], scopes: Sequence[str]) -> Token:
        """Ask the realm, in the way that it knows."""
        assert self._way is not None
        params = self._way.params
        realm = follow_location(self.home, self.home, params["realm"], "a request for a login")
        description = scopes_with(scopes if self._named else (), self._extra.get(key) or "")
        login = await self._credentials(repository_of(scopes))
        if login is not None and login.registry_token:
            return Token(login.header, math.inf)
        now = self._clock()
        *others, last = token_requests(realm, params.get("service"), description, login)
        for request in others:
            try:
                body = await self._ask(request, login)
            except RegistryError as error:
                if error.status not in UNKNOWN_WAY:
                    raise
            else:
                return read_token(body, now, name_of(realm))
        return read_token(await self._ask(last, login), now, name_of(realm))

    async def _ask(self, request: TokenRequest, login: Credentials | None) -> bytes:
        """Ask a token server; that it is not there must not look as if the content were not."""
        try:
            return await self._fetch(request.url, request.authorization, request.form)
        except NotFound:
            raise Unauthorized(
                f"{self._host} sends us to {name_of(request.url)} for a token, which has none there",
                status=404,
            ) from None
        except Unauthorized as error:
            if login is None or not (request.authorization or request.form):
                raise  # nobody's login was sent
            raise self._not_accepted(login, error.code, error.detail) from None

    def _not_accepted(self, login: Credentials, code: str = "", detail: str = "") -> Unauthorized:
        """The registry, or its token server, does not take a login for one; its own words, if it had any."""
        said = ": ".join(filter(None, (code, detail)))
        return Unauthorized(
            f"{self._host} does not accept {login.shown}{f' ({said})' if said else ''}",
            status=401,
            code=code,
            detail=detail,
        )


def _cache(length: Callable[[Value], int], clock: Callable[[], float]) -> BoundedCache[Any, Value]:
    """What is remembered for each repository that anybody asks for: a token may have 64 KiB."""
    return BoundedCache(
        entries=_ENTRIES, room=_MAX_BYTES, weigh=lambda key, value: 500 + length(value), clock=clock
    )

"""The Authorization header of a host's requests, wherever they lead.

At the host's own origin it is what its `Authenticator` gives. Elsewhere, where its redirects lead, no login
is sent: reads get an anonymous token there (`redirect_targets`), writes get nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from yarl import URL

from blobflow.errors import Denied, InvalidConfig, RegistryError, Unauthorized
from blobflow.events import Observer, Warned
from blobflow.transports.registry.auth.authenticator import Authenticator, CredentialsGiver, Fetch
from blobflow.transports.registry.auth.challenges import Challenge, parse_challenges
from blobflow.transports.registry.auth.credentials import Credentials
from blobflow.transports.registry.auth.redirect_targets import RedirectTargets
from blobflow.waits import HostWaits


class HostAuthorization:
    """See above. `home`: the host's origin, once it is known. `close` it."""

    def __init__(
        self,
        host: str,
        home: URL,
        credentials: Credentials | CredentialsGiver | None,
        *,
        fetch: Fetch,
        clock: Callable[[], float],
        observer: Observer,
        waits: HostWaits | None = None,
    ) -> None:
        self._host = host
        self._waits = waits or HostWaits()
        self._credentials = credentials
        self._observer = observer
        self._own = Authenticator(home, host, self._login, fetch, clock)
        self._elsewhere = RedirectTargets(host, fetch, clock)
        self._lack = ""

    @property
    def home(self) -> URL:
        return self._own.home

    @home.setter
    def home(self, home: URL) -> None:
        self._own.home = home

    @property
    def wants_login(self) -> bool:
        """Whether the host has asked who we are."""
        return self._own.wants_login

    async def header(self, url: URL, scopes: Sequence[str], *, reads: bool) -> str:
        """The Authorization for a request to `url` that needs `scopes`; "" for none. `reads`: it is GET or
        HEAD. Raises Unauthorized, and what a token server answers."""
        if self._is_home(url):
            return await self._own.header(scopes)
        return await self._elsewhere.header(url, scopes) if reads else ""

    def challenges(self, url: URL, values: Sequence[str], *, reads: bool) -> list[Challenge]:
        """What a 401 from `url`, with these WWW-Authenticate headers, wants; elsewhere only who reads has
        anything to give."""
        return parse_challenges(values) if reads or self._is_home(url) else []

    async def learn(
        self, url: URL, challenges: Sequence[Challenge], scopes: Sequence[str], sent: str
    ) -> bool:
        """Take in the challenges of a 401 to a request that had `sent` as its Authorization. Whether the next
        `header` is worth a try. Raises Unauthorized where there is no way in."""
        if not self._is_home(url):
            return await self._elsewhere.learn(url, challenges, scopes, sent)
        await self._own.learn(challenges, scopes, sent)
        return True

    def explained(self, error: RegistryError, url: URL, description: str) -> RegistryError:
        """A refusal from `url`, with what we know of its reason."""
        if isinstance(error, Unauthorized) and not self._is_home(url):
            return Unauthorized(self._elsewhere.refusal(url, description), status=401)
        if self._lack and isinstance(error, Unauthorized | Denied):
            error.message += f"; it was asked without a login, since {self._lack}"
        return error

    async def identity(self, repository: str) -> str | None:
        """Who asks for this repository, where the host wants a login: see `Credentials.identity`. None where
        the files or helpers that know can't be used. Sends nothing."""
        try:
            found = await self._given(repository)
        except InvalidConfig:
            return None  # whatever wants a login fails by that itself
        if found is not None and found.lack:
            return None
        return found.identity if found is not None else ""

    async def close(self) -> None:
        """Give up the fetches of tokens in flight."""
        await self._own.close()
        await self._elsewhere.close()

    def _is_home(self, url: URL) -> bool:
        return url.origin() == self.home

    async def _login(self, repository: str) -> Credentials | None:
        found = await self._given(repository)
        if found is not None and found.lack and found.lack != self._lack:
            self._lack = found.lack
            self._observer(Warned(f"{self._host} is asked without a login: {found.lack}"))
        return found

    async def _given(self, repository: str) -> Credentials | None:
        given = self._credentials
        if not callable(given):
            return given
        with self._waits.begin("login", "the login"):
            return await given(repository)

"""Redirect targets: other registries that a registry's redirects lead to, and that want tokens of their own.

A front registry answers reads with a redirect to another one, which lets anybody in, but by a token of its
own token server: it says so by a 401, as every registry does. The token is asked for as anybody may, and sent
to the origin that asked for it and nowhere else. No login goes along with a redirect, whatever is asked for
there; and where a token server may be is judged as for the front registry itself (`origins`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from yarl import URL

from blobflow.bounded_cache import BoundedCache
from blobflow.errors import Denied, Unauthorized
from blobflow.transports.registry.auth.authenticator import Authenticator, Fetch
from blobflow.transports.registry.auth.challenges import Challenge
from blobflow.transports.registry.auth.credentials import Credentials
from blobflow.transports.registry.origins import name_of

# Origins that are remembered: a registry may send us to as many as it likes.
_MOST = 16


class RedirectTargets:
    """The origins that one host sent us to. `close` it."""

    def __init__(self, host: str, fetch: Fetch, clock: Callable[[], float]) -> None:
        self._host = host
        self._fetch = fetch
        self._clock = clock
        self._origins: BoundedCache[URL, Authenticator] = BoundedCache(entries=_MOST, clock=clock)

    async def header(self, url: URL, scopes: Sequence[str]) -> str:
        """The Authorization for a request there, "" for none. `scopes`: what the host itself would want.

        Raises Unauthorized where not everybody gets a token.
        """
        auth = self._origins.get(url.origin())
        if auth is None:
            return ""
        try:
            return await auth.header(scopes)
        except (Unauthorized, Denied) as error:
            raise Unauthorized(self.refusal(url, f"a token ({error.message})"), status=401) from None

    async def learn(
        self, url: URL, challenges: Sequence[Challenge], scopes: Sequence[str], sent: str
    ) -> bool:
        """Take in what a 401 there asks for; whether the next `header` is worth a try."""
        if not any(each.scheme == "bearer" and "realm" in each.params for each in challenges):
            return False
        origin = url.origin()
        auth = self._origins.get(origin)
        if auth is None:
            auth = Authenticator(
                origin, name_of(origin), _nobody, self._fetch, self._clock, names_are_its_own=False
            )
            self._origins.put(origin, auth)
        await auth.learn([each for each in challenges if each.scheme == "bearer"], scopes, sent)
        return True

    def refusal(self, url: URL, description: str) -> str:
        """The sentence about an origin that does not let everybody in."""
        there = name_of(url)
        return (
            f"{there} wants a valid login for {description};"
            f" {self._host} sent us there, and no login goes along:"
            f" name {there} itself to log in to it"
        )

    async def close(self) -> None:
        """Give up the fetches in flight."""
        for auth in self._origins.values():
            await auth.close()


async def _nobody(repository: str) -> Credentials | None:
    return None

"""What a faulty registry remembers for its acts: rates, slots, rations, tokens, Locations.

Each is keyed by the act itself, by identity: two faults with equal acts have nothing in common.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from urllib.parse import urlsplit

from aiohttp import web

from blobflow.content import Sleep
from tools.registry.faults import Bearer, Crowded, Rationed, Slow


class Pacing:
    """Keeps to the rates of the `Slow` acts."""

    def __init__(self, clock: Callable[[], float], sleep: Sleep) -> None:
        """`clock` in seconds; `sleep` waits that many."""
        self._clock = clock
        self._sleep = sleep
        self._free_at: dict[int, float] = {}

    async def wait(self, act: Slow, size: int, body: object) -> None:
        """Return when `size` more bytes of `body` may pass. What was not used is not saved up."""
        now, shared_by = self._clock(), id(body if act.each else act)
        free_at = max(self._free_at.get(shared_by, now), now) + size / act.bytes_per_second
        self._free_at[shared_by] = free_at
        await self._sleep(free_at - now)


class Crowds:
    """Who is let in by the `Crowded` acts."""

    def __init__(self) -> None:
        self._inside: Counter[int] = Counter()
        self._random = Random(0)

    @contextmanager
    def enter(self, act: Crowded) -> Iterator[bool]:
        """Be inside while in the block, if there is a slot: says whether there was."""
        free = self._inside[id(act)] < act.slots
        self._inside[id(act)] += free
        try:
            yield free
        finally:
            self._inside[id(act)] -= free

    async def stay(self, act: Crowded) -> None:
        """Take the time that a request takes there."""
        for _ in range(self._random.randint(act.turns, 3 * act.turns)):
            await asyncio.sleep(0)


class Rations:
    """What is left of the `Rationed` acts."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` in seconds."""
        self._clock = clock
        self._left: dict[int, int] = {}
        self._until: dict[int, float] = {}

    def take(self, act: Rationed, count: int) -> bool:
        """Take so many, if they are left."""
        now = self._clock()
        if now >= self._until.setdefault(id(act), now + act.window):
            self._left[id(act)], self._until[id(act)] = act.limit, now + act.window
        left = self._left.setdefault(id(act), act.left)
        if count > left:
            return False
        self._left[id(act)] = left - count
        return True

    def headers(self, act: Rationed) -> dict[str, str]:
        """What is left, as Docker Hub says it."""
        return {
            "ratelimit-limit": f"{act.limit};w={act.window}",
            "ratelimit-remaining": f"{self._left[id(act)]};w={act.window}",
            "docker-ratelimit-source": "192.0.2.1",
        }


class Tokens:
    """The tokens of the `Bearer` acts: who has a good one is let in."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` in seconds."""
        self._clock = clock
        self._good_until: dict[tuple[int, str], float] = {}

    def answer(self, act: Bearer, request: web.BaseRequest) -> web.Response | None:
        """A token for who asks for one, a challenge for who has no good one, and None for who has."""
        now = self._clock()
        if request.path == "/token":
            token = secrets.token_hex(8)
            self._good_until[id(act), token] = now + act.seconds
            return web.json_response({"token": token, "expires_in": act.told})
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if now < self._good_until.get((id(act), token), now):
            return None
        challenge = f'Bearer realm="http://{request.host}/token",service="fake"'
        unauthorized = {"errors": [{"code": "UNAUTHORIZED"}]}
        return web.json_response(unauthorized, status=401, headers={"WWW-Authenticate": challenge})


class Locations:
    """The newest Location of each upload session, for the `MovingLocation` acts."""

    def __init__(self) -> None:
        self._newest: dict[str, str] = {}

    def stale(self, request: web.BaseRequest) -> bool:
        """Whether the session has another Location by now."""
        newest = self._newest.get(request.path)
        return newest is not None and request.query.get("_state") != newest

    def move(self, response: web.StreamResponse) -> None:
        """Give the session that an answer speaks of a new Location."""
        location = response.headers.get("Location", "")
        if "/blobs/uploads/" in location:
            bare = location.partition("?")[0]
            newest = self._newest[urlsplit(bare).path] = secrets.token_hex(8)
            response.headers["Location"] = f"{bare}?_state={newest}"

"""Checks logins against the bcrypt hashes of an htpasswd file.

The registry takes only bcrypt, as distribution does: what else htpasswd writes can be guessed too fast. A
bcrypt check is slow by design (some 60 to 250 ms of a core at the usual costs), so that a client which asks
for many of them could keep everybody out. These rules prevent that:

- **A right login is remembered.** The registry keeps a keyed hash of the one right login of each user, for a
  day after it last saw it, bound to the line of the file that it matched. A known login needs no check and
  waits for nothing, and it is no longer known at the moment when the file has another line, or none, for its
  user. Only this process has the key; it keeps and tells neither passwords nor headers, nor anything of wrong
  logins.
- **Checks wait by name.** Each queue (`fair_queue`) does one check at a time in a thread, and names take
  turns, so that guesses at one user's password, from however many connections and addresses, delay another
  user by one check. All names that nobody has count as one name: together they get one user's turns.
- **Clients that failed lately have a queue of their own.** Logins from an address (of IPv6: a /64 network)
  where one was wrong in the last minutes wait in the slow queue, others in the fast one. A right login that
  shares its address with wrong ones (a proxy, a NAT) takes its turn in the slow queue, by name as well.
- **Guesses at one name from one address wait for a growing pause** (`failure_backoff`), up to some seconds;
  what would wait too long is not checked. Connections on which a login was wrong, or turned away, have pauses
  of their own and their turn after all others, so that the user whose password is being guessed at from the
  same address comes in over a new connection. A right login ends the pause for its name.
- **Refusals wait for the pause of the address**, which grows with every failure there: 401, or 429 with
  Retry-After where too many wait. The moment is fixed when the request comes, whether its user exists or not,
  and an unknown user costs the same check as a known one, against a hash that nothing matches: so the time
  that a refusal takes tells no names, as far as a busy machine's noise lets anybody see it.

What this does not do: guesses at one user's password, each on a new connection, all from an address that the
user shares with the guesser, can keep this one user out for as long as they go on, unless the login is known
already. All that comes through a proxy comes from one address, unless the operator has told the registry to
believe what the proxy says of its clients.

All that the registry keeps is bounded: known logins by the users of the file, the rest by the constants
below, in `fair_queue` and in `failure_backoff`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from weakref import WeakSet

import bcrypt

from blobflow.content import Sleep
from blobflow.server.auth.failure_backoff import FailureBackoff
from blobflow.server.auth.fair_queue import FairQueue, QueueFull
from blobflow.server.auth.htpasswd import PASSWORD_BYTES, read_basic
from blobflow.server.errors import ApiError
from blobflow.server.http.client_network import network_of
from blobflow.single_flight import result_of

# Seconds after its last request for which a right login is known.
KNOWN_SECONDS = 24 * 3600.0
# Seconds between two guesses at one name from one address: after the first failure, and at most.
FIRST_PAUSE = 0.1
GUESS_PAUSE_MOST = 2.0
# The same of refusals at one address, which are never closer than a check takes. They are longer than those
# of guesses, and as far ahead at most (WAIT): so where guesses at a name are turned away, whether somebody
# has it or not, refusals at the address are 429 in any case.
REFUSAL_LEAST = 0.1
REFUSAL_PAUSE_MOST = 4.0
WAIT = 5.0
# Seconds for which a 429 is held back: a client that asks in a loop would keep the registry busy with
# refusing.
HELD_SECONDS = 2.0
# Refusals that are held back at once, each a request in memory; further ones go out at once.
HELD = 2048
# The name that all names count as that are in no file; no user can have it.
_NOBODY = ":"

CHALLENGE: Mapping[str, str] = {"WWW-Authenticate": 'Basic realm="blobflow", charset="UTF-8"'}


class Logins:
    """The users of one registry. Used on its loop only; `close` it with the registry."""

    def __init__(
        self,
        users: Mapping[str, bytes],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._key = secrets.token_bytes(32)
        self._known: dict[str, _Known] = {}
        self._checking: dict[tuple[bytes, bytes | None], asyncio.Future[bool]] = {}
        self._guesses = FailureBackoff(
            least=0, first=FIRST_PAUSE, most=GUESS_PAUSE_MOST, wait=WAIT, clock=clock
        )
        self._refusals = FailureBackoff(
            least=REFUSAL_LEAST, first=FIRST_PAUSE, most=REFUSAL_PAUSE_MOST, wait=WAIT, clock=clock
        )
        self._failed_connections: WeakSet[Any] = WeakSet()
        self._held = 0
        self._threads = ThreadPoolExecutor(2, "blobflow-login")
        self._fast, self._slow = FairQueue(self._threads), FairQueue(self._threads)
        self.replace(users)

    @property
    def names(self) -> frozenset[str]:
        """The users' names."""
        return frozenset(self._users)

    def replace(self, users: Mapping[str, bytes]) -> None:
        """Have these users from now on. Known logins of users whose hash is the same stay known."""
        self._users = dict(users)
        cost = max(int(hashed[4:6]) for hashed in self._users.values())
        self._nobody = b"$2b$%02d$" % cost + b"." * 53
        for user, known in tuple(self._known.items()):
            if self._users.get(user) != known.hashed:
                del self._known[user]

    async def check(self, authorization: str | None, address: str = "", connection: object = None) -> str:
        """The user's name, if the header holds a right login.

        `address` is the IP address that the request came from, and `connection` an object that lives as long
        as its connection, and can be referred to weakly. Raises ApiError: UNAUTHORIZED, TOOMANYREQUESTS with
        Retry-After.
        """
        login = read_basic(authorization)
        if login is None:
            raise _unauthorized()
        user, password = login[0], login[1][:PASSWORD_BYTES]
        name = user.encode()
        digest = hashlib.blake2b(len(name).to_bytes(4) + name + password, key=self._key).digest()
        if self._is_known(user, digest):
            return user
        where = network_of(address)
        now = self._clock()
        moment = self._refusals.reserve(where)
        try:
            if await self._is_right(user, password, digest, where, connection):
                return user
        except QueueFull:
            self._mark_failed(connection)
            moment = None
        await self._hold_until(now + (HELD_SECONDS if moment is None else moment))
        raise _unauthorized() if moment is not None else self._too_many(where)

    def close(self) -> None:
        for checking in self._checking.values():
            checking.cancel()
        self._fast.close()
        self._slow.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _is_known(self, user: str, digest: bytes) -> bool:
        known = self._known.get(user)
        if known is None or not hmac.compare_digest(known.digest, digest):
            return False
        now = self._clock()
        if now >= known.until:
            del self._known[user]
            return False
        known.until = now + KNOWN_SECONDS
        return True

    async def _is_right(
        self, user: str, password: bytes, digest: bytes, where: str, connection: object
    ) -> bool:
        """Check a login when its turn comes. Raises QueueFull if too many wait before it."""
        key = (digest, self._users.get(user))
        checking = self._checking.get(key)
        if checking is None:
            checking = asyncio.ensure_future(self._checked(user, password, digest, where, connection))
            self._checking[key] = checking
            checking.add_done_callback(lambda done: self._checking.pop(key))
        return await result_of(checking)

    async def _checked(
        self, user: str, password: bytes, digest: bytes, where: str, connection: object
    ) -> bool:
        hashed = self._users.get(user)
        name = user if hashed is not None else _NOBODY
        failed = self._has_failed_on(connection)
        guess = (name, where, failed)
        pause = self._guesses.reserve(guess)
        if pause is None:
            raise QueueFull
        if pause:
            await self._sleep(pause)
        queue = self._slow if self._refusals.has_failed(where) else self._fast
        check = partial(_matches, password, hashed or self._nobody)
        right = await queue.enter(name, where, check, later=failed)
        if self._users.get(user) != hashed:  # the file has changed meanwhile
            return await self._checked(user, password, digest, where, connection)
        if hashed is None or not right:
            self._guesses.fail(guess)
            self._refusals.fail(where)
            self._mark_failed(connection)
            return False
        self._guesses.reset(guess)
        self._known[user] = _Known(digest, hashed, self._clock() + KNOWN_SECONDS)
        return True

    def _too_many(self, where: str) -> ApiError:
        later = max(1, math.ceil(self._refusals.ahead(where)))
        return ApiError(
            "TOOMANYREQUESTS",
            "too many logins from this address were wrong; come again later",
            headers={"Retry-After": str(later)},
        )

    def _has_failed_on(self, connection: object) -> bool:
        return connection is not None and connection in self._failed_connections

    def _mark_failed(self, connection: object) -> None:
        if connection is not None:
            self._failed_connections.add(connection)

    async def _hold_until(self, until: float) -> None:
        """Wait until that moment, unless too many do so."""
        seconds = until - self._clock()
        if seconds <= 0 or self._held >= HELD:
            return
        self._held += 1
        try:
            await self._sleep(seconds)
        finally:
            self._held -= 1


class _Known:
    """A right login: its keyed hash, the line that it matched, and until when it is known."""

    __slots__ = ("digest", "hashed", "until")

    def __init__(self, digest: bytes, hashed: bytes, until: float) -> None:
        self.digest = digest
        self.hashed = hashed
        self.until = until


def _unauthorized() -> ApiError:
    return ApiError("UNAUTHORIZED", "this registry wants a login", headers=CHALLENGE)


def _matches(password: bytes, hashed: bytes) -> bool:
    """In a thread: the slow part."""
    return bcrypt.checkpw(password, hashed)

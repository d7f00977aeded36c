"""Who may come in: an htpasswd file, and HTTP's Basic (RFC 7617).

Only bcrypt is taken, as distribution does: what else htpasswd writes can be guessed too fast. A bcrypt check
is slow by design (some 60 to 250 ms of a core at the usual costs), so:

- it runs in a thread of its own, never on the loop, two at a time and so many waiting;
- of a login that was right a keyed hash is kept for a minute, so that a push of a thousand requests pays for
  one check a minute; the key is this process's alone, and neither passwords nor headers are kept or told;
- an unknown user costs the same check as a known one, against a hash that nothing matches.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import bcrypt

from blobflow.errors import InvalidConfig
from blobflow.server.refusal import Refusal

# Seconds that a right login is remembered, and how many are.
REMEMBERED_SECONDS = 60.0
REMEMBERED = 1024
# Checks at once, and logins that may wait for one: more are told to come later, since each is work.
CHECKS = 2
WAITING = 64

_HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}\Z", re.ASCII)
# htpasswd itself goes no higher; each step doubles the work, and 31 would be days.
_MAX_COST = 17
# bcrypt sees no more of a password, in any implementation.
_SEEN_BYTES = 72
_MAX_HEADER = 4096

CHALLENGE: Mapping[str, str] = {"WWW-Authenticate": 'Basic realm="blobflow", charset="UTF-8"'}


def parse_htpasswd(text: str, name: str) -> dict[str, bytes]:
    """User names and their hashes; empty lines and `#` comments are skipped.

    `name` is what the file is called in errors. Raises InvalidConfig with the line; never with a hash.
    """
    found: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        user, colon, hashed = entry.partition(":")
        if not colon or not user:
            raise InvalidConfig(f"{name} line {number} is not `user:hash`; make it with `htpasswd -B`")
        form = _HASH.match(hashed)
        if form is None or not 4 <= int(form[1]) <= _MAX_COST:
            raise InvalidConfig(
                f"{name} line {number} has no bcrypt hash (of a cost up to {_MAX_COST}); "
                "make it with `htpasswd -B`"
            )
        if user in found:
            raise InvalidConfig(f"{name} line {number} has a user that is there already; keep one")
        found[user] = hashed.encode()
    if not found:
        raise InvalidConfig(f"{name} has no user; add one with `htpasswd -B`")
    return found


def read_basic(authorization: str | None) -> tuple[str, bytes] | None:
    """User and password of an Authorization header; None for any other or none at all."""
    scheme, _, token = (authorization or "")[: _MAX_HEADER + 1].partition(" ")
    if scheme.lower() != "basic" or not token or len(token) >= _MAX_HEADER:
        return None
    try:
        user, colon, password = base64.b64decode(token.strip(), validate=True).partition(b":")
        return (user.decode(), password) if colon else None
    except (binascii.Error, ValueError):
        return None


class Logins:
    """The users of one registry. Used on its loop only; `close` it with the registry."""

    def __init__(self, users: Mapping[str, bytes], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._users = dict(users)
        cost = max(int(hashed[4:6]) for hashed in self._users.values())
        self._nobody = b"$2b$%02d$" % cost + b"." * 53
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, float] = {}
        self._checking: dict[bytes, asyncio.Future[bool]] = {}
        self._threads = ThreadPoolExecutor(CHECKS, "blobflow-login")

    async def check(self, authorization: str | None) -> str:
        """The user's name, if the header holds a right login. Raises Refusal (UNAUTHORIZED,
        TOOMANYREQUESTS)."""
        login = read_basic(authorization)
        if login is None or not await self._is_right(*login):
            raise Refusal("UNAUTHORIZED", "this registry wants a login", headers=CHALLENGE)
        return login[0]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _is_right(self, user: str, password: bytes) -> bool:
        name = user.encode()
        key = hashlib.blake2b(len(name).to_bytes(4) + name + password, key=self._key).digest()
        if (until := self._right.get(key)) is not None:
            if self._clock() < until:
                return True
            del self._right[key]
        checking = self._checking.get(key)
        if checking is None:
            if len(self._checking) >= WAITING:
                raise Refusal("TOOMANYREQUESTS", "too many logins at once; come again later")
            checking = asyncio.get_running_loop().run_in_executor(
                self._threads, _matches, password, self._users.get(user, self._nobody)
            )
            self._checking[key] = checking
            checking.add_done_callback(lambda done: self._settle(key, done))
        return await asyncio.shield(checking)

    def _settle(self, key: bytes, done: asyncio.Future[bool]) -> None:
        del self._checking[key]
        if not done.cancelled() and done.exception() is None and done.result():
            while len(self._right) >= REMEMBERED:
                del self._right[next(iter(self._right))]
            self._right[key] = self._clock() + REMEMBERED_SECONDS


def _matches(password: bytes, hashed: bytes) -> bool:
    """In a thread: the slow part."""
    return bcrypt.checkpw(password[:_SEEN_BYTES], hashed)

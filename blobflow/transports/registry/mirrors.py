"""Mirrors of a registry: reads ask them before the registry itself, in the order of the configuration.

A mirror stands in for the registry under the registry's name: what comes from it is checked by the same
digests, and a tag names what the first mirror that has it says (as in buildkit and containerd). If a mirror
fails in any way, the next is asked, and the registry itself last; its error is the one that is raised.

- Content that a mirror lacks costs one request, each time.
- A mirror that can't be reached, or is overloaded, is not asked for a while, so that its retries do not
  delay every blob anew.
- A mirror that broke off a blob, or sent wrong bytes for it, is not asked for that blob again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TypeVar

import msgspec

from blobflow.bounded_cache import BoundedCache
from blobflow.content import BlobStream, Referrer, Refers, Site, Source, Tap, tapped
from blobflow.errors import (
    BlobflowError,
    IntegrityError,
    InvalidReference,
    NetworkError,
    NotFound,
    RegistryError,
    Throttled,
    Unavailable,
    UnsupportedContent,
)
from blobflow.events import Observer, Warned
from blobflow.oci import Descriptor, Digest
from blobflow.oci.reference import LONGEST_SCHEME, check_host, check_repository, refuse_login

# Seconds for which a mirror that could not be reached is not asked.
UNAVAILABLE_SECONDS = 60.0
# How many blobs that mirrors sent wrong or broken are remembered: a mirror may have any number of them.
_MAX_BAD_BLOBS = 10_000

# Errors after which the next mirror is asked; others (our own configuration, a full disk) would occur there
# too.
_ITS_FAULT = (NetworkError, RegistryError, IntegrityError, UnsupportedContent)
_OUT_OF_ORDER = (NetworkError, Throttled, Unavailable)

T = TypeVar("T")


def parse_mirror(text: str) -> Site:
    """Read `host[:port][/prefix]`. Raises InvalidReference, which says what to write for a URL."""
    refuse_login(text)
    scheme, colons, place = text.partition("://")
    if colons and len(scheme) <= LONGEST_SCHEME:
        place = place.rstrip("/")[:300]
        plain = f', and http = true below [registry."{place.partition("/")[0]}"]' if scheme == "http" else ""
        raise InvalidReference(f"{text[:300]!r} is a URL; write {place!r}, without {scheme}://{plain}")
    host, slash, prefix = text.partition("/")
    return Site(check_host(host), check_repository(prefix, text) if slash else "")


class MirrorHealth:
    """The health of a run's mirrors. One for all repositories, since mirrors fail as hosts."""

    def __init__(self, clock: Callable[[], float], observer: Observer) -> None:
        self._clock = clock
        self._observer = observer
        self._resting: dict[str, float] = {}
        self._warned: set[str] = set()
        self._bad: BoundedCache[tuple[str, Digest], bool] = BoundedCache(entries=_MAX_BAD_BLOBS, clock=clock)

    def is_usable(self, host: str, content: Digest | None) -> bool:
        """Whether a mirror is worth asking for `content` (None: a tag)."""
        if self._clock() < self._resting.get(host, 0.0):
            return False
        return content is None or not self._bad.get((host, content))

    def failed(self, host: str, error: BlobflowError) -> None:
        """Record a mirror's error; the user is warned once a host of anything but absent content."""
        if isinstance(error, _OUT_OF_ORDER):
            self._resting[host] = self._clock() + UNAVAILABLE_SECONDS
        if not isinstance(error, NotFound) and host not in self._warned:
            self._warned.add(host)
            self._observer(Warned(f"the mirror {host} is passed over: {error.message}"))

    def gave_badly(self, host: str, content: Digest) -> None:
        """Record that the bytes of a blob broke off, or were wrong."""
        self._bad.put((host, content), True)


class Mirror(msgspec.Struct, frozen=True):
    """A repository at one mirror. `source` opens the mirror's host client when it is first called."""

    host: str
    source: Callable[[], Source]


class MirroredSource:
    """A `Source`: the mirrors in order, then the registry itself. Each waits for permits of its own."""

    waits_for_permits = True

    def __init__(self, mirrors: Sequence[Mirror], own: Source, health: MirrorHealth) -> None:
        self._mirrors = tuple(mirrors)
        self._own = own
        self._health = health

    async def resolve(self, name: str) -> Descriptor:
        """See `Source.resolve`."""
        pinned = Digest(name) if ":" in name else None
        return await self._first(pinned, lambda source: source.resolve(name))

    async def read(self, manifest: Descriptor) -> bytes:
        """See `Source.read`."""
        return await self._first(manifest.digest, lambda source: source.read(manifest))

    async def referrers(self, subject: Digest) -> list[Referrer]:
        """See `Refers.referrers`. Here the registry itself goes first, since a mirror may know of none. Where
        it can't be asked, the first mirror that answers counts."""
        own = self._own
        assert isinstance(own, Refers)
        try:
            return await own.referrers(subject)
        except _OUT_OF_ORDER:
            for mirror in self._mirrors:
                source = mirror.source()
                if self._health.is_usable(mirror.host, subject) and isinstance(source, Refers):
                    try:
                        return await source.referrers(subject)
                    except _ITS_FAULT as error:
                        self._health.failed(mirror.host, error)
            raise

    @asynccontextmanager
    async def open(
        self, blob: Descriptor, offset: int = 0, end: int | None = None
    ) -> AsyncIterator[BlobStream]:
        """See `Source.open`. Once a mirror has begun to answer, an error is its reader's; the reader's next
        try does not meet this mirror."""
        async with AsyncExitStack() as stack:
            for mirror in self._mirrors:
                if not self._health.is_usable(mirror.host, blob.digest):
                    continue
                try:
                    stream = await stack.enter_async_context(mirror.source().open(blob, offset, end))
                except _ITS_FAULT as error:
                    self._health.failed(mirror.host, error)
                    continue
                broke = partial(self._health.gave_badly, mirror.host, blob.digest)
                try:
                    yield tapped(stream, _Broken(broke))
                except IntegrityError:  # found by who checks the digest
                    broke()
                    raise
                return
            yield await stack.enter_async_context(self._own.open(blob, offset, end))

    async def _first(self, content: Digest | None, ask: Callable[[Source], Awaitable[T]]) -> T:
        """The first answer, from the mirrors in order and then the registry."""
        for mirror in self._mirrors:
            if self._health.is_usable(mirror.host, content):
                try:
                    return await ask(mirror.source())
                except _ITS_FAULT as error:
                    self._health.failed(mirror.host, error)
        return await ask(self._own)


class _Broken(Tap):
    """Calls `broke` when a blob breaks off, or has wrong bytes."""

    __slots__ = ("_broke",)

    def __init__(self, broke: Callable[[], None]) -> None:
        self._broke = broke

    def fail(self, error: BlobflowError) -> BlobflowError:
        if isinstance(error, _ITS_FAULT):
            self._broke()
        return error

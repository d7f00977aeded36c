"""Tag lists of upstreams: each is read once for all clients, and kept for a while.

A repository may have a quarter million tags, and a string costs more than its letters; so a list is packed:
names are joined, a thousand at a time, and taken apart again where a page needs them.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

from blobflow.bounded_cache import BoundedCache
from blobflow.content import Lists, Site, SourceAt
from blobflow.server.manifest_index import ManifestReader
from blobflow.server.pullthrough.circuit_breaker import upstream_error
from blobflow.server.pullthrough.upstream_requests import UpstreamRequests
from blobflow.server.routes import is_tag

# Names that are joined. A page has as many at most, so that it needs two parts of a list.
_JOINED = 1000
# Lists that are kept, and their bytes: one of a quarter million takes 32 MB.
_MAX_LISTS = 20_000
_MAX_LISTS_BYTES = 40 * 1024 * 1024
# Lists that are read at once from one upstream: one may take 100 MB while it comes in.
_MAX_CONCURRENT = 4


@runtime_checkable
class _ListsTags(Lists, Protocol):
    """A source that lists its tags."""


class TagLists:
    """The tags of the repositories of all upstreams. Used on one loop only. `ttl` in seconds."""

    def __init__(
        self,
        requests: UpstreamRequests,
        reader: ManifestReader,
        source_at: SourceAt,
        *,
        ttl: float,
        clock: Callable[[], float],
    ) -> None:
        self._requests = requests
        self._reader = reader
        self._source_at = source_at
        self._lists: BoundedCache[Site, TagList] = BoundedCache(
            entries=_MAX_LISTS,
            room=_MAX_LISTS_BYTES,
            seconds=ttl,
            weigh=lambda site, tags: tags.weight,
            clock=clock,
        )
        self._slots: dict[str, asyncio.Semaphore] = {}

    async def get(self, upstream: Site, seconds: float) -> TagList | None:
        """The repository's tags; None if its source lists none. Raises ApiError, also if the upstream takes
        longer than `seconds`."""
        tags = self._lists.get(upstream)
        if tags is not None:
            return tags
        source = self._source_at(upstream)
        if not isinstance(source, _ListsTags):
            return None
        return await self._requests.once(
            upstream, "tags list", lambda: self._fetch(upstream, source, seconds)
        )

    async def _fetch(self, upstream: Site, source: _ListsTags, seconds: float) -> TagList:
        slots = self._slots.setdefault(upstream.registry, asyncio.Semaphore(_MAX_CONCURRENT))
        try:
            async with asyncio.timeout(seconds):
                await slots.acquire()
        except TimeoutError:
            raise upstream_error(
                upstream.registry, "it is being asked for too much; try again later", 503
            ) from None
        try:
            async with self._requests.guard(upstream, "tags", seconds):
                names = await source.tags()
            tags = await self._reader.run(lambda: TagList(names))
        finally:
            slots.release()
        self._lists.put(upstream, tags)
        return tags


class TagList:
    """Tags in byte order. What is no tag by the spec's grammar is left out. Never changed."""

    __slots__ = ("_firsts", "_parts")

    def __init__(self, tags: Iterable[str]) -> None:
        names = sorted({name for name in tags if is_tag(name)})
        parts = [names[at : at + _JOINED] for at in range(0, len(names), _JOINED)]
        self._firsts = [part[0] for part in parts]
        self._parts = ["\n".join(part).encode() for part in parts]

    def after(self, last: str, n: int) -> list[str]:
        """The first `n` tags after `last`."""
        found: list[str] = []
        at = max(0, bisect_right(self._firsts, last) - 1)
        while len(found) < n and at < len(self._parts):
            names = self._parts[at].decode().split("\n")
            found += names[bisect_right(names, last) :]
            at += 1
        return found[:n]

    @property
    def weight(self) -> int:
        """Bytes in memory, roughly."""
        return 300 + sum(len(part) + 300 for part in self._parts)

"""Requests to upstreams that are under way: each once, and no repository has more than its share.

Whoever wants an answer waits for a task that does not end with one of those who wait, so that a request which
goes away takes nothing from others. How many tasks there are has a bound, for an upstream and for one
repository: a repository that never answers keeps its own clients waiting, not those of all others.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from blobflow.content import Site, Source
from blobflow.errors import TimedOut
from blobflow.oci import Descriptor
from blobflow.server.pullthrough.circuit_breaker import CircuitBreaker, ContentKind, upstream_error
from blobflow.single_flight import result_of

# Small things (manifests, lists) that one repository is asked for at once. An upstream is asked for 16.
MAX_CONCURRENT = 4
# Tasks at once, of one upstream and of one repository; further ones are refused.
MAX_TASKS = 2000
MAX_TASKS_OF_REPOSITORY = 256

T = TypeVar("T")


@runtime_checkable
class _HasBlobs(Protocol):
    """A source that can say whether it has a blob: see `Sink.has`."""

    async def has(self, content: Descriptor) -> bool: ...


class UpstreamRequests:
    """Used on one loop only; `close` it."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker
        self._tasks: dict[tuple[Site, str], asyncio.Task[Any]] = {}
        self._of_host: Counter[str] = Counter()
        self._of_site: Counter[Site] = Counter()
        self._slots: dict[Site, asyncio.Semaphore] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    async def once(self, site: Site, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work`, or wait for the task that does it already under the same name. The work goes on if the
        one who waits is cancelled. Raises ApiError where too many tasks are at work."""
        task = self._tasks.get((site, name))
        if task is None:
            if self._of_host[site.registry] >= MAX_TASKS or self._of_site[site] >= MAX_TASKS_OF_REPOSITORY:
                raise upstream_error(site.registry, "it is being asked for too much; try again later", 503)
            task = asyncio.ensure_future(self._do(work))
            self._tasks[site, name] = task
            self._of_host[site.registry] += 1
            self._of_site[site] += 1
            task.add_done_callback(lambda done: self._forget(site, name, done))
        return cast(T, await result_of(task))

    @asynccontextmanager
    async def guard(self, site: Site, kind: ContentKind, seconds: float) -> AsyncIterator[None]:
        """While the repository is asked for something small, within so many seconds, the wait for its turn
        included. What goes wrong is an ApiError, see `CircuitBreaker.guard`. For the work of `once`."""
        async with self._breaker.guard(site, kind), self._slot(site, seconds):
            self._breaker.check(site)
            yield

    @asynccontextmanager
    async def _slot(self, site: Site, seconds: float) -> AsyncIterator[None]:
        slots = self._slots.setdefault(site, asyncio.Semaphore(MAX_CONCURRENT))
        try:
            async with asyncio.timeout(seconds), slots:
                yield
        except TimeoutError:
            raise TimedOut(f"{site} has not answered within {seconds:.0f} s") from None

    async def has_blob(self, site: Site, source: Source, blob: Descriptor, seconds: float) -> bool:
        """Whether the repository has the blob; True where its `source` can't say. For the work of `once`.
        Raises ApiError."""
        if not isinstance(source, _HasBlobs):
            return True
        async with self.guard(site, "blob", seconds):
            return await source.has(blob)

    async def close(self) -> None:
        """Give up all of it."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _do(self, work: Callable[[], Awaitable[T]]) -> T:
        return await work()

    def _forget(self, site: Site, name: str, done: asyncio.Task[Any]) -> None:
        del self._tasks[site, name]
        self._of_host[site.registry] -= 1
        self._of_site[site] -= 1
        if not self._of_site[site]:  # whoever has a slot is within a task
            del self._of_site[site]
            self._slots.pop(site, None)
        if not done.cancelled():
            done.exception()  # nobody may be waiting for it any more

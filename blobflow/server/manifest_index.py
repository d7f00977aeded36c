"""Indexes over the manifests of a repository, made by reading each manifest once.

What a manifest says never changes, as its digest names its bytes; which manifests a repository holds changes
all the time. So an index remembers which manifests it has taken in, and is updated when somebody needs it: it
goes through the members of the repository, a page at a time, and reads only those manifests that are new to
it. It does that once for all who wait, in threads that nothing else waits for, and keeps only a few manifests
in memory at a time.

All indexes together have a bound in bytes. One that was dropped is made again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, Generic, Protocol, TypeVar

from blobflow.bounded_cache import BoundedCache
from blobflow.oci import MAX_MANIFEST_BYTES, Digest, media
from blobflow.oci.digest import head_of
from blobflow.single_flight import result_of
from blobflow.transports.store.served_content import ServedContent

# Bytes of all indexes of one kind: those of some hundred thousand manifests.
MAX_BYTES = 64 * 1024 * 1024
# Seconds without use after which an index is dropped.
KEEP_SECONDS = 3600.0
# Members that are walked through between two turns of the loop; about a millisecond.
PAGE = 1000
# Bytes of a manifest that is parsed on the loop's thread: a few milliseconds.
INLINE_BYTES = 128 * 1024
# Manifests that a thread reads in one go.
BATCH = 64
# Repositories that are walked through at once, and threads that read.
MAX_CONCURRENT = 2

# A manifest's digest as an index knows it: its first 64 bits. Only somebody who makes both can make two that
# are alike, and then only the index of their own repository misses one.
DigestHead = int

T = TypeVar("T")
FactsT = TypeVar("FactsT", contravariant=True)


class ManifestIndex(Protocol[FactsT]):
    """What is known of one repository. `known` are the manifests that it has taken in."""

    known: set[DigestHead]

    def add(self, digest: Digest, found: FactsT) -> None:
        """Take in what a manifest says."""
        ...

    def forget(self, gone: set[DigestHead]) -> bool:
        """These manifests are no longer there. Returns False if the index has to be made anew."""
        ...

    @property
    def weight(self) -> int:
        """Bytes, roughly."""
        ...


class ManifestReader:
    """Threads for reading manifests. Started when they are first used; `close` them."""

    def __init__(self, content: ServedContent) -> None:
        self._content = content
        self._threads = ThreadPoolExecutor(MAX_CONCURRENT, thread_name_prefix="manifests")

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def read(self, digest: Digest) -> bytes | None:
        """In a thread: the bytes of a manifest; None if it is not here just now, or can't be one."""
        return self._content.blobs.read_now(digest, MAX_MANIFEST_BYTES)

    def close(self) -> None:
        """Let the threads end; what they have not begun is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)


IndexT = TypeVar("IndexT", bound=ManifestIndex[Any])


class ManifestIndexes(Generic[T, IndexT]):
    """The index of each repository. Used on one loop only; `close` it.

    `make` gives an empty one. `look` runs in a thread: what a manifest, with its media type and digest, says.
    `kinds`: the media types of the manifests that are read.
    """

    def __init__(
        self,
        content: ServedContent,
        reader: ManifestReader,
        *,
        make: Callable[[], IndexT],
        look: Callable[[bytes, str, Digest], T],
        kinds: frozenset[str] = media.MANIFESTS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._content = content
        self._reader = reader
        self._make = make
        self._look = look
        self._kinds = kinds
        self._indexes: BoundedCache[str, tuple[IndexT, tuple[int, int, int] | None]] = BoundedCache(
            entries=10_000,
            room=max_bytes,
            seconds=KEEP_SECONDS,
            weigh=lambda name, held: 500 + held[0].weight,
        )
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self._coming: dict[str, asyncio.Task[IndexT]] = {}
        self._at_work: dict[str, asyncio.Task[IndexT]] = {}

    @property
    def weight(self) -> int:
        """Bytes of all indexes, roughly."""
        return self._indexes.weight

    def at_hand(self, repository: str) -> IndexT | None:
        """The index as it is, maybe out of date; None if there is none."""
        held = self._indexes.get(repository)
        return held and held[0]

    def note(self, repository: str, digest: Digest, found: T) -> None:
        """Take in what a manifest says that has just come into the repository."""
        index, seen = self._indexes.get(repository) or (self._make(), None)
        if head_of(digest) not in index.known:
            index.known.add(head_of(digest))
            index.add(digest, found)
        self._indexes.put(repository, (index, seen))

    async def current(self, repository: str) -> IndexT:
        """The index, with all that was in the repository when this was called. Raises StorageError.

        Being cancelled takes nothing from others who wait for the same.
        """
        task = self._coming.get(repository)
        if task is None:
            task = asyncio.ensure_future(self._refresh(repository))
            self._coming[repository] = task
            task.add_done_callback(_retrieve_error)
        return await result_of(task)

    async def each(self, repository: str) -> AsyncGenerator[tuple[Digest, T], None]:
        """What every manifest of the repository says, read anew; nothing is kept. Close it."""
        async with self._slots, aclosing(self._unseen(repository, set(), set())) as found:
            async for each in found:
                yield each

    async def close(self) -> None:
        """Give up what is being read."""
        tasks = {*self._coming.values(), *self._at_work.values()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _refresh(self, repository: str) -> IndexT:
        """Wait for the task that is at work, and for a slot; the result is for all who ask until then."""
        task = self._coming[repository]
        try:
            if repository in self._at_work:
                await asyncio.wait((self._at_work[repository],))
            async with self._slots:
                del self._coming[repository]
                self._at_work[repository] = task
                try:
                    return await self._update(repository)
                finally:
                    del self._at_work[repository]
        finally:
            if self._coming.get(repository) is task:
                del self._coming[repository]

    async def _update(self, repository: str) -> IndexT:
        now = self._content.state.revision()
        index, seen = self._indexes.get(repository) or (self._make(), None)
        if seen == now:
            return index
        if not await self._take_in(index, repository):
            index = self._make()
            await self._take_in(index, repository)
        self._indexes.put(repository, (index, now))
        return index

    async def _take_in(self, index: IndexT, repository: str) -> bool:
        """Add to the index what it does not know yet. Returns False if it has to be made anew."""
        here: set[DigestHead] = set()
        async with aclosing(self._unseen(repository, index.known, here)) as found:
            async for digest, said in found:
                index.known.add(head_of(digest))
                index.add(digest, said)
        gone = index.known - here
        index.known -= gone
        return not gone or index.forget(gone)

    async def _unseen(
        self, repository: str, known: set[DigestHead], here: set[DigestHead]
    ) -> AsyncGenerator[tuple[Digest, T], None]:
        """What the manifests say that are not `known`; the heads of all that the repository has go into
        `here`."""
        after = ""
        while page := self._content.repositories.contents_after(repository, after, PAGE):
            after = page[-1][0]
            manifests = [each for each in page if each[1] in self._kinds]
            here.update(head_of(digest) for digest, _ in manifests)
            unseen = [each for each in manifests if head_of(each[0]) not in known]
            for first in range(0, len(unseen), BATCH):
                for found in await self._read(unseen[first : first + BATCH]):
                    yield found
            await asyncio.sleep(0)

    async def _read(self, manifests: Sequence[tuple[Digest, str]]) -> list[tuple[Digest, T]]:
        """What these say; nothing for now of those whose files are gone."""

        def work() -> list[tuple[Digest, T]]:
            found = []
            for digest, kind in manifests:
                raw = self._reader.read(digest)
                if raw is not None:
                    found.append((digest, self._look(raw, kind, digest)))
            return found

        return await self._reader.run(work)


def _retrieve_error(done: asyncio.Task[Any]) -> None:
    """Whoever still waited for the task has raised its error."""
    if not done.cancelled():
        done.exception()

"""The index of a repository's referrers by subject, and lists of them, made a page at a time.

A list has what a repository holds just then, with its annotations unless they are very long: who reads the
manifest has them, and nobody can push what makes the list of all others unreadable. An index knows which
manifests have which subject. A manifest's entry in the list is made from the manifest when a page needs it,
unless the entry is small and was needed lately. So the cost of one answer has a bound: the bytes of a page,
and how many manifests are read for it.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import msgspec

from blobflow.bounded_cache import BoundedCache
from blobflow.errors import UnsupportedContent
from blobflow.oci import Digest, parse_manifest
from blobflow.oci.digest import head_of
from blobflow.oci.manifest import MAX_WORD, subject_of
from blobflow.oci.referrers import referrer_descriptor
from blobflow.server.manifest_index import DigestHead, ManifestIndexes, ManifestReader
from blobflow.transports.store.served_content import ServedContent

# Entries that are remembered: bytes of all, and of one.
ENTRIES_BYTES = 16 * 1024 * 1024
MAX_ENTRY_BYTES = 8 * 1024
# Manifests that are tried for one page, whether they are of the wanted type or not, and bytes that are read
# for it. A client follows the link to the rest.
MAX_MANIFESTS_PER_PAGE = 4000
READ_BYTES = 64 * 1024 * 1024
# Characters of annotations in an entry: a page has some such entries, and no client gives up at it. Real ones
# have some hundred.
MAX_ANNOTATIONS = 64 * 1024
# Manifests that are read between two checks of how much still fits.
_BATCH = 64
# Pages that are made at once: each holds its bytes, and a manifest.
MAX_CONCURRENT = 4

# Manifests that are gone and left in an index, beside a quarter of those that are there.
MAX_STALE = 1000
# Bytes, roughly, of a manifest that is known, of a subject, and of one that refers to it.
_KNOWN, _SUBJECT, _REFERRER = 80, 250, 140


class ReferrerEntry(msgspec.Struct, frozen=True):
    """A manifest in a list of referrers: `encoded` is its descriptor in JSON."""

    subject: Digest
    artifact_type: str
    encoded: bytes


class ReferrersPage(msgspec.Struct, frozen=True):
    """A part of a list. The next one is after the digest `following`; "" if this is the last."""

    referrers: Sequence[ReferrerEntry]
    following: str


class RepositoryReferrers:
    """Which manifests of one repository have which subject: an index of `ManifestIndexes`.

    Those that are gone stay in it for a while: whoever lists them asks the store whether they are there.
    """

    def __init__(self) -> None:
        self.known: set[DigestHead] = set()
        self._by_subject: dict[int, list[Digest]] = {}
        self._referrers = 0
        self._gone: set[DigestHead] = set()

    def add(self, digest: Digest, found: int | None) -> None:
        if found is None:
            return
        self._gone.discard(head_of(digest))
        referrers = self._by_subject.setdefault(found, [])
        at = bisect_left(referrers, digest)
        if referrers[at : at + 1] != [digest]:
            referrers.insert(at, digest)
            self._referrers += 1

    def forget(self, gone: set[DigestHead]) -> bool:
        self._gone |= gone
        if len(self._gone) > MAX_STALE + self._referrers // 4:
            self._drop_gone()
        return True

    def _drop_gone(self) -> None:
        before, self._by_subject, self._referrers = self._by_subject, {}, 0
        for subject, referrers in before.items():
            left = [each for each in referrers if head_of(each) not in self._gone]
            if left:
                self._by_subject[subject] = left
                self._referrers += len(left)
        self._gone = set()

    def after(self, subject: Digest, last: str, n: int) -> list[Digest]:
        """The first `n` after the digest `last` that refer to the subject, by digest."""
        referrers = self._by_subject.get(_key(subject), [])
        first = bisect_right(referrers, last)
        return referrers[first : first + n]

    @property
    def weight(self) -> int:
        known = len(self.known) + len(self._gone)
        return known * _KNOWN + len(self._by_subject) * _SUBJECT + self._referrers * _REFERRER


class ReferrerIndex:
    """Used on one loop only; files are read in threads. `close` it."""

    def __init__(self, content: ServedContent) -> None:
        self._content = content
        self._reader = ManifestReader(content)
        self._indexes: ManifestIndexes[int | None, RepositoryReferrers] = ManifestIndexes(
            content, self._reader, make=RepositoryReferrers, look=_subject_in
        )
        self._entries: BoundedCache[Digest, ReferrerEntry] = BoundedCache(
            entries=100_000,
            room=ENTRIES_BYTES,
            largest=MAX_ENTRY_BYTES,
            weigh=lambda digest, entry: len(entry.encoded) + 500,
        )
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)

    async def page(
        self,
        repository: str,
        subject: Digest,
        *,
        last: str = "",
        wanted: str = "",
        max_entries: int,
        max_bytes: int,
    ) -> ReferrersPage:
        """The repository's manifests after the digest `last` that refer to `subject`, by digest: at most
        `max_entries`, with at most `max_bytes` in all (but one at least), of the artifact type `wanted` if
        that is not "". A page may be empty and not the last. Raises StorageError."""
        index = await self._indexes.current(repository)
        async with self._slots:
            return await self._page(index, repository, subject, last, wanted, max_entries, max_bytes)

    async def close(self) -> None:
        await self._indexes.close()
        self._reader.close()

    async def _page(
        self,
        index: RepositoryReferrers,
        repository: str,
        subject: Digest,
        last: str,
        wanted: str,
        max_entries: int,
        max_bytes: int,
    ) -> ReferrersPage:
        found: list[ReferrerEntry] = []
        looks, to_read, left = MAX_MANIFESTS_PER_PAGE, READ_BYTES, max_bytes
        while looks > 0 and to_read > 0:
            batch = index.after(subject, last, _BATCH)
            if not batch:
                return ReferrersPage(found, "")
            referrers, read = await self._read_entries(repository, batch, max(1, min(left, to_read)))
            looks -= len(referrers)
            to_read -= read
            for digest, entry in referrers:
                if entry and entry.subject == subject and wanted in ("", entry.artifact_type):
                    left -= len(entry.encoded) + 1
                    if found and (left < 0 or len(found) >= max_entries):
                        return ReferrersPage(found, last)
                    found.append(entry)
                last = digest
        return ReferrersPage(found, last if index.after(subject, last, 1) else "")

    async def _read_entries(
        self, repository: str, batch: Sequence[Digest], max_bytes: int
    ) -> tuple[list[tuple[Digest, ReferrerEntry | None]], int]:
        """The entries of the first of these, until they have `max_bytes` (one at least), and the bytes that
        were read for them. None for a manifest that the repository does not hold, or that can't be read."""
        held: list[tuple[Digest, str | None, ReferrerEntry | None]] = []
        for digest in batch:
            kind = self._content.repositories.media_type_of(repository, digest)
            held.append((digest, kind, self._entries.get(digest) if kind else None))

        def work() -> tuple[list[tuple[Digest, ReferrerEntry | None]], int]:
            done: list[tuple[Digest, ReferrerEntry | None]] = []
            size = read = 0
            for digest, kind, entry in held:
                if kind and entry is None:
                    raw = self._reader.read(digest)
                    read += len(raw or b"")
                    entry = None if raw is None else _entry_of(raw, kind, digest)
                done.append((digest, entry))
                size += len(entry.encoded) if entry else 0
                if size > max_bytes or read > READ_BYTES:
                    break
            return done, read

        if all(entry or not kind for _, kind, entry in held):
            return [(digest, entry) for digest, _, entry in held], 0
        referrers, read = await self._reader.run(work)
        for digest, entry in referrers:
            if entry is not None:
                self._entries.put(digest, entry)
        return referrers, read


def _key(subject: Digest) -> int:
    """The first 128 bits of a digest; a manifest's entry has the whole."""
    return int(subject[7:39], 16)


def _subject_in(raw: bytes, kind: str, digest: Digest) -> int | None:
    subject = subject_of(raw)
    return None if subject is None else _key(subject)


def _entry_of(raw: bytes, kind: str, digest: Digest) -> ReferrerEntry | None:
    """None if it has no subject, or is damaged; whoever reads the manifest hears of that."""
    try:
        manifest = parse_manifest(raw, kind, digest=digest, let_in=True)
    except UnsupportedContent:
        return None
    if manifest.subject is None:
        return None
    entry = referrer_descriptor(manifest)
    if sum(len(name) + len(value) for name, value in manifest.annotations.items()) > MAX_ANNOTATIONS:
        entry = msgspec.structs.replace(entry, annotations=None)
    if entry.artifact_type and len(entry.artifact_type) > MAX_WORD:  # pushed when any length was taken
        entry = msgspec.structs.replace(entry, artifact_type=None)
    return ReferrerEntry(manifest.subject.digest, entry.artifact_type or "", msgspec.json.encode(entry))

"""The seam: what every place that content lives in promises to the engine, and nothing else.

The engine sees `Source`, `Sink`, `Cache` and `Journal`; a transport implements the first two, the store the
other two. Engine and transports never import each other: they meet in `mirror.py`.

Contracts that hold everywhere
------------------------------

*Chunk.* Bytes in order, at least one byte each, of any length: nobody re-chunks. A `memoryview` is valid
only until the iterator is advanced; who wants to keep it copies it.

*Body.* A function from an offset in bytes to an async context manager over the chunks from that offset to the
end. Calling it twice reads twice, so whoever holds a Body can retry and resume. A Body never completes wrong
content: from offset 0 it withholds the last block until size and digest of the whole have matched, else it
raises IntegrityError instead of ending; so a peer that needs the last byte to commit can't commit a blob that
is not the blob. From an offset above 0 it promises the same only if what lies below has been verified by the
one who serves it (a store); a pass-through from a registry does not, and its reader has to (`Verifier`).
Leaving the context early abandons the read and frees its connection or file; it never blocks on a peer.

*Cancellation.* Every `async` method may be cancelled at any await. After that nothing half-done is visible:
no tag points at missing content, no blob exists under a digest that its bytes don't have. What was begun is
either taken back (an upload session is deleted) or written down (in the journal) to go on from later.

*Errors.* Only `blobflow.errors` leave a method. What can be retried without a body (HEAD, GET of a manifest,
mount, put) has been retried inside by the transport's own table before its error gets out; a body is retried
by the engine, through its Body.

*Concurrency.* All methods may be called concurrently, also for the same content. Two pushes of one blob both
succeed.

A Source or a Sink is one `Site`: a repository of a registry, or a path. One of your own is passed to `mirror`
in `blobflow.Places`; README shows one, and `blobflow.contract` tries it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol, runtime_checkable

import msgspec

from blobflow.errors import DigestMismatch, SizeMismatch
from blobflow.oci import Descriptor, Digest, Manifest, hasher_for, media

Chunk = bytes | memoryview
BlobStream = AsyncIterator[Chunk]
BlobReader = Callable[[int], AbstractAsyncContextManager[BlobStream]]

# See `is_small`. At 16 MB/s so many bytes take 16 ms.
SMALL_BLOB = 256 * 1024


def is_small(blob: Descriptor) -> bool:
    """Whether a blob is a small request: read whole and then written by one request, beside the blobs that
    stream and not in their turn. Most blobs of a set are (configs, scripts, certificates), and on a long path
    each of them would take a stream's place for three round trips."""
    return blob.size <= SMALL_BLOB


class Site(msgspec.Struct, frozen=True, order=True, gc=False):
    """Where content lives: a registry's host and one of its repositories.

    A layout or archive is a registry too, its transport and path the host, with one repository named "".
    Sites have a total order, so that every choice among them is the same in every run.
    """

    registry: str
    repository: str

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}" if self.repository else self.registry


class Source(Protocol):
    """Where content is read from."""

    async def resolve(self, name: str) -> Descriptor:
        """The manifest that a tag or digest names, at the cost of one small request ([end-3], HEAD).

        Promises digest and media type, and the size where the place tells it (see UNKNOWN_SIZE); where it
        does not tell the digest, the manifest is read and hashed.
        Raises NotFound, and UnsupportedContent for a manifest media type that we can't read.
        """
        ...

    async def read(self, manifest: Descriptor) -> bytes:
        """The manifest's raw bytes, verified against its digest and its size, if it has one ([end-3], GET).

        Never more than MAX_MANIFEST_BYTES. Raises NotFound, IntegrityError, UnsupportedContent (too large).
        """
        ...

    def open(
        self, blob: Descriptor, offset: int = 0, end: int | None = None
    ) -> AbstractAsyncContextManager[BlobStream]:
        """The blob's bytes `offset` ≤ i < `end` (None: its size), as the place serves them ([end-2]).

        Not verified: the engine wraps it. A place that can't seek serves an offset by reading past what is
        before it. Raises NotFound on entry; ConnectionLost or TimedOut while iterating, and SizeMismatch as
        soon as the place announces another size than the descriptor.
        """
        ...


class Sink(Protocol):
    """Where content is put."""

    async def resolve(self, name: str) -> Descriptor:
        """As `Source.resolve`: what the tag or digest names here now."""
        ...

    async def is_empty(self) -> bool:
        """True only when it is certain that nothing is here, at the cost of at most one small request.

        False is always a safe answer. The survey then asks for nothing more here.
        """
        ...

    async def has(self, content: Descriptor) -> bool:
        """Whether this site holds the blob ([end-2], HEAD) or, by its media type, the manifest ([end-3])."""
        ...

    async def mount(self, blob: Descriptor, origin: Site) -> bool:
        """Take the blob over from another repository of this registry ([end-11]).

        True: it is here now. False: the registry would not, for whatever reason but a failure that retrying
        may mend; the caller pushes. If the refusal opened an upload session, the next `push` of this blob
        uses it; one that is never used is cancelled when the sink's session closes.
        """
        ...

    async def push(self, blob: Descriptor, body: BlobReader) -> None:
        """Put the blob's bytes here and have the place confirm its digest ([end-4a]…[end-6]).

        Opens `body` at whatever offset the place goes on from, again where it starts over, and not at all if
        the blob turns out to have arrived before. On return the blob is there.
        On any error, and on cancel, it is either there whole or not at all.
        """
        ...

    async def put(self, manifest: Descriptor, raw: bytes, tags: Sequence[str] = ()) -> None:
        """Put the manifest byte for byte under its digest, or under each of `tags` in turn ([end-7]).

        Raises Rejected with `missing` where the place says which children it lacks.
        """
        ...


@runtime_checkable
class Reads(Protocol):
    """A Sink that gives back the manifests that were put there."""

    async def read(self, manifest: Descriptor) -> bytes:
        """See `Source.read`."""
        ...


class Lists(Protocol):
    """What a place can do that knows its own tags; not every Source does."""

    async def tags(self) -> list[str]:
        """All tags of the repository, each once, in the order in which the place tells them ([end-8a]).

        Names that break the grammar can't be asked for, and are left out. Raises NotFound, and
        ProtocolViolation for lists without end or without sense.
        """
        ...


@runtime_checkable
class Deletes(Protocol):
    """A place from which things can be taken away."""

    async def untag(self, tag: str) -> bool:
        """Remove one tag; what it named stays ([end-9], by tag). False: the place can't do that.

        True also if it was gone already.
        """
        ...

    async def delete(self, manifest: Digest) -> None:
        """Remove a manifest and every tag that names it ([end-9], by digest); nothing if it was gone.

        Indexes that list it are left broken: ask before. Raises Rejected where that is not allowed.
        """
        ...


class Referrer(msgspec.Struct, frozen=True, gc=False):
    """A manifest that refers to `subject`, and how that is known: from the registry's own list (`api`), from
    the list that clients keep under the fallback tag (`tag`), from its entry in the index.json of a layout
    (`index`), or by the name of cosign's `tag` for it."""

    manifest: Descriptor
    subject: Digest
    how: Literal["api", "tag", "index", "cosign"]
    tag: str = ""


@runtime_checkable
class Refers(Protocol):
    """A Source or Sink that knows what refers to its manifests: signatures, SBOMs, attestations."""

    async def referrers(self, subject: Digest) -> list[Referrer]:
        """What refers to the manifest, whether that is here or not ([end-12a], "Referrers Tag Schema").

        What is listed need not be there. Raises ProtocolViolation for lists without end or sense.
        """
        ...


@runtime_checkable
class Attaches(Refers, Protocol):
    """A Sink at which referrers are found again."""

    async def attach(self, subject: Digest, referrers: Sequence[Descriptor]) -> None:
        """See to it that these manifests, which are here, are found as referrers of `subject` ([end-7]).

        Costs nothing for those that were put here before through the same session, where the place keeps the
        list itself and said so then.
        """
        ...


@runtime_checkable
class Expects(Protocol):
    """A Sink that wants to know what will come: an archive, in which everything has its place."""

    def expect(self, blobs: Iterable[Descriptor]) -> None:
        """These blobs will be pushed, in whatever order, or fail to; this is the order of their places."""
        ...


@runtime_checkable
class Selective(Protocol):
    """A Sink that holds images of some kinds alone: an archive for docker."""

    def check_image(self, name: str, root: Digest, manifests: Mapping[Digest, Manifest]) -> None:
        """Called before anything is written, with all manifests that shall be put of one image, and the tag
        that it gets ("": none).

        Raises UnsupportedContent or UsageError where it can't be held here: the sentence says why, and what
        to do.
        """
        ...


class Cache(Protocol):
    """The store as the engine sees it: what must be read by several is read once."""

    async def has(self, blob: Descriptor) -> bool:
        """Whether the blob is held whole, verified when it came in."""
        ...

    async def begun(self, blobs: Iterable[Descriptor]) -> dict[Digest, int]:
        """How many bytes of each of `blobs` earlier shares left here, for the next to go on from.

        Only those of which there are any. That the bytes are right is not known before all have been read.
        """
        ...

    def body(self, blob: Descriptor) -> BlobReader:
        """A Body over a blob that is held. Raises NotFound on opening if it is gone by then."""
        ...

    def share(
        self, blob: Descriptor, body: BlobReader, *, keep: bool = False
    ) -> AbstractAsyncContextManager[BlobReader]:
        """Read `body` once, for any number of concurrent and later readers.

        The first to enter starts the one writer; every entrant gets a Body that reads behind it from any
        offset, at its own pace. A failure of the writer reaches every reader, as a copy of the writer's
        error. While anyone is inside, the blob is leased; when the last leaves it is dropped, unless `keep`,
        or unless that is by an exception: then it is left for `begun`.
        """
        ...


class Aside(Protocol):
    """Where a run puts documents aside that would take too much memory. What is there is gone after the run,
    and at once if the process ends."""

    def keep(self, content: bytes) -> Callable[[], bytes]:
        """Put `content` aside; what is returned reads it back, as often as it is called, and in any thread.

        Both raise StorageError.
        """
        ...


class Upload(msgspec.Struct, frozen=True):
    """An upload session that may be gone on with; `offset` in bytes is what the registry confirmed."""

    url: str
    offset: int


class Audited(msgspec.Struct, frozen=True):
    """When what is below a root was last looked at. `order`: roots with a lower one were looked at, or put,
    longer ago. `stopped`: where looking stopped before its end, in the words of who looked; else empty."""

    order: tuple[int, int]
    stopped: bytes = b""


class Journal(Protocol):
    """What must outlive the process. Every call is short and synchronous; losing all of it is never wrong,
    only slower."""

    def put_recorded(self, site: Site, root: Digest, chosen: str) -> bool:
        """Whether an earlier run put this root, with the same choice of platforms, there."""
        ...

    def record_put(self, site: Site, root: Digest, chosen: str) -> None: ...

    def audited(self, site: Site, root: Digest, chosen: str) -> Audited:
        """When what was `chosen` below a root was last looked at there; if never, when the root was put."""
        ...

    def record_audit(self, site: Site, root: Digest, chosen: str, stopped: bytes = b"") -> None:
        """All of it is there, which ends any doubt; or was as far as it was looked at, if that `stopped`."""
        ...

    def doubt_put(self, site: Site, root: Digest, chosen: str) -> None:
        """Something of it is missing or wrong there: until `record_audit` nobody takes it as whole."""
        ...

    def doubted_puts(self) -> frozenset[tuple[Site, Digest, str]]:
        """All roots in doubt."""
        ...

    def note(self, origin: str, key: str) -> str | None:
        """What was learnt of a host (which upload form worked, whether it takes sparse indexes)."""
        ...

    def record_note(self, origin: str, key: str, value: str) -> None: ...

    def take_upload(self, origin: str, repository: str, digest: Digest) -> Upload | None:
        """The session that an earlier push of this blob left open, which from now on is this process's.

        None where there is none, and while a living process, this one included, is sending to it.
        """
        ...

    def record_upload(
        self, origin: str, repository: str, digest: Digest, upload: Upload, *, held: bool
    ) -> bool:
        """Note the session; whether it will be remembered. `held`: this process goes on sending to it."""
        ...

    def forget_upload(self, origin: str, repository: str, digest: Digest) -> None: ...


class NullJournal:
    """Remembers nothing; for a run that must leave no trace."""

    def put_recorded(self, site: Site, root: Digest, chosen: str) -> bool:
        return False

    def record_put(self, site: Site, root: Digest, chosen: str) -> None:
        return None

    def audited(self, site: Site, root: Digest, chosen: str) -> Audited:
        return Audited((0, 0))

    def record_audit(self, site: Site, root: Digest, chosen: str, stopped: bytes = b"") -> None:
        return None

    def doubt_put(self, site: Site, root: Digest, chosen: str) -> None:
        return None

    def doubted_puts(self) -> frozenset[tuple[Site, Digest, str]]:
        return frozenset()

    def note(self, origin: str, key: str) -> str | None:
        return None

    def record_note(self, origin: str, key: str, value: str) -> None:
        return None

    def take_upload(self, origin: str, repository: str, digest: Digest) -> Upload | None:
        return None

    def record_upload(
        self, origin: str, repository: str, digest: Digest, upload: Upload, *, held: bool
    ) -> bool:
        return False

    def forget_upload(self, origin: str, repository: str, digest: Digest) -> None:
        return None


class Allowance(msgspec.Struct, frozen=True):
    """How many manifests a registry lets be read: `remaining` of `limit` in `window` seconds.

    Only reading counts, `resolve` is free. `source` is whom it counts: an address, an account.
    """

    limit: int
    remaining: int
    window: int
    source: str = ""

    @property
    def rate(self) -> str:
        """The limit in words, in the unit that it was meant in: `100 in 6 h`."""
        for unit, seconds in (("h", 3600), ("min", 60)):
            if self.window >= seconds and not self.window % seconds:
                return f"{self.limit} in {self.window // seconds} {unit}"
        return f"{self.limit} in {self.window} s"


# What the registry at a host said of it last; None if it said nothing.
AllowanceOf = Callable[[str], Allowance | None]
SourceAt = Callable[[Site], Source]
SinkAt = Callable[[Site], Sink]
Sleep = Callable[[float], Awaitable[None]]


class Verifier:
    """Hashes and counts bytes as they pass, and says at the last one whether they are the blob. Sans-IO.

    Feed every chunk in order; `feed` returns only if the chunk may be passed on, so withholding the last
    block is built in: the chunk that completes the size is released only when the digest has matched.
    """

    __slots__ = ("_blob", "_hasher", "_what", "received")

    def __init__(self, blob: Descriptor, what: str = "") -> None:
        self._blob = blob
        self._what = what or f"blob {blob.digest}"
        self._hasher = hasher_for(blob.digest)
        self.received = 0

    @property
    def complete(self) -> bool:
        return self.received == self._blob.size

    def feed(self, chunk: Chunk) -> None:
        """Take a chunk. Raises SizeMismatch when it goes past the size, DigestMismatch when it ends wrong."""
        self.received += len(chunk)
        if self.received > self._blob.size:
            raise SizeMismatch(self._what, expected=self._blob.size, actual=self.received)
        self._hasher.update(chunk)
        if self.received == self._blob.size:
            self._check()

    def finish(self) -> None:
        """Call at the end. Raises SizeMismatch if bytes are missing; checks the digest of an empty blob."""
        if self.received != self._blob.size:
            raise SizeMismatch(self._what, expected=self._blob.size, actual=self.received)
        if not self._blob.size:
            self._check()

    def _check(self) -> None:
        actual = f"{self._blob.digest[:6]}:{self._hasher.hexdigest()}"
        if actual != self._blob.digest:
            raise DigestMismatch(self._what, expected=self._blob.digest, actual=actual)


def checked(raw: bytes, content: Descriptor) -> bytes:
    """The bytes, if they are what the descriptor says. Raises SizeMismatch, DigestMismatch."""
    if not content.sized:
        content = msgspec.structs.replace(content, size=len(raw))
    verifier = Verifier(
        content, f"{'manifest' if content.media_type in media.MANIFESTS else 'blob'} {content.digest}"
    )
    if raw:
        verifier.feed(raw)
    verifier.finish()
    return raw


async def verified(chunks: BlobStream, blob: Descriptor, what: str = "") -> BlobStream:
    """Pass `chunks` on, from offset 0, withholding the last until the whole matched; else raise."""
    verifier = Verifier(blob, what)
    async for chunk in chunks:
        verifier.feed(chunk)
        yield chunk
    verifier.finish()

"""Sites, and the protocols of Sources and Sinks, with the optional ones that some of them have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol, runtime_checkable

import msgspec

from blobflow.content.streams import BlobReader, BlobStream
from blobflow.oci import Descriptor, Digest, Manifest


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

    async def push(self, blob: Descriptor, reader: BlobReader) -> None:
        """Put the blob's bytes here and have the place confirm its digest ([end-4a]…[end-6]).

        Opens `reader` at whatever offset the place goes on from, again where it starts over, and not at all
        if the blob turns out to have arrived before. On return the blob is there.
        On any error, and on cancel, it is either there whole or not at all.
        """
        ...

    async def put(self, manifest: Descriptor, raw: bytes, tags: Sequence[str] = ()) -> None:
        """Put the manifest byte for byte under its digest, or under each of `tags` in turn ([end-7]).

        Raises Rejected with `missing` where the place says which children it lacks.
        """
        ...


# What a registry mounts from a repository that the login may read: nothing; whatever is there; or only what a
# manifest there names (ECR).
MountRule = Literal["nothing", "any", "named"]


@runtime_checkable
class Mounts(Protocol):
    """A Sink at a registry with other repositories, where a later run may mount what this one puts."""

    @property
    def mount_rule(self) -> MountRule:
        """What the registry mounts, as far as is known of it."""
        ...

    async def login(self) -> str | None:
        """Who we are here, as a hash; "" is anybody. None: that can't be told.

        Asks for the login as a request would, if one were wanted; sends nothing to the registry.
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
class RefersAtHand(Refers, Protocol):
    """A Source of files: what refers to its manifests is found without a request, so it is also looked for
    where an image has not changed."""

    async def has_referrers(self) -> bool:
        """Whether anything here refers to anything."""
        ...


@runtime_checkable
class Rebuilds(Protocol):
    """A Source some of whose manifests were made of others that it has."""

    def rebuilt(self, manifest: Digest) -> Sequence[Digest]:
        """What the manifest was made of, and stands for; nothing if it is as it came. What refers to those
        does not refer to it."""
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
class KeepsUploads(Protocol):
    """A Sink that keeps the upload that a refused mount has begun, for the push of that blob."""

    def drop_upload(self, blob: Descriptor) -> None:
        """That blob is pushed by somebody else: what was kept for it is given up, in the background."""
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

"""The interface between engine and transports: what every Source and Sink promises.

The engine sees `Source`, `Sink`, `Cache` and `Journal`; a transport implements the first two, the store the
other two. Engine and transports never import each other: they meet in `blobflow.composition`.

Contracts that hold everywhere
------------------------------

*Chunk.* Bytes in order, at least one byte each, of any length: nobody re-chunks. A `memoryview` is valid
only until the next chunk is asked for; who wants to keep it copies it.

*Reader.* A `BlobReader` opens a blob's bytes from an offset in bytes to the end, as often as it is asked to,
so whoever holds one can retry and resume. What it gives never completes wrong content: from offset 0 the last
chunk is withheld until size and digest of the whole have matched, and else IntegrityError is raised in place
of the end; so a peer that needs the last byte to commit can't commit a blob that is not the blob. From an
offset above 0 it promises the same only if what lies below has been verified by the one who serves it (a
store); a pass-through from a registry does not, and its reader has to (`Verifier`).

*Stream.* A `BlobStream` is one such reading, and a resource. Its end comes only after all bytes did: a peer
that breaks off is an error. Leaving it early abandons the reading and frees its connection or file at once;
it never blocks on a peer. Whoever wants to know of chunks, of the end or of a failure puts a `Tap` on it. One
whose bytes lie in a file may have them as extents too (`HasExtents`), for who sends them by sendfile(2).

*Cancellation.* Every `async` method may be cancelled at any await. After that nothing half-done is visible:
no tag points at missing content, no blob exists under a digest that its bytes don't have. What was begun is
either taken back (an upload session is deleted) or written down (in the journal) to go on from later.

*Errors.* Only `blobflow.errors` leave a method. What can be retried without a body (HEAD, GET of a manifest,
mount, put) has been retried inside by the transport's own table before its error gets out; a blob's bytes are
retried by the engine, through their reader.

*Concurrency.* All methods may be called concurrently, also for the same content. Two pushes of one blob both
succeed.

A Source or a Sink is one `Site`: a repository of a registry, or a path. One of your own is passed to `mirror`
in `blobflow.CustomTransports`; docs/tasks/own-places.md shows one, and `blobflow.contract` tries it.
"""

from __future__ import annotations

from blobflow.content.cache import (
    Aside,
    Cache,
)
from blobflow.content.journal import (
    Audited,
    Journal,
    NullJournal,
    Upload,
    parse_number,
)
from blobflow.content.line_rate import (
    COSTLY_SECONDS,
    TELLING_BYTES,
    LineRate,
    RateTap,
)
from blobflow.content.sites import (
    Allowance,
    AllowanceOf,
    Attaches,
    Deletes,
    Expects,
    KeepsUploads,
    Lists,
    MountRule,
    Mounts,
    Reads,
    Rebuilds,
    Referrer,
    Refers,
    RefersAtHand,
    Selective,
    Sink,
    SinkAt,
    Site,
    Sleep,
    Source,
    SourceAt,
)
from blobflow.content.streams import (
    SMALL_BLOB,
    BlobReader,
    BlobStream,
    Chunk,
    Counter,
    Extent,
    HasExtents,
    Notice,
    PartStream,
    Tap,
    is_small,
    no_bytes,
    tapped,
)
from blobflow.content.verification import (
    Verifier,
    checked,
    verified,
)

__all__ = [
    "Allowance",
    "AllowanceOf",
    "Aside",
    "Attaches",
    "Audited",
    "BlobReader",
    "BlobStream",
    "COSTLY_SECONDS",
    "Cache",
    "Chunk",
    "Counter",
    "Deletes",
    "Expects",
    "Extent",
    "HasExtents",
    "Journal",
    "LineRate",
    "Lists",
    "MountRule",
    "Mounts",
    "Notice",
    "NullJournal",
    "PartStream",
    "RateTap",
    "Reads",
    "Rebuilds",
    "Referrer",
    "Refers",
    "RefersAtHand",
    "SMALL_BLOB",
    "KeepsUploads",
    "Selective",
    "Sink",
    "SinkAt",
    "Site",
    "Sleep",
    "Source",
    "SourceAt",
    "TELLING_BYTES",
    "Tap",
    "Upload",
    "Verifier",
    "checked",
    "is_small",
    "parse_number",
    "no_bytes",
    "tapped",
    "verified",
]

"""Manifests of images and indexes. This module is the only one that parses them.

A `Manifest` holds the raw bytes exactly as they were read. Nothing is ever re-encoded: the digest is of these
bytes. Decoding is typed (msgspec) and lenient about everything the specs call optional, strict about what the
engine leans on: media types, digests, sizes, and bounds on what a registry can make us hold.

What a manifest is, its content decides, not who serves or lists it: its own `mediaType`; without one it is
OCI's, image or index by its fields, also with Docker's config and under Docker's header, since Docker's own
manifests have to name their type (docker and its registry refuse them without). The header counts where
neither tells anything. Only image and index are never taken for each other: see `ambiguous_json`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import msgspec

from blobflow.errors import InvalidDigest, UnsupportedContent
from blobflow.oci import media
from blobflow.oci.ambiguous_json import ambiguous_key, is_plain
from blobflow.oci.descriptor import UNKNOWN_SIZE, Descriptor
from blobflow.oci.digest import Digest, digest_of, parse_digest
from blobflow.oci.json_decoding import decode
from blobflow.oci.platform import MAX_PLATFORM, Platform

# distribution-spec, "Pushing Manifests": registries SHOULD take 4 MiB, and clients stay below it.
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
# Descriptors in one manifest. 4 MiB of them is about 20,000; a bound of ours, so that one index can't make a
# run of hundreds of thousands of requests.
MAX_CHILDREN = 20_000
# Strings in one manifest: 20,000 children with a platform and some annotations each have as many. Each takes
# a hundred bytes when it is decoded, so 4 MiB of small ones would take a hundred MiB.
MAX_STRINGS = 300_000
# Characters of a media type (RFC 6838 allows 255), of an artifact's type, or of a platform. A list of
# referrers has the types of all, so that one that is too long would spoil the others.
MAX_WORD = MAX_PLATFORM
_MAX_SIZE = 2**53  # JSON integers beyond this don't survive other tools


class _Child(msgspec.Struct, rename="camel"):
    digest: str = ""
    size: int | None = None
    media_type: str | None = None
    platform: Platform | None = None
    annotations: dict[str, str] | None = None
    urls: tuple[str, ...] | None = None
    artifact_type: str | None = None


class _Document(msgspec.Struct, rename="camel"):
    schema_version: int | None = None
    media_type: str | None = None
    config: _Child | None = None
    layers: list[_Child] | None = None
    manifests: list[_Child] | None = None
    subject: _Child | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None
    fs_layers: msgspec.Raw = msgspec.Raw(b"null")
    history: msgspec.Raw = msgspec.Raw(b"null")


class _Referring(msgspec.Struct):
    subject: _Child | None = None


_decoder = msgspec.json.Decoder(_Document)
_referring_decoder = msgspec.json.Decoder(_Referring)


class Manifest(msgspec.Struct, frozen=True, gc=False):
    """An image manifest or an image index, with its children in order.

    `config` is None for an index. `layers` are an image's layers, or what an index lists that is no manifest.
    The media type of `descriptor` is what the document is, whatever the registry or a parent calls it.
    `carried`: the digests of foreign layers that are to be moved all the same. `more`: how many children are
    left out, of a manifest that was parsed with a bound.
    """

    descriptor: Descriptor
    raw: bytes
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: dict[str, str] = {}
    carried: frozenset[Digest] = frozenset()
    more: int = 0

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests, and is no image itself."""
        return self.descriptor.media_type in media.INDEXES

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers that the registry itself must hold, and the blobs that an index lists; foreign
        ones stay where they are, unless they are carried."""
        own = (layer for layer in self.layers if layer.digest in self.carried or not _is_foreign(layer))
        return (self.config, *own) if self.config is not None else tuple(own)

    @property
    def foreign(self) -> tuple[Descriptor, ...]:
        """Layers that registries need not hold: image-spec descriptor.md, `urls`, and layer.md. Nothing is
        ever fetched from the `urls`."""
        return tuple(layer for layer in self.layers if _is_foreign(layer))

    def carrying(self, digests: Iterable[Digest]) -> Manifest:
        """This manifest, with those of its foreign layers among its blobs."""
        return msgspec.structs.replace(self, carried=self.carried.union(digests))

    def __hash__(self) -> int:
        return hash(self.descriptor.digest)


def _is_foreign(layer: Descriptor) -> bool:
    return bool(layer.urls) or media.is_nondistributable(layer.media_type)


def children(manifest: Manifest) -> tuple[Descriptor, ...]:
    """Everything that a manifest is made of: its manifests and its blobs."""
    return (*manifest.manifests, *manifest.blobs)


def parse_manifest(
    raw: bytes,
    media_type: str = "",
    *,
    digest: Digest | None = None,
    most: int | None = None,
    let_in: bool = False,
    as_listed: bool = False,
) -> Manifest:
    """Decode manifest bytes. The one judge of what a manifest is.

    `media_type` is what the outside said (a Content-Type or the parent's descriptor), "" if it said nothing.
    `digest`: the digest that `raw` was already verified against; computed as sha256 when absent. `most`: take
    and check no more than so many of its children, for who only wants to show something of it (decoding
    19,000 takes milliseconds, making values of them a tenth of a second). `let_in`: the bytes were let into
    our store before, perhaps by a version that knew less; it is read what they name, and nothing is judged.
    `as_listed`: all that an index lists stays among its manifests, in its order, whatever it is called; what
    has no digest names nothing, and is passed over, and nobody has to say a size.

    Raises UnsupportedContent with one sentence: not JSON in UTF-8, more than one meaning (`ambiguous_json`),
    an unknown manifest media type or schema, over the bounds, or a child whose descriptor can't be read.
    """
    named = digest or digest_of(raw)
    what = f"manifest {named}"
    document = _decoded(raw, what)
    if not let_in:
        _refuse_ambiguous(raw, document, what)
    kind = _kind(document, media_type, what, let_in=let_in)
    descriptor = Descriptor(media_type=kind, digest=named, size=len(raw))
    listed = document.manifests if kind in media.INDEXES else document.layers
    if listed is not None and len(listed) > MAX_CHILDREN:
        raise UnsupportedContent(f"{what} lists {len(listed)} children, more than the {MAX_CHILDREN} allowed")
    taken = (listed or ())[:most]
    decoded = tuple(
        _descriptor(child, what, sized=not as_listed) for child in taken if child.digest or not as_listed
    )
    if not let_in and (length := len(document.artifact_type or "")) > MAX_WORD:
        raise UnsupportedContent(
            f"{what} has an artifact type of {length} characters; {MAX_WORD} are allowed"
        )
    is_index = kind in media.INDEXES
    config = _descriptor(document.config, what) if document.config else None
    if not is_index and config is None:
        raise UnsupportedContent(f"{what} is an image manifest without a config")
    manifests = (
        tuple(child for child in decoded if as_listed or media.is_manifest(child.media_type))
        if is_index
        else ()
    )
    return Manifest(
        descriptor=descriptor,
        raw=raw,
        config=None if is_index else config,
        layers=_others(decoded, manifests),
        manifests=manifests,
        subject=_descriptor(document.subject, what, sized=False) if document.subject else None,
        artifact_type=document.artifact_type or "",
        annotations=document.annotations or {},
        more=len(listed or ()) - len(taken),
    )


def _others(children: tuple[Descriptor, ...], manifests: tuple[Descriptor, ...]) -> tuple[Descriptor, ...]:
    """The children that are no manifests."""
    if not manifests:
        return children
    if len(manifests) == len(children):
        return ()
    return tuple(child for child in children if not media.is_manifest(child.media_type))


def _decoded(raw: bytes, what: str) -> _Document:
    if len(raw) > MAX_MANIFEST_BYTES:
        raise UnsupportedContent(f"{what} has {len(raw)} bytes, more than the {MAX_MANIFEST_BYTES} allowed")
    if len(raw) > 2 * MAX_STRINGS and raw.count(b'"') - raw.count(b'\\"') > 2 * MAX_STRINGS:
        raise UnsupportedContent(f"{what} has more than the {MAX_STRINGS} strings allowed")
    try:
        if not raw.isascii():
            raw.decode()  # where the decoder only passes over a value it does not look at its bytes
        return decode(raw, _decoder)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UnsupportedContent(f"{what} is not a manifest: {error}") from None


def subject_of(raw: bytes) -> Digest | None:
    """The digest of the subject that manifest bytes name; None if they name none, or can't be read.

    Nothing else of them is decoded: for walking through many.
    """
    try:
        subject = decode(raw, _referring_decoder).subject
        return None if subject is None else parse_digest(subject.digest)
    except (msgspec.DecodeError, ValueError, RecursionError, InvalidDigest):
        return None


def _refuse_ambiguous(raw: bytes, document: _Document, what: str) -> None:
    if not is_plain(raw, _members(document)) and (said := ambiguous_key(raw)):
        raise UnsupportedContent(f"{what} {said}")


def _members(document: _Document) -> int:
    """How many members of its objects were decoded, as far as they say something."""
    children = [*(document.layers or ()), *(document.manifests or ())]
    children += [child for child in (document.config, document.subject) if child is not None]
    schema1 = 2  # its fields are last, and decoded only to be refused
    found = sum(value is not None for value in msgspec.structs.astuple(document)[:-schema1])
    found += len(document.annotations or ())
    for child in children:
        found += 1 + bool(child.media_type)
        found += sum(value is not None for value in (child.size, child.urls, child.artifact_type))
        if child.annotations is not None:
            found += 1 + len(child.annotations)
        if child.platform is not None:
            found += 1 + sum(map(bool, msgspec.structs.astuple(child.platform)))
    return found


def is_schema1(raw: bytes, media_type: str) -> bool:
    """Whether bytes served under a media type are a Docker schema 1 manifest, as far as they can be read."""
    try:
        return _is_schema1(_decoded(raw, "it"), media.without_parameters(media_type))
    except UnsupportedContent:
        return media.without_parameters(media_type) in media.SCHEMA1


def _is_schema1(document: _Document, outside: str) -> bool:
    """The word of whoever serves it counts only where the document itself says nothing."""
    inside = document.media_type or ""
    if document.schema_version == 1 or inside in media.SCHEMA1:
        return True
    says = inside in media.MANIFESTS or bool(_kind_by_fields(document))
    return outside in media.SCHEMA1 and not says


def _kind(document: _Document, said: str, what: str, *, let_in: bool) -> str:
    """The media type of a document: see above. What the outside `said` has to be of the same kind, image or
    index; schema 1 or a generic type (text/plain, application/json) is no statement of that."""
    outside, inside = media.without_parameters(said), document.media_type or ""
    if _is_schema1(document, outside):
        raise UnsupportedContent(
            f"{what} is a Docker schema 1 manifest; re-push the image with a current docker or buildah"
        )
    if document.schema_version not in (None, 2) and not let_in:
        raise UnsupportedContent(f"{what} has schemaVersion {document.schema_version}; manifests have 2")
    if outside in media.SCHEMA1 or not media.is_specific(outside):
        outside = ""
    if inside and outside not in ("", inside) and not media.equivalent_types(inside, outside):
        raise UnsupportedContent(f"{what} calls itself {inside[:120]!r}, but was served as {outside[:120]!r}")
    if inside or (outside and outside not in media.MANIFESTS):
        kind = inside or outside
    else:
        kind = _kind_by_fields(document) or media.OCI_FORMS.get(outside, outside)
    if kind not in media.MANIFESTS:
        raise UnsupportedContent(f"{what} has the unknown manifest media type {kind[:120]!r}")
    if not let_in:
        _check_fields(document, inside or outside or kind, what)
    return kind


def _kind_by_fields(document: _Document) -> str:
    """What a document is by what it lists; "" if that tells nothing."""
    if document.config is not None:
        return media.OCI_MANIFEST
    return media.OCI_INDEX if document.manifests is not None else ""


def _check_fields(document: _Document, kind: str, what: str) -> None:
    """Raise UnsupportedContent if the document has fields that only another kind than `kind` has."""
    images = (("config", document.config), ("layers", document.layers))
    indexes = (("manifests", document.manifests),)
    own, others = ("an index", images) if kind in media.INDEXES else ("an image", indexes)
    foreign = [name for name, value in others if value is not None]
    schema1 = (("fsLayers", document.fs_layers), ("history", document.history))
    foreign += [name for name, value in schema1 if bytes(value) != b"null"]
    if foreign:
        has = " and ".join(map(repr, foreign))
        raise UnsupportedContent(
            f"{what} is called {own} ({kind[:120]}) and has {has}, which {own} does not have; clients differ "
            "in what such a document is"
        )


def _refuse_long_words(child: _Child, what: str) -> None:
    """What descriptors say in words is held for as long as there is something to do with them."""
    longest = max(len(child.media_type or ""), len(child.artifact_type or ""))
    if child.platform is not None:
        longest = max(longest, child.platform.length)
    if longest > MAX_WORD:
        raise UnsupportedContent(
            f"{what} calls {child.digest} something of {longest} characters; {MAX_WORD} are allowed"
        )


def _descriptor(child: _Child, what: str, *, sized: bool = True) -> Descriptor:
    """`sized`: it has to say a size."""
    try:
        digest = parse_digest(child.digest)
    except InvalidDigest as error:
        raise UnsupportedContent(f"{what} has a child that can't be verified: {error}") from None
    if child.size is None and sized:
        raise UnsupportedContent(f"{what} does not say how many bytes {digest} has")
    size = UNKNOWN_SIZE if child.size is None else child.size
    if child.size is not None and not 0 <= size <= _MAX_SIZE:
        raise UnsupportedContent(f"{what} says that {digest} has {size} bytes")
    kind = child.media_type or ""
    if len(kind) > MAX_WORD or child.artifact_type or child.platform is not None:
        _refuse_long_words(child, what)
    return Descriptor(
        media_type=sys.intern(kind),
        digest=digest,
        size=size,
        platform=child.platform,
        annotations=child.annotations,
        urls=child.urls,
        artifact_type=child.artifact_type,
    )

"""The referrers of a layout's or archive's images: signatures, SBOMs, attestations.

No spec says how files list them. oras puts them into index.json without a name, and finds them there by their
subjects; regctl keeps the index of the Referrers Tag Schema in it, under the subject's digest written as a
tag, as at registries that have no list of their own; cosign's tags stay tags, and `cosign save` has its own
form (see `layout.cosign_save`). All of them are read. What comes here is listed the second way, which oras
and regctl find both. What is listed so is no image of the layout that somebody would ask for by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice

from blobflow.content import Referrer
from blobflow.errors import IntegrityError, NotFound, UnsupportedContent
from blobflow.oci import UNKNOWN_SIZE, Descriptor, Digest, Manifest, digest_of, media, parse_manifest
from blobflow.oci.digest import algorithm_of
from blobflow.oci.manifest import subject_of
from blobflow.oci.referrers import (
    cosign_tags,
    digest_in_tag,
    fallback_tag,
    merge_referrers_index,
    subject_in_tag,
)
from blobflow.transports.layout.cosign_save import MAX_UNLISTED, CosignEntries
from blobflow.transports.layout.index_json import IndexEntries, find_image, image_names

# The bytes of a manifest, verified. Raises NotFound, IntegrityError, UnsupportedContent, StorageError.
ReadManifest = Callable[[Descriptor], bytes]
# The digests of what a place has that is no larger than MAX_UNLISTED_BYTES.
ListBlobs = Callable[[], Iterable[Digest]]

# Docker's manifests have no subject.
_MAY_REFER = frozenset({media.OCI_MANIFEST, media.OCI_INDEX})


class IndexReferrers:
    """The referrers among the entries of one index.json, as it was when this was made. Nothing is read before
    it is asked for, and each entry once. `small_blobs`: asked for where `cosign save` wrote the index, which
    leaves some referrers out of it."""

    def __init__(self, images: IndexEntries, read: ReadManifest, small_blobs: ListBlobs = tuple) -> None:
        self._cosign = CosignEntries(images)
        self._images = self._cosign.without_names(images)
        self._read = read
        self._small_blobs = small_blobs
        self._by_name = image_names(self._images)
        self._subject_of: dict[Digest, Digest | None] = {}
        self._by_subject: Mapping[Digest, list[Descriptor]] | None = None

    def of(self, subject: Digest) -> list[Referrer]:
        """What refers to a manifest, each once. What is listed need not be here."""
        found: dict[Digest, Referrer] = {}
        for entry in self._listed(subject):
            found.setdefault(entry.digest, Referrer(entry, subject, "tag"))
        for entry in self._subjects().get(subject, ()):
            found.setdefault(entry.digest, Referrer(entry, subject, "index"))
        tagged = self._cosign.tagged(subject)
        tagged |= {tag: entry for tag in cosign_tags(subject) for entry in self._by_name.bearing(tag)[-1:]}
        return [
            *found.values(),
            *(Referrer(entry, subject, "cosign", tag) for tag, entry in sorted(tagged.items())),
        ]

    def any(self) -> bool:
        """Whether anything is listed that refers to anything."""
        tagged = any(subject_in_tag(name) for names, _ in self._images for name in names)
        return tagged or bool(self._cosign.subjects) or bool(self._subjects())

    def list_of(self, subject: Digest) -> bytes | None:
        """The index of the Referrers Tag Schema for a subject; None if there is none."""
        for entry in self._by_name.bearing(fallback_tag(subject))[-1:]:
            if entry.media_type in media.INDEXES:
                with suppress(NotFound):
                    return self._read(entry)
        return None

    def _listed(self, subject: Digest) -> tuple[Descriptor, ...]:
        raw = self.list_of(subject)
        return () if raw is None else parse_manifest(raw, media.OCI_INDEX).manifests

    def _subjects(self) -> Mapping[Digest, list[Descriptor]]:
        if self._by_subject is None:
            by_subject: dict[Digest, list[Descriptor]] = {}
            for names, entry in self._images:
                subject = None if any(map(subject_in_tag, names)) else self._subject(entry)
                if subject is not None:
                    by_subject.setdefault(subject, []).append(entry)
            for subject, entry in self._unlisted():
                by_subject.setdefault(subject, []).append(entry)
            self._by_subject = by_subject
        return self._by_subject

    def _unlisted(self) -> Iterable[tuple[Digest, Descriptor]]:
        """What lies here and refers to something without being in the index, with its subject."""
        listed = {entry.digest for _, entry in self._images}
        small = self._small_blobs() if self._cosign.wrote else ()
        for digest in islice((each for each in small if each not in listed), MAX_UNLISTED):
            with suppress(NotFound, UnsupportedContent, IntegrityError):
                raw = self._read(Descriptor("", digest, UNKNOWN_SIZE))
                if (subject := subject_of(raw)) is not None:
                    yield subject, parse_manifest(raw, digest=digest).descriptor

    def _subject(self, entry: Descriptor) -> Digest | None:
        """What a manifest refers to. What is not here refers to nothing; what is wrong fails who asks for it,
        and no other."""
        if entry.media_type not in _MAY_REFER:
            return None
        if entry.digest not in self._subject_of:
            self._subject_of[entry.digest] = None
            with suppress(NotFound, UnsupportedContent, IntegrityError):
                self._subject_of[entry.digest] = subject_of(self._read(entry))
        return self._subject_of[entry.digest]

    def find(self, name: str, place: str) -> Descriptor:
        """See `index_json.find_image`; "" is the only image of its own."""
        return find_image(self._by_name, name, place, self._read, None if name else self.numbers())

    def images(self) -> IndexEntries:
        """The entries that are images of their own; all of them if none is."""
        return [self._images[number] for number in self.numbers()]

    def numbers(self) -> list[int]:
        """The numbers among all entries of those that `images` has."""
        own = [
            number
            for number, item in enumerate(self._images)
            if number not in self._cosign.subjects and not self._hangs(*item)
        ]
        return own or [*range(len(self._images))]

    def _hangs(self, names: Sequence[str], entry: Descriptor) -> bool:
        """Whether an entry is there only because of its subject: the list of the referrers of one, or, where
        that is here, what cosign calls after it, or what has a subject and no name."""
        if not names:
            subject = self._subject(entry)
            return subject is not None and self._is_here(subject)
        subjects = {subject_in_tag(name) for name in names}
        if "" in subjects:
            return False
        if entry.media_type in media.INDEXES:
            return True
        return any(self._is_here(digest_in_tag(tag)) for tag in subjects)

    def _is_here(self, digest: Digest) -> bool:
        try:
            self._read(Descriptor("", digest, UNKNOWN_SIZE))
        except NotFound:
            return False
        except (UnsupportedContent, IntegrityError):
            return True  # a blob, larger than manifests are, or one that its reader will be told is wrong
        return True


def updated_referrers_index(
    subject: Digest, raw: bytes | None, referrers: Iterable[Descriptor]
) -> Manifest | None:
    """The index that lists these as referrers of `subject`, too; None if `raw`, the one that is there (None:
    there is none), does already."""
    content = merge_referrers_index(raw, referrers)
    if content is None:
        return None
    return parse_manifest(content, media.OCI_INDEX, digest=digest_of(content, algorithm_of(subject)))

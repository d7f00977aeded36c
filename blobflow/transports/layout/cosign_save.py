"""What `cosign save` writes into the index.json of a layout, and hauler into its store. Pure.

Each entry has an annotation `kind`, which says whether it is an image, or what cosign keeps of one under its
tags at a registry: signatures, attestations, SBOMs. Nothing names the image that they belong to: it is the
entry before them, or the one of the same name where they have one (cosign, pkg/oci/layout; hauler's fork of
it). Sigstore bundles that refer to the image lie in the folder too, and are not in the index.
"""

from __future__ import annotations

from blobflow.oci import Descriptor, Digest
from blobflow.oci.referrers import COSIGN_SUFFIXES, cosign_tags
from blobflow.transports.layout.index_json import IndexEntries

# What may be a manifest that is not in the index: blobs of no more bytes, and no more of them.
MAX_UNLISTED_BYTES = 64 * 1024
MAX_UNLISTED = 4096
_KIND = "kind"
_IMAGES = frozenset({"dev.cosignproject.cosign/image", "dev.cosignproject.cosign/imageIndex"})
_SUFFIX_OF = dict(
    zip(
        (f"dev.cosignproject.cosign/{what}" for what in ("sigs", "atts", "sboms")),
        COSIGN_SUFFIXES,
        strict=True,
    )
)


class CosignEntries:
    """The entries of an index.json that `kind` tells apart. `subjects`: by the number of each one that hangs
    on an image, the digest of that."""

    def __init__(self, images: IndexEntries) -> None:
        kinds = [(entry.annotations or {}).get(_KIND, "") for _, entry in images]
        self.wrote = not _IMAGES.isdisjoint(kinds)
        self.subjects: dict[int, Digest] = {}
        self._tagged: dict[Digest, dict[str, Descriptor]] = {}
        last: dict[tuple[str, ...], Digest] = {}
        for number, ((names, entry), kind) in enumerate(zip(images, kinds, strict=True)):
            if kind in _IMAGES:
                last[names] = last[()] = entry.digest
            elif kind in _SUFFIX_OF and (subject := last.get(names, last.get(()))):
                self.subjects[number] = subject
                for tag in cosign_tags(subject):
                    if tag.endswith(_SUFFIX_OF[kind]):
                        self._tagged.setdefault(subject, {})[tag] = entry

    def tagged(self, subject: Digest) -> dict[str, Descriptor]:
        """What hangs on an image, by the tag under which cosign keeps it at registries; of several, the
        last."""
        return dict(self._tagged.get(subject, {}))

    def without_names(self, images: IndexEntries) -> IndexEntries:
        """The entries, those that hang on an image without the names that they share with it."""
        return [
            ((), entry) if number in self.subjects else (names, entry)
            for number, (names, entry) in enumerate(images)
        ]

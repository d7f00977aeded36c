"""What refers to what in a layout or archive: signatures, SBOMs, attestations that lie beside their images.

oras and others list them in index.json without a name, each saying its subject itself; regctl keeps lists
under the fallback tag, and cosign has tags of its own, as both do at registries. Pure, but for `read`.
"""

from __future__ import annotations

from collections.abc import Callable

from blobflow.content import Referrer
from blobflow.errors import NotFound, UnsupportedContent
from blobflow.oci import Descriptor, Digest, Manifest, media, parse_manifest
from blobflow.oci.referrers import cosign_tags, fallback_tag
from blobflow.transports.imageindex import Images

Read = Callable[[Descriptor], bytes]


class Subjects:
    """Who refers to which manifest, by the entries of one index.json; those without a name are read once.

    `read` raises NotFound for what is not here: that refers to nothing, and is no error.
    """

    def __init__(self, images: Images, read: Read) -> None:
        self._read = read
        self._named = {name: entry for names, entry in images for name in names}
        self._own: dict[Digest, list[Referrer]] = {}
        for names, entry in images:
            manifest = self._manifest(entry) if not names or entry.artifact_type else None
            if manifest is not None and manifest.subject is not None:
                subject = manifest.subject.digest
                self._own.setdefault(subject, []).append(Referrer(manifest.descriptor, subject, "api"))

    def of(self, subject: Digest) -> list[Referrer]:
        """See `Refers.referrers`. Raises StorageError, IntegrityError."""
        found = list(self._own.get(subject, ()))
        listed = self._by_tag(fallback_tag(subject))
        if listed is not None and listed.is_index:
            met = {each.manifest.digest for each in found}
            found += (Referrer(each, subject, "tag") for each in listed.manifests if each.digest not in met)
        for tag in cosign_tags(subject):
            if (manifest := self._by_tag(tag)) is not None:
                found.append(Referrer(manifest.descriptor, subject, "cosign", tag))
        return found

    def _by_tag(self, tag: str) -> Manifest | None:
        return self._manifest(self._named[tag]) if tag in self._named else None

    def _manifest(self, entry: Descriptor) -> Manifest | None:
        """None for what is not here, or is none: an index.json may list anything."""
        if entry.media_type and entry.media_type not in media.MANIFESTS:
            return None
        try:
            return parse_manifest(self._read(entry), entry.media_type, digest=entry.digest)
        except (NotFound, UnsupportedContent):
            return None

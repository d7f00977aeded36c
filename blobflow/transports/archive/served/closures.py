"""What a registry holds of images that lie in archives: their manifests and blobs, and what refers to them.

Only manifests are read, each is verified, and what is wrong with one is told and leaves out that one alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from blobflow.errors import IntegrityError, NotFound, UnsupportedContent
from blobflow.oci import Descriptor, Digest, Manifest, parse_manifest
from blobflow.transports.archive.images import read_manifest
from blobflow.transports.archive.served.blobs import ServedArchive


class Closure(msgspec.Struct):
    """What one repository holds. `kinds`: the media types of manifests, "" of blobs; `tags`: those that
    cosign made for its images."""

    kinds: dict[Digest, str] = {}
    tags: dict[str, Digest] = {}


class ClosureReader:
    """Reads closures from archives that count as one place.

    `absent` and `wrong` grow: the layers, configs and roots that no archive has, and a sentence for each
    manifest that can't be served.
    """

    def __init__(self, archives: Sequence[ServedArchive]) -> None:
        self._archives = archives
        self.absent: set[Digest] = set()
        self.wrong: dict[Digest, str] = {}

    def read(self, roots: Iterable[Descriptor], most: int) -> Closure:
        """What belongs to the roots, in no more than about `most` entries. Raises UnsupportedContent if there
        are more."""
        found = Closure({}, {})
        waiting = [*roots]
        self.absent |= {root.digest for root in waiting if not self._has(root.digest)}
        while waiting:
            descriptor = waiting.pop()
            if descriptor.digest in found.kinds:
                continue
            manifest = self._manifest(descriptor)
            if manifest is None:
                continue
            found.kinds[descriptor.digest] = manifest.descriptor.media_type
            self._take_blobs(manifest, found)
            if len(found.kinds) > most:
                raise UnsupportedContent(
                    "the bundles have more manifests and blobs than are served from files; load them into a "
                    "registry: blobflow load"
                )
            waiting += manifest.manifests
            waiting += self._referrers(descriptor.digest, found)
        return found

    def _take_blobs(self, manifest: Manifest, found: Closure) -> None:
        for blob in manifest.blobs:
            if not self._has(blob.digest):
                self.absent.add(blob.digest)
            else:
                found.kinds.setdefault(blob.digest, "")

    def _referrers(self, subject: Digest, found: Closure) -> Iterator[Descriptor]:
        for archive in self._archives:
            for referrer in archive.images.referrers(subject):
                if self._has(referrer.manifest.digest):
                    if referrer.how == "cosign":
                        found.tags[referrer.tag] = referrer.manifest.digest
                    yield referrer.manifest

    def _manifest(self, descriptor: Descriptor) -> Manifest | None:
        """A manifest that is here and sound."""
        archive = self._holding(descriptor.digest)
        if archive is None or descriptor.digest in self.wrong:
            return None
        try:
            raw = read_manifest(archive.opened, archive.images, descriptor)
            return parse_manifest(raw, descriptor.media_type, digest=descriptor.digest)
        except NotFound:
            return None
        except (IntegrityError, UnsupportedContent) as error:
            self.wrong[descriptor.digest] = error.message
            return None

    def _has(self, digest: Digest) -> bool:
        return self._holding(digest) is not None

    def _holding(self, digest: Digest) -> ServedArchive | None:
        return next((each for each in self._archives if each.images.blob(digest) is not None), None)

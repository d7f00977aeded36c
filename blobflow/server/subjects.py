"""What the manifests of a store refer to. A list of referrers is made of what a repository holds just then,
so nothing has to be kept in step; and which subject a manifest has never changes, as its digest names its
bytes: so each is read once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from blobflow.errors import UnsupportedContent
from blobflow.oci import Descriptor, Digest, media, parse_manifest
from blobflow.oci.referrers import mention_of
from blobflow.transports.store import Store

# Manifests of which it is remembered what they refer to; some hundred bytes each.
_MOST = 100_000

# A manifest's subject, and the manifest as a list of referrers has it; None: it has no subject.
Referral = tuple[Digest, Descriptor] | None


class Subjects:
    """Used on one loop only; files are read in a thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[Digest, Referral] = {}

    async def referrers(self, repository: str, subject: Digest) -> list[Descriptor]:
        """The repository's manifests that refer to `subject`, by digest."""
        held = self._store.members(repository, media.MANIFESTS)
        unknown = [(digest, kind) for digest, kind in held if digest not in self._known]
        found = {digest: self._known.get(digest) for digest, _ in held}
        if unknown:
            read = await asyncio.to_thread(self._read, unknown)
            found |= read
            self._known = read if len(self._known) + len(read) > _MOST else self._known | read
        return [each[1] for each in found.values() if each is not None and each[0] == subject]

    def _read(self, manifests: Iterable[tuple[Digest, str]]) -> dict[Digest, Referral]:
        """In a thread. A manifest whose file is gone refers to nothing, for now."""
        found: dict[Digest, Referral] = {}
        for digest, kind in manifests:
            try:
                manifest = parse_manifest(self._store.path_of(digest).read_bytes(), kind, digest=digest)
            except OSError:
                continue
            except UnsupportedContent:  # the file is damaged: who reads the manifest is told
                continue
            subject = manifest.subject
            found[digest] = (subject.digest, mention_of(manifest)) if subject is not None else None
        return found

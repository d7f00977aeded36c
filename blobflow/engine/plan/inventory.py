"""The inventory: which content the targets are known to have, and to lack, when a plan is made."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from blobflow.content import Site
from blobflow.engine.pairs import Pair
from blobflow.engine.plan.steps import Backup
from blobflow.oci import Digest

_NOTHING: frozenset[Digest] = frozenset()


class Inventory(msgspec.Struct, frozen=True):
    """What the targets have. Three-valued: present, absent, or (in neither) unknown.

    `tags`: what each (site, tag) names now; None: nothing. An image manifest that is present implies its
    blobs, an index implies nothing but itself: registries let children be deleted, and a sparse index has the
    full one's digest. `settled`: pairs whose target is known to have all that they want. `listed`: subjects,
    each with a manifest that the target lists as its referrer. `remembered`: for blobs that a site lacks,
    other repositories of its registry that had them in an earlier run, the best first. `mounts_named`:
    registries that mount only what a manifest of the origin names. `backups`: what is to be kept of each
    (site, tag) before that names something else.
    """

    present: dict[Site, frozenset[Digest]]
    absent: dict[Site, frozenset[Digest]]
    tags: dict[tuple[Site, str], Digest | None]
    settled: frozenset[Pair] = frozenset()
    listed: dict[Site, frozenset[tuple[Digest, Digest]]] = {}
    remembered: dict[Site, dict[Digest, tuple[Site, ...]]] = {}
    mounts_named: frozenset[str] = frozenset()
    backups: dict[tuple[Site, str], Backup] = {}

    def has(self, site: Site, digest: Digest) -> bool:
        return digest in self.at(site)

    def at(self, site: Site) -> frozenset[Digest]:
        """The content that a site is known to have."""
        return self.present.get(site, _NOTHING)


def merge_inventories(inventories: Iterable[Inventory]) -> Inventory:
    """Merge what several targets have; each inventory covers sites of its own."""
    present: dict[Site, frozenset[Digest]] = {}
    absent: dict[Site, frozenset[Digest]] = {}
    tags: dict[tuple[Site, str], Digest | None] = {}
    settled: frozenset[Pair] = frozenset()
    listed: dict[Site, frozenset[tuple[Digest, Digest]]] = {}
    remembered: dict[Site, dict[Digest, tuple[Site, ...]]] = {}
    mounts_named: frozenset[str] = frozenset()
    backups: dict[tuple[Site, str], Backup] = {}
    for each in inventories:
        present |= each.present
        absent |= each.absent
        tags |= each.tags
        settled |= each.settled
        listed |= each.listed
        remembered |= each.remembered
        mounts_named |= each.mounts_named
        backups |= each.backups
    return Inventory(present, absent, tags, settled, listed, remembered, mounts_named, backups)

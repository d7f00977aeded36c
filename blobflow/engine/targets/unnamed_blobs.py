"""Unnamed blobs: what a run that was ended left in a repository before it put any manifest there.

Some registries (distribution 2.8) say of such a repository that it does not exist, so it is taken for empty
and not asked for anything. An earlier run noted what it put there (see `mount_origins`): that is asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

import msgspec

from blobflow.content import Journal, Mounts, NullJournal, SinkAt, Site
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.plan.desired import DesiredImage
from blobflow.engine.plan.inventory import Inventory
from blobflow.errors import BlobflowError
from blobflow.oci import Descriptor, Digest


async def with_unnamed_blobs(
    inventory: Inventory,
    empty: Collection[Site],
    pairs: Collection[Pair],
    desired_images: Mapping[Pair, DesiredImage],
    sink_at: SinkAt,
    runner: BoundedRunner,
) -> Inventory:
    """The inventory with the blobs that are at sites which were taken for `empty`, as far as an earlier run
    noted them. It is to have the mount origins already."""
    asked: dict[tuple[Site, Digest], Descriptor] = {}
    for pair in pairs:
        site = site_of(pair.target)
        noted = inventory.remembered.get(site) if site in empty else None
        for manifest in desired_images[pair].everything if noted else ():
            for blob in manifest.blobs:
                if noted and site in noted.get(blob.digest, ()):
                    asked[site, blob.digest] = blob
    found: dict[Site, set[Digest]] = {}

    async def ask(wanted: tuple[Site, Digest]) -> None:
        site, digest = wanted
        try:
            held = await sink_at(site).has(asked[wanted])
        except BlobflowError:
            return  # then it is uploaded, and that fails too, or was worth it
        if held:
            found.setdefault(site, set()).add(digest)

    await runner.for_each(ask, sorted(asked))
    if not found:
        return inventory
    present, absent = dict(inventory.present), dict(inventory.absent)
    for site, digests in found.items():
        present[site] = present.get(site, frozenset()) | digests
        absent[site] = absent.get(site, frozenset()) - digests
    return msgspec.structs.replace(inventory, present=present, absent=absent)


async def noted_blobs(
    wanted: Mapping[Site, Collection[Digest]], journal: Journal, sink_at: SinkAt
) -> set[tuple[Site, Digest]]:
    """Of blobs that are wanted at sites, those that an earlier run noted there. Asks no registry."""
    if isinstance(journal, NullJournal):
        return set()
    by_login: defaultdict[tuple[str, str], dict[Site, Collection[Digest]]] = defaultdict(dict)
    for site, digests in wanted.items():
        sink = sink_at(site)
        if isinstance(sink, Mounts) and (login := await sink.login()) is not None:
            by_login[site.registry, login][site] = digests
    noted: set[tuple[Site, Digest]] = set()
    for (registry, login), sites in by_login.items():
        found = journal.mount_origins(registry, login, frozenset[Digest]().union(*sites.values()))
        for site, digests in sites.items():
            noted.update((site, each) for each in digests if site.repository in found.get(each, ()))
    return noted

"""Mount origins: repositories of a target registry that, by earlier runs, hold what another one lacks.

    survey ─► recall ─► plan (`Inventory.remembered`) ─► transfer ─► record, forget

What a run puts or mounts at a repository, or its survey finds there, is recorded, and recalled when a later
run wants the same blob anywhere at that registry, under the same login. It may be gone by then: a mount that
is refused becomes an upload, and its origin is forgotten. Of what is kept see `Journal.mount_origins`.

A registry that refuses mounts and never granted one is not asked for remembered ones for a week.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from itertools import takewhile

import msgspec

from blobflow.content import Journal, Mounts, NullJournal, SinkAt, Site, parse_number
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.plan.desired import DesiredImage
from blobflow.engine.plan.inventory import Inventory
from blobflow.engine.plan.planned import PlanPart
from blobflow.engine.plan.steps import Mount
from blobflow.oci import Digest

# The journal's key for "this registry has mounted a blob for us": its mounts are proven.
MOUNTS = "mounts"
# And for "it refused some, and never granted one", with the time (Unix seconds).
_REFUSES = "mounts refused"
_REFUSES_SECONDS = 7 * 24 * 3600
# So many are refused in one run before that is noted: content may be gone, or an origin out of bounds.
_REFUSED = 3
# What was learned of so many blobs is written at once, also while the run goes on: some milliseconds' work.
BATCH = 100
# And what was learned in so many seconds, however little: a run that is killed loses no more of it.
WRITE_SECONDS = 2.0
# A registry, and a login there.
_Key = tuple[str, str]


async def with_mount_origins(
    inventory: Inventory,
    pairs: Iterable[Pair],
    desired_images: Mapping[Pair, DesiredImage],
    journal: Journal,
    sink_at: SinkAt,
) -> Inventory:
    """The inventory with what is known of mounts at the pairs' targets. Asks no registry."""
    wanted = _missing(inventory, pairs, desired_images)
    named: set[str] = set()
    asked: defaultdict[_Key, dict[Site, set[Digest]]] = defaultdict(dict)
    for site, digests in wanted.items():
        sink = sink_at(site)
        if not isinstance(sink, Mounts) or sink.mount_rule == "nothing":
            continue
        if sink.mount_rule == "named":
            named.add(site.registry)
        if isinstance(journal, NullJournal) or refuses_mounts(journal, site.registry):
            continue
        if (login := await sink.login()) is not None:
            asked[site.registry, login][site] = digests
    remembered: dict[Site, dict[Digest, tuple[Site, ...]]] = {}
    for (registry, login), by_site in asked.items():
        found = journal.mount_origins(registry, login, frozenset[Digest]().union(*by_site.values()))
        for site, digests in by_site.items():
            held = Counter(repository for digest in digests for repository in found.get(digest, ()))
            origins = {d: _best_first(site, found[d], held) for d in digests if d in found}
            if origins:
                remembered[site] = origins
    return msgspec.structs.replace(inventory, remembered=remembered, mounts_named=frozenset(named))


def refuses_mounts(journal: Journal, registry: str) -> bool:
    """Whether a registry refused mounts lately, and never granted one."""
    noted = parse_number(journal.note(registry, _REFUSES))
    if noted is None or journal.note(registry, MOUNTS):
        return False
    return abs(time.time() - noted) < _REFUSES_SECONDS  # a clock may go back


class OriginRecorder:
    """What one run learns of where blobs are at its targets, for later runs. `write` it in the end.

    Nothing is kept of sites that can't be mounted from: layouts, archives, sinks of one's own.
    """

    def __init__(self, journal: Journal, sink_at: SinkAt) -> None:
        self._journal = journal
        self._sink_at = sink_at
        self._keeps = not isinstance(journal, NullJournal)
        self._found: dict[tuple[Site, Digest], None] = {}
        self._gone: list[Mount] = []
        self._refused: Counter[str] = Counter()
        self._logins: dict[Site, str | None] = {}
        self._written = time.monotonic()

    def found(self, site: Site, digests: Iterable[Digest]) -> None:
        """These blobs are there: they were put or mounted, or the survey found them."""
        if self._keeps:
            self._found.update(((site, digest), None) for digest in digests)

    def surveyed(self, part: PlanPart) -> None:
        """The survey found blobs of these images, where the inventory says so."""
        for goal in part.plan.goals:
            site = site_of(goal.pair.target)
            there = part.inventory.at(site)
            for manifest in part.desired_images[goal.pair].everything if there else ():
                self.found(site, (blob.digest for blob in manifest.blobs if blob.digest in there))

    def granted(self, step: Mount) -> None:
        """The registry mounted the blob."""
        self.found(step.target, (step.blob.digest,))
        if not self._journal.note(step.target.registry, MOUNTS):
            self._journal.record_note(step.target.registry, MOUNTS, "yes")

    def refused(self, step: Mount) -> None:
        """The registry would not mount the blob: its origin is forgotten, if it was remembered."""
        registry = step.target.registry
        if step.remembered and self._keeps:
            self._gone.append(step)
        self._refused[registry] += 1
        if self._refused[registry] == _REFUSED and not self._journal.note(registry, MOUNTS):
            self._journal.record_note(registry, _REFUSES, str(int(time.time())))

    def is_worth_asking(self, step: Mount) -> bool:
        """Whether to ask for a mount: not for remembered ones, where mounts are refused."""
        return not (step.remembered and refuses_mounts(self._journal, step.target.registry))

    async def write(self, at_least: int = 1) -> None:
        """Write what was learned since the last time, if it is of so many blobs, or that was a while ago."""
        learned = len(self._found) + len(self._gone)
        if not learned or (learned < at_least and time.monotonic() - self._written < WRITE_SECONDS):
            return
        self._written = time.monotonic()
        found, self._found = self._found, {}
        gone, self._gone = self._gone, []
        forgotten: defaultdict[_Key, list[tuple[str, Digest]]] = defaultdict(list)
        for step in gone:
            if (login := await self._login(step.target)) is not None:
                forgotten[step.target.registry, login].append((step.origin.repository, step.blob.digest))
        recorded: defaultdict[_Key, list[tuple[str, Digest]]] = defaultdict(list)
        for site, digest in found:
            if (login := await self._login(site)) is not None:
                recorded[site.registry, login].append((site.repository, digest))
        for (registry, login), blobs in forgotten.items():
            self._journal.forget_mount_origins(registry, login, blobs)
        for (registry, login), blobs in recorded.items():
            for first in range(0, len(blobs), BATCH):
                self._journal.record_mount_origins(registry, login, blobs[first : first + BATCH])
                await asyncio.sleep(0)

    async def _login(self, site: Site) -> str | None:
        """Who is at a site; None where nothing is kept of it."""
        if site not in self._logins:
            sink = self._sink_at(site)
            if isinstance(sink, Mounts) and sink.mount_rule != "nothing":
                self._logins[site] = await sink.login()
            else:
                self._logins[site] = None
        return self._logins[site]


def _missing(
    inventory: Inventory, pairs: Iterable[Pair], desired_images: Mapping[Pair, DesiredImage]
) -> dict[Site, set[Digest]]:
    """The blobs that have to be brought, by site."""
    wanted: dict[Site, set[Digest]] = {}
    for pair in pairs:
        site = site_of(pair.target)
        there = inventory.at(site)
        for manifest in desired_images[pair].everything if pair not in inventory.settled else ():
            if manifest.descriptor.digest not in there:
                lacked = {blob.digest for blob in manifest.blobs} - there
                if lacked:
                    wanted.setdefault(site, set()).update(lacked)
    return wanted


def _best_first(site: Site, repositories: Collection[str], held: Mapping[str, int]) -> tuple[Site, ...]:
    """The origins: first by how many leading parts of their names are the site's own, since registries bound
    mounts to an owner (GHCR) or a project, and logins too; then by how many of the wanted blobs they have,
    since each origin costs a token; among equals the last recorded."""
    own = site.repository.split("/")

    def shared(repository: str) -> int:
        parts = zip(own, repository.split("/"), strict=False)
        return len(list(takewhile(lambda both: both[0] == both[1], parts)))

    ordered = sorted(repositories, key=lambda each: (shared(each), held[each]), reverse=True)
    return tuple(Site(site.registry, repository) for repository in ordered)

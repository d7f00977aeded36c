"""Which worker gets a carriage, and when: those that wait, in their order, and the workers that have room."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable

import msgspec

from blobflow.cluster.members import Member, hosts_of
from blobflow.cluster.standing import Load, StandingHosts, elsewhere
from blobflow.content import Site
from blobflow.engine.transfer.carrying import Carriage
from blobflow.settings import Settings
from blobflow.waits import OpenWait, Waits

# Carriages that wait here beside those at workers, so that one that fits is at hand whatever host is full.
AHEAD = 64


class _Waiting(msgspec.Struct, eq=False):
    carriage: Carriage
    hosts: frozenset[str]
    not_at: Collection[str]
    given: asyncio.Future[Load]


class Others(msgspec.Struct, frozen=True):
    """Which workers there are for what failed at one: `any` where it was not tried yet, and `fresh` ones,
    where nothing of its hosts failed lately."""

    any: bool = False
    fresh: bool = False


class Dispatch:
    """Gives carriages to workers. `fit`: those who may have some; call `serve` at every change. Limits that
    the settings have of a host hold for all workers together. `waits` is told while there is no worker."""

    def __init__(
        self, fit: Callable[[], list[Member]], settings: Settings, waits: Waits, scheduler: str
    ) -> None:
        self._fit = fit
        self._settings = settings
        self._waits = waits
        self._scheduler = scheduler
        self._waiting: dict[_Waiting, None] = {}
        self._at_hosts: Counter[str] = Counter()
        self._open_wait: OpenWait | None = None
        self._standing = StandingHosts()

    def capacity(self) -> int:
        """Carriages that are worth having: at workers, and here. Those that are for targets alone that stand
        still keep nobody's place."""
        hosts = self._standing.hosts()
        waiting = self._waiting if hosts else ()
        for_them = sum(not elsewhere(each.carriage, hosts) for each in waiting)
        return AHEAD + sum(self._room(each) for each in self._fit()) + for_them + self._standing.loads

    @property
    def wanting(self) -> int:
        """Carriages that wait here and would go to another worker, if there were one."""
        return sum(self._below_limits(each.hosts) for each in self._waiting)

    async def worker_for(self, carriage: Carriage, not_at: Collection[str]) -> Load:
        """A worker that has room for it now, in its turn; it is counted as begun there (see `ended`). At the
        addresses `not_at` it was tried already. Where one of its targets stands still and has no room, the
        load is for its others alone."""
        given: asyncio.Future[Load] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(carriage, frozenset(hosts_of(carriage)), not_at, given)
        self._waiting[waiting] = None
        try:
            self.serve()
            return await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled():
                self.ended(given.result())
            raise
        finally:
            self._waiting.pop(waiting, None)
            self._tell()

    def moved(self, target: Site) -> None:
        """Something has got further at a target."""
        self._standing.moved(target.registry)

    def arrived(self, load: Load, target: Site) -> None:
        """A load is at one of its targets: it keeps no room there, nor where it was read."""
        left = self._standing.arrived(load, target)
        load.member.at_hosts.subtract(left)
        self._at_hosts.subtract(left)
        self.serve()

    def ended(self, load: Load) -> None:
        """A worker has a load no more."""
        self._standing.end(load)
        load.member.end(load.carriage, load.hosts)
        self._at_hosts.subtract(load.hosts)
        self.serve()

    def others(self, carriage: Carriage, not_at: Collection[str]) -> Others:
        """Which workers there are where it was not tried yet, and that don't fail with its hosts."""
        hosts = hosts_of(carriage)
        ranks = {_rank(each, hosts, not_at) for each in self._fit() if each.serves(hosts)}
        return Others(any=bool(ranks & {_FRESH, _DOUBTED}), fresh=_FRESH in ranks)

    def serve(self) -> None:
        """Give those who wait to workers with room."""
        if not self._waiting:
            return
        members = self._fit()
        self._standing.look()
        full: set[frozenset[str]] = set()  # most are for the same hosts: one look says it for all
        for waiting in list(self._waiting):
            if waiting.given.done() or waiting.hosts in full:
                continue
            if (load := self._load_for(waiting, members)) is not None:
                load.member.begin(load.carriage)
                self._standing.begin(load)
                self._at_hosts.update(load.hosts)
                waiting.given.set_result(load)
            elif not waiting.not_at:
                full.add(waiting.hosts)
        self._tell()

    def close(self) -> None:
        """Nobody waits any more."""
        self._waiting.clear()
        self._tell()

    def _load_for(self, waiting: _Waiting, members: list[Member]) -> Load | None:
        whole = waiting.carriage
        if (member := self._choose(whole, waiting.not_at, members)) is not None:
            return Load(member, whole)
        moving = elsewhere(whole, self._standing.hosts())
        if not moving or moving == whole.targets:
            return None
        part = msgspec.structs.replace(whole, targets=moving)
        member = self._choose(part, waiting.not_at, members)
        return None if member is None else Load(member, part)

    def _choose(self, carriage: Carriage, not_at: Collection[str], members: list[Member]) -> Member | None:
        hosts = hosts_of(carriage)
        if not self._below_limits(hosts):
            return None
        ranks = {each: _rank(each, hosts, not_at) for each in members if each.serves(hosts)}
        best = min(ranks.values(), default=_FRESH)  # it waits for one of the best, if none of them has room
        able = (
            each
            for each, rank in ranks.items()
            if rank == best and each.may_take(carriage, limited=self._is_limited)
        )
        return min(able, key=lambda each: (each.bytes, each.carriages, each.at), default=None)

    def _below_limits(self, hosts: Iterable[str]) -> bool:
        """Whether the hosts may have one more stream, of all workers together."""
        return all(not (most := self._limit(host)) or self._at_hosts[host] < most for host in hosts)

    def _is_limited(self, host: str) -> bool:
        return bool(self._limit(host))

    def _limit(self, host: str) -> int:
        """The connections that were set for a host; 0: none were."""
        own = self._settings.hosts.get(host)
        return (own.connections if own is not None else None) or self._settings.concurrency or 0

    def _room(self, member: Member) -> int:
        if member.shares is None or member.rests or member.leaves:
            return 0
        most = max(each.streams for each in (member.shares.usual, *member.shares.hosts.values()))
        return min(member.places, most + 1)

    def _tell(self) -> None:
        """Say that there is no worker, as long as there is none and something waits for one."""
        alone = bool(self._waiting) and not self._fit()
        if alone and self._open_wait is None:
            what = f"waiting for a worker of {self._scheduler}"
            self._open_wait = self._waits.begin("work", self._scheduler, what)
        elif not alone and self._open_wait is not None:
            self._open_wait.end()
            self._open_wait = None


# Workers for a carriage, the best first: nothing speaks against the one; with a host of it something failed
# at the next, lately, or others did better there; or it was tried there itself.
_FRESH, _DOUBTED, _AWAY, _TRIED = range(4)


def _rank(member: Member, hosts: Collection[str], not_at: Collection[str]) -> int:
    if member.address in not_at:
        return _TRIED
    if member.is_away(hosts):
        return _AWAY
    return _DOUBTED if member.is_doubted(hosts) else _FRESH

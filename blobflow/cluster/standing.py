"""What stands still: targets, to which carriages are under way and nothing has got further for a while; and
carriages at a worker whose way to a host hangs.

What is for such a target and for others goes to the others first, so that they don't wait for its time-outs.
A carriage that stands still while others get further with its hosts goes to one of those, once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable

from blobflow.cluster.members import Member, hosts_of
from blobflow.content import Site
from blobflow.engine.transfer.carrying import Carriage

# Seconds without a byte and without an answer from which a target stands still. A registry that hashes a blob
# of gigabytes looks so, too: then a blob that could not go there anyway goes to others first.
STANDS_SECONDS = 20.0
# Seconds without a byte from which a carriage stands still at its worker: longer than the first of a worker's
# own time-outs, after which most go on.
LOAD_STANDS_SECONDS = 90.0
# Seconds for which another one has to get further meanwhile: after an outage not all go on at one moment, and
# what goes on by itself loses nothing.
MOVES_SECONDS = 45.0
# Seconds for which such a worker gets nothing more of those hosts, where others may do better.
RECALL_SECONDS = 600.0


class Load:
    """A carriage at a worker. `hosts`: the registries at which it has something; `open`: the targets where it
    has not arrived; `bytes`: how far it is there. `since`: when it got further last, by the loop's clock, for
    which `begun` counts too; `moved`: the same, but for that."""

    def __init__(self, member: Member, carriage: Carriage) -> None:
        self.member = member
        self.carriage = carriage
        self.hosts = hosts_of(carriage)
        self.open = set(carriage.targets)
        self.stands = False
        self.bytes: dict[Site, int] = {}
        self.since = self.moved = asyncio.get_running_loop().time()

    @property
    def is_between(self) -> bool:
        """Whether it has begun, and no target has all of it, which that may take minutes to hash."""
        size, none_has_it = self.carriage.blob.size, len(self.open) == len(self.carriage.targets)
        return bool(self.bytes) and none_has_it and all(sent < size for sent in self.bytes.values())

    def arrived(self, target: Site) -> set[str]:
        """It is at a target, and so has been read. Returns the hosts that it has left by that."""
        self.open.discard(target)
        left = self.hosts - {each.registry for each in self.open}
        self.hosts -= left
        return left


class StandingHosts:
    """Follows what moves at the targets of one run."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._open: Counter[str] = Counter()
        self._loads: set[Load] = set()
        self.loads = 0  # those that have nothing left but what stands still

    def begin(self, load: Load) -> None:
        """A carriage is given to a worker."""
        for target in load.open:
            if not self._open[target.registry]:
                self.moved(target.registry)  # nothing was under way there
            self._open[target.registry] += 1
        self._loads.add(load)

    def arrived(self, load: Load, target: Site) -> set[str]:
        """A load is at one of its targets. Returns the hosts that it has left by that."""
        self.moved(target.registry)
        self._open[target.registry] -= target in load.open
        return load.arrived(target)

    def end(self, load: Load) -> None:
        """A worker has it no more."""
        self._loads.discard(load)
        self._stand(load, stands=False)
        for target in load.open:
            self.moved(target.registry)
            self._open[target.registry] -= 1

    def moved(self, host: str) -> None:
        """Something got further there."""
        self._since[host] = asyncio.get_running_loop().time()

    def look(self) -> None:
        """Note which carriages have nothing left but what stands still."""
        hosts = self.hosts()
        for load in self._loads if hosts or self.loads else ():
            only = {target.registry for target in load.open} <= hosts
            self._stand(load, stands=only and len(load.open) < len(load.carriage.targets))

    def hosts(self) -> set[str]:
        """The targets that stand still now."""
        now = asyncio.get_running_loop().time()
        return {host for host, number in self._open.items() if number and self._stands(host, now)}

    def _stands(self, host: str, now: float) -> bool:
        return now - self._since.get(host, now) >= STANDS_SECONDS

    def _stand(self, load: Load, *, stands: bool) -> None:
        load.member.standing += stands - load.stands
        self.loads += stands - load.stands
        load.stands = stands


class StandingLoads:
    """Follows how far workers get with each host."""

    def __init__(self) -> None:
        self._moving: dict[str, dict[str, tuple[float, float]]] = {}  # from when to when, by host and worker

    def begun(self, load: Load) -> None:
        """A load waits no more at its worker."""
        load.since = asyncio.get_running_loop().time()

    def moved(self, load: Load, targets: Iterable[Site]) -> None:
        """A load got further on its way to these targets."""
        now = load.since = load.moved = asyncio.get_running_loop().time()
        for host in {load.carriage.source.registry, *(target.registry for target in targets)}:
            moving = self._moving.setdefault(host, {})
            first, last = moving.get(load.member.address, (now, now))
            moving[load.member.address] = (first if now - last < STANDS_SECONDS else now, now)

    def stands(self, load: Load) -> bool:
        """Whether it stands still, and other workers have got further with each of its hosts for a while."""
        late = asyncio.get_running_loop().time() - load.since >= LOAD_STANDS_SECONDS
        return late and load.is_between and all(self._moves(host, load) for host in load.hosts)

    def _moves(self, host: str, load: Load) -> bool:
        return any(
            last - max(first, load.moved) >= MOVES_SECONDS
            for address, (first, last) in self._moving.get(host, {}).items()
            if address != load.member.address
        )


def elsewhere(carriage: Carriage, hosts: Collection[str]) -> tuple[Site, ...]:
    """The targets of a carriage that are at none of the hosts."""
    return tuple(target for target in carriage.targets if target.registry not in hosts)

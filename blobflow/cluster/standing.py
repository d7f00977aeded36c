"""Targets that stand still: hosts to which carriages are under way, and nothing has got further for a while.

What is for such a target and for others goes to the others first, so that they don't wait for its time-outs.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection

from blobflow.cluster.members import Member, hosts_of
from blobflow.content import Site
from blobflow.engine.transfer.carrying import Carriage

# Seconds without a byte and without an answer from which a target stands still. A registry that hashes a blob
# of gigabytes looks so, too: then a blob that could not go there anyway goes to others first.
STANDS_SECONDS = 20.0


class Load:
    """A carriage at a worker. `hosts`: the registries at which it has something; `open`: the targets where it
    has not arrived."""

    def __init__(self, member: Member, carriage: Carriage) -> None:
        self.member = member
        self.carriage = carriage
        self.hosts = hosts_of(carriage)
        self.open = set(carriage.targets)
        self.stands = False

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


def elsewhere(carriage: Carriage, hosts: Collection[str]) -> tuple[Site, ...]:
    """The targets of a carriage that are at none of the hosts."""
    return tuple(target for target in carriage.targets if target.registry not in hosts)

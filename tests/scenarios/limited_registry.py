"""A registry that lets only so many requests in at once, and the images of a run against it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from blobflow.content import NullJournal, Site
from blobflow.engine.pairs import Pair
from blobflow.engine.services import Services
from blobflow.events import Meter, ignore
from blobflow.oci import Reference
from blobflow.oci.sample_images import SampleSet
from blobflow.permits import FixedLimiters, PermitKind
from blobflow.transports.registry import HostAccess, Registries
from blobflow.transports.store import Store, StoreCache
from tests.fakes.registry import Clock

# Seconds that a back-off really lasts at most, whatever the clock says: longer than a request stays in the
# registry, files and all. Else one comes again ten times while the same others fill the slots.
BACK_OFF = 0.2


class LimitedRegistries:
    """Registries on a clock that only sleeping moves, and a store to go with them. `mirrors`: by host."""

    def __init__(
        self, store: Store, mirrors: Mapping[str, tuple[str, ...]] | None = None, /, **access: float
    ) -> None:
        self.clock = Clock()
        self.meter = Meter()
        self.store = store
        self.registries = Registries(
            lambda host: HostAccess(
                scheme="http",
                connections=int(access.get("connections", 8)),
                requests_per_second=access.get("requests_per_second", 0),
                bytes_per_second=access.get("bytes_per_second", 0),
                mirrors=(mirrors or {}).get(host, ()),
            ),
            meter=self.meter,
            bytes_per_second=access.get("in_all", 0),
            sleep=self._sleep,
            clock=self.clock,
            jitter=lambda: 0.5,
        )

    async def _sleep(self, seconds: float) -> None:
        await self.clock.sleep(seconds)
        await asyncio.sleep(min(seconds, BACK_OFF))

    def requests_at_once(self, host: str) -> int:
        """How many small requests there may be now."""
        return self.registries.sink(Site(host, "app")).limiter.limit(PermitKind.REQUEST)

    def in_flight(self, host: str) -> int:
        """How many requests and streams there are now."""
        return self.registries.sink(Site(host, "app")).limiter.in_flight

    def services(self, **changes: Any) -> Services:
        made = Services(
            source_at=self.registries.source,
            sink_at=self.registries.sink,
            cache=StoreCache(self.store),
            journal=NullJournal(),
            observe=ignore,
            meter=self.meter,
            limiter_at=FixedLimiters().at,
            allowance_of=self.registries.allowance,
            sleep=self.clock.sleep,
            random=lambda: 0.5,
        )
        return msgspec.structs.replace(made, **changes)


def pairs_of(images: SampleSet, source: str, target: str) -> list[Pair]:
    found = []
    for name in images.images:
        repository, _, tag = name.rpartition(":")
        found.append(Pair(Reference(source, repository, tag), Reference(target, repository, tag)))
    return found

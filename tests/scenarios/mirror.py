"""A mirror between places in memory: a source with the sample set, some targets, and what joins them."""

from __future__ import annotations

from typing import Any

from blobflow.content import Site
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Pair
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.engine.results.report import Report
from blobflow.engine.services import Services
from blobflow.events import Meter, ignore
from blobflow.oci import Reference
from blobflow.oci.sample_images import SampleSet, sample_set
from blobflow.permits import FixedLimiters
from blobflow.transports.store import Store, StoreCache, StoreJournal
from tests.fakes.memory_registry import MemoryRegistry


class MirrorScenario:
    """A source with the sample set, some targets, and a world that joins them."""

    def __init__(self, store: Store, sample: SampleSet | None = None) -> None:
        self.sample = sample or sample_set(7, images=4)
        self.source = MemoryRegistry("source")
        self.source.fill(self.sample)
        self.targets: dict[str, MemoryRegistry] = {}
        self.cache = StoreCache(store)
        self.journal = StoreJournal(store)
        self.delays: list[float] = []

    def target(self, name: str = "target", *, mounts: bool = True) -> MemoryRegistry:
        self.targets[name] = MemoryRegistry(name, mounts=mounts)
        return self.targets[name]

    @property
    def pairs(self) -> list[Pair]:
        pairs = []
        for name in self.sample.images:
            repository, _, tag = name.rpartition(":")
            for target in self.targets:
                pairs.append(Pair(Reference("source", repository, tag), Reference(target, repository, tag)))
        return pairs

    def services(self, **changes: Any) -> Services:
        registries = {"source": self.source, **self.targets}

        async def sleep(seconds: float) -> None:
            self.delays.append(seconds)

        return Services(
            source_at=lambda site: registries[site.registry].at(site),
            sink_at=lambda site: registries[site.registry].at(site),
            cache=self.cache,
            journal=self.journal,
            observe=ignore,
            meter=Meter(),
            limiter_at=FixedLimiters(4).at,
            sleep=sleep,
            random=lambda: 0.5,
            **changes,
        )

    async def mirror(self, policy: Policy = KEEP_GOING, pairs: list[Pair] | None = None) -> Report:
        return await run_of_pairs(pairs or self.pairs, policy).execute(self.services())

    def reopen(self, store: Store) -> None:
        """Go on with the same store as a later process would."""
        self.cache = StoreCache(store)
        self.journal = StoreJournal(store)

    def opened(self) -> dict[str, int]:
        """How often each blob was read from the source."""
        return {name: n for (call, name), n in self.source.calls.items() if call == "open"}

    def forget_calls(self) -> None:
        for registry in (self.source, *self.targets.values()):
            registry.calls.clear()

    def blobs(self) -> set[str]:
        return set(self.sample.blobs)

    def assert_whole(self, target: MemoryRegistry) -> None:
        for name, root in self.sample.images.items():
            repository, _, tag = name.rpartition(":")
            site = Site(target.name, repository)
            assert target.tags[site, tag] == root.digest
            assert target.manifests[site].keys() == self.source.manifests[Site("source", repository)].keys()
            assert target.blobs[site] == self.source.blobs[Site("source", repository)]

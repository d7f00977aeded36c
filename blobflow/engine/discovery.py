"""Discovery: what sources and targets are asked before a run can be planned.

It is made a target host at a time, and all of them at once: resolve, survey, read. What several of them want
to know of a source (what a tag names, a manifest, what refers to it) is asked once, also while the first
answer is under way. No target waits for another's answers, so that one which does not answer keeps nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from blobflow.content import NullJournal
from blobflow.engine.concurrency.bounded_runner import BoundedRunner, run_alongside
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.plan.attachments import accepts_referrers, attach_referrers, without_overwrites
from blobflow.engine.plan.desired import DesiredImage, build_desired_images, choices_of
from blobflow.engine.plan.inventory import Inventory, merge_inventories
from blobflow.engine.policy import Policy
from blobflow.engine.services import Services
from blobflow.engine.sources.graph import Graph
from blobflow.engine.sources.pull_quota import PullQuota
from blobflow.engine.sources.reader import GraphReader, read_graph
from blobflow.engine.sources.referrers import ReferrerLookups
from blobflow.engine.sources.roots import RootLookups, conflicting_pairs, resolve_roots
from blobflow.engine.targets.acceptance import unacceptable_pairs
from blobflow.engine.targets.audit import Audit
from blobflow.engine.targets.survey import TagSurvey, TargetLookups, survey_content, survey_tags
from blobflow.engine.transfer.runner import refuses_sparse
from blobflow.errors import BlobflowError, NoSuchPlatform, own_copy
from blobflow.events import Observer, PhaseStarted, Warned
from blobflow.oci import Descriptor, Reference

# Small requests in flight for the discovery of one target host, over all hosts; each host's limiter bounds
# them as well.
MAX_SMALL_REQUESTS = 32


class Discovered(msgspec.Struct, frozen=True):
    """What is known of some pairs: what they want at their targets, and what is there.

    `failures`: pairs that nothing can be planned for, and why; `skipped`: those of which nothing is wanted,
    as they lack the platforms that are. `current`: those that are taken as whole because an earlier run put
    them there.
    """

    pairs: tuple[Pair, ...]
    desired_images: dict[Pair, DesiredImage]
    inventory: Inventory
    failures: dict[Pair, BlobflowError]
    current: frozenset[Pair]
    skipped: dict[Pair, NoSuchPlatform] = {}

    @property
    def good(self) -> list[Pair]:
        return [pair for pair in self.pairs if pair not in self.failures and pair not in self.skipped]


def join_discovered(answers: Sequence[Discovered]) -> Discovered:
    """What is known of several groups of pairs, each with a target host of its own."""
    desired_images: dict[Pair, DesiredImage] = {}
    failures: dict[Pair, BlobflowError] = {}
    skipped: dict[Pair, NoSuchPlatform] = {}
    for each in answers:
        desired_images |= each.desired_images
        failures |= each.failures
        skipped |= each.skipped
    return Discovered(
        pairs=tuple(pair for each in answers for pair in each.pairs),
        desired_images=desired_images,
        inventory=merge_inventories(each.inventory for each in answers),
        failures=failures,
        current=frozenset[Pair]().union(*(each.current for each in answers)),
        skipped=skipped,
    )


def undiscovered(pairs: Sequence[Pair], error: BlobflowError) -> Discovered:
    """What is known of pairs of which nothing could be found out."""
    failures = {pair: own_copy(error) for pair in pairs}
    return Discovered(tuple(pairs), {}, Inventory({}, {}, {}), failures, frozenset())


class Discovery:
    """One run's questions. `roots` gets what the sources name, as it comes to be known; `audit` is None where
    everything is looked at anyway."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        policy: Policy,
        services: Services,
        observe: Observer,
        roots: dict[Reference, Descriptor],
    ) -> None:
        self.policy = policy
        self.services = services
        self.audit: Audit | None = None
        if policy.verify == "roots":  # else everything is asked for
            self.audit = Audit(services, pairs, policy.audit, trust_root=policy.trust_root)
        self.quota = PullQuota(
            services.allowance_of, services.source_at, observe, services.sleep, waits=policy.wait
        )
        self.reader = GraphReader(services.source_at, self.quota.permit, services.manifest_budget, observe)
        self.root_lookups = RootLookups(services.source_at)
        self.referrer_lookups = ReferrerLookups(services.source_at)
        self.roots = roots
        groups: dict[str, list[Pair]] = {}
        for pair in pairs:
            groups.setdefault(pair.target.host, []).append(pair)
        self.groups = tuple(map(tuple, groups.values()))
        self._images = len(pairs)
        self._observe = observe
        self._told: set[str] = set()

    def graph(self) -> Graph:
        """What the sources said so far."""
        return self.reader.graph(self.roots)

    async def of(self, pairs: Sequence[Pair]) -> Discovered:
        """Resolve and survey the pairs of one target host. Changes nothing anywhere.

        Raises what ends the whole run: Throttled, where a source lets too few manifests be read.
        """
        return await _HostDiscovery(self, pairs).discover()

    def begin(self, phase: str) -> None:
        """Say that a phase has begun, when the first group gets to it."""
        if phase not in self._told:
            self._told.add(phase)
            self._observe(PhaseStarted(phase, self._images))

    def warn(self, sentence: str) -> None:
        """Say it, once a run."""
        if sentence not in self._told:
            self._told.add(sentence)
            self._observe(Warned(sentence))


class _HostDiscovery:
    """The discovery of the pairs of one target host, phase by phase. A pair that failed in one, or was found
    to be left as it is, is not asked about in the next."""

    def __init__(self, run: Discovery, pairs: Sequence[Pair]) -> None:
        self._run = run
        self._pairs = pairs
        self._policy = run.policy
        self._source_at = run.services.source_at
        self._sink_at = run.services.sink_at
        self._runner = BoundedRunner(MAX_SMALL_REQUESTS)
        self._targets = TargetLookups(pairs, run.services.sink_at)
        self._roots: Mapping[Reference, Descriptor] = {}
        self._failures: dict[Pair, BlobflowError] = {}
        self._skipped: dict[Pair, NoSuchPlatform] = {}

    async def discover(self) -> Discovered:
        """All of it; see `Discovery.of`."""
        self._run.begin("resolve")
        await self._resolve()
        self._run.begin("survey")
        tags = await self._survey_tags()
        graph = await self._read(tags)
        desired_images = self._build_desired_images(graph, tags)
        desired_images = await self._attach_referrers(desired_images, graph, tags)
        inventory = await self._survey_content(desired_images, tags)
        if self._policy.no_overwrite:
            desired_images = without_overwrites(desired_images, inventory)
        return Discovered(
            tuple(self._pairs), desired_images, inventory, self._failures, tags.current, self._skipped
        )

    def _good(self) -> list[Pair]:
        """The pairs that something may still be done for."""
        return [pair for pair in self._pairs if pair not in self._failures and pair not in self._skipped]

    def _drop(self, failed: Mapping[Reference, BlobflowError]) -> None:
        """The pairs of sources that failed fail."""
        self._failures.update((pair, failed[pair.source]) for pair in self._good() if pair.source in failed)

    async def _resolve(self) -> None:
        """Find out what the sources name, and meanwhile what the targets' tags do."""
        resolved = await resolve_roots(
            (pair.source for pair in self._pairs),
            self._source_at,
            self._runner,
            self._targets.look_ahead,
            named=self._run.root_lookups,
        )
        self._roots = resolved.roots
        self._run.roots.update(resolved.roots)
        self._drop(resolved.failures)
        self._failures.update(conflicting_pairs(self._good(), resolved.roots))

    async def _survey_tags(self) -> TagSurvey:
        """Find out what the targets' tags name, and look below some of those that seem right."""
        policy = self._policy
        tags = await survey_tags(
            self._good(),
            self._roots,
            self._targets,
            self._run.services.journal if policy.verify == "roots" else NullJournal(),
            self._runner,
            no_overwrite=policy.no_overwrite,
            trust_root=policy.trust_root,
            foreign=policy.foreign_layers,
            referrers=policy.lookup,
        )
        self._failures.update(tags.failures)
        if self._run.audit is None:
            return tags
        return await self._run.audit.look(self._good(), tags, self._roots)

    async def _read(self, tags: TagSurvey) -> Graph:
        """Read what is wanted of the images that are not current, and look ahead meanwhile."""
        stale = [pair for pair in self._good() if pair not in tags.current]
        reading = read_graph(
            {pair.source: self._roots[pair.source] for pair in stale},
            self._source_at,
            self._runner,
            choices=choices_of(self._good()),
            foreign=self._policy.foreign_layers,
            reader=self._run.reader,
        )
        read = await run_alongside(self._look_ahead(stale), reading)
        self._drop(read.failures)
        return msgspec.structs.replace(read.graph, roots=dict(self._roots))

    async def _look_ahead(self, pairs: Collection[Pair]) -> None:
        """Ask for what will be wanted to know once the manifests of these pairs have been read."""
        subjects = {
            (site_of(pair.source), self._roots[pair.source].digest)
            for pair in pairs
            if self._policy.lookup(pair) != "off" and accepts_referrers(pair, self._sink_at)
        }
        await run_alongside(
            self._targets.look_for_empty({site_of(pair.target) for pair in pairs}, self._runner),
            self._run.referrer_lookups.look_ahead(subjects, self._runner),
        )

    def _build_desired_images(self, graph: Graph, tags: TagSurvey) -> dict[Pair, DesiredImage]:
        """Decide what each pair wants at its target, and drop those that can't have it there."""
        journal = self._run.services.journal
        built = build_desired_images(
            self._good(), graph, tags.tags, tags.current, lambda host: refuses_sparse(journal, host)
        )
        self._failures.update(built.failures)
        self._skipped.update(built.skipped)
        self._warn_of_partial_sources({pair.source: each for pair, each in built.of.items() if each.lacking})
        self._failures.update(unacceptable_pairs(self._good(), built.of, self._sink_at))
        return built.of

    async def _attach_referrers(
        self, desired_images: dict[Pair, DesiredImage], graph: Graph, tags: TagSurvey
    ) -> dict[Pair, DesiredImage]:
        """Add to the images what refers to them, as far as that is looked up."""
        policy = self._policy
        self._warn_of_lost_referrers(pair for pair in self._good() if policy.lookup(pair) == "always")
        looked_up = [p for p in self._good() if p not in tags.current and policy.lookup(p) != "off"]
        found = await attach_referrers(
            looked_up,
            desired_images,
            graph,
            self._source_at,
            self._sink_at,
            self._runner,
            self._run.referrer_lookups,
            self._run.reader,
        )
        self._failures.update(found.failures)
        return found.desired_images

    async def _survey_content(
        self, desired_images: Mapping[Pair, DesiredImage], tags: TagSurvey
    ) -> Inventory:
        """Find out what of the images is at their targets."""
        content = await survey_content(
            self._good(),
            desired_images,
            tags,
            self._targets,
            self._sink_at,
            self._runner,
            deep=self._policy.verify != "roots" or self._policy.audit == "all",
        )
        self._failures.update(content.failures)
        return content.inventory

    def _warn_of_partial_sources(self, found: Mapping[Reference, DesiredImage]) -> None:
        """Say which sources have only a part of what is wanted of them."""
        for source, desired in sorted(found.items()):
            count = len(desired.lacking)
            left = (
                "a manifest that it does not have is" if count == 1 else f"{count} that it does not have are"
            )
            here = f", {', '.join(desired.platforms)} goes on" if desired.platforms else ""
            digest = self._roots[source].digest
            self._run.warn(f"{source} has only a part of its index {digest}{here}: {left} left out")

    def _warn_of_lost_referrers(self, pairs: Iterable[Pair]) -> None:
        """Say where referrers that were asked for do not get."""
        hosts = {pair.target.host for pair in pairs if not accepts_referrers(pair, self._sink_at)}
        for host in sorted(hosts):
            self._run.warn(
                f"{host} holds images alone: signatures and other referrers of them are not written there;"
                " copy those that are wanted by their digests"
            )

"""Discovery: asks sources and targets what planning needs to know.

It runs once a target host, for all hosts at once: resolve, survey, read. What several of them need from a
source (what a tag names, a manifest, its referrers) is asked once, also while the first answer is under way.
No target waits for another's answers, so a host that does not answer delays nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from blobflow.content import NullJournal, RefersAtHand, Site
from blobflow.engine.concurrency.bounded_runner import (
    MAX_LOOKUPS,
    MAX_SMALL_REQUESTS,
    BoundedRunner,
    run_alongside,
    run_together,
)
from blobflow.engine.discovered import Discovered
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.plan.attachments import (
    accepts_referrers,
    attach_referrers,
    source_manifests,
    without_overwrites,
)
from blobflow.engine.plan.desired import DesiredImage, build_desired_images, choices_of
from blobflow.engine.plan.inventory import Inventory
from blobflow.engine.policy import Policy
from blobflow.engine.services import Services
from blobflow.engine.signature_checks import SignatureChecks, judged_manifests
from blobflow.engine.sources.graph import Graph
from blobflow.engine.sources.pull_quota import PullQuota
from blobflow.engine.sources.reader import GraphReader, read_graph
from blobflow.engine.sources.referrers import ReferrerLookups, referrers_at_hand
from blobflow.engine.sources.roots import RootLookups, conflicting_pairs, resolve_roots
from blobflow.engine.targets.acceptance import refuses_sparse, unacceptable_pairs
from blobflow.engine.targets.audit import Audit
from blobflow.engine.targets.backups import find_backups
from blobflow.engine.targets.known_platforms import noted_platforms
from blobflow.engine.targets.known_referrers import noted_referrers
from blobflow.engine.targets.mount_origins import with_mount_origins
from blobflow.engine.targets.survey import TagSurvey, TargetLookups, survey_content, survey_tags
from blobflow.engine.targets.unnamed_blobs import with_unnamed_blobs
from blobflow.errors import BlobflowError, NoSuchPlatform
from blobflow.events import Observer, PhaseStarted, Warned
from blobflow.oci import Descriptor, Reference
from blobflow.signatures.contract import Verdict


class Discovery:
    """The discovery of one run. `roots` collects what the sources name, as they answer, `referrers_at_hand`
    what files list for the images of pairs; `audit` is None where every image is checked anyway."""

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
        if policy.verify == "roots":  # otherwise every image is checked
            self.audit = Audit(services, pairs, policy.audit, trust_root=policy.trust_root)
        self.quota = PullQuota(
            services.allowance_of,
            services.source_at,
            observe,
            services.sleep,
            services.meter.waits if policy.wait else None,
        )
        self.reader = GraphReader(
            services.source_at,
            self.quota.admit,
            services.manifest_budget,
            observe,
            services.meter.counts["manifests"],
        )
        self.root_lookups = RootLookups(services.source_at)
        self.referrer_lookups = ReferrerLookups(services.source_at)
        self.signatures = SignatureChecks(policy, services, self.referrer_lookups, self.reader)
        self.judged = frozenset(self.signatures.demanded(pairs))
        self.referrers_at_hand: dict[Pair, str] = {}
        self.roots = roots
        groups: dict[str, list[Pair]] = {}
        for pair in pairs:
            groups.setdefault(pair.target.host, []).append(pair)
        self.groups = tuple(map(tuple, groups.values()))
        self._images = len(pairs)
        self._observe = observe
        self._reported: set[str] = set()

    def graph(self) -> Graph:
        """The graph of what was read from the sources so far."""
        return self.reader.graph(self.roots)

    async def discover(self, pairs: Sequence[Pair]) -> Discovered:
        """Resolve and survey the pairs of one target host. Changes nothing anywhere.

        Raises what ends the whole run: Throttled, where a source's pull quota is too small.
        """
        return await _HostDiscovery(self, pairs).discover()

    def begin(self, phase: str) -> None:
        """Report that a phase has begun, when the first group gets to it."""
        if phase not in self._reported:
            self._reported.add(phase)
            self._observe(PhaseStarted(phase, self._images))

    def warn(self, sentence: str) -> None:
        """Report a warning, once a run."""
        if sentence not in self._reported:
            self._reported.add(sentence)
            self._observe(Warned(sentence))


class _HostDiscovery:
    """The discovery of the pairs of one target host, phase by phase. A pair that fails or is skipped in one
    phase takes no part in the next."""

    def __init__(self, discovery: Discovery, pairs: Sequence[Pair]) -> None:
        self._discovery = discovery
        self._pairs = pairs
        self._policy = discovery.policy
        self._source_at = discovery.services.source_at
        self._sink_at = discovery.services.sink_at
        self._counts = discovery.services.meter.counts
        self._runner = BoundedRunner(MAX_SMALL_REQUESTS)
        self._lookups = BoundedRunner(MAX_LOOKUPS)
        self._targets = TargetLookups(pairs, discovery.services.sink_at)
        self._roots: Mapping[Reference, Descriptor] = {}
        self._failures: dict[Pair, BlobflowError] = {}
        self._skipped: dict[Pair, NoSuchPlatform] = {}
        self._verdicts: dict[Pair, tuple[Verdict, ...]] = {}

    async def discover(self) -> Discovered:
        """All of it; see `Discovery.discover`."""
        self._discovery.begin("resolve")
        await self._resolve()
        self._discovery.begin("survey")
        tags = self._without_unjudged(await self._survey_tags())
        await self._judge_roots(decided=True)
        graph = await self._read(tags)
        desired_images = self._build_desired_images(graph, tags)
        desired_images = await self._with_verdicts(desired_images, graph, tags)
        desired_images = await self._attach_referrers(desired_images, graph, tags)
        inventory = await self._survey_content(desired_images, tags)
        if self._policy.no_overwrite:
            desired_images = without_overwrites(desired_images, inventory)
        return Discovered(
            tuple(self._pairs), desired_images, inventory, self._failures, tags.current, self._skipped
        )

    def _good(self) -> list[Pair]:
        """The pairs that have neither failed nor been skipped."""
        return [pair for pair in self._pairs if pair not in self._failures and pair not in self._skipped]

    def _drop(self, failed: Mapping[Reference, BlobflowError]) -> None:
        """Fail the pairs whose sources failed."""
        self._failures.update((pair, failed[pair.source]) for pair in self._good() if pair.source in failed)

    async def _resolve(self) -> None:
        """Resolve the sources' names, and meanwhile ask what the targets' tags name."""
        resolved = await resolve_roots(
            (pair.source for pair in self._pairs),
            self._source_at,
            self._lookups,
            self._targets.look_ahead,
            named=self._discovery.root_lookups,
            count=self._counts["resolve"],
        )
        self._roots = resolved.roots
        self._discovery.roots.update(resolved.roots)
        self._drop(resolved.failures)
        self._failures.update(conflicting_pairs(self._good(), resolved.roots))

    async def _survey_tags(self) -> TagSurvey:
        """Ask what the targets' tags name, and audit some of those that look right."""
        policy = self._policy
        tags = await survey_tags(
            self._good(),
            self._roots,
            self._targets,
            self._discovery.services.journal if policy.verify == "roots" else NullJournal(),
            self._lookups,
            no_overwrite=policy.no_overwrite,
            trust_root=policy.trust_root,
            foreign=policy.foreign_layers,
            referrers=policy.lookup,
            count=self._counts["survey"],
        )
        self._failures.update(tags.failures)
        tags = await self._notice_new_referrers(tags)
        if self._discovery.audit is None:
            return tags
        return await self._discovery.audit.look(self._good(), tags, self._roots)

    def _without_unjudged(self, tags: TagSurvey) -> TagSurvey:
        """Recall the verdicts on images that are current. One that has none, and of which each manifest is to
        be judged, has to be read again for that."""
        judged = [pair for pair in self._good() if pair in tags.current & self._discovery.judged]
        self._verdicts.update(self._discovery.signatures.remembered(judged, self._roots))
        if self._policy.judged == "root":
            return tags
        return msgspec.structs.replace(tags, current=tags.current - (set(judged) - self._verdicts.keys()))

    async def _notice_new_referrers(self, tags: TagSurvey) -> TagSurvey:
        """Images out of files do not count as complete where others are listed as their referrers than when
        they were put: to look costs no request."""
        journal, changed = self._discovery.services.journal, set[Pair]()
        by_site: dict[Site, list[Pair]] = {}
        for pair in self._good():
            if self._policy.lookup(pair) != "off" and not pair.target.transport:
                by_site.setdefault(site_of(pair.source), []).append(pair)
        for site, pairs in by_site.items():
            source = self._source_at(site)
            if not isinstance(source, RefersAtHand):  # asked once a site: what has protocols is slow to say
                continue
            for pair in pairs:
                root = self._roots[pair.source]
                listed = await referrers_at_hand(source, root)
                if listed:
                    self._discovery.referrers_at_hand[pair] = listed
                    if pair in tags.recorded and noted_referrers(journal, pair, root.digest) != listed:
                        changed.add(pair)
        return msgspec.structs.replace(tags, current=tags.current - changed)

    async def _read(self, tags: TagSurvey) -> Graph:
        """Read the wanted manifests of the images that are not current; meanwhile have the roots judged, and
        prefetch answers."""
        stale = [pair for pair in self._good() if pair not in tags.current]
        reading = read_graph(
            {pair.source: self._roots[pair.source] for pair in stale},
            self._source_at,
            self._runner,
            choices=choices_of(self._good()),
            foreign=self._policy.foreign_layers,
            reader=self._discovery.reader,
        )
        meanwhile = run_together((self._look_ahead(stale), self._judge_roots(decided=False)))
        read = await run_alongside(meanwhile, reading)
        self._drop(read.failures)
        return msgspec.structs.replace(read.graph, roots=dict(self._roots))

    async def _judge_roots(self, *, decided: bool) -> None:
        """Have the roots judged that no verdict is remembered on: of these, those that are `decided` whatever
        is found at their sources, or the others; those only if roots are judged in every case."""
        if self._policy.judged == "images" and not decided:
            return
        checks, verdicts = self._discovery.signatures, self._verdicts
        pairs = [pair for pair in self._good() if pair in self._discovery.judged and pair not in verdicts]
        roots = {pair: self._roots[pair.source] for pair in pairs}
        await self._judge({p: (root,) for p, root in roots.items() if checks.decided(p, root) == decided})

    async def _judge(self, manifests: Mapping[Pair, Collection[Descriptor]]) -> None:
        """Have these manifests of the pairs judged. A pair with one that is rejected fails."""
        checked = await self._discovery.signatures.check(manifests, self._runner)
        self._failures.update(checked.failures)
        for pair, verdicts in checked.verdicts.items():
            self._verdicts[pair] = (*self._verdicts.get(pair, ()), *verdicts)

    async def _with_verdicts(
        self, desired_images: dict[Pair, DesiredImage], graph: Graph, tags: TagSurvey
    ) -> dict[Pair, DesiredImage]:
        """The images with the verdicts on them, once what else of them is judged has been judged too."""
        judged = [pair for pair in self._good() if pair in self._discovery.judged & desired_images.keys()]
        if self._policy.judged != "root":
            read = [pair for pair in judged if pair not in tags.current]
            await self._judge(
                {pair: self._not_yet_judged(pair, desired_images[pair], graph) for pair in read}
            )
        found = dict(desired_images)
        for pair in (pair for pair in judged if pair not in self._failures):
            verdicts, root = self._verdicts[pair], self._roots[pair.source].digest
            self._discovery.signatures.remember(pair, root, verdicts)
            found[pair] = msgspec.structs.replace(found[pair], verdicts=verdicts)
        return found

    def _not_yet_judged(self, pair: Pair, desired: DesiredImage, graph: Graph) -> list[Descriptor]:
        """The manifests of an image that are judged, as its source has them, but for a root that is."""
        own = [graph.manifests[digest] for digest in source_manifests(desired, graph)]
        wanted = judged_manifests(self._policy.judged, self._roots[pair.source], own)
        known = {verdict.digest for verdict in self._verdicts.get(pair, ())}
        return [each for each in wanted if each.digest not in known]

    async def _look_ahead(self, pairs: Collection[Pair]) -> None:
        """Ask ahead for what will be needed once the manifests of these pairs have been read."""
        subjects = {
            (site_of(pair.source), self._roots[pair.source].digest)
            for pair in pairs
            if self._policy.lookup(pair) != "off"
        }
        await run_alongside(
            self._targets.look_for_empty({site_of(pair.target) for pair in pairs}, self._runner),
            self._discovery.referrer_lookups.look_ahead(subjects, self._runner),
        )

    def _build_desired_images(self, graph: Graph, tags: TagSurvey) -> dict[Pair, DesiredImage]:
        """Decide what each pair wants at its target, and drop those that can't have it there."""
        journal = self._discovery.services.journal
        built = build_desired_images(
            self._good(),
            graph,
            tags.tags,
            tags.current,
            lambda host: refuses_sparse(journal, host),
            lambda pair, root: noted_platforms(journal, pair, root),
        )
        self._failures.update(built.failures)
        self._skipped.update(built.skipped)
        self._warn_of_partial_sources(
            {pair.source: each for pair, each in built.by_pair.items() if each.lacking}
        )
        self._failures.update(unacceptable_pairs(self._good(), built.by_pair, self._sink_at))
        return built.by_pair

    async def _attach_referrers(
        self, desired_images: dict[Pair, DesiredImage], graph: Graph, tags: TagSurvey
    ) -> dict[Pair, DesiredImage]:
        """Attach their referrers to the images whose referrers are looked up."""
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
            self._discovery.referrer_lookups,
            self._discovery.reader,
            self._discovery.judged,
        )
        self._failures.update(found.failures)
        for pair, error in found.unknown.items():
            self._discovery.warn(
                f"what refers to {pair.source} is not known, nor brought to {pair.target.host}, which holds"
                f" images alone: {error}"
            )
        return found.desired_images

    async def _survey_content(
        self, desired_images: Mapping[Pair, DesiredImage], tags: TagSurvey
    ) -> Inventory:
        """Find out which parts of the images their targets have."""
        content = await survey_content(
            self._good(),
            desired_images,
            tags,
            self._targets,
            self._sink_at,
            self._lookups,
            deep=self._policy.verify != "roots" or self._policy.audit == "all",
            count=self._counts["contents"],
        )
        self._failures.update(content.failures)
        backups = await find_backups(self._good(), desired_images, self._targets)
        self._failures.update(backups.failures)
        journal = self._discovery.services.journal
        inventory = msgspec.structs.replace(content.inventory, backups=backups.by_tag)
        good, sink_at = self._good(), self._sink_at
        inventory = await with_mount_origins(inventory, good, desired_images, journal, sink_at)
        return await with_unnamed_blobs(
            inventory, content.empty, good, desired_images, sink_at, self._lookups
        )

    def _warn_of_partial_sources(self, found: Mapping[Reference, DesiredImage]) -> None:
        """Warn about sources that have only a part of what is wanted of them."""
        for source, desired in sorted(found.items()):
            count = len(desired.lacking)
            left = (
                "a manifest that it does not have is" if count == 1 else f"{count} that it does not have are"
            )
            here = f", {', '.join(desired.platforms)} goes on" if desired.platforms else ""
            digest = self._roots[source].digest
            self._discovery.warn(f"{source} has only a part of its index {digest}{here}: {left} left out")

    def _warn_of_lost_referrers(self, pairs: Iterable[Pair]) -> None:
        """Warn about targets that can't hold the referrers that were asked for."""
        hosts = {pair.target.host for pair in pairs if not accepts_referrers(pair, self._sink_at)}
        for host in sorted(hosts):
            self._discovery.warn(
                f"{host} holds images alone: signatures and other referrers of them are not written there;"
                " copy those that are wanted by their digests"
            )

"""The inquiry: what is asked of sources and targets before a run can be planned.

It is made a target host at a time, and all of them at once: resolve, survey, read. What several of them want
to know of a source (what a tag names, a manifest, what refers to it) is asked once, also while the first
answer is under way. No target waits for another's answers, so that one which does not answer keeps nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from blobflow.content import NullJournal
from blobflow.engine.concurrency.bounded import BoundedRunner, run_alongside
from blobflow.engine.plan.desired import build_desired_images, choices_of
from blobflow.engine.plan.steps import DesiredImage, Graph, Inventory, Pair, merge_inventories, site_of
from blobflow.engine.policy import Policy
from blobflow.engine.sources.pull_quota import PullQuota
from blobflow.engine.sources.reader import GraphReader, read_graph
from blobflow.engine.sources.referrers import (
    ReferrerLookups,
    accepts_referrers,
    attach_referrers,
    without_overwrites,
)
from blobflow.engine.sources.roots import RootLookups, conflicting_pairs, resolve_roots
from blobflow.engine.targets.acceptance import unacceptable_pairs
from blobflow.engine.targets.audit import Audit
from blobflow.engine.targets.survey import TagSurvey, TargetLookups, survey_content, survey_tags
from blobflow.engine.transfer.runner import Services, refuses_sparse
from blobflow.errors import BlobflowError, NoSuchPlatform, own_copy
from blobflow.events import Observer, PhaseStarted, Warned
from blobflow.oci import Descriptor, Reference

# Small requests in flight for one target's inquiry, over all hosts; the sessions bound them a host as well.
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

    def __init__(self, pairs: Sequence[Pair], policy: Policy, services: Services, observe: Observer) -> None:
        self._images = len(pairs)
        self._policy = policy
        self._services = services
        self._observe = observe
        self._told: set[str] = set()
        self.audit: Audit | None = None
        if policy.verify == "roots":  # else everything is asked for
            self.audit = Audit(services, pairs, policy.audit, trust_root=policy.trust_root)
        self._named = RootLookups(services.source_at)
        self._referrals = ReferrerLookups(services.source_at)
        self.quota = PullQuota(
            services.allowance_of, services.source_at, observe, services.sleep, waits=policy.wait
        )
        self._reader = GraphReader(services.source_at, self.quota.permit, services.documents, observe)
        self.roots: dict[Reference, Descriptor] = {}
        groups: dict[str, list[Pair]] = {}
        for pair in pairs:
            groups.setdefault(pair.target.host, []).append(pair)
        self.groups = tuple(map(tuple, groups.values()))

    def graph(self) -> Graph:
        """What the sources said so far."""
        return self._reader.graph(self.roots)

    async def of(self, pairs: Sequence[Pair]) -> Discovered:
        """Resolve and survey the pairs of one target host. Changes nothing anywhere.

        Raises what ends the whole run: Throttled, where a source lets too few manifests be read.
        """
        services, runner = self._services, BoundedRunner(MAX_SMALL_REQUESTS)
        failures: dict[Pair, BlobflowError] = {}
        skipped: dict[Pair, NoSuchPlatform] = {}

        def good() -> list[Pair]:
            return [pair for pair in pairs if pair not in failures and pair not in skipped]

        def drop(failed: Mapping[Reference, BlobflowError]) -> None:
            failures.update((pair, failed[pair.source]) for pair in good() if pair.source in failed)

        self._tell("resolve")
        targets = TargetLookups(pairs, services.sink_at)
        sources = (pair.source for pair in pairs)
        resolved = await resolve_roots(
            sources, services.source_at, runner, targets.look_ahead, named=self._named
        )
        self.roots.update(resolved.roots)
        drop(resolved.failures)
        failures.update(conflicting_pairs(good(), resolved.roots))

        self._tell("survey")
        tags = await self._survey_tags(good(), resolved.roots, targets, runner)
        failures.update(tags.failures)
        if self.audit is not None:
            tags = await self.audit.look(good(), tags, resolved.roots)
        stale = [pair for pair in good() if pair not in tags.current]
        wanted = {pair.source: resolved.roots[pair.source] for pair in stale}
        reading = read_graph(
            wanted,
            services.source_at,
            runner,
            choices=choices_of(good()),
            foreign=self._policy.foreign_layers,
            reader=self._reader,
        )
        read = await run_alongside(self._look_ahead(stale, resolved.roots, targets, runner), reading)
        drop(read.failures)
        graph = msgspec.structs.replace(read.graph, roots=resolved.roots)
        desired_images = build_desired_images(
            good(), graph, tags.tags, tags.current, lambda host: refuses_sparse(services.journal, host)
        )
        failures.update(desired_images.failures)
        skipped.update(desired_images.skipped)
        self._tell_lacking(
            {pair.source: desired for pair, desired in desired_images.of.items() if desired.lacking}
        )
        failures.update(unacceptable_pairs(good(), desired_images.of, services.sink_at))
        self._tell_unhung(pair for pair in good() if self._policy.lookup(pair) == "always")
        looked_up = [p for p in good() if p not in tags.current and self._policy.lookup(p) != "off"]
        hung = await attach_referrers(
            looked_up,
            desired_images.of,
            graph,
            services.source_at,
            services.sink_at,
            runner,
            self._referrals,
            self._reader,
        )
        failures.update(hung.failures)
        deep = self._policy.verify != "roots" or self._policy.audit == "all"
        content = await survey_content(
            good(), hung.desired_images, tags, targets, services.sink_at, runner, deep=deep
        )
        failures.update(content.failures)
        final = (
            without_overwrites(hung.desired_images, content.inventory)
            if self._policy.no_overwrite
            else hung.desired_images
        )
        return Discovered(tuple(pairs), final, content.inventory, failures, tags.current, skipped)

    def _tell(self, phase: str) -> None:
        """Say that a phase has begun, when the first group gets to it."""
        if phase not in self._told:
            self._told.add(phase)
            self._observe(PhaseStarted(phase, self._images))

    def _tell_lacking(self, found: Mapping[Reference, DesiredImage]) -> None:
        """Say which sources have only a part of what is wanted of them."""
        for source, desired in sorted(found.items()):
            count = len(desired.lacking)
            left = (
                "a manifest that it does not have is" if count == 1 else f"{count} that it does not have are"
            )
            here = f", {', '.join(desired.platforms)} goes on" if desired.platforms else ""
            said = f"{source} has only a part of its index {self.roots[source].digest}{here}: {left} left out"
            self._warn(said)

    def _tell_unhung(self, pairs: Iterable[Pair]) -> None:
        """Say where referrers that were asked for do not get."""
        places = {pair.target.host for pair in pairs if not accepts_referrers(pair, self._services.sink_at)}
        for place in sorted(places):
            self._warn(
                f"{place} holds images alone: signatures and other referrers of them are not written there;"
                " copy those that are wanted by their digests"
            )

    def _warn(self, sentence: str) -> None:
        """Say it, once a run."""
        if sentence not in self._told:
            self._told.add(sentence)
            self._observe(Warned(sentence))

    async def _survey_tags(
        self,
        pairs: Sequence[Pair],
        roots: Mapping[Reference, Descriptor],
        targets: TargetLookups,
        runner: BoundedRunner,
    ) -> TagSurvey:
        policy = self._policy
        return await survey_tags(
            pairs,
            roots,
            targets,
            self._services.journal if policy.verify == "roots" else NullJournal(),
            runner,
            no_overwrite=policy.no_overwrite,
            trust_root=policy.trust_root,
            foreign=policy.foreign_layers,
            referrers=self._policy.lookup,
        )

    async def _look_ahead(
        self,
        pairs: Collection[Pair],
        roots: Mapping[Reference, Descriptor],
        targets: TargetLookups,
        runner: BoundedRunner,
    ) -> None:
        """Ask for what will be wanted to know once the manifests of these pairs have been read."""
        subjects = {
            (site_of(pair.source), roots[pair.source].digest)
            for pair in pairs
            if self._policy.lookup(pair) != "off" and accepts_referrers(pair, self._services.sink_at)
        }
        await run_alongside(
            targets.look_for_empty({site_of(pair.target) for pair in pairs}, runner),
            self._referrals.look_ahead(subjects, runner),
        )

"""Survey: what do the targets have? Asks the targets only, with as few requests as it can.

It has two parts, like resolve. First the tags: one small request a pair; where a tag names the right root
already and the journal records that an earlier run put it there whole, that is all. Then the content of the
other pairs, from the top down: an empty repository is asked once; a manifest that is there implies its
blobs; only what is below a missing manifest is asked for one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import product

import msgspec

from blobflow.content import Journal, Refers, SinkAt, Site
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.concurrency.memo import AsyncMemo
from blobflow.engine.pairs import Lookup, Pair, site_of
from blobflow.engine.plan.desired import DesiredImage
from blobflow.engine.plan.inventory import Inventory
from blobflow.errors import BlobflowError, NotFound, Rejected, error_side
from blobflow.events import PhaseCount
from blobflow.oci import Descriptor, Digest, Manifest, Reference
from blobflow.oci.platform_choice import EVERYTHING, PlatformChoice

# Added to a choice whose foreign layers, as far as the source holds them, were put too.
_FOREIGN = ", foreign layers too"
# Added if the image's referrers were looked up and put.
_REFERRERS = ", referrers too"


def put_record(choice: PlatformChoice, source: Digest, put: Digest, *, foreign: bool, referrers: bool) -> str:
    """The words under which the journal records a put: the choice, whether foreign layers were included and
    referrers looked up, and the source's root where that is not what was put."""
    chosen = choice.key + (_FOREIGN if foreign else "") + (_REFERRERS if referrers else "")
    return chosen if put == source else f"{chosen}; of {source}"


def _records(
    choice: PlatformChoice, source: Digest, put: Digest, *, foreign: bool, referrers: Lookup
) -> Iterator[str]:
    """The records of which any one says that all that is wanted was put; some say that more was."""
    enough = [choice] if put != source or choice.index == "prune" else [choice, EVERYTHING]
    for each, carried, looked_up in product(enough, {foreign, True}, {referrers == "auto", True}):
        yield put_record(each, source, put, foreign=carried, referrers=looked_up)


class TargetLookups:
    """What targets' tags name, and whether sites are empty: asked once, and remembered with the errors.

    `look_ahead` and `look_for_empty` may be called while the sources are asked: those are other hosts, so it
    costs no time. Tags that no pair may write (see `conflicting_pairs`) are not asked for ahead.
    """

    def __init__(self, pairs: Collection[Pair], sink_at: SinkAt) -> None:
        self._sink_at = sink_at
        self._named = AsyncMemo(self._ask_name)
        self._empty = AsyncMemo(self._ask_empty)
        aims = Counter((site_of(pair.target), pair.target.tag) for pair in set(pairs) if pair.target.tag)
        self._aims: dict[Reference, list[tuple[Site, str]]] = {}
        for pair in pairs:
            aim = (site_of(pair.target), pair.target.tag)
            if aims[aim] == 1:
                self._aims.setdefault(pair.source, []).append(aim)

    async def look_ahead(self, source: Reference) -> None:
        """Ask for the target tags of one source's pairs. Raises nothing that `named` will raise."""
        for aim in self._aims.get(source, ()):
            await self._named.prefetch(aim)

    async def named(self, site: Site, name: str) -> Digest | None:
        """The digest that a tag or digest names at a site; None if nothing. Raises what the site raises."""
        found = await self._named.get((site, name))
        return None if found is None else found.digest

    async def manifest(self, site: Site, tag: str) -> Descriptor | None:
        """The manifest that a tag names at a site; None if none. Raises what the site raises."""
        return await self._named.get((site, tag))

    async def _ask_name(self, aim: tuple[Site, str]) -> Descriptor | None:
        site, name = aim
        try:
            with error_side("target"):
                return await self._sink_at(site).resolve(name)
        except NotFound:
            return None

    async def look_for_empty(self, sites: Iterable[Site], runner: BoundedRunner) -> None:
        """Ask of sites where none of the wanted tags exists whether they hold anything at all."""
        tagged = {site for (site, _), found in self._named.answers() if found is not None}
        await runner.for_each(self._empty.prefetch, sorted(set(sites) - tagged))

    async def is_empty(self, site: Site) -> bool:
        """See `Sink.is_empty`. Raises what the site raises."""
        return await self._empty.get(site)

    async def _ask_empty(self, site: Site) -> bool:
        with error_side("target"):
            return await self._sink_at(site).is_empty()


class TagSurvey(msgspec.Struct, frozen=True):
    """What the target tags name now (None: nothing), which pairs are complete already, and what failed.

    `recorded`: pairs that the journal records as put there whole. `doubted`: pairs whose targets are known to
    lack something, and `missing`: what they lack, as far as that is known (see `audit`).
    """

    tags: dict[tuple[Site, str], Digest | None]
    current: frozenset[Pair]
    failures: dict[Pair, BlobflowError]
    recorded: frozenset[Pair] = frozenset()
    doubted: frozenset[Pair] = frozenset()
    missing: dict[Site, frozenset[Digest]] = {}


async def survey_tags(
    pairs: Iterable[Pair],
    roots: Mapping[Reference, Descriptor],
    targets: TargetLookups,
    journal: Journal,
    runner: BoundedRunner,
    *,
    no_overwrite: bool = False,
    trust_root: bool = False,
    foreign: bool = False,
    referrers: Callable[[Pair], Lookup] = lambda pair: "off",
    count: PhaseCount | None = None,
) -> TagSurvey:
    """Ask each target what the pair's tag (or, without a tag, its root's digest) names.

    A pair is current if that is its root, or what was made of it, and the journal recorded the same choice as
    put there (with its foreign layers, if `foreign`, and with its referrers, unless `referrers` says off);
    with `trust_root`, if it is its root. No pair is current for which `referrers` says always. With
    `no_overwrite` a tag that names another digest fails its pair. `count`: how far this is.
    """
    tags: dict[tuple[Site, str], Digest | None] = {}
    current: set[Pair] = set()
    recorded: set[Pair] = set()
    failures: dict[Pair, BlobflowError] = {}

    async def ask(pair: Pair) -> None:
        site, root = site_of(pair.target), roots[pair.source].digest
        try:
            found = await targets.named(site, pair.target.tag or root)
        except BlobflowError as error:
            failures[pair] = error
            return
        tags[site, pair.target.tag or root] = found
        if found is None:
            return
        lookup = referrers(pair)
        records = _records(pair.choice, root, found, foreign=foreign, referrers=lookup)
        if any(journal.put_recorded(site, found, record) for record in records):
            recorded.add(pair)
        ours = pair in recorded or (trust_root and found == root)
        if ours and lookup != "always":
            current.add(pair)
        elif not ours and found != root and no_overwrite:
            failures[pair] = Rejected(
                f"{pair.target} names {found}, not {root}; --no-overwrite leaves it as it is"
            )
            failures[pair].side = "target"

    await runner.for_each(ask, sorted(set(pairs)), count=count)
    return TagSurvey(tags, frozenset(current), failures, frozenset(recorded))


class ContentSurvey(msgspec.Struct, frozen=True):
    """`empty`: sites that were not asked for their content, since they said that they have none."""

    inventory: Inventory
    failures: dict[Pair, BlobflowError]
    empty: frozenset[Site] = frozenset()


async def survey_content(
    pairs: Collection[Pair],
    desired_images: Mapping[Pair, DesiredImage],
    known: TagSurvey,
    targets: TargetLookups,
    sink_at: SinkAt,
    runner: BoundedRunner,
    *,
    deep: bool = False,
    count: PhaseCount | None = None,
) -> ContentSurvey:
    """Find out which parts of the pairs' desired images their targets have.

    `known.current` pairs count as complete. A pair whose target can't be asked is in `failures`. For
    `known.doubted` pairs, or with `deep` for all, a manifest that is there does not imply its blobs; they are
    asked for too, and it counts as missing if one of them is. `known.missing` is not asked for again.
    `count`: how far this is.
    """
    survey = _Survey(desired_images, known, targets, sink_at, deep)
    settled = frozenset(pair for pair in known.current if pair in desired_images)
    asked = [pair for pair in sorted(set(pairs)) if pair not in known.current]
    await runner.for_each(survey.note_empty, sorted({site_of(pair.target) for pair in asked}))
    await runner.for_each(survey.ask_referrers, survey.wanted_subjects(asked))
    await runner.for_each(survey.ask_manifests, asked, count=count)
    await runner.for_each(survey.ask_blob, survey.wanted_blobs(), count=count)
    survey.mark_incomplete_missing(asked)
    failures = survey.failures_of(asked)
    present = {site: frozenset(found) for site, found in survey.present.items()}
    for pair in settled:
        site = site_of(pair.target)
        present[site] = present.get(site, frozenset()) | {desired_images[pair].root.digest}
    absent = {site: frozenset(missing) for site, missing in survey.absent.items()}
    listed = {site: frozenset(known) for site, known in survey.listed.items()}
    inventory = Inventory(present, absent, survey.tags, settled, listed)
    return ContentSurvey(inventory, failures, frozenset(survey.empty))


class _Survey:
    def __init__(
        self,
        desired_images: Mapping[Pair, DesiredImage],
        known: TagSurvey,
        targets: TargetLookups,
        sink_at: SinkAt,
        deep: bool,
    ) -> None:
        self._deep = deep
        self._doubted = {
            (site_of(pair.target), manifest.descriptor.digest)
            for pair in known.doubted & desired_images.keys()
            for manifest in desired_images[pair].everything
        }
        self._desired_images = desired_images
        self._known = known
        self._targets = targets
        self._sink_at = sink_at
        self._tagged = {site for (site, _), found in known.tags.items() if found}
        self.empty: set[Site] = set()
        self._errors: dict[Site, BlobflowError] = {}
        self._wanted: dict[tuple[Site, Digest], Descriptor] = {}
        self.tags = dict(known.tags)
        self.listed: dict[Site, set[tuple[Digest, Digest]]] = {}
        self.present: dict[Site, set[Digest]] = {}
        self.absent: dict[Site, set[Digest]] = {site: set(gone) for site, gone in known.missing.items()}

    def failures_of(self, pairs: Iterable[Pair]) -> dict[Pair, BlobflowError]:
        return {p: self._errors[site_of(p.target)] for p in pairs if site_of(p.target) in self._errors}

    async def note_empty(self, site: Site) -> None:
        """A site where some tag names something is not empty; any other is asked."""
        if site in self._tagged:
            return
        try:
            if await self._targets.is_empty(site):
                self.empty.add(site)
        except BlobflowError as error:
            self._errors[site] = error

    def wanted_subjects(self, pairs: Iterable[Pair]) -> list[tuple[Site, Digest]]:
        """The subjects that referrers will be attached to, in a fixed order."""
        desired_images = [(site_of(pair.target), self._desired_images[pair]) for pair in pairs]
        wanted = (
            (site, each)
            for site, desired in desired_images
            for each in (*desired.attached, *desired.referring)
        )
        return sorted({(site, each.referrer.subject) for site, each in wanted})

    async def ask_referrers(self, wanted: tuple[Site, Digest]) -> None:
        """Ask which referrers a subject lists. A list only shows that they are listed; a tag names what is
        there."""
        site, subject = wanted
        sink = self._sink_at(site)
        if site in self._errors or site in self.empty or not isinstance(sink, Refers):
            return
        try:
            with error_side("target"):
                for found in await sink.referrers(subject):
                    if found.tag:
                        self.tags[site, found.tag] = found.manifest.digest
                        self.present.setdefault(site, set()).add(found.manifest.digest)
                    else:
                        self.listed.setdefault(site, set()).add((subject, found.manifest.digest))
        except BlobflowError as error:
            self._errors[site] = error

    async def ask_manifests(self, pair: Pair) -> None:
        site, desired = site_of(pair.target), self._desired_images[pair]
        if site in self._errors:
            return
        named = self._known.tags.get((site, pair.target.tag or desired.root.digest))
        if named is not None and named not in self.absent.get(site, ()):
            self.present.setdefault(site, set()).add(named)
        try:
            with error_side("target"):
                for manifest in reversed(desired.everything):
                    await self._ask_manifest(site, manifest)
        except BlobflowError as error:
            self._errors[site] = error

    async def _ask_manifest(self, site: Site, manifest: Manifest) -> None:
        deep = self._deep or (site, manifest.descriptor.digest) in self._doubted
        if not await self._holds(site, manifest.descriptor) or deep or manifest.is_index:
            for blob in manifest.blobs:
                self._wanted[site, blob.digest] = blob
        else:
            for blob in manifest.blobs:
                if blob.digest in manifest.carried:  # the registry took the manifest without looking for it
                    self._wanted[site, blob.digest] = blob
                else:
                    self.present.setdefault(site, set()).add(blob.digest)

    def wanted_blobs(self) -> list[tuple[Site, Descriptor]]:
        """Blobs to ask for one by one, in a fixed order."""
        return [(site, blob) for (site, _), blob in sorted(self._wanted.items(), key=lambda item: item[0])]

    async def ask_blob(self, wanted: tuple[Site, Descriptor]) -> None:
        site, blob = wanted
        if site in self._errors:
            return
        try:
            with error_side("target"):
                await self._holds(site, blob)
        except BlobflowError as error:
            self._errors[site] = error

    def mark_incomplete_missing(self, pairs: Iterable[Pair]) -> None:
        """Count manifests that lack one of their blobs as missing, so that they are put again."""
        for pair in pairs:
            site = site_of(pair.target)
            absent = self.absent.get(site, set())
            for manifest in self._desired_images[pair].everything:
                if any(blob.digest in absent for blob in manifest.blobs):
                    self.present.get(site, set()).discard(manifest.descriptor.digest)

    async def _holds(self, site: Site, content: Descriptor) -> bool:
        if content.digest in self.present.get(site, ()):
            return True
        if content.digest in self.absent.get(site, ()):
            return False
        held = site not in self.empty and await self._sink_at(site).has(content)
        (self.present if held else self.absent).setdefault(site, set()).add(content.digest)
        return held

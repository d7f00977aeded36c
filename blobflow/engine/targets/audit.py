"""Audit: do the targets still have what earlier runs put there? Asks the targets only, and repairs nothing.

A tag that names the right digest says nothing about the content below it: registries lose blobs, and let
manifests be deleted. That an earlier run put everything there makes it likely, no more. So a run audits roots
that the journal records as complete:

    rolling  those that were audited, or put, longest ago; as far as one request in 20 goes
    all      every one
    none     none

*Rolling.* An unchanged run makes a request for each source and one for each target. For every 20 of these at
a host the next run spends one on the audit there; the remainder is kept, so that a set of one image is
audited too, with a request every ten runs. A traversal that stops on its way resumes in the next run. So
each root gets its turn, and over all runs audits never take more than their share. The first run that finds
all unchanged audits nothing yet: everything was put just before.

A traversal reads the manifests below a root at the target, verified, and asks for the blobs: those that the
pair's choice wants, since a sparse index lacks the others. The first content that is missing or wrong ends
it: from then on the root is doubtful, across runs, until it is repaired or found whole again. Doubtful roots
are audited in every run, whatever that takes.

No image fails because of an audit: any other error (429, no answer in time, 405) is reported once, and ends
the audit of that host for this run. Referrers are not audited, as only the source knows which there should
be; nor are foreign layers, which a target need not have.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from math import ceil, isfinite

import msgspec

from blobflow.content import Journal, Reads, Site
from blobflow.engine.blob_readers import can_be_read
from blobflow.engine.concurrency.bounded_runner import run_together
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.policy import AuditMode
from blobflow.engine.results.report import Report
from blobflow.engine.services import Services
from blobflow.engine.targets.survey import TagSurvey
from blobflow.engine.targets.traversal import Part, TargetRoot, Traversal, target_root
from blobflow.errors import BlobflowError, IntegrityError, NotFound, TimedOut, UnsupportedContent, error_side
from blobflow.events import PhaseStarted, Warned
from blobflow.oci import Descriptor, Digest, Manifest, Reference, parse_manifest

# An unchanged run makes so many requests for each one that audits.
SHARE = 20
# Seconds that one answer may take, with all of its retries: enough for _AT_ONCE of them at a host
# that is to get one request in three seconds.
PATIENCE: dict[AuditMode, float] = {"rolling": 30.0, "all": 300.0, "none": 30.0}
# Requests in flight at one host; its limiter bounds them as well.
_AT_ONCE = 8
# The most that one question counts as: other requests of the run to that host are counted with it.
_DEAREST = 4
# The journal's key for requests that were made, and that no audit made use of yet.
_CREDIT = "requests that count for audits"


class Audit:
    """The audit of one run over `pairs`. `looked`: how many roots were audited to the end; `incomplete`: the
    pairs whose roots lack something, or are not known to be whole again; `notes`: a sentence on each root
    that lacks something."""

    def __init__(
        self,
        services: Services,
        pairs: Collection[Pair],
        mode: AuditMode,
        *,
        trust_root: bool = False,
        patience: float | None = None,
    ) -> None:
        """`trust_root`: roots that are not doubtful are audited only if `mode` is "all".

        `patience` in seconds: see PATIENCE.
        """
        self._services = services
        self._mode = mode
        self._trusts = trust_root and mode != "all"
        self._patience = PATIENCE[mode] if patience is None else patience
        self._hosts = Counter(source for source, _ in {(p.source, p.target.host) for p in pairs})
        self._roots: dict[Pair, TargetRoot] = {}
        self.looked = 0
        self.incomplete: set[Pair] = set()
        self.notes: list[str] = []

    async def look(
        self, pairs: Iterable[Pair], tags: TagSurvey, roots: Mapping[Reference, Descriptor]
    ) -> TagSurvey:
        """Audit what these pairs' targets have. Returns the survey with what was found: pairs that are not
        whole are doubted, and not current.

        Raises no BlobflowError. The journal has what was found by then, on cancel too.
        """
        asked = [pair for pair in pairs if pair not in tags.failures and not pair.target.transport]
        below = self._roots_of(asked, tags, roots)
        kinds = {root.digest: root.media_type for root in roots.values()}
        known = self._services.journal.doubted_puts()
        doubted = [root for root in below if root.key in known]
        trusted = tags.recorded | tags.current
        believed = [r for r in below if r.key not in known and not trusted.isdisjoint(below[r])]
        looks: list[_HostAudit] = []
        if self._mode != "none":
            hosts = sorted({root.site.registry for root in (*doubted, *believed)})
            looks = [_HostAudit(self._services, host, kinds, self._patience) for host in hosts]
            await run_together(self._look_at(look, doubted, believed, asked) for look in looks)
        missing = {root: part for look in looks for root, part in look.missing.items()}
        whole = {root for look in looks for root in look.whole}
        self.looked += sum(look.looked for look in looks)
        for root, part in missing.items():
            self._tell(root, part, below[root])
        incomplete = missing.keys() | {root for root in doubted if root not in whole}
        stale = frozenset(pair for root in incomplete for pair in below[root])
        self.incomplete |= stale
        gone: dict[Site, frozenset[Digest]] = {}
        for root, part in missing.items():
            gone[root.site] = gone.get(root.site, frozenset()) | {part.digest}
        return msgspec.structs.replace(tags, current=tags.current - stale, doubted=stale, missing=gone)

    async def look_again(
        self, put: Mapping[Pair, Descriptor], sources: Mapping[Pair, Descriptor]
    ) -> dict[Pair, BlobflowError]:
        """Audit the roots that were put for incomplete pairs, since not every registry replaces content that
        it holds damaged. Returns why some are still not whole. `sources`: the pairs' roots at the sources."""
        below: dict[TargetRoot, list[Pair]] = {}
        for pair in sorted(self.incomplete & put.keys()):
            source, there = sources[pair].digest, put[pair].digest
            below.setdefault(target_root(site_of(pair.target), pair.choice, source, there), []).append(pair)
        wrong: dict[Pair, BlobflowError] = {}
        kinds = {root.digest: root.media_type for root in put.values()}
        for host in sorted({root.site.registry for root in below}):
            look = _HostAudit(self._services, host, kinds, self._patience)
            await look.run([root for root in below if root.site.registry == host], doubted=True)
            for root, part in look.missing.items():
                for pair in below[root]:
                    wrong[pair] = NotFound(
                        f"{root.site} took {part} and does not give it: it may keep damaged content under "
                        "that digest; have it removed there, and run again"
                    )
                    wrong[pair].side = "target"
        return wrong

    def repaired(self, pair: Pair) -> None:
        """Record that a pair is whole after all; only incomplete pairs matter here."""
        if pair in self.incomplete:
            self._services.journal.record_audit(*self._roots[pair].key)

    def entered(self, report: Report) -> Report:
        """The report with the audit's results."""
        totals = msgspec.structs.replace(report.totals, audited=self.looked, incomplete=len(self.incomplete))
        return msgspec.structs.replace(report, totals=totals, notes=(*report.notes, *self.notes))

    def _roots_of(
        self, pairs: Iterable[Pair], tags: TagSurvey, roots: Mapping[Reference, Descriptor]
    ) -> dict[TargetRoot, list[Pair]]:
        below: dict[TargetRoot, list[Pair]] = {}
        for pair in sorted(pairs):
            site, source = site_of(pair.target), roots[pair.source].digest
            found = tags.tags.get((site, pair.target.tag or source))
            if found is not None:
                self._roots[pair] = target_root(site, pair.choice, source, found)
                below.setdefault(self._roots[pair], []).append(pair)
        return below

    async def _look_at(
        self,
        look: _HostAudit,
        doubted: Iterable[TargetRoot],
        believed: Iterable[TargetRoot],
        asked: Iterable[Pair],
    ) -> None:
        """Audit one host: all doubtful roots, then those whose turn it is."""
        doubted = [root for root in doubted if root.site.registry == look.host]
        believed = [root for root in believed if root.site.registry == look.host]
        every = len(doubted) + (len(believed) if self._mode == "all" else 0)
        if every:
            self._services.observe(PhaseStarted("audit", every))
        await look.run(doubted, doubted=True)
        if self._mode == "all":
            await look.run(believed)
        elif believed and not self._trusts:
            await self._roll(look, believed, asked)

    async def _roll(self, look: _HostAudit, believed: Iterable[TargetRoot], asked: Iterable[Pair]) -> None:
        """Spend the credit of earlier runs, as far as this run is large enough, and record this run's own."""
        journal = self._services.journal
        credit, earned = _number(journal.note(look.host, _CREDIT)), self._requests(look.host, asked)
        most = max(0, min(int((credit + 1e-6) / SHARE), ceil(earned / SHARE)))
        spent = 0
        try:
            if most:
                spent = await look.run(self._oldest_first(believed), most)
        finally:
            left = min(credit - spent * SHARE + earned, earned + SHARE)
            journal.record_note(look.host, _CREDIT, f"{left:.6f}")

    def _requests(self, host: str, pairs: Iterable[Pair]) -> float:
        """How many requests it took, at the least, to find out that these are unchanged. A source that is
        asked on behalf of several hosts counts for each of them in part."""
        own = [pair for pair in pairs if pair.target.host == host]
        sources = {pair.source for pair in own if not pair.source.transport}
        targets = {(site_of(pair.target), pair.target.tag or pair.source) for pair in own}
        return len(targets) + sum(1 / self._hosts[source] for source in sources)

    def _oldest_first(self, roots: Iterable[TargetRoot]) -> list[TargetRoot]:
        """The roots by age; one whose traversal stopped on its way goes first."""
        found = [(self._services.journal.audited(*root.key), root) for root in roots]
        found.sort(key=lambda each: (not each[0].stopped, each[0].order, each[1]))
        return [root for _, root in found]

    def _tell(self, root: TargetRoot, part: Part, pairs: Collection[Pair]) -> None:
        first, *others = pairs
        more = f" (and {len(others)} more)" if others else ""
        sentence = (
            f"{first.target}{more} is not whole any more: {root.site} does not give {part}; "
            "it is to be put there again"
        )
        self.notes.append(sentence)
        self._services.observe(Warned(sentence))


def _number(note: str | None) -> float:
    """A credit as the journal has it, within bounds that make sense."""
    try:
        credit = float(note or 0)
    except ValueError:
        return 0.0
    return max(-1e6, min(credit, 1e9)) if isfinite(credit) else 0.0


def mark_doubtful(journal: Journal, pair: Pair, source: Digest, put: Digest) -> None:
    """Record that what was put for a pair is not whole there; files are asked every time anyway."""
    if not pair.target.transport:
        journal.doubt_put(*target_root(site_of(pair.target), pair.choice, source, put).key)


class _Ended(Exception):
    """The audit of a host is over, because of `error`."""

    def __init__(self, error: BlobflowError) -> None:
        super().__init__(error)
        self.error = error


class _HostAudit:
    """The audit of one host. `whole`: roots that were audited to the end; `missing`: what others lack."""

    def __init__(self, services: Services, host: str, kinds: Mapping[Digest, str], patience: float) -> None:
        """`kinds`: the media types of roots, as far as they are known."""
        self.host = host
        self.whole: set[TargetRoot] = set()
        self.missing: dict[TargetRoot, Part] = {}
        self._services = services
        self._kinds = kinds
        self._patience = patience
        self._blobs: dict[tuple[Site, Digest], bool] = {}
        self._failed = False
        self._waiting: Iterator[TargetRoot] = iter(())
        self._open: list[Traversal] = []
        self._doubted = False
        self._most: int | None = None
        self._asked = 0
        self._changed = asyncio.Event()

    @property
    def looked(self) -> int:
        return len(self.whole) + len(self.missing)

    async def run(
        self, roots: Iterable[TargetRoot], most: int | None = None, *, doubted: bool = False
    ) -> int:
        """Audit these roots in their order, with so many requests at most. Returns how many it took.

        The journal has what was found afterwards, on cancel too.
        """
        if self._failed:
            return 0
        self._waiting, self._most, self._doubted, self._asked = iter(roots), most, doubted, 0
        before = self._sent()
        try:
            await run_together(self._work() for _ in range(_AT_ONCE))
        except _Ended as ended:
            self._failed = True
            self._services.observe(
                Warned(
                    f"{self.host} could not be audited to the end: {ended.error.message}; what was not "
                    "looked at counts as whole if an earlier run put it there"
                )
            )
        finally:
            self._leave_open()
        return max(self._asked, min(self._sent() - before, self._asked * _DEAREST))

    def _sent(self) -> int:
        """The requests to the host so far: a question may cost more than one, by redirects and retries."""
        meter = self._services.meter.hosts.get(self.host)
        return meter.requests if meter is not None else 0

    async def _work(self) -> None:
        while self._most is None or self._asked < self._most:
            found = self._next()
            if found is not None:
                self._asked += 1
                await self._ask(*found)
            elif self._open:
                await self._changed.wait()
            else:
                return

    def _next(self) -> tuple[Traversal, Part] | None:
        """What to ask for next: from the oldest traversal that has something, else from a new one."""
        for traversal in chain(tuple(self._open), self._begin()):
            while (part := traversal.take()) is not None:
                known = None if part.is_manifest else self._blobs.get((traversal.root.site, part.digest))
                if known is None:
                    return traversal, part
                traversal.answered(part, there=known)
            self._close_if_over(traversal)
        return None

    def _begin(self) -> Iterator[Traversal]:
        for root in self._waiting:
            stopped = b"" if self._doubted else self._services.journal.audited(*root.key).stopped
            traversal = Traversal(root, self._kinds.get(root.digest, ""), stopped)
            self._open.append(traversal)
            yield traversal

    async def _ask(self, traversal: Traversal, part: Part) -> None:
        answered = False
        try:
            async with asyncio.timeout(self._patience):
                with error_side("target"):
                    there, manifest = await self._look(traversal.root.site, part)
            answered = True
            traversal.answered(part, there=there, manifest=manifest)
        except TimeoutError:
            raise _Ended(TimedOut(f"no answer within {self._patience:.0f} seconds")) from None
        except BlobflowError as error:
            raise _Ended(error) from None
        finally:
            if not answered:
                traversal.put_back(part)
            self._close_if_over(traversal)
            self._changed.set()
            self._changed = asyncio.Event()

    async def _look(self, site: Site, part: Part) -> tuple[bool, Manifest | None]:
        """Whether the part is there, and its manifest if it is one."""
        content = Descriptor(part.media_type if part.is_manifest else "", part.digest, part.size)
        if not part.is_manifest:
            self._blobs[site, part.digest] = there = await self._has(site, content)
            return there, None
        sink = self._services.sink_at(site)
        reader = sink if isinstance(sink, Reads) else self._services.source_at(site)
        try:
            raw = await reader.read(content)
            return True, parse_manifest(raw, part.media_type, digest=part.digest)
        except (NotFound, IntegrityError):
            return False, None
        except UnsupportedContent:
            return True, None  # whatever its type, these are the bytes that were put

    async def _has(self, site: Site, blob: Descriptor) -> bool:
        """Whether a blob is there. Not every registry answers HEAD correctly, so a no is asked again."""
        if await self._services.sink_at(site).has(blob):
            return True
        self._asked += bool(blob.size)
        return await can_be_read(self._services.source_at(site), blob)

    def _close_if_over(self, traversal: Traversal) -> None:
        """Record how a traversal ended."""
        if not traversal.over or traversal not in self._open:
            return
        self._open.remove(traversal)
        if traversal.missing is None:
            self._services.journal.record_audit(*traversal.root.key)
            self.whole.add(traversal.root)
        else:
            self._services.journal.doubt_put(*traversal.root.key)
            self.missing[traversal.root] = traversal.missing

    def _leave_open(self) -> None:
        """Record where the other traversals stopped; that of a doubtful root begins anew."""
        for traversal in self._open:
            if traversal.missing is not None:
                self._services.journal.doubt_put(*traversal.root.key)
                self.missing[traversal.root] = traversal.missing
            elif traversal.begun and not self._doubted:
                self._services.journal.record_audit(*traversal.root.key, traversal.stopped)
        self._open = []

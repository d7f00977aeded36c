"""The survey for a saved plan: which of its steps' content do the targets have by now?

It asks the targets only, one registry at a time: first what the tags name, then each manifest that will be
put, and of the blobs those that a missing manifest needs. An image manifest that is there implies its blobs,
an index implies nothing but itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from blobflow.content import Refers, Site
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.pairs import site_of
from blobflow.engine.plan.attachments import REPLACED
from blobflow.engine.plan.steps import Attach, Backup, Copy, Mount, NeedKind, Put, Step
from blobflow.engine.policy import Policy
from blobflow.engine.saved.plan import SavedImage, SavedPlan
from blobflow.engine.saved.remaining import SavedProgress, TagAt
from blobflow.engine.services import Services
from blobflow.engine.targets.acceptance import refuses_sparse
from blobflow.engine.targets.unnamed_blobs import noted_blobs
from blobflow.errors import BlobflowError, NotFound, Rejected, error_side
from blobflow.oci import Descriptor, Digest, media

# Needs of steps that go on if what they need failed, or was never done.
_MAY_FAIL = (NeedKind.FINISHED, NeedKind.AFTER)


class TargetCheck:
    """The check of one target registry, `host`, for what a saved plan wants there."""

    def __init__(
        self,
        saved: SavedPlan,
        host: str,
        policy: Policy,
        services: Services,
        runner: BoundedRunner,
        found: SavedProgress,
    ) -> None:
        self._saved = saved
        self._host = host
        self._policy = policy
        self._services = services
        self._runner = runner
        self._counts = services.meter.counts
        self._found = found
        self._images = [n for n, image in enumerate(saved.images) if image.pair.target.host == host]
        self._steps = [n for n, step in enumerate(saved.steps) if step.target.registry == host]
        self._empty: set[Site] = set()
        self._noted: set[tuple[Site, Digest]] = set()
        self._errors: dict[Site, BlobflowError] = {}
        self._there: set[int] = set()  # manifests
        self._asked: set[int] = set()  # blobs

    async def go(self) -> None:
        """Ask the registry. A site that can't be asked fails its images. Writes nothing anywhere."""
        await self._runner.for_each(self._ask_tag, sorted(self._aims()), count=self._counts["survey"])
        self._judge_tags()
        await self._runner.for_each(self._ask_empty, sorted(self._untagged()))
        await self._recall_noted()
        await self._runner.for_each(self._ask_manifest, self._open(Put), count=self._counts["contents"])
        await self._ask_blobs()
        self._close_puts()
        await self._runner.for_each(self._ask_referrers, self._open(Attach))
        self._leave_what_lost_its_subject()
        for number in self._images:
            site = site_of(self._saved.images[number].pair.target)
            if site in self._errors:
                self._found.failures.setdefault(number, self._errors[site])

    def _open(self, kind: type[Step]) -> list[int]:
        """The steps of a kind that may remain, the last first: parents before children."""
        steps = self._saved.steps
        return [n for n in reversed(self._steps) if isinstance(steps[n], kind) and n not in self._found.over]

    def _put(self, number: int) -> Put:
        step = self._saved.steps[number]
        assert isinstance(step, Put)
        return step

    # Tags

    def _aims(self) -> set[TagAt]:
        aims = set()
        for number in self._images:
            image = self._saved.images[number]
            aims.add((site_of(image.pair.target), _name_of(image)))
        for number in self._open(Put):
            step = self._put(number)
            aims.update((step.target, tag) for tag in step.tags)
        return aims

    async def _ask_tag(self, aim: TagAt) -> None:
        site, name = aim
        try:
            with error_side("target"):
                self._found.tags[aim] = (await self._services.sink_at(site).resolve(name)).digest
        except NotFound:
            self._found.tags[aim] = None
        except BlobflowError as error:
            self._errors[site] = error

    def _judge_tags(self) -> None:
        """Find the images that must not, or can't, be completed, and the steps that need no more
        questions."""
        own: dict[TagAt, set[Digest]] = defaultdict(set)
        for number in self._images:
            image = self._saved.images[number]
            aim, right = (site_of(image.pair.target), _name_of(image)), self._rights(image)
            if aim not in self._found.tags:
                continue
            own[aim] |= right
            named = self._found.tags[aim]
            if named in right:
                if self._policy.trust_root:
                    self._found.over.update(self._below(image.steps))
            elif named is not None and self._policy.no_overwrite and image.pair.target.tag:
                self._found.failures[number] = _not_overwritten(image, named)
            elif not self._is_put(image):
                self._found.failures[number] = _not_there(image, named)
        if self._policy.no_overwrite:
            for number in self._open(Put):
                self._yield_tags(number, own)

    def _yield_tags(self, number: int, own: dict[TagAt, set[Digest]]) -> None:
        """Remove from a Put the tags that name something else by now, unless they are an image's own."""
        step = self._put(number)
        aims = [(step.target, tag) for tag in step.tags]
        taken = {aim for aim in aims if aim not in own and self._found.tags.get(aim) not in _any_of(step)}
        if taken:
            self._found.without[number] = frozenset(tag for _, tag in taken)
            if len(taken) == len(aims):
                _, tag = min(taken)
                there = self._found.tags[step.target, tag]
                self._found.left[number] = f"{tag} names {there} there; --no-overwrite leaves it as it is"
                self._found.over.add(number)

    def _rights(self, image: SavedImage) -> set[Digest]:
        """The digests that an image's tag may name in the end: its root's, or its fallback's."""
        rights = {image.root.digest}
        for number in image.steps:
            step = self._saved.steps[number]
            if isinstance(step, Put) and step.manifest.digest == image.root.digest and step.fallback:
                rights.add(step.fallback.digest)
        return rights

    def _is_put(self, image: SavedImage) -> bool:
        """Whether a step writes the image's tag, or its root where it has no tag."""
        tag = image.pair.target.tag
        for number in image.steps:
            step = self._saved.steps[number]
            if isinstance(step, Put) and step.manifest.digest == image.root.digest:
                return not tag or tag in step.tags
        return False

    def _below(self, steps: Iterable[int]) -> set[int]:
        """These steps and all that they need."""
        reached, todo = set[int](), list(steps)
        while todo:
            number = todo.pop()
            if number not in reached:
                reached.add(number)
                todo += [need.step for need in self._saved.needs[number] if need.kind not in _MAY_FAIL]
        return reached

    def _untagged(self) -> set[Site]:
        tagged = {site for (site, _), named in self._found.tags.items() if named is not None}
        return {self._saved.steps[number].target for number in self._steps} - tagged - self._errors.keys()

    async def _ask_empty(self, site: Site) -> None:
        try:
            with error_side("target"):
                if await self._services.sink_at(site).is_empty():
                    self._empty.add(site)
        except BlobflowError as error:
            self._errors[site] = error

    async def _recall_noted(self) -> None:
        """Which blobs an earlier run put at sites that say that they are empty (see `unnamed_blobs`)."""
        wanted: dict[Site, set[Digest]] = defaultdict(set)
        for number in self._steps:
            step = self._saved.steps[number]
            if isinstance(step, Copy | Mount) and step.target in self._empty:
                wanted[step.target].add(step.blob.digest)
        self._noted = await noted_blobs(wanted, self._services.journal, self._services.sink_at)

    # Manifests and blobs

    async def _ask_manifest(self, number: int) -> None:
        step = self._put(number)
        named = {self._found.tags.get((step.target, tag)) for tag in step.tags}
        if step.manifest.digest in named or await self._holds(step.target, step.manifest):
            self._there.add(number)
        elif step.fallback is not None:
            took_it = named == {step.fallback.digest}
            if not step.tags and refuses_sparse(self._services.journal, self._host):
                took_it = await self._holds(step.target, step.fallback)
            if took_it:
                self._fell_back(number)

    def _fell_back(self, number: int) -> None:
        """Note that the target took the fallback before, and so did it below: a pruned index names pruned
        ones."""
        for each in self._below([number]):
            step = self._saved.steps[each]
            if isinstance(step, Put) and step.fallback is not None:
                self._found.fell_back.add(each)
                self._found.over.add(each)

    async def _holds(self, site: Site, content: Descriptor) -> bool:
        if site in self._errors or (site in self._empty and (site, content.digest) not in self._noted):
            return False
        try:
            with error_side("target"):
                return await self._services.sink_at(site).has(content)
        except BlobflowError as error:
            self._errors[site] = error
            return False

    async def _ask_blobs(self) -> None:
        """Ask for the blobs that missing manifests need, then for those that missing mounts come from."""
        standing: dict[int, bool] = {}
        wanted: set[int] = set()
        for number in self._open(Put):
            there = number in self._there and not _is_index(self._put(number))
            for need in self._saved.needs[number]:
                step = self._saved.steps[need.step]
                if isinstance(step, Copy | Mount):
                    if there and not _is_foreign(step.blob) and self._policy.verify == "roots":
                        standing[need.step] = True
                    else:
                        wanted.add(need.step)
        self._found.over.update(standing)
        self._found.present.update(standing)
        while wanted := {n for n in wanted if n not in self._found.over and n not in self._asked}:
            self._asked |= wanted
            await self._runner.for_each(self._ask_blob, sorted(wanted), count=self._counts["contents"])
            missing = wanted - self._found.over
            needs = (need for number in missing for need in self._saved.needs[number])
            wanted = {need.step for need in needs if need.kind != NeedKind.AFTER}

    async def _ask_blob(self, number: int) -> None:
        step = self._saved.steps[number]
        assert isinstance(step, Copy | Mount)
        if await self._holds(step.target, step.blob):
            self._found.over.add(number)
            self._found.present.add(number)

    def _close_puts(self) -> None:
        """Finish the Puts whose manifests are there, with their tags and no missing blob."""
        for number in self._open(Put):
            step, needs = self._put(number), self._saved.needs[number]
            incomplete = any(need.step in self._asked and need.step not in self._found.over for need in needs)
            tags = [tag for tag in step.tags if tag not in self._found.without.get(number, ())]
            right = all(self._found.tags.get((step.target, tag)) == step.manifest.digest for tag in tags)
            if number in self._there and right and not incomplete:
                self._found.over.add(number)
        self._close_backups()

    def _close_backups(self) -> None:
        """Finish the backups of tags that nothing overwrites any more: what was kept before stays."""
        for number in self._steps:
            step, over = self._saved.steps[number], number in self._found.over
            if not isinstance(step, Put):
                continue
            for each in (need.step for need in self._saved.needs[number]):
                backup = self._saved.steps[each]
                if isinstance(backup, Backup):
                    gone = over or backup.tag in self._found.without.get(number, ())
                    if gone or self._found.tags.get((step.target, backup.tag)) in _any_of(step):
                        self._found.over.add(each)

    # Referrers

    async def _ask_referrers(self, number: int) -> None:
        step = self._saved.steps[number]
        assert isinstance(step, Attach)
        site = step.target
        sink = self._services.sink_at(site)
        needs = self._saved.needs[number]
        if site in self._errors or site in self._empty or not isinstance(sink, Refers):
            return
        if any(need.step not in self._found.over for need in needs if need.kind == NeedKind.SUCCEEDED):
            return
        try:
            with error_side("target"):
                listed = await sink.referrers(step.subject)
        except BlobflowError as error:
            self._errors[site] = error
            return
        if {each.digest for each in step.referrers} <= {r.manifest.digest for r in listed if not r.tag}:
            self._found.over.add(number)

    def _leave_what_lost_its_subject(self) -> None:
        left = self._found.left
        for number in self._steps:
            for need in self._saved.needs[number]:
                if need.kind == NeedKind.UNLESS_REPLACED and need.step in self._found.fell_back:
                    left.setdefault(number, REPLACED)
                elif need.kind not in _MAY_FAIL and need.step in left:
                    left.setdefault(number, left[need.step])
            if number in left:
                self._found.over.add(number)


def _name_of(image: SavedImage) -> str:
    return image.pair.target.tag or image.root.digest


def _any_of(step: Put) -> set[Digest | None]:
    """What a tag that a Put writes may name before: nothing, or what it puts."""
    return {None, step.manifest.digest, step.fallback.digest if step.fallback else None}


def _is_index(step: Put) -> bool:
    return step.manifest.media_type in media.INDEXES


def _is_foreign(blob: Descriptor) -> bool:
    """Whether a registry accepts a manifest without checking for this layer of it."""
    return bool(blob.urls) or media.is_nondistributable(blob.media_type)


def _not_overwritten(image: SavedImage, named: Digest) -> BlobflowError:
    error = Rejected(
        f"{image.pair.target} names {named}, not {image.root.digest}; the plan was made with --no-overwrite,"
        " which leaves it as it is"
    )
    error.side = "target"
    return error


def _not_there(image: SavedImage, named: Digest | None) -> BlobflowError:
    error = NotFound(
        f"{image.pair.target} names {named or 'nothing'} now; when the plan was made it named"
        f" {image.root.digest}, so no step of it puts that there: make the plan anew"
    )
    error.side = "target"
    return error

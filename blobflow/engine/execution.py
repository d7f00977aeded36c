"""The execution of a saved plan: what it says, and nothing else.

    survey (targets) → read manifests (sources, by digest) → transfer → verify → report

No tag is looked up at a source, nor what refers to anything: all that was decided when the plan was made.
What is at the targets by now is skipped; an image of which a source has lost something fails alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import msgspec

from blobflow.content import Site, Source
from blobflow.engine.agenda import Agenda, State
from blobflow.engine.bodies import blame
from blobflow.engine.closing import announce, complete_places, verify_targets
from blobflow.engine.flow import LANE, Planned, Policy
from blobflow.engine.lane import Lane, together
from blobflow.engine.plan import Copy, Goal, Graph, Inventory, Mount, Pair, Plan, Put, Shape, Step, site_of
from blobflow.engine.price import Price, price_of
from blobflow.engine.quota import Mention, Permit, Quota
from blobflow.engine.recheck import Look
from blobflow.engine.referring import REPLACED
from blobflow.engine.remaining import Found, rest_of
from blobflow.engine.report import ImageRecord, ReferrerRecord, Report
from blobflow.engine.resolve import read_graph
from blobflow.engine.saved import SavedImage, SavedPlan
from blobflow.engine.survey import recorded_as
from blobflow.engine.tally import Tally
from blobflow.engine.transfer import Transfer, World
from blobflow.errors import BlobflowError, NotFound, Rejected
from blobflow.events import ImageDone, Meter, Observer, PhaseStarted, PlanMade, ignore
from blobflow.oci import Descriptor, Digest, Reference, media
from blobflow.oci.choice import Choice

# A manifest that is read by its digest, and nothing below it.
_ALONE = Choice(index="only")
_ANEW = "; the target had it when the plan was made: make the plan anew"


class Execution:
    """One execution of a saved plan; to be asked as a `Run` is. `policy`: in place of the plan's own.

    `planned`: what was left to be done, once it is known.
    """

    def __init__(
        self,
        saved: SavedPlan,
        policy: Policy | None = None,
        *,
        observe: Observer = ignore,
        meter: Meter | None = None,
    ) -> None:
        self._saved = saved
        self._policy = policy or saved.policy
        self._observe = observe
        self._meter = meter or Meter()
        self._tally = Tally(saved.pairs)
        self._told = 0
        self._found = Found()
        self._transfer: Transfer | None = None
        self.planned: Planned | None = None
        self._started = time.monotonic()

    def report(self) -> Report:
        """What has become of every image so far."""
        report = self._tally.report(
            bytes_read=self._meter.bytes_read,
            written={host: meter.bytes_written for host, meter in self._meter.hosts.items()},
            requests=self._meter.requests,
            seconds=time.monotonic() - self._started,
        )
        replaced, left = self._replaced(), self._left()
        images = tuple(
            msgspec.structs.replace(record, referrers=_referrers(image, replaced, left))
            for record, image in zip(report.images, self._saved.images, strict=True)
        )
        totals = msgspec.structs.replace(report.totals, blobs_present=len(self._found.present))
        return msgspec.structs.replace(report, images=images, totals=totals)

    @property
    def errors(self) -> Mapping[Pair, BlobflowError]:
        """Why each failed image failed."""
        return self._tally.errors

    def wind_down(self) -> bool:
        """Start nothing new: what is under way ends, and `go` returns. False if nothing is under way yet."""
        if self._transfer is None:
            return False
        self._transfer.wind_down()
        return True

    async def plan(self, world: World) -> Planned:
        """Find out what is left to be done; nothing is changed anywhere.

        Asks the targets for what the plan has steps for, and reads the manifests that are to be put.
        """
        self._observe(PhaseStarted("survey", len(self._saved.images)))
        self._tally.roots(self._saved.roots)
        hosts = sorted({pair.target.host for pair in self._saved.pairs})
        await together(
            Look(self._saved, host, self._policy, world, Lane(LANE), self._found).go() for host in hosts
        )
        quota = Quota(
            world.allowance_of, world.source_at, self._observe, world.sleep, waits=self._policy.wait
        )
        lane = Lane(LANE)
        await self._find_images(world, lane)
        graph, plan = await self._read(world, quota, lane)
        self.planned = self._planned(plan, graph, quota)
        self._tell_price(self.planned.price)
        return self.planned

    async def go(self, world: World) -> Report:
        """Do it. Failures of images are in the report; what is raised concerns the whole run."""
        planned = await self.plan(world)
        for pair, error in planned.failures.items():
            self._tell(self._tally.failed(pair, error))
        for record in self._tally.planned(planned.plan, planned.shapes, planned.inventory):
            self._tell(record)
        if planned.failures and not self._policy.keep_going:
            return self.report()

        def ended(agenda: Agenda, number: int) -> None:
            if agenda.states[number] is State.FAILED:
                _explain(agenda.errors[number], agenda.step(number))
            for goal, record in self._tally.ended(agenda, number):
                self._tell(record)
                if record.status == "done":
                    self._remember(world, planned.plan, goal)

        announce(planned.plan, world)
        self._observe(PhaseStarted("transfer", len(self._saved.images)))
        self._transfer = Transfer(planned.plan, planned.graph, world, self._policy.keep_going, ended)
        await self._transfer.run()
        await verify_targets(self._tally, self._policy.verify, world, self._observe, Lane(LANE))
        await complete_places(self._tally, world, self._observe)
        return self.report()

    def _rest(self) -> tuple[list[int], Plan]:
        """The images that can be completed as far as is known, and the plan of what is left for them."""
        good = [n for n in range(len(self._saved.images)) if n not in self._found.failures]
        return good, rest_of(self._saved, self._found, good)

    # What the sources are asked

    async def _find_images(self, world: World, lane: Lane) -> None:
        """Have layouts and archives look for the images of theirs that something is left to do for."""
        if not any(pair.source.transport for pair in self._saved.pairs):
            return
        good, plan = self._rest()
        failed: dict[int, BlobflowError] = {}

        async def look(number: int) -> None:
            error = await _look_for(self._saved.images[number], world)
            if error is not None:
                failed[number] = error

        busy = [number for number, goal in zip(good, plan.goals, strict=True) if goal.steps]
        await lane.each(look, [n for n in busy if self._saved.images[n].pair.source.transport])
        self._found.failures.update(failed)

    async def _read(self, world: World, quota: Quota, lane: Lane) -> tuple[Graph, Plan]:
        """Read the manifests that are to be put, each from wherever it is. Images that lack one fail, and
        the plan is of the others."""
        good, plan = self._rest()
        roots: dict[Reference, Descriptor] = {}
        places: dict[Digest, list[Reference]] = {}
        for step in plan.steps:
            if not isinstance(step, Put) or step.manifest.digest in places:
                continue
            for site in self._saved.sources.get(step.manifest.digest, ()):
                place = Reference(site.registry, site.repository, digest=step.manifest.digest)
                roots[place] = step.manifest
                places.setdefault(step.manifest.digest, []).append(place)
        choices = dict.fromkeys(roots, (_ALONE,))
        read = await read_graph(roots, world.source_at, lane, _one_at_a_time(quota), choices=choices)
        missing = {
            digest: read.failures[found[0]]
            for digest, found in places.items()
            if digest not in read.graph.manifests
        }
        if missing:
            self._fail_without(missing, good, plan)
            _, plan = self._rest()
        return msgspec.structs.replace(read.graph, roots=self._saved.roots), plan

    def _fail_without(
        self, missing: Mapping[Digest, BlobflowError], images: Sequence[int], plan: Plan
    ) -> None:
        """Fail the images of a plan that want to put what can't be read, or what needs that."""
        errors: dict[int, BlobflowError] = {}
        for position, step in enumerate(plan.steps):
            if isinstance(step, Put) and step.manifest.digest in missing:
                errors[position] = missing[step.manifest.digest]
            for need in plan.needs[position]:
                if need.kind != "settled" and need.step in errors:
                    errors.setdefault(position, errors[need.step])
        for number, goal in zip(images, plan.goals, strict=True):
            for position in goal.steps:
                if position in errors:
                    self._found.failures.setdefault(number, errors[position])

    # What it comes to

    def _planned(self, plan: Plan, graph: Graph, quota: Quota) -> Planned:
        saved, found = self._saved, self._found
        roots = {goal.pair: goal.root for goal in plan.goals}
        shapes = {
            image.pair: Shape(roots.get(image.pair, image.root), platforms=image.platforms)
            for image in saved.images
        }
        return Planned(
            saved.pairs,
            plan,
            graph,
            shapes,
            Inventory({}, {}, found.tags),
            {saved.images[number].pair: error for number, error in sorted(found.failures.items())},
            dict(sorted(quota.reads.items())),
            quota.allowances,
            self._policy,
            self._price(plan),
        )

    def _price(self, plan: Plan) -> Price:
        """The price of what is left. Blobs are counted that the saved plan has steps for."""
        price = price_of(plan, Graph({}, {}, {}))
        blobs = {step.blob.digest for step in self._saved.steps if isinstance(step, Copy | Mount)}
        read = {step.blob.digest for step in plan.steps if isinstance(step, Copy)}
        return msgspec.structs.replace(
            price,
            blobs_unique=len(blobs),
            blobs_shared=min(len(blobs), self._saved.price.blobs_shared),
            blobs_present=len(blobs - read),
        )

    def _tell_price(self, price: Price) -> None:
        self._observe(
            PlanMade(
                images=len(self._saved.images),
                copies=sum(target.copies for target in price.targets.values()),
                mounts=price.mounts,
                puts=price.manifests,
                bytes_to_read=price.bytes_to_read,
                bytes_to_write=price.bytes_to_write,
            )
        )

    def _tell(self, record: ImageRecord) -> None:
        self._told += 1
        self._observe(
            ImageDone(
                source=record.source,
                target=record.target,
                digest=record.digest,
                status=record.status,
                error=record.error,
                done=self._told,
                images=self._tally.images,
            )
        )

    def _remember(self, world: World, plan: Plan, goal: Goal) -> None:
        """Have later runs know an image whose root was put now; one that was there was not looked into."""
        pair, policy = goal.pair, self._saved.policy
        steps = (plan.steps[number] for number in goal.steps)
        was_put = any(isinstance(s, Put) and s.manifest.digest == goal.root.digest for s in steps)
        if pair.target.transport or not was_put:
            return
        put, source = self._tally.final(pair).digest, self._tally.source_root(pair).digest
        looked_up = (policy.referrers or pair.referrers) != "off"
        chosen = recorded_as(pair.choice, source, put, foreign=policy.foreign_layers, referrers=looked_up)
        world.journal.record_put(site_of(pair.target), put, chosen)

    # The report

    def _replaced(self) -> dict[Site, set[Digest]]:
        """The manifests, by site, in whose place a target took others, now or before."""
        steps = [self._saved.steps[number] for number in self._found.fell_back]
        if self._transfer is not None:
            agenda = self._transfer.agenda
            steps += [agenda.step(number) for number in agenda.fell_back]
        replaced: dict[Site, set[Digest]] = {}
        for step in steps:
            if isinstance(step, Put):
                replaced.setdefault(step.target, set()).add(step.manifest.digest)
        return replaced

    def _left(self) -> dict[tuple[Site, Digest], str]:
        """Why manifests that should be put at a site are left, by the look at the targets."""
        steps = [(self._saved.steps[number], why) for number, why in self._found.left.items()]
        return {(step.target, step.manifest.digest): why for step, why in steps if isinstance(step, Put)}


def _referrers(
    image: SavedImage, replaced: Mapping[Site, set[Digest]], left: Mapping[tuple[Site, Digest], str]
) -> tuple[ReferrerRecord, ...]:
    """What refers to an image, and what of that was left after all."""
    site = site_of(image.pair.target)
    gone: set[str] = set(replaced.get(site, ()))
    records = []
    for each in image.referrers:
        why = left.get((site, Digest(each.digest)), REPLACED if each.subject in gone else "")
        if why and not each.left:
            gone.add(each.digest)
            records.append(msgspec.structs.replace(each, left=why))
        else:
            records.append(each)
    return tuple(records)


async def _look_for(image: SavedImage, world: World) -> BlobflowError | None:
    """Have a layout or archive look for an image: what a docker archive holds is made when it is asked for.
    Returns why it can't be had.

    By its name first, since to find a digest all images of such an archive may have to be made.
    """
    source, wanted = world.source_at(site_of(image.pair.source)), image.source_root.digest
    try:
        with blame("source"):
            if not await _names(source, image.pair.source.name, wanted):
                await source.resolve(wanted)
    except NotFound as error:
        error.message += f"; {image.pair.source} is not what it was when the plan was made"
        return error
    except BlobflowError as error:
        return error
    return None


async def _names(source: Source, name: str, wanted: Digest) -> bool:
    try:
        return (await source.resolve(name)).digest == wanted
    except NotFound:
        return False  # it may have another name by now


def _one_at_a_time(quota: Quota) -> Permit:
    """The quota's permit for manifests that are read without what is below them: an index counts as one."""

    async def permit(wanted: Sequence[Mention]) -> Sequence[Mention]:
        plain = [(site, Descriptor(media.OCI_MANIFEST, each.digest, each.size)) for site, each in wanted]
        now = {(site, each.digest) for site, each in await quota.permit(plain)}
        return [(site, each) for site, each in wanted if (site, each.digest) in now]

    return permit


def _explain(error: BlobflowError, step: Step) -> None:
    """What a target lacks that no step brings was there when the plan was made."""
    lacks = isinstance(error, Rejected) and error.missing and isinstance(step, Put) and not step.sparse
    if lacks and not error.message.endswith(_ANEW):
        error.message += _ANEW

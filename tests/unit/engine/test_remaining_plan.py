"""What remains of a saved plan, whatever its targets have got since: what is missing, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from blobflow.content import NullJournal, Referrer, Sink, Site
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.pairs import site_of
from blobflow.engine.plan.desired import build_desired_images
from blobflow.engine.plan.inventory import Inventory
from blobflow.engine.plan.planned import Planned
from blobflow.engine.plan.planner import make_plan
from blobflow.engine.plan.steps import Attach, Copy, Mount, Plan, Put
from blobflow.engine.policy import Policy
from blobflow.engine.saved.plan import SavedPlan, check_saved_plan, to_saved_plan
from blobflow.engine.saved.remaining import SavedProgress, remaining_plan
from blobflow.engine.saved.target_check import TargetCheck
from blobflow.engine.services import Services
from blobflow.errors import NotFound
from blobflow.events import Meter, ignore
from blobflow.oci import Descriptor, Digest
from blobflow.permits import FixedLimiters
from tests.scenarios.planning import (
    NOTHING,
    Wanted,
    World,
    build,
    hang,
    hosts,
    images,
    inventories,
    referrers,
)


class There:
    """A target of which an inventory says all. Implements what a look asks of a Sink."""

    def __init__(self, site: Site, inventory: Inventory) -> None:
        self._site = site
        self._inventory = inventory

    async def resolve(self, name: str) -> Descriptor:
        digest = self._inventory.tags.get((self._site, name))
        if digest is None and self._inventory.has(self._site, cast(Digest, name)):
            digest = cast(Digest, name)
        if digest is None:
            raise NotFound(name)
        return Descriptor("", digest, 0)

    async def is_empty(self) -> bool:
        return not self._inventory.at(self._site)

    async def has(self, content: Descriptor) -> bool:
        return self._inventory.has(self._site, content.digest)

    async def referrers(self, subject: Digest) -> list[Referrer]:
        listed = self._inventory.listed.get(self._site, ())
        return [Referrer(Descriptor("", d, 0), subject, "api") for about, d in listed if about == subject]


def saved_plan(services: World, inventory: Inventory) -> SavedPlan:
    desired_images = build_desired_images(services.pairs, services.graph, inventory.tags).by_pair
    hung = {pair: hang(shape, services.attached) for pair, shape in desired_images.items()}
    plan = make_plan(services.pairs, services.graph, inventory, hung)
    pairs = tuple(dict.fromkeys(services.pairs))
    saved = to_saved_plan(Planned(pairs, plan, services.graph, hung, inventory, {}))
    check_saved_plan(saved)
    return msgspec.json.decode(msgspec.json.encode(saved), type=SavedPlan)


def looked_at(saved: SavedPlan, inventory: Inventory) -> SavedProgress:
    """What is found out where the targets have this."""

    def sink_at(site: Site) -> Sink:
        return cast(Sink, There(site, inventory))

    def source_at(site: Site) -> Sink:
        raise AssertionError("no source is asked")

    around = Services(
        source_at=source_at,  # type: ignore[arg-type]
        sink_at=sink_at,
        cache=None,  # type: ignore[arg-type]
        journal=NullJournal(),
        observe=ignore,
        meter=Meter(),
        limiter_at=FixedLimiters().at,
    )
    found = SavedProgress()

    async def look() -> None:
        for host in {pair.target.host for pair in saved.pairs}:
            await TargetCheck(saved, host, Policy(), around, BoundedRunner(4), found).go()

    asyncio.run(look())
    return found


def rest(saved: SavedPlan, found: SavedProgress) -> Plan:
    return remaining_plan(saved, found, range(len(saved.images)))


def more(inventory: Inventory, later: Inventory) -> Inventory:
    """What one had, and another has besides."""
    none: frozenset[Digest] = frozenset()
    unlisted: frozenset[tuple[Digest, Digest]] = frozenset()
    sites = {*inventory.present, *later.present}
    listing = {*inventory.listed, *later.listed}
    return Inventory(
        {site: inventory.at(site) | later.present.get(site, none) for site in sites},
        {},
        inventory.tags,
        frozenset(),
        {s: inventory.listed.get(s, unlisted) | later.listed.get(s, unlisted) for s in listing},
    )


def some_of(targets: Sequence[str]) -> st.SearchStrategy[frozenset[str]]:
    """Registries where mounts need a manifest, so that saved plans have needs of that kind."""
    return st.sets(st.sampled_from(targets)).map(frozenset)


@given(st.data(), images, hosts)
@settings(max_examples=30, deadline=None)
def test_what_remains_is_a_plan_that_completes_all_and_moves_nothing_that_is_there(
    data: st.DataObject, wanted: Wanted, targets: list[str]
) -> None:
    services = build(wanted, targets)
    data.draw(referrers(services))
    before = data.draw(inventories(services))
    before = msgspec.structs.replace(before, mounts_named=data.draw(some_of(targets)))
    saved = saved_plan(services, before)
    now = more(before, data.draw(inventories(services)))
    found = looked_at(saved, now)
    assert not found.failures
    carry_out(rest(saved, found), services, now)


def carry_out(plan: Plan, services: World, inventory: Inventory) -> None:
    """Go through the steps as registries would that check everything."""
    here = {site: set(found) for site, found in inventory.present.items()}
    listed = {site: set(found) for site, found in inventory.listed.items()}
    copied: set[tuple[str, Digest]] = set()
    for number, (step, needs) in enumerate(zip(plan.steps, plan.needs, strict=True)):
        assert all(need.step < number for need in needs)
        there = here.setdefault(step.target, set())
        match step:
            case Put(manifest=manifest):
                parsed = services.manifests[manifest.digest]
                assert {child.digest for child in (*parsed.manifests, *parsed.blobs)} <= there
                assert step.tags or manifest.digest not in there
                there.add(manifest.digest)
            case Attach(subject=subject, referrers=found):
                assert {each.digest for each in found} <= there
                listed.setdefault(step.target, set()).update((subject, each.digest) for each in found)
            case Copy(blob=blob):
                assert blob.digest not in there
                assert (step.target.registry, blob.digest) not in copied
                copied.add((step.target.registry, blob.digest))
                there.add(blob.digest)
            case Mount(blob=blob, origin=origin):
                assert blob.digest not in there
                assert blob.digest in here.get(origin, set())
                there.add(blob.digest)
    for pair in services.pairs:
        site = site_of(pair.target)
        todo = [
            manifest.descriptor.digest
            for manifest in services.graph.closure(services.roots[pair.source].digest)
        ]
        while todo:
            subject = todo.pop()
            assert {subject, *(blob.digest for blob in services.manifests[subject].blobs)} <= here[site]
            for each in services.attached.get(subject, ()):
                todo.append(each.manifest.descriptor.digest)
                assert each.referrer.tag or (subject, todo[-1]) in listed[site]


@given(st.data(), images, hosts)
@settings(max_examples=20, deadline=None)
def test_where_nothing_changed_all_of_it_remains(
    data: st.DataObject, wanted: Wanted, targets: list[str]
) -> None:
    services = build(wanted, targets)
    data.draw(referrers(services))
    saved = saved_plan(services, msgspec.structs.replace(NOTHING, mounts_named=data.draw(some_of(targets))))
    plan = rest(saved, looked_at(saved, NOTHING))
    assert (plan.steps, plan.needs) == (saved.steps, saved.needs)
    assert [goal.steps for goal in plan.goals] == [image.steps for image in saved.images]


@given(st.data(), images, hosts)
@settings(max_examples=20, deadline=None)
def test_where_all_of_it_was_done_nothing_remains(
    data: st.DataObject, wanted: Wanted, targets: list[str]
) -> None:
    services = build(wanted, targets)
    data.draw(referrers(services))
    saved = saved_plan(services, msgspec.structs.replace(NOTHING, mounts_named=data.draw(some_of(targets))))
    plan = rest(saved, looked_at(saved, afterwards(saved)))
    assert plan.steps == ()
    assert all(goal.steps == () for goal in plan.goals)


def afterwards(saved: SavedPlan) -> Inventory:
    """What the targets have when every step was done."""
    present: dict[Site, set[Digest]] = {}
    tags: dict[tuple[Site, str], Digest | None] = {}
    listed: dict[Site, set[tuple[Digest, Digest]]] = {}
    for step in saved.steps:
        match step:
            case Put(manifest=manifest, target=site):
                present.setdefault(site, set()).add(manifest.digest)
                tags.update({(site, tag): manifest.digest for tag in step.tags})
            case Attach(subject=subject, referrers=found, target=site):
                listed.setdefault(site, set()).update((subject, each.digest) for each in found)
            case Copy() | Mount():
                present.setdefault(step.target, set()).add(step.blob.digest)
    for image in saved.images:
        present.setdefault(site_of(image.pair.target), set())
    return Inventory(
        {site: frozenset(found) for site, found in present.items()},
        {},
        tags,
        frozenset(),
        {site: frozenset(found) for site, found in listed.items()},
    )

"""What remains of a saved plan, whatever its targets have got since: what is missing, and nothing else."""

from __future__ import annotations

import asyncio
from typing import cast

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from blobflow.content import NullJournal, Referrer, Sink, Site
from blobflow.engine.flow import Planned
from blobflow.engine.lane import Lane
from blobflow.engine.plan import Attach, Copy, Inventory, Mount, Plan, Put, site_of
from blobflow.engine.planner import make_plan
from blobflow.engine.policy import Policy
from blobflow.engine.recheck import Look
from blobflow.engine.remaining import Found, rest_of
from blobflow.engine.saved import SavedPlan, check, to_be_saved
from blobflow.engine.schedule import Limits
from blobflow.engine.shape import shape_pairs
from blobflow.engine.transfer import World as Around
from blobflow.errors import NotFound
from blobflow.events import Meter, ignore
from blobflow.oci import Descriptor, Digest
from tests.unit.test_plan import NOTHING, Wanted, World, build, hang, hosts, images, inventories, referrers


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

    async def vacant(self) -> bool:
        return not self._inventory.at(self._site)

    async def has(self, content: Descriptor) -> bool:
        return self._inventory.has(self._site, content.digest)

    async def referrers(self, subject: Digest) -> list[Referrer]:
        listed = self._inventory.listed.get(self._site, ())
        return [Referrer(Descriptor("", d, 0), subject, "api") for about, d in listed if about == subject]


def saved_plan(world: World, inventory: Inventory) -> SavedPlan:
    shapes = shape_pairs(world.pairs, world.graph, inventory.tags).of
    hung = {pair: hang(shape, world.attached) for pair, shape in shapes.items()}
    plan = make_plan(world.pairs, world.graph, inventory, hung)
    pairs = tuple(dict.fromkeys(world.pairs))
    saved = to_be_saved(Planned(pairs, plan, world.graph, hung, inventory, {}))
    check(saved)
    return msgspec.json.decode(msgspec.json.encode(saved), type=SavedPlan)


def looked_at(saved: SavedPlan, inventory: Inventory) -> Found:
    """What is found out where the targets have this."""

    def sink_at(site: Site) -> Sink:
        return cast(Sink, There(site, inventory))

    def source_at(site: Site) -> Sink:
        raise AssertionError("no source is asked")

    around = Around(
        source_at=source_at,  # type: ignore[arg-type]
        sink_at=sink_at,
        cache=None,  # type: ignore[arg-type]
        journal=NullJournal(),
        observe=ignore,
        meter=Meter(),
        limits=lambda host: Limits(),
    )
    found = Found()

    async def look() -> None:
        for host in {pair.target.host for pair in saved.pairs}:
            await Look(saved, host, Policy(), around, Lane(4), found).go()

    asyncio.run(look())
    return found


def rest(saved: SavedPlan, found: Found) -> Plan:
    return rest_of(saved, found, range(len(saved.images)))


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


@given(st.data(), images, hosts)
@settings(max_examples=30, deadline=None)
def test_what_remains_is_a_plan_that_completes_all_and_moves_nothing_that_is_there(
    data: st.DataObject, wanted: Wanted, targets: list[str]
) -> None:
    world = build(wanted, targets)
    data.draw(referrers(world))
    before = data.draw(inventories(world))
    saved = saved_plan(world, before)
    now = more(before, data.draw(inventories(world)))
    found = looked_at(saved, now)
    assert not found.failures
    carry_out(rest(saved, found), world, now)


def carry_out(plan: Plan, world: World, inventory: Inventory) -> None:
    """Go through the steps as registries would that check everything."""
    here = {site: set(found) for site, found in inventory.present.items()}
    listed = {site: set(found) for site, found in inventory.listed.items()}
    copied: set[tuple[str, Digest]] = set()
    for number, (step, needs) in enumerate(zip(plan.steps, plan.needs, strict=True)):
        assert all(need.step < number for need in needs)
        there = here.setdefault(step.target, set())
        match step:
            case Put(manifest=manifest):
                parsed = world.manifests[manifest.digest]
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
    for pair in world.pairs:
        site = site_of(pair.target)
        todo = [
            manifest.descriptor.digest for manifest in world.graph.closure(world.roots[pair.source].digest)
        ]
        while todo:
            subject = todo.pop()
            assert {subject, *(blob.digest for blob in world.manifests[subject].blobs)} <= here[site]
            for each in world.attached.get(subject, ()):
                todo.append(each.manifest.descriptor.digest)
                assert each.referrer.tag or (subject, todo[-1]) in listed[site]


@given(st.data(), images, hosts)
@settings(max_examples=20, deadline=None)
def test_where_nothing_changed_all_of_it_remains(
    data: st.DataObject, wanted: Wanted, targets: list[str]
) -> None:
    world = build(wanted, targets)
    data.draw(referrers(world))
    saved = saved_plan(world, NOTHING)
    plan = rest(saved, looked_at(saved, NOTHING))
    assert (plan.steps, plan.needs) == (saved.steps, saved.needs)
    assert [goal.steps for goal in plan.goals] == [image.steps for image in saved.images]


@given(st.data(), images, hosts)
@settings(max_examples=20, deadline=None)
def test_where_all_of_it_was_done_nothing_remains(
    data: st.DataObject, wanted: Wanted, targets: list[str]
) -> None:
    world = build(wanted, targets)
    data.draw(referrers(world))
    saved = saved_plan(world, NOTHING)
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
            case _:
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

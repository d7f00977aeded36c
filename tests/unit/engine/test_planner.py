"""The planner's invariants, by hypothesis, and its rules one by one."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from blobflow.content import Referrer, Site
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.plan.cost import cost_of
from blobflow.engine.plan.desired import AttachedReferrer, build_desired_images
from blobflow.engine.plan.inventory import Inventory
from blobflow.engine.plan.planner import make_plan
from blobflow.engine.plan.steps import Attach, Backup, Copy, Mount, Need, NeedKind, Plan, Put, blobs_alone
from blobflow.engine.sources.graph import Graph
from blobflow.oci import Digest, Reference
from tests.scenarios.planning import (
    NOTHING,
    Wanted,
    World,
    blob,
    build,
    hang,
    hosts,
    image,
    images,
    index,
    inventories,
    referrers,
)


def planned(
    pairs: Sequence[Pair],
    graph: Graph,
    inventory: Inventory,
    attached: Mapping[Digest, Sequence[AttachedReferrer]] | None = None,
) -> Plan:
    desired_images = build_desired_images(pairs, graph, inventory.tags).by_pair
    hung = {pair: hang(shape, attached or {}) for pair, shape in desired_images.items()}
    return make_plan(pairs, graph, inventory, hung)


def check(plan: Plan, world: World, inventory: Inventory) -> None:
    seen: dict[Site, set[Digest]] = {s: set(d) for s, d in inventory.present.items()}
    copied: set[tuple[str, Digest]] = set()
    sources: dict[Digest, Site] = {}
    for number, (step, needs) in enumerate(zip(plan.steps, plan.needs, strict=True)):
        assert all(need.step < number for need in needs)
        here = seen.setdefault(step.target, set())
        if isinstance(step, Put):
            parsed = world.manifests[step.manifest.digest]
            assert all(child.digest in here for child in (*parsed.manifests, *parsed.blobs))
            assert step.manifest.digest not in here or step.tags
            here.add(step.manifest.digest)
            continue
        if isinstance(step, Attach):
            assert all(each.digest in here for each in step.referrers)
            continue
        if isinstance(step, Backup):
            check_backup(plan, number, step)
            continue
        assert step.blob.digest not in here
        if isinstance(step, Mount) and step.remembered:
            assert step.origin in inventory.remembered[step.target][step.blob.digest]
            assert step.origin != step.target
            assert (step.target.registry, step.blob.digest) not in copied, "one guess, and no copy beside it"
            copied.add((step.target.registry, step.blob.digest))
            assert not needs
        elif isinstance(step, Mount):
            assert step.origin.registry == step.target.registry
            assert step.blob.digest in seen.get(step.origin, set())
            brought = [n.step for n in needs if n.kind == NeedKind.FINISHED]
            assert step.blob.digest in inventory.present.get(step.origin, ()) or brought
            check_named(plan, world, inventory, step, needs)
        else:
            assert (step.target.registry, step.blob.digest) not in copied
            copied.add((step.target.registry, step.blob.digest))
            assert sources.setdefault(step.blob.digest, step.source) == step.source
        here.add(step.blob.digest)
    for pair in world.pairs:
        site = site_of(pair.target)
        assert world.roots[pair.source].digest in seen[site]
        for manifest in world.graph.closure(world.roots[pair.source].digest):
            check_referrers(plan, world, inventory, site, manifest.descriptor.digest)
    assert sum(world_size(world, digest) for digest in plan.reads) == cost_of(plan, world.graph).bytes_to_read


def check_backup(plan: Plan, number: int, step: Backup) -> None:
    """The one step that overwrites the tag needs it."""
    (put,) = [
        put for put, each in enumerate(plan.steps)
        if isinstance(each, Put) and each.target == step.target and step.tag in each.tags
    ]  # fmt: skip
    assert Need(number) in plan.needs[put]
    assert not plan.needs[number]


def check_named(plan: Plan, world: World, inventory: Inventory, step: Mount, needs: Sequence[Need]) -> None:
    """Where only what a manifest names is mounted, one that the plan puts at the origin comes first."""
    after = [plan.steps[need.step] for need in needs if need.kind == NeedKind.AFTER]
    if step.target.registry not in inventory.mounts_named:
        assert not after
    elif step.blob.digest not in inventory.present.get(step.origin, ()):
        [put] = after
        assert isinstance(put, Put) and put.target == step.origin
        assert step.blob.digest in [blob.digest for blob in world.manifests[put.manifest.digest].blobs]


def check_referrers(plan: Plan, world: World, inventory: Inventory, site: Site, subject: Digest) -> None:
    """What refers to a manifest at a target is put after it and attached in one step, or known there."""
    puts = {s.manifest.digest: n for n, s in enumerate(plan.steps) if isinstance(s, Put) and s.target == site}
    here = inventory.present.get(site, frozenset())
    steps = [s for s in plan.steps if isinstance(s, Attach) and (s.target, s.subject) == (site, subject)]
    wanted = [a.manifest.descriptor.digest for a in world.attached.get(subject, ()) if not a.referrer.tag]
    listed = {digest for of, digest in inventory.listed.get(site, ()) if of == subject}
    assert [sorted(m.digest for m in s.referrers) for s in steps] == (
        [sorted(set(wanted) - listed)] if set(wanted) - listed else []
    )
    for each in world.attached.get(subject, ()):
        digest = each.manifest.descriptor.digest
        assert digest in here or digest in puts
        if digest in puts and subject in puts and subject not in here:
            assert Need(puts[subject], NeedKind.UNLESS_REPLACED) in plan.needs[puts[digest]]
        check_referrers(plan, world, inventory, site, digest)


def world_size(world: World, digest: Digest) -> int:
    return next(b.size for m in world.manifests.values() for b in m.blobs if b.digest == digest)


@settings(max_examples=150, deadline=None)
@given(st.data(), images, hosts)
def test_every_plan_keeps_the_invariants(data: st.DataObject, wanted: Wanted, targets: list[str]) -> None:
    world = build(wanted, targets)
    data.draw(referrers(world))
    inventory = data.draw(inventories(world))
    plan = planned(world.pairs, world.graph, inventory, world.attached)
    check(plan, world, inventory)


@settings(max_examples=100, deadline=None)
@given(st.data(), images, hosts)
def test_plans_keep_them_with_what_earlier_runs_knew_and_where_mounts_need_a_manifest(
    data: st.DataObject, wanted: Wanted, targets: list[str]
) -> None:
    world = build(wanted, targets)
    data.draw(referrers(world))
    blobs = sorted({blob.digest for manifest in world.manifests.values() for blob in manifest.blobs})
    sites = sorted({site_of(pair.target) for pair in world.pairs})
    places = ["an/earlier/prefix", *(site.repository for site in sites)]

    # Of a seed, since thousands of draws of Hypothesis' own cost four times what is tested.
    chance = random.Random(data.draw(st.integers(0, 2**32 - 1)))

    def guesses(site: Site) -> tuple[Site, ...]:
        return tuple(Site(site.registry, place) for place in chance.sample(places, len(places)))

    remembered = {
        site: {digest: guesses(site) for digest in blobs if chance.random() < 0.5} for site in sites
    }
    inventory = msgspec.structs.replace(
        data.draw(inventories(world)),
        remembered=remembered,
        mounts_named=frozenset(host for host in targets if data.draw(st.booleans())),
    )
    plan = planned(world.pairs, world.graph, inventory, world.attached)
    check(plan, world, inventory)
    shuffled = data.draw(st.permutations(world.pairs))
    assert plan == planned(shuffled, world.graph, inventory, world.attached)


@settings(max_examples=60, deadline=None)
@given(images, hosts, st.randoms(use_true_random=False))
def test_the_same_input_in_any_order_gives_the_same_plan(
    wanted: Wanted, targets: list[str], shuffle: random.Random
) -> None:
    world, other = build(wanted, targets), build(wanted, targets)
    for each in (world, other):
        for subject in list(each.manifests.values()):
            each.refer(each.refer(subject, "sbom").manifest, "signature")
            each.refer(subject, "signature", "sha256-00.sig")
    shuffle.shuffle(other.pairs)
    other.manifests = dict(sorted(other.manifests.items(), key=lambda _: shuffle.random()))
    other.roots = dict(sorted(other.roots.items(), key=lambda _: shuffle.random()))
    one = planned(world.pairs, world.graph, NOTHING, world.attached)
    assert one == planned(other.pairs, other.graph, NOTHING, other.attached)


def test_a_shared_layer_is_copied_to_its_home_and_mounted_from_there() -> None:
    world = World()
    world.want("b:1", ["t"], image("base", "x"))
    world.want("a:1", ["t"], image("base", "y"))
    plan = planned(world.pairs, world.graph, NOTHING)
    base = blob("base").digest
    copies = [s for s in plan.steps if isinstance(s, Copy) and s.blob.digest == base]
    mounts = [s for s in plan.steps if isinstance(s, Mount)]
    assert [c.target for c in copies] == [Site("t", "a")]
    assert [(m.origin, m.target) for m in mounts] == [(Site("t", "a"), Site("t", "b"))]


def test_the_blobs_of_a_plan_are_its_copies_and_mounts_with_their_needs_alone() -> None:
    world = World()
    world.want("b:1", ["t", "u"], image("base", "x"))
    world.want("a:1", ["t", "u"], image("base", "y"))
    plan = planned(world.pairs, world.graph, NOTHING)
    part = blobs_alone(plan)
    assert part.steps == tuple(step for step in plan.steps if not isinstance(step, Put))
    assert not part.goals
    for step, needs in zip(part.steps, part.needs, strict=True):
        origins = [part.steps[need.step] for need in needs]
        expected = [step.origin] if isinstance(step, Mount) else []
        assert [origin.target for origin in origins] == expected
    for digest, numbers in part.reads.items():
        copies = [part.steps[number] for number in numbers]
        assert all(isinstance(copy, Copy) and copy.blob.digest == digest for copy in copies)
    # A mount whose home is left out is left out with it, at that registry alone.
    base = blob("base").digest
    less = blobs_alone(plan, {("t", base)})
    assert not [s for s in less.steps if s.target.registry == "t" and s.blob.digest == base]  # type: ignore[union-attr]
    assert len(less.steps) == len(part.steps) - 2


def test_a_blob_that_another_repository_has_is_only_mounted() -> None:
    world = World()
    world.want("b:1", ["t"], image("base"))
    inventory = Inventory({Site("t", "z"): frozenset({blob("base").digest})}, {}, {})
    plan = planned(world.pairs, world.graph, inventory)
    assert [s.origin for s in plan.steps if isinstance(s, Mount)] == [Site("t", "z")]
    assert blob("base").digest not in plan.reads


def test_a_home_is_mounted_from_where_an_earlier_run_put_it_and_the_rest_from_the_home() -> None:
    world = World()
    world.want("b:1", ["t"], image("base", "x"))
    world.want("a:1", ["t"], image("base", "y"))
    base, old = blob("base").digest, Site("t", "old")
    inventory = Inventory({}, {}, {}, remembered={site: {base: (old,)} for site in (SITE, Site("t", "b"))})
    plan = planned(world.pairs, world.graph, inventory)
    mounts = [s for s in plan.steps if isinstance(s, Mount)]
    assert [(m.origin, m.target, m.remembered) for m in mounts] == [
        (old, SITE, True),
        (SITE, Site("t", "b"), False),
    ]
    assert base not in plan.reads


def test_a_repository_that_was_seen_to_lack_a_blob_is_no_origin() -> None:
    world = World()
    world.want("a:1", ["t"], image("base"))
    base, old = blob("base").digest, Site("t", "old")
    absent = {old: frozenset({base})}
    plan = planned(
        world.pairs, world.graph, Inventory({}, absent, {}, remembered={SITE: {base: (SITE, old)}})
    )
    assert not [step for step in plan.steps if isinstance(step, Mount)]


def test_what_the_survey_found_goes_before_what_is_remembered() -> None:
    world = World()
    world.want("b:1", ["t"], image("base"))
    base = blob("base").digest
    there = {Site("t", "z"): frozenset({base})}
    inventory = Inventory(there, {}, {}, remembered={Site("t", "b"): {base: (Site("t", "a"),)}})
    plan = planned(world.pairs, world.graph, inventory)
    [mount] = [s for s in plan.steps if isinstance(s, Mount) and s.blob.digest == base]
    assert (mount.origin, mount.remembered) == (Site("t", "z"), False)


def test_a_copy_within_one_registry_mounts_from_the_source_repository() -> None:
    world = World()
    world.want("a:1", [], image("base"))
    pair = Pair(Reference("source", "a", "1"), Reference("source", "copy/a", "1"))
    plan = planned([pair], world.graph, NOTHING)
    assert {type(step) for step in plan.steps} == {Mount, Put}
    assert not plan.reads


def test_two_tags_of_one_digest_are_one_put_with_both() -> None:
    world = World()
    world.want("a:1", ["t"], image("base"))
    world.want("a:latest", ["t"], image("base"))
    plan = planned(world.pairs, world.graph, NOTHING)
    assert [s.tags for s in plan.steps if isinstance(s, Put)] == [("1", "latest")]
    assert plan.goals[0].steps == plan.goals[1].steps


def test_a_tag_on_a_root_that_is_there_costs_one_put() -> None:
    world = World()
    root = image("base")
    world.want("a:1", ["t"], root)
    site = Site("t", "a")
    here = frozenset({root.descriptor.digest, *(b.digest for b in root.blobs)})
    plan = planned(world.pairs, world.graph, Inventory({site: here}, {}, {(site, "1"): None}))
    assert [(type(s), s.tags) for s in plan.steps if isinstance(s, Put)] == [(Put, ("1",))]
    assert len(plan.steps) == 1


def test_what_a_tag_names_is_kept_before_the_put_that_overwrites_it() -> None:
    """Of two tags of one Put, one is to be kept; that of another image names what it should."""
    world = World()
    world.want("a:1", ["t"], image("base"))
    world.want("a:latest", ["t"], image("base"))
    world.want("b:1", ["t"], image("other"))
    old, site = image("old").descriptor, Site("t", "a")
    kept = Backup(old, site, "1", "1-old", image("base").descriptor.digest)
    elsewhere = Backup(old, Site("t", "b"), "2", "2-old", image("base").descriptor.digest)
    backups = {(site, "1"): kept, (Site("t", "b"), "2"): elsewhere}
    inventory = Inventory({}, {}, {(site, "1"): old.digest}, backups=backups)
    plan = planned(world.pairs, world.graph, inventory)
    check(plan, world, inventory)
    assert [step for step in plan.steps if isinstance(step, Backup)] == [kept]
    free = planned(world.pairs, world.graph, msgspec.structs.replace(inventory, backups={}))
    assert [step for step in plan.steps if not isinstance(step, Backup)] == list(free.steps)
    more = cost_of(plan, world.graph).manifests - cost_of(free, world.graph).manifests
    assert more == 1


def test_a_missing_child_below_a_root_that_is_there_is_put_and_nothing_else() -> None:
    world = World()
    one, two = image("base", "one"), image("base", "two")
    root = index(one, two)
    world.want("a:1", ["t"], root, (one, two))
    site = Site("t", "a")
    blobs = {b.digest for m in (one, two) for b in m.blobs}
    here = frozenset({root.descriptor.digest, one.descriptor.digest, *blobs})
    inventory = Inventory({site: here}, {}, {(site, "1"): root.descriptor.digest})
    plan = planned(world.pairs, world.graph, inventory)
    assert plan.steps == (Put(two.descriptor, site),)
    assert plan.goals[0].steps == (0,)


def test_a_settled_root_needs_nothing() -> None:
    world = World()
    root = index(image("base"))
    world.want("a:1", ["t"], root, (image("base"),))
    site = Site("t", "a")
    settled = frozenset(world.pairs)
    tags: dict[tuple[Site, str], Digest | None] = {(site, "1"): root.descriptor.digest}
    inventory = Inventory({site: frozenset({root.descriptor.digest})}, {}, tags, settled)
    plan = planned(world.pairs, world.graph, inventory)
    assert plan.steps == ()
    assert plan.goals[0].steps == ()


SITE = Site("t", "a")


def attached_steps(plan: Plan) -> list[tuple[str, ...]]:
    """Puts and attachments, in order."""
    told: list[tuple[str, ...]] = []
    for step in plan.steps:
        if isinstance(step, Put):
            told.append(("put", step.manifest.digest, *step.tags))
        if isinstance(step, Attach):
            told.append(("attach", step.subject, *(each.digest for each in step.referrers)))
    return told


def test_referrers_follow_their_subjects_and_are_attached_at_last() -> None:
    world = World()
    root = image("base")
    world.want("a:1", ["t"], root)
    sbom = world.refer(root, "sbom")
    signature = world.refer(sbom.manifest, "signature")
    plan = planned(world.pairs, world.graph, NOTHING, world.attached)
    root_digest, sbom_digest = root.descriptor.digest, sbom.manifest.descriptor.digest
    signature_digest = signature.manifest.descriptor.digest
    assert attached_steps(plan) == [
        ("put", root_digest, "1"),
        ("put", sbom_digest),
        ("put", signature_digest),
        ("attach", root_digest, sbom_digest),
        ("attach", sbom_digest, signature_digest),
    ]
    assert plan.goals[0].steps == tuple(n for n, s in enumerate(plan.steps) if isinstance(s, Put | Attach))


def test_referrers_that_are_listed_and_there_need_nothing() -> None:
    world = World()
    root = image("base")
    world.want("a:1", ["t"], root)
    sbom = world.refer(root, "sbom").manifest
    listed = {SITE: frozenset({(root.descriptor.digest, sbom.descriptor.digest)})}
    here = {m.descriptor.digest for m in (root, sbom)} | {b.digest for m in (root, sbom) for b in m.blobs}
    tags: dict[tuple[Site, str], Digest | None] = {(SITE, "1"): root.descriptor.digest}
    inventory = Inventory({SITE: frozenset(here)}, {}, tags, listed=listed)
    assert planned(world.pairs, world.graph, inventory, world.attached).steps == ()

    unlisted = msgspec.structs.replace(inventory, listed={})
    plan = planned(world.pairs, world.graph, unlisted, world.attached)
    assert attached_steps(plan) == [("attach", root.descriptor.digest, sbom.descriptor.digest)]


def test_a_cosign_tag_is_written_with_what_it_names_also_where_that_is_there() -> None:
    world = World()
    root = image("base")
    world.want("a:1", ["t"], root)
    signature = world.refer(root, "signature", "sha256-00.sig").manifest
    plan = planned(world.pairs, world.graph, NOTHING, world.attached)
    assert attached_steps(plan)[-1] == ("put", signature.descriptor.digest, "sha256-00.sig")

    here = {root.descriptor.digest, signature.descriptor.digest, *(b.digest for b in signature.blobs)}
    tags: dict[tuple[Site, str], Digest | None] = {(SITE, "1"): root.descriptor.digest}
    plan = planned(world.pairs, world.graph, Inventory({SITE: frozenset(here)}, {}, tags), world.attached)
    assert attached_steps(plan) == [("put", signature.descriptor.digest, "sha256-00.sig")]


def test_one_sbom_of_two_images_is_put_once_and_hangs_on_neither() -> None:
    world = World()
    one, two = image("one"), image("two")
    world.want("a:1", ["t"], one)
    world.want("a:2", ["t"], two)
    sbom = world.refer(one, "sbom", "sha256-01.sbom")
    again = Referrer(sbom.referrer.manifest, two.descriptor.digest, "cosign", "sha256-02.sbom")
    world.attached[two.descriptor.digest] = [AttachedReferrer(again, sbom.manifests)]
    plan = planned(world.pairs, world.graph, NOTHING, world.attached)
    [number] = [n for n, s in enumerate(plan.steps) if isinstance(s, Put) and len(s.tags) == 2]
    assert all(number in goal.steps for goal in plan.goals)
    assert not [need for need in plan.needs[number] if need.kind == NeedKind.UNLESS_REPLACED]


def test_a_list_of_referrers_that_is_wanted_as_an_image_is_not_merged() -> None:
    world = World()
    root = image("base")
    world.want("a:1", ["t"], root)
    sbom = world.refer(root, "sbom").manifest
    fallback = index(sbom)
    world.want(f"a:{root.descriptor.digest.replace(':', '-')}", ["t"], fallback, (sbom,))
    plan = planned(world.pairs, world.graph, NOTHING, world.attached)
    assert not [step for step in plan.steps if isinstance(step, Attach)]

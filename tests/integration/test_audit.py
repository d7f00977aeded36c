"""What earlier runs put is looked at again, a little in every run: how much, in which order, and what comes
of what is found. Counted over places in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from blobflow.content import Sink, SinkAt, Site
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Pair
from blobflow.engine.policy import AuditMode, Policy
from blobflow.engine.results.report import Report
from blobflow.engine.services import Services
from blobflow.engine.targets.audit import Audit
from blobflow.engine.targets.survey import TagSurvey
from blobflow.errors import BlobflowError, ConnectionLost, Denied, Rejected, Throttled
from blobflow.events import Event, Warned
from blobflow.oci import Descriptor, Digest, Reference, media, parse_digest
from blobflow.oci.platform_choice import PlatformChoice
from blobflow.oci.sample_images import SampleSet, sample_set
from blobflow.settings import Settings
from blobflow.transports.store import Store
from tests.fakes.memory_registry import MemoryPlace, MemoryRegistry
from tests.library import mirror, plan_pairs, verify
from tests.scenarios.mirror import MirrorScenario
from tests.scenarios.platforms import AMD64, ARM64, Image, built
from tests.scenarios.registries import blobs_of, fill, registries

ALL, NONE = Policy(audit="all"), Policy(audit="none")
ROLLING = Policy()
# What looks below roots; an unchanged run asks for nothing but tags, by `resolve`.
LOOKS = ("read", "has", "open")


class Audited(MirrorScenario):
    """A bench with what was told, and what runs took at the target."""

    def __init__(self, store: Store, sample: SampleSet) -> None:
        super().__init__(store, sample)
        self.told: list[str] = []
        self.place = self.target()

    def _observe(self, event: Event) -> None:
        if isinstance(event, Warned):
            self.told.append(event.message)

    async def run(self, policy: Policy = ROLLING, pairs: list[Pair] | None = None) -> Report:
        self.forget_calls()
        self.told.clear()
        return await run_of_pairs(pairs or self.pairs, policy, observe=self._observe).execute(self.services())

    def services(self, **changes: Any) -> Services:
        return msgspec.structs.replace(super().services(), observe=self._observe, **changes)

    @property
    def looks(self) -> Counter[str]:
        """How often each digest was looked at."""
        found: Counter[str] = Counter()
        for (call, name), n in self.place.calls.items():
            if call in LOOKS:
                found[name] += n
        return found

    @property
    def requests(self) -> int:
        return sum(registry.calls.total() for registry in (self.source, *self.targets.values()))

    def parts(self) -> int:
        """What is below all roots, them too."""
        return sum(map(len, self.place.manifests.values())) + sum(map(len, self.place.blobs.values()))


def small(images: int) -> SampleSet:
    return sample_set(7, images=images, architectures=("amd64",), layer_size=512)


async def until_found(bench: Audited, runs: int, pairs: list[Pair] | None = None) -> Report:
    """Run until something else than tags is put right; fails after so many runs."""
    for _ in range(runs):
        report = await bench.run(pairs=pairs)
        if report.totals.incomplete:
            return report
        assert {image.status for image in report.images} == {"present"}
        assert bench.source.count("read") == 0, "looking takes nothing of what the source lets be read"
    raise AssertionError(f"not found within {runs} runs")


async def test_a_hundred_runs_of_forty_images_spend_a_twentieth_and_reach_every_root(store: Store) -> None:
    bench = Audited(store, small(40))
    await bench.run()
    total = looked = whole = 0
    seen: Counter[str] = Counter()
    for _ in range(100):
        report = await bench.run()
        assert sum(bench.looks.values()) * 20 <= bench.requests
        total += bench.requests
        looked += sum(bench.looks.values())
        whole += report.totals.audited
        seen += bench.looks
    assert looked * 20 <= total
    assert looked * 22 >= total, "and hardly less than that"
    everything = {*bench.sample.blobs, *bench.sample.manifests}
    assert seen.keys() == everything
    assert whole >= 40
    roots = [seen[stored.digest] for stored in bench.sample.images.values()]
    assert max(roots) - min(roots) <= 1, "each in turn"


async def test_a_set_of_one_image_is_looked_at_a_request_every_ten_runs(store: Store) -> None:
    bench = Audited(store, small(1))
    await bench.run()
    took = []
    for _ in range(10 * bench.parts() + 1):
        await bench.run()
        took.append(sum(bench.looks.values()))
    assert sum(took) == bench.parts()
    assert [n for n, each in enumerate(took) if each] == list(range(10, len(took), 10))
    assert max(took) == 1


async def test_a_small_set_does_not_spend_what_a_large_one_left(store: Store) -> None:
    bench = Audited(store, small(40))
    await bench.run()
    await bench.run()
    for _ in range(5):
        await bench.run(pairs=bench.pairs[:1])
        assert sum(bench.looks.values()) <= 1
    await bench.run()
    assert sum(bench.looks.values()) <= 4


async def test_a_run_just_after_all_was_put_asks_for_tags_alone(store: Store) -> None:
    bench = Audited(store, small(40))
    await bench.run()
    await bench.run()
    assert bench.looks == {}
    await bench.run()
    assert sum(bench.looks.values()) == 4


async def test_a_look_goes_on_where_an_earlier_process_stopped(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    with closing(Store.open(tmp_path / "store")) as store:
        bench = Audited(store, small(1))
        await bench.run()
        parts = bench.parts()
    for _ in range(10 * parts + 1):
        with closing(Store.open(tmp_path / "store")) as store:
            bench.reopen(store)
            await bench.run()
            seen += bench.looks
    assert set(seen.values()) == {1}
    assert len(seen) == parts


async def test_more_targets_share_what_a_source_was_asked(store: Store) -> None:
    bench = Audited(store, small(20))
    bench.target("second")
    await bench.run()
    total = looked = 0
    for _ in range(20):
        await bench.run()
        total += bench.requests
        looked += sum(r.count(call) for r in bench.targets.values() for call in LOOKS)
    assert looked * 20 <= total
    assert looked * 24 >= total


@pytest.mark.parametrize("kind", ["root", "child", "config", "layer"])
async def test_what_is_gone_below_a_root_is_found_and_put_again_in_the_same_run(
    store: Store, kind: str
) -> None:
    bench = Audited(store, small(10))
    await bench.run()
    pair = bench.pairs[7]
    site = Site("target", pair.target.repository)
    root = bench.place.tags[site, pair.target.tag]
    [child] = [d for d in bench.place.manifests[site] if d not in bench.place.tags.values()]
    manifest = bench.sample.manifests[child]
    if kind == "root":
        damaged = bench.place.manifests[site][root][0], b"{}"
        bench.place.manifests[site][root] = damaged
    elif kind == "child":
        del bench.place.manifests[site][child]
    else:
        named = [b for b in bench.place.blobs[site] if b.encode() in manifest.raw]
        config = next(b for b in named if f'"config":{{"digest":"{b}"' in _squeezed(manifest.raw))
        gone = config if kind == "config" else next(b for b in named if b != config)
        del bench.place.blobs[site][gone]
    report = await until_found(bench, runs=bench.parts())
    assert Counter(image.status for image in report.images) == {"present": 9, "done": 1}
    bench.assert_whole(bench.place)
    assert len(bench.told) == len(report.notes) == 1
    assert str(pair.target) in report.notes[0]
    assert (await bench.run(ALL)).totals.incomplete == 0


def _squeezed(raw: bytes) -> str:
    text = raw.decode().replace(" ", "").replace("\n", "")
    kinds = (media.OCI_CONFIG, "application/vnd.docker.container.image.v1+json")
    for kind in kinds:
        text = text.replace(f'"mediaType":"{kind}",', "")
    return text


async def test_what_was_put_last_is_looked_at_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_000]
    monkeypatch.setattr("blobflow.transports.store.journal.now", lambda: clock[0])
    bench = Audited(store, small(20))
    for pair in reversed(bench.pairs):
        clock[0] += 10
        await bench.run(NONE, [pair])
    order: list[str] = []
    roots = {stored.digest: name for name, stored in bench.sample.images.items()}
    for _ in range(bench.parts()):
        await bench.run()
        order += [roots[digest] for digest in bench.looks if digest in roots]
    names = [f"{pair.target.repository}:{pair.target.tag}" for pair in bench.pairs]
    assert order[:20] == list(reversed(names))


async def test_a_clock_that_was_ahead_keeps_no_root_from_its_turn(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [10**9 + 10**8]
    monkeypatch.setattr("blobflow.transports.store.journal.now", lambda: clock[0])
    bench = Audited(store, small(4))
    await bench.run(ALL)
    await bench.run(ALL)
    clock[0] = 10**9
    seen: Counter[str] = Counter()
    for _ in range(2 * 5 * bench.parts()):
        await bench.run()
        seen += bench.looks
    assert len(seen) == len(bench.sample.blobs) + len(bench.sample.manifests)


async def test_all_looks_below_everything_and_repairs_at_once(store: Store) -> None:
    bench = Audited(store, small(6))
    await bench.run()
    report = await bench.run(ALL)
    assert sum(bench.looks.values()) == bench.parts()
    assert (report.totals.audited, report.totals.incomplete) == (6, 0)
    site = next(iter(bench.place.blobs))
    del bench.place.blobs[site][next(iter(bench.place.blobs[site]))]
    report = await bench.run(ALL)
    assert (report.totals.audited, report.totals.incomplete) == (6, 1)
    assert report.ok
    bench.assert_whole(bench.place)


async def test_all_looks_closely_at_what_is_not_remembered_too(store: Store, tmp_path: Path) -> None:
    bench = Audited(store, small(3))
    await bench.run()
    site = next(iter(bench.place.blobs))
    del bench.place.blobs[site][next(iter(bench.place.blobs[site]))]
    with closing(Store.open(tmp_path / "other")) as other:
        bench.reopen(other)
        assert (await bench.run(ALL)).ok
    bench.assert_whole(bench.place)


async def test_none_looks_below_nothing(store: Store) -> None:
    bench = Audited(store, small(40))
    await bench.run()
    for _ in range(3):
        await bench.run(NONE)
        assert bench.looks == {}


async def test_what_is_in_doubt_is_repaired_without_an_audit_too(store: Store) -> None:
    bench = Audited(store, small(2))
    await bench.run()
    site = next(iter(bench.place.blobs))
    gone = next(iter(bench.place.blobs[site]))
    del bench.place.blobs[site][gone]
    bench.place.fault = lambda call, where, name: Denied("no") if call in ("push", "mount") else None
    assert not (await bench.run(ALL)).ok
    bench.place.fault = lambda call, where, name: None
    report = await bench.run(NONE)
    assert sorted(image.status for image in report.images) == ["done", "present"]
    bench.assert_whole(bench.place)
    assert bench.journal.doubted_puts() == frozenset()


async def test_what_could_not_be_repaired_is_not_forgotten(store: Store) -> None:
    """A manifest that is there stands for its blobs where nobody knows better: here somebody does."""
    bench = Audited(store, small(10))
    await bench.run()
    site = Site("target", bench.pairs[3].target.repository)
    gone = next(iter(bench.place.blobs[site]))
    del bench.place.blobs[site][gone]
    bench.place.fault = lambda call, where, name: Denied("no") if call in ("push", "mount") else None
    report = await until_found(bench, runs=bench.parts())
    assert report.totals.failed == 1
    for _ in range(3):
        report = await bench.run()
        assert (report.totals.failed, report.totals.incomplete) == (1, 1)
    bench.place.fault = lambda call, where, name: None
    report = await bench.run()
    assert Counter(image.status for image in report.images) == {"present": 9, "done": 1}
    bench.assert_whole(bench.place)
    report = await bench.run()
    assert report.totals.incomplete == 0


async def test_a_manifest_that_stays_damaged_is_no_success(store: Store) -> None:
    """Some registries keep what they have under a digest, whatever it is."""
    bench = Audited(store, small(2))
    await bench.run()
    site, held = next(iter(bench.place.manifests.items()))
    child = next(d for d in held if d not in bench.place.tags.values())

    class Stubborn(dict[Digest, tuple[str, bytes]]):
        def __setitem__(self, key: Digest, value: tuple[str, bytes]) -> None:
            super().__setitem__(key, (value[0], b"{}") if key == child else value)

    bench.place.manifests[site] = Stubborn(held)
    bench.place.manifests[site][child] = held[child]
    for policy in (ALL, ROLLING, ROLLING):
        report = await bench.run(policy)
        assert sorted(image.status for image in report.images) == ["failed", "present"], policy
    bench.place.manifests[site] = dict(held)
    report = await bench.run()
    assert [image.status for image in report.images] == ["present", "present"]


async def test_two_tags_of_one_root_are_one_look_and_both_are_repaired(store: Store) -> None:
    bench = Audited(store, small(1))
    [pair] = bench.pairs
    pairs = [pair, Pair(pair.source, Reference("target", pair.target.repository, "other"))]
    await bench.run(pairs=pairs)
    report = await bench.run(ALL, pairs)
    assert set(bench.looks.values()) == {1}
    assert report.totals.audited == 1
    site = Site("target", pair.target.repository)
    del bench.place.blobs[site][next(iter(bench.place.blobs[site]))]
    report = await bench.run(ALL, pairs)
    assert report.totals.incomplete == 2
    assert bench.place.count("push") == 1
    assert len(report.notes) == 1
    assert report.ok


async def test_what_another_image_shares_does_not_hide_what_is_gone(store: Store) -> None:
    """A new tag over the same child, which is taken as whole because it is there, asks for nothing below."""
    bench = Audited(store, SampleSet({}, {}, {}))
    image = Image(bench.source)
    first = image.child("linux/amd64")
    image.index(image.item(first, "linux/amd64"), tag="1")
    pairs = [Pair(Reference("source", "app", tag), Reference("target", "app", tag)) for tag in ("0", "1")]
    await bench.run(pairs=pairs[1:])
    site = Site("target", "app")
    del bench.place.blobs[site][first.layers[0].digest]
    image.index(image.item(first, "linux/amd64"), image.item(image.child("linux/arm64")), tag="0")
    report = await bench.run(ALL, pairs)
    assert report.ok
    assert bench.place.blobs[site].keys() == bench.source.blobs[Site("source", "app")].keys()


# Choices


def pairs_of(*choices: PlatformChoice) -> list[Pair]:
    return [
        Pair(Reference("source", "app", "1"), Reference("target", "app", f"t{n}"), choice)
        for n, choice in enumerate(choices)
    ]


@pytest.mark.parametrize(
    "choice",
    [
        PlatformChoice((AMD64,), "keep"),
        PlatformChoice((AMD64,), "prune"),
        PlatformChoice((AMD64,), "auto"),
        PlatformChoice((AMD64, ARM64), "keep"),
        PlatformChoice((), "only"),
        PlatformChoice((), "auto", "v2s2"),
        PlatformChoice((AMD64,), "auto", "v2s2"),
    ],
)
@pytest.mark.parametrize("sparse", [True, False])
async def test_only_what_was_chosen_is_missed(store: Store, choice: PlatformChoice, sparse: bool) -> None:
    if not sparse and choice.index in ("keep", "only"):
        return
    bench = Audited(store, SampleSet({}, {}, {}))
    built(bench.source)
    bench.place = bench.targets["target"] = MemoryRegistry("target", sparse=sparse)
    pairs = pairs_of(choice)
    assert (await bench.run(pairs=pairs)).ok
    site = Site("target", "app")
    report = await bench.run(ALL, pairs)
    assert [image.status for image in report.images] == ["present"]
    assert (report.totals.audited, report.totals.incomplete) == (1, 0)
    assert len(bench.looks) == bench.parts()
    assert bench.source.count("read") == 0
    for held in (bench.place.blobs.get(site, {}), bench.place.manifests[site]):
        for digest in set(held) - set(bench.place.tags.values()):
            kept = held.pop(digest)
            report = await bench.run(ALL, pairs)
            assert [image.status for image in report.images] == ["done"], digest
            assert held[digest] == kept


async def test_a_child_of_which_only_its_config_tells_the_platform_is_not_missed_but_looked_below(
    store: Store,
) -> None:
    bench = Audited(store, SampleSet({}, {}, {}))
    image = Image(bench.source)
    wanted, other = image.child("linux/amd64"), image.child("linux/arm64")
    image.index(image.item(wanted), image.item(other), tag="1")
    bench.place = bench.targets["target"] = MemoryRegistry("target", sparse=True)
    pairs = pairs_of(PlatformChoice((AMD64,), "keep"))
    assert (await bench.run(pairs=pairs)).ok
    report = await bench.run(ALL, pairs)
    assert (report.totals.audited, report.totals.incomplete) == (1, 0)
    site = Site("target", "app")
    del bench.place.blobs[site][wanted.layers[0].digest]
    report = await bench.run(ALL, pairs)
    assert [image.status for image in report.images] == ["done"]
    assert wanted.layers[0].digest in bench.place.blobs[site]


async def test_two_choices_of_one_root_are_two_looks_and_one_keeps_the_other_s_doubt(store: Store) -> None:
    bench = Audited(store, SampleSet({}, {}, {}))
    built(bench.source)
    bench.place = bench.targets["target"] = MemoryRegistry("target", sparse=True)
    pairs = pairs_of(PlatformChoice((AMD64,), "keep"), PlatformChoice((ARM64,), "keep"))
    await bench.run(pairs=pairs)
    site = Site("target", "app")
    arm = next(
        d for d, raw in bench.place.blobs[site].items() if raw == b"layer of linux/arm64 in source/app"
    )
    del bench.place.blobs[site][arm]
    bench.place.fault = lambda call, where, name: Denied("no") if call == "push" else None
    for policy in (ALL, ROLLING, ROLLING):
        report = await bench.run(policy, pairs)
        assert [image.status for image in report.images] == ["present", "failed"]
    bench.place.fault = lambda call, where, name: None
    report = await bench.run(pairs=pairs)
    assert [image.status for image in report.images] == ["present", "done"]


async def test_an_index_of_layers_is_asked_for_as_blobs(store: Store) -> None:
    """A build's cache: its index lists what is no manifest."""
    bench = Audited(store, SampleSet({}, {}, {}))
    site = Site("target", "app")
    image = Image(bench.place)
    layer = image.blob(b"a layer", media.OCI_LAYER_GZIP)
    root = image.put({"manifests": [layer]}, media.OCI_INDEX, "t0").descriptor
    image.registry = bench.source
    image.site = Site("source", "app")
    image.put({"manifests": [layer]}, media.OCI_INDEX, "1")
    bench.journal.record_put(site, root.digest, "all, referrers too")
    report = await bench.run(ALL, pairs_of(PlatformChoice()))
    assert (report.totals.audited, report.totals.incomplete) == (1, 0)


# What goes wrong while looking


@pytest.mark.parametrize(
    "error",
    [
        Throttled("429: slow down", status=429, retry_after=1.0),
        Rejected("405: method not allowed", status=405),
        Denied("403", status=403),
        ConnectionLost("cut"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("policy", [ROLLING, ALL])
async def test_what_goes_wrong_is_told_once_and_fails_nothing(
    store: Store, error: BlobflowError, policy: Policy
) -> None:
    bench = Audited(store, small(20))
    await bench.run()
    await bench.run()
    bench.place.fault = lambda call, site, name: error if call in LOOKS else None
    report = await bench.run(policy)
    assert {image.status for image in report.images} == {"present"}
    assert len(bench.told) == 1
    assert error.message in bench.told[0]
    assert "target" in bench.told[0]
    assert bench.journal.doubted_puts() == frozenset()
    bench.place.fault = lambda call, site, name: None
    assert (await bench.run(ALL)).totals.audited == 20


async def test_a_host_that_goes_wrong_keeps_no_other_from_being_looked_at(store: Store) -> None:
    bench = Audited(store, small(10))
    well = bench.target("well")
    await bench.run()
    bench.place.fault = lambda call, site, name: Throttled("429") if call in LOOKS else None
    del well.blobs[next(iter(well.blobs))]
    report = await bench.run(ALL)
    assert report.ok
    assert report.totals.incomplete == 1
    bench.assert_whole(well)


@pytest.mark.parametrize("mode", ["rolling", "all"])
async def test_a_target_that_does_not_answer_is_left_after_a_while(store: Store, mode: AuditMode) -> None:
    bench = Audited(store, small(20))
    await bench.run()
    await bench.run()
    never = asyncio.Event()

    class Hanging(MemoryPlace):
        async def read(self, manifest: object) -> bytes:
            await never.wait()
            return b""

    services = bench.services(sink_at=lambda site: Hanging(bench.place, site))
    pairs = bench.pairs
    roots = {
        pair.source: (await bench.source.at(_site(pair.source)).resolve(pair.source.tag)) for pair in pairs
    }
    tags = {(_site(pair.target), pair.target.tag): roots[pair.source].digest for pair in pairs}
    survey = TagSurvey(dict(tags), frozenset(pairs), {}, frozenset(pairs))
    audit = Audit(services, pairs, mode, patience=0.01)
    found = await audit.look(pairs, survey, roots)
    assert found.current == survey.current
    assert [message for message in bench.told if "no answer within" in message]
    assert len(bench.told) == 1


def _site(reference: Reference) -> Site:
    return Site(reference.host, reference.repository)


async def test_a_registry_that_answers_head_with_no_is_asked_again_before_it_is_believed(
    store: Store,
) -> None:
    bench = Audited(store, small(4))
    await bench.run()

    class Headless(MemoryPlace):
        async def has(self, content: object) -> bool:
            return False

    pairs = bench.pairs
    services = bench.services(
        sink_at=lambda site: (
            Headless(bench.place, site) if site.registry == "target" else bench.place.at(site)
        )
    )
    bench.forget_calls()
    report = await run_of_pairs(pairs, ALL).execute(services)
    assert {image.status for image in report.images} == {"present"}
    assert report.totals.incomplete == 0
    assert bench.place.count("open") == sum(map(len, bench.place.blobs.values()))


async def test_trusting_roots_looks_below_none_unless_all_are_asked_for(store: Store) -> None:
    bench = Audited(store, small(40))
    await bench.run()
    for _ in range(3):
        await bench.run(Policy(trust_root=True))
        assert bench.looks == {}
    await bench.run(Policy(trust_root=True, audit="all"))
    assert sum(bench.looks.values()) == bench.parts()


async def test_looking_for_referrers_again_does_not_keep_from_looking_below(store: Store) -> None:
    """Such images are never current, and so were taken by their manifests for ever."""
    bench = Audited(store, small(10))
    policy = Policy(referrers="always")
    await bench.run(policy)
    site = Site("target", bench.pairs[3].target.repository)
    del bench.place.blobs[site][next(iter(bench.place.blobs[site]))]
    for _ in range(bench.parts()):
        report = await bench.run(policy)
        if report.totals.incomplete:
            break
    assert report.ok
    bench.assert_whole(bench.place)


async def test_planning_looks_as_a_run_does_and_remembers_what_it_found(store: Store) -> None:
    bench = Audited(store, small(10))
    await bench.run()
    site = Site("target", bench.pairs[3].target.repository)
    del bench.place.blobs[site][next(iter(bench.place.blobs[site]))]
    for _ in range(bench.parts()):
        planned = await plan_pairs(bench.pairs, bench.services())
        if planned.plan.steps:
            break
    assert not planned.cost.current
    again = await plan_pairs(bench.pairs, bench.services())
    assert again.plan == planned.plan
    assert bench.place.count("push") == len(bench.sample.blobs)
    assert (await bench.run()).ok
    bench.assert_whole(bench.place)


async def test_a_cancelled_look_is_gone_on_with(store: Store) -> None:
    bench = Audited(store, small(10))
    await bench.run()
    parts = bench.parts()
    begun = asyncio.Event()

    def fault(call: str, site: Site, name: str) -> BlobflowError | None:
        if sum(bench.looks.values()) > 3:
            begun.set()
        return None

    class Slow(MemoryPlace):
        async def has(self, content):  # type: ignore[no-untyped-def]
            found = await super().has(content)
            if begun.is_set():
                await asyncio.Event().wait()
            return found

    bench.place.fault = fault
    services = bench.services(sink_at=lambda site: Slow(bench.place, site))
    bench.forget_calls()
    task = asyncio.create_task(run_of_pairs(bench.pairs, ALL).execute(services))
    await begun.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    answered = {name for name in bench.looks if name in bench.sample.manifests}
    bench.place.fault = lambda call, site, name: None
    seen: Counter[str] = Counter()
    for _ in range(2 * parts):
        await bench.run()
        seen += bench.looks
        if len(seen) >= parts - len(answered):
            break
    first = [name for name in seen if name in bench.sample.manifests]
    assert first
    assert not answered & set(first[: len(answered)]), "what was answered is not asked again at once"


async def test_redirects_and_tries_count_as_the_requests_that_they_are(store: Store) -> None:
    bench = Audited(store, small(20))
    await bench.run()
    sent = 0

    class Redirecting(MemoryPlace):
        """Each look is answered by another host, as blobs of large registries are."""

        async def read(self, manifest: Descriptor) -> bytes:
            self._redirected()
            return await super().read(manifest)

        async def has(self, content: Descriptor) -> bool:
            self._redirected()
            return await super().has(content)

        def _redirected(self) -> None:
            nonlocal sent
            sent += 2
            services.meter.hosts["target"].requests += 2

    for _ in range(40):
        services = bench.services()
        own = services.sink_at

        def sink_at(site: Site, own: SinkAt = own) -> Sink:
            return Redirecting(bench.place, site) if site.registry == "target" else own(site)

        report = await run_of_pairs(bench.pairs).execute(msgspec.structs.replace(services, sink_at=sink_at))
        assert report.ok
    assert 0 < sent * 20 <= 40 * 40 + sent


async def test_what_verify_found_wrong_is_repaired_by_the_next_run(tmp_path: Path) -> None:
    """That its manifest is there does not speak for a blob any more."""
    sample, settings = small(2), Settings(cache_dir=tmp_path / "cache")
    async with registries(tmp_path, ["source", "target"]) as [source, target]:
        fill(source.store, sample)
        named = [name.rpartition(":") for name in sample.images]
        pairs = [Pair(Reference(source.host, r, t), Reference(target.host, r, t)) for r, _, t in named]
        assert (await mirror(pairs, settings)).ok
        repository, lost = named[1][0], sorted(blobs_of(sample, list(sample.images)[1]))[0]
        target.store.repositories.remove(repository, parse_digest(lost))
        found = await verify(pairs, "blobs", settings)
        assert [error is None for error in found.values()] == [True, False]
        for policy in (Policy(), Policy(audit="none")):
            report = await mirror(pairs, settings, policy)
            assert [image.status for image in report.images] == ["present", "done"]
            assert set((await verify(pairs, "blobs", settings)).values()) == {None}
            target.store.repositories.remove(repository, parse_digest(lost))
            await verify(pairs, "blobs", settings)

"""kill -9 at twenty moments of a run, and what the next one then does. And the kinder ends: Ctrl-C, SIGTERM.

The moments are drawn from a seed and counted in bytes and exchanges, never in time: a blob's body at a byte
(the registry holds it there until the process is dead), or the end of the k-th exchange (it is dead before a
byte of the answer leaves). What must hold then is exact:

- No tag of the target ever names what is not whole there, and no store holds a wrong blob.
- A blob that all targets had is never read again, and none is taken twice by a target.
- Of a blob that the store has, whole or in part, only what it lacks is read. A part of less than KEPT_FROM
  counts as nothing. So both runs read at most one run's bytes, and for each blob in flight once more its
  size, which here is less than the chunk of 32 MiB that a large one may lose.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec
import pytest

from blobflow.oci import parse_digest, parse_manifest
from blobflow.oci.sample_images import sample_set
from blobflow.transports.registry.uploads.sessions import JOURNALED_FROM
from blobflow.transports.store import Store
from blobflow.transports.store.partial_files import KEPT_FROM
from tests.deadlines import HANGS_AFTER
from tests.scenarios.child_process import Child, child, held, partials, store_of, wrong_blobs
from tests.scenarios.registries import blobs_of, fill
from tools.registry.faulty import Exchange, Fault, JournallingRegistry, Stall, journalling

SAMPLE = sample_set(5, images=4, layer_size=2 << 20)
SIZES = {digest: len(content) for digest, content in SAMPLE.blobs.items()}
LARGE = sorted(digest for digest, size in SIZES.items() if size >= KEPT_FROM)
PREFIX = "m/"
SEED = 20
# What a large blob loses at most.
CHUNK = 32 << 20


class Moment(msgspec.Struct, frozen=True):
    """When a run is killed: a byte of a blob's body at a side, or the end of the nth exchange of a method."""

    side: Literal["source", "target"]
    targets: int
    cache: str
    digest: str = ""
    at: int = 0
    method: str = ""
    nth: int = 0

    def __str__(self) -> str:
        what = f"byte-{self.at}-of-{self.digest[7:13]}" if self.digest else f"{self.method}-{self.nth}"
        return f"{self.side}-{what}-{self.targets}-{self.cache}"


def draw_moments() -> Iterator[Moment]:
    """Twenty moments, each of which every run of that many targets comes to."""
    draw = random.Random(SEED)
    seen_at_target = {
        "PUT": len(SAMPLE.blobs) + len(SAMPLE.manifests),
        "POST": len(
            {(name.partition(":")[0], blob) for name in SAMPLE.images for blob in blobs_of(SAMPLE, name)}
        ),
    }
    for number in range(20):
        targets, cache = ((1, "auto"), (2, "auto"), (1, "all"))[number % 3]
        match number % 4:
            case 0 | 1 as side:
                digest = draw.choice(LARGE)
                at = draw.randrange(SIZES[digest])
                yield Moment("target" if side else "source", targets, cache, digest=digest, at=at)
            case 2:
                method = draw.choice(["PUT", "POST"])
                nth = draw.randint(1, seen_at_target[method])
                yield Moment("target", targets, cache, method=method, nth=nth)
            case _:
                seen = len(SAMPLE.blobs) + len(SAMPLE.manifests)
                yield Moment("source", targets, cache, method="GET", nth=draw.randint(1, seen))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source's store, which no test writes to."""
    folder = tmp_path_factory.mktemp("kills")
    with closing(Store.open(folder / "source")) as store:
        fill(store, SAMPLE)
    return folder


class Scene:
    """A source, its targets, and what became untrue of them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.untrue: list[str] = []
        self.source: JournallingRegistry
        self.targets: list[JournallingRegistry] = []
        self.kill_at: Callable[[str, Exchange], None] = lambda side, exchange: None

    def at_source(self, exchange: Exchange) -> None:
        self.kill_at("source", exchange)

    def at_target(self, number: int, exchange: Exchange) -> None:
        """Whenever a target has taken a manifest, all its tags are looked at."""
        if exchange.method == "PUT" and "/manifests/" in exchange.path:
            self.untrue += untrue_tags(self.targets[number].store)
        if number == 0:
            self.kill_at("target", exchange)

    def sync(self, *arguments: str) -> AbstractAsyncContextManager[Child]:
        hosts = [f"{target.host}/{PREFIX.rstrip('/')}" for target in self.targets]
        images = [*SAMPLE.images]
        return child(*arguments, home=self.home, images=images, source=self.source.host, targets=hosts)

    async def settled(self) -> None:
        """What the child had asked for when it died may still be under way."""
        for registry in (self.source, *self.targets):
            await registry.journal.until(lambda journal: all(each.ended is not None for each in journal))

    def assert_true(self) -> None:
        """No tag names what is not whole, and no store has a wrong blob."""
        assert not self.untrue
        assert not [untrue for target in self.targets for untrue in untrue_tags(target.store)]
        for root in (store_of(self.home), *(target.store.root for target in self.targets)):
            assert not wrong_blobs(root)

    def assert_whole(self) -> None:
        self.assert_true()
        for target in self.targets:
            tags = {name: tag_at(target.store, name) for name in SAMPLE.images}
            assert tags == {name: index.digest for name, index in SAMPLE.images.items()}

    def at_all_targets(self) -> set[str]:
        """The blobs that every target has."""
        return {
            digest
            for digest in SAMPLE.blobs
            if all(target.store.blobs.size_of(parse_digest(digest)) for target in self.targets)
        }

    def kept(self) -> Counter[str]:
        """Bytes of each blob that the child's store has."""
        root = store_of(self.home)
        parts = {digest: size for digest, size in partials(root).items() if size >= KEPT_FROM}
        return Counter(parts) | Counter({digest: SIZES.get(digest, 0) for digest in held(root)})

    def read(self) -> Counter[str]:
        """Bytes of each blob that the source has sent so far."""
        return Counter({digest: self.source.journal.bytes_out(digest) for digest in SAMPLE.blobs})


@asynccontextmanager
async def opened(filled: Path, folder: Path, targets: int) -> AsyncIterator[Scene]:
    scene = Scene(folder / "home")
    async with AsyncExitStack() as stack:
        source = journalling(filled / "source", told=scene.at_source)
        scene.source = await stack.enter_async_context(source)
        for number in range(targets):
            target = journalling(folder / f"target-{number}", told=partial(scene.at_target, number))
            scene.targets.append(await stack.enter_async_context(target))
        yield scene


def tag_at(store: Store, name: str) -> str | None:
    repository, _, tag = name.rpartition(":")
    return store.repositories.resolve(PREFIX + repository, tag)


def untrue_tags(store: Store) -> list[str]:
    """The tags of a target that name something else than the source's, or something that is not whole."""
    untrue = []
    for name, index in SAMPLE.images.items():
        named = tag_at(store, name)
        repository = PREFIX + name.partition(":")[0]
        needed = {index.digest, *children_of(name), *blobs_of(SAMPLE, name)}
        missing = [
            digest
            for digest in map(parse_digest, needed)
            if store.repositories.media_type_of(repository, digest) is None
            or store.blobs.size_of(digest) is None
        ]
        if named is not None and (named != index.digest or missing):
            untrue.append(f"{name} names {named}, and {len(missing)} of {index.digest} are missing")
    return untrue


def children_of(name: str) -> list[str]:
    index = SAMPLE.images[name]
    return [child.digest for child in parse_manifest(index.raw, index.media_type).manifests]


async def killed_at(moment: Moment, scene: Scene) -> None:
    """Run until the moment comes, and kill the child then. AssertionError if it never came."""
    held = asyncio.Event()
    if moment.digest:
        reached = asyncio.Event()
        registry = scene.source if moment.side == "source" else scene.targets[0]
        method, pattern = ("GET", "/blobs/") if moment.side == "source" else ("PUT", "digest=")
        stall = Stall(after=moment.at, until=held, reached=reached)
        registry.faults.add(Fault(method, pattern + moment.digest, act=stall))
    async with scene.sync("--cache", moment.cache) as running:
        if moment.digest:
            async with asyncio.timeout(HANGS_AFTER):
                await reached.wait()
            running.kill()
        else:
            scene.kill_at = killer(moment, running)
        assert await running.ended() == -signal.SIGKILL
    held.set()
    await scene.settled()


def killer(moment: Moment, running: Child) -> Callable[[str, Exchange], None]:
    """Kills the child at the end of the exchange that the moment speaks of."""
    seen = 0

    def ended(side: str, exchange: Exchange) -> None:
        nonlocal seen
        if (side, exchange.method) == (moment.side, moment.method) and exchange.path != "/v2/":
            seen += 1
            if seen == moment.nth:
                running.kill()

    return ended


@pytest.mark.parametrize("moment", [*draw_moments()], ids=str)
async def test_a_run_that_is_killed_leaves_nothing_wrong_and_the_next_one_goes_on(
    moment: Moment, filled: Path, tmp_path: Path
) -> None:
    async with opened(filled, tmp_path, moment.targets) as scene:
        await killed_at(moment, scene)
        scene.assert_true()
        arrived, kept, read_before = scene.at_all_targets(), scene.kept(), scene.read()

        async with scene.sync("--cache", moment.cache) as running:
            assert await running.ended() == 0, running.events[-3:]
        scene.assert_whole()
        read_after = scene.read() - read_before
        missing = {digest: SIZES[digest] - kept[digest] for digest in SIZES.keys() - arrived}
        assert read_after == Counter({digest: size for digest, size in missing.items() if size})
        in_flight = {digest for digest in SIZES.keys() - arrived if read_before[digest]}
        again = sum(min(SIZES[digest], CHUNK) for digest in in_flight)
        assert scene.read().total() <= sum(SIZES.values()) + again
        # An upload that was complete when its client died has no answer, and so doesn't count.
        for target in scene.targets:
            assert {digest for digest in SIZES if target.journal.uploads_of(digest) > 1} == set()


def sessions_left(scene: Scene) -> set[str]:
    """Upload sessions that were opened and neither completed nor deleted, nor noted for a later run."""
    journal = scene.targets[0].journal
    begun = journal.select("POST", "/blobs/uploads/", status=202)
    opened = {urlsplit(each.answered["Location"]).path for each in begun}
    over = {each.path for each in journal if each.completes is not None}
    # Also one that had become the blob when it was to be deleted: the answer that said so was not awaited.
    over |= {each.path for each in journal.select("DELETE", "/blobs/uploads/") if each.status in (204, 404)}
    with closing(Store.open(store_of(scene.home))) as store:
        noted = {urlsplit(url).path for (url,) in store.state.rows("SELECT url FROM sessions")}
    return opened - over - noted


@asynccontextmanager
async def interrupted(
    scene: Scene, number: signal.Signals, *arguments: str, at: int = 100_000
) -> AsyncIterator[tuple[Child, str, asyncio.Event]]:
    """A run that got a signal while a blob's upload is held; the event lets that go on."""
    digest = LARGE[0]
    reached, until = asyncio.Event(), asyncio.Event()
    stall = Stall(after=at, until=until, reached=reached)
    scene.targets[0].faults.add(Fault("PUT", f"digest={digest}", act=stall))
    async with scene.sync(*arguments) as running:
        async with asyncio.timeout(HANGS_AFTER):
            await reached.wait()
        running.signal(number)
        try:
            yield running, digest, until
        finally:
            until.set()
    await scene.settled()


@pytest.mark.parametrize("arguments", [(), ("--grace", "0.1"), ("--grace", "0")], ids=" ".join)
async def test_ctrl_c_and_a_grace_that_is_over_take_back_what_was_begun(
    arguments: tuple[str, ...], filled: Path, tmp_path: Path
) -> None:
    number = signal.SIGTERM if arguments else signal.SIGINT
    async with opened(filled, tmp_path, targets=1) as scene:
        async with interrupted(scene, number, *arguments) as (running, digest, _):
            assert await running.ended() == 130
            statuses = {image["status"] for image in running.report()["images"]}
        assert "skipped" in statuses <= {"done", "skipped"}
        assert scene.targets[0].journal.uploads_of(digest) == 0
        assert not sessions_left(scene)
        scene.assert_true()
        async with scene.sync() as running:
            assert await running.ended() == 0
        scene.assert_whole()


async def test_a_second_ctrl_c_ends_it_at_once(filled: Path, tmp_path: Path) -> None:
    async with opened(filled, tmp_path, targets=1) as scene:
        async with interrupted(scene, signal.SIGINT) as (running, _, _):

            def again(side: str, exchange: Exchange) -> None:
                if exchange.method == "DELETE":  # it waits for the answer to this, which has not left yet
                    running.signal(signal.SIGINT)

            scene.kill_at = again
            assert await running.ended() == 130
            assert not (scene.home / "report.json").exists()
        scene.assert_true()


def streams_in(scene: Scene) -> int:
    """Uploads of blobs that stream, one after another here; small ones may be on their way beside them."""
    return sum(scene.targets[0].journal.count("PUT", f"digest={digest}") for digest in LARGE)


async def test_sigterm_lets_the_blob_in_flight_arrive_and_begins_no_other(
    filled: Path, tmp_path: Path
) -> None:
    async with opened(filled, tmp_path, targets=1) as scene:
        arguments = ("--grace", "100", "--concurrency", "1")
        async with interrupted(scene, signal.SIGTERM, *arguments) as (running, digest, until):
            begun = streams_in(scene)
            until.set()
            assert await running.ended() == 130
            assert running.report()["totals"]["failed"] == 0
        journal = scene.targets[0].journal
        assert journal.uploads_of(digest) == 1
        assert streams_in(scene) == begun
        assert not sessions_left(scene)
        scene.assert_true()


async def test_an_upload_that_was_killed_goes_on_where_the_registry_has_it(tmp_path: Path) -> None:
    """From JOURNALED_FROM on an upload's session is in the journal while it is sent."""
    sample = sample_set(7, images=1, layer_size=JOURNALED_FROM + (2 << 20))
    with closing(Store.open(tmp_path / "source")) as store:
        fill(store, sample)
    largest = max(sample.blobs, key=lambda digest: len(sample.blobs[digest]))
    size, home = len(sample.blobs[largest]), tmp_path / "home"
    async with journalling(tmp_path / "source") as source, journalling(tmp_path / "target") as target:
        reached, until = asyncio.Event(), asyncio.Event()
        stall = Stall(after=size - (1 << 20), until=until, reached=reached)
        target.faults.add(Fault("PUT", f"digest={largest}", act=stall))

        def sync() -> AbstractAsyncContextManager[Child]:
            images = [*sample.images]
            return child(home=home, images=images, source=source.host, targets=[f"{target.host}/m"])

        async with sync() as running:
            async with asyncio.timeout(HANGS_AFTER):
                await reached.wait()
            running.kill()
            await running.ended()
        until.set()
        await target.journal.until(lambda journal: all(each.ended is not None for each in journal))
        target.journal.clear()
        async with sync() as running:
            assert await running.ended() == 0, running.events[-3:]
        assert target.journal.uploads_of(largest) == 1
        [put] = target.journal.select("PUT", f"digest={largest}")
        [asked] = [each for each in target.journal.select("GET", "/uploads/") if each.path == put.path]
        assert asked.status == 204
        assert 0 < target.journal.bytes_in(largest) <= 1 << 20

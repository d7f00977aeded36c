"""A store in trouble: full, read-only, corrupt, gone, its clock wrong: one sentence each, nothing is lost.

The registries are in this process. Most runs are too, over `blobflow.client`, as a point of a run can be hit
exactly from here; some of each kind are whole processes, for the exit code and what is on standard error.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import random
import shutil
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from blobflow.engine.pairs import Pair
from blobflow.engine.results.report import Report
from blobflow.engine.services import CacheMode
from blobflow.errors import BlobflowError, StorageError
from blobflow.events import Event, StepStarted, Warned
from blobflow.oci import digest_of, parse_digest, parse_reference
from blobflow.oci.sample_images import sample_set
from blobflow.settings import Settings
from blobflow.transports.store import Store, gc, inventory, partial_sweep
from blobflow.transports.store.leases import boot
from tests.e2e.conftest import MountsTmpfs
from tests.library import mirror
from tests.scenarios.child_process import wrong_blobs
from tests.scenarios.registries import blobs_of, fill, registries
from tools.processes import BLOBFLOW, Run, blobflow_serve, run
from tools.registry.faulty import Exchange, JournallingRegistry, journalling

# Layers up to 1 MiB and a bit more, so that some partials are written to before they are whole.
SAMPLE = sample_set(3, images=2, architectures=("amd64",), layer_size=1024 * 1024)
NAMES = list(SAMPLE.images)
ROOMY = "size=16m,nr_inodes=10k"
UNLIMITED = 1 << 40  # bytes: what the disk has is the bound


class Disk:
    """A small file system of its own, with a store on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"

    def fill(self) -> None:
        """Leave no byte free, also of those that have become free since the last time."""
        with (self.folder / "filling").open("ab", buffering=0) as filling, contextlib.suppress(OSError):
            while True:
                filling.write(bytes(65536))

    def remount(self, options: str) -> None:
        command = ["mount", "-o", f"remount,{options}", str(self.folder)]
        subprocess.run(command, check=True, capture_output=True)

    def make_room(self) -> None:
        (self.folder / "filling").unlink(missing_ok=True)
        self.remount(ROOMY)


class Outcome(msgspec.Struct, frozen=True):
    """A run in this process: its report, or the StorageError that kept it from having one."""

    report: Report | None
    error: BlobflowError | None
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return self.report is not None and self.report.ok

    @property
    def sentences(self) -> list[str]:
        """What the command line would print of what went wrong."""
        failed = [image.error for image in self.report.images if image.error] if self.report else []
        return [*self.warnings, *([str(self.error)] if self.error else []), *failed]


class World:
    """A source with the sample, and two targets. `seen` is called with each of the source's exchanges."""

    def __init__(self) -> None:
        self.source: JournallingRegistry
        self.targets: list[JournallingRegistry]
        self.seen: Callable[[Exchange], None] = lambda exchange: None

    async def mirror(
        self,
        store: Path,
        mode: CacheMode,
        *,
        at: Callable[[Event], None] = lambda event: None,
        targets: Sequence[JournallingRegistry] | None = None,
        cache_size: int | None = UNLIMITED,
    ) -> Outcome:
        """The whole sample to the targets (both); `at` sees every event as it happens."""
        told: list[str] = []

        def observe(event: Event) -> None:
            if isinstance(event, Warned):
                told.append(event.message)
            at(event)

        pairs = [
            Pair(parse_reference(f"{self.source.host}/{name}"), parse_reference(f"{target.host}/{name}"))
            for name in NAMES
            for target in (self.targets if targets is None else targets)
        ]
        settings = Settings(cache=mode, cache_dir=store, cache_size=cache_size)
        try:
            report = await mirror(pairs, settings, observer=observe)
        except StorageError as error:
            return Outcome(None, error, tuple(told))
        return Outcome(report, None, tuple(told))

    async def sync(
        self, store: Path, *options: str, home: Path, before: Sequence[str] = (), to: Sequence[str] = ()
    ) -> Run:
        """The same as a process; `before`: what runs it; `to`: other hosts than the two targets."""
        home.mkdir(parents=True, exist_ok=True)
        (home / "images.txt").write_text("\n".join(NAMES))
        targets = [word for host in to or [target.host for target in self.targets] for word in ("--to", host)]
        named = ["--images", str(home / "images.txt"), "--cache-dir", str(store)]
        arguments = ["sync", "--from", self.source.host, *targets, *named, *options]
        return await in_process(*arguments, home=home, before=before)

    def assert_nothing_wrong(self) -> None:
        """What has a tag at a target is there whole, and every blob there is what its name says."""
        for target in self.targets:
            for name in NAMES:
                repository, _, tag = name.rpartition(":")
                digest = target.store.repositories.resolve(repository, tag)
                if digest is not None:
                    assert digest == SAMPLE.images[name].digest
                    assert missing(target, name) == []
            assert wrong_blobs(target.store.root) == []

    def assert_complete(self) -> None:
        self.assert_nothing_wrong()
        for target in self.targets:
            for name in NAMES:
                repository, _, tag = name.rpartition(":")
                assert target.store.repositories.resolve(repository, tag) is not None


async def in_process(*arguments: str, home: Path, before: Sequence[str] = ()) -> Run:
    return await asyncio.to_thread(run, [*before, *BLOBFLOW, *arguments], home)


def assert_told(ended: Run, code: int, *words: str) -> None:
    """It ended with `code`, and what it said besides its progress and the images' fates has all the words.

    Nothing else was said but how many images failed, and nothing at all if no words are given.
    """
    assert (ended.code, "Traceback" in ended.err) == (code, False), ended.err
    said = [line for line in ended.err.splitlines() if not line.startswith("Progress: ")]
    told = [line for line in said if "images did not arrive" not in line]
    assert bool(told) == bool(words), ended.err
    assert [line for line in told if not all(word in line for word in words)] == []
    assert len([line for line in told if not line.startswith("failed: ")]) <= 1, ended.err


def missing(target: JournallingRegistry, name: str) -> list[str]:
    repository = name.rpartition(":")[0]
    return [
        digest
        for digest in blobs_of(SAMPLE, name)
        if target.store.repositories.media_type_of(repository, parse_digest(digest)) is None
        or target.store.blobs.size_of(parse_digest(digest)) != len(SAMPLE.blobs[digest])
    ]


@pytest.fixture
async def world(mount_tmpfs: MountsTmpfs) -> AsyncIterator[World]:
    """In memory, since it is synced to disk with every blob and there are many of these tests."""
    folder = mount_tmpfs("registries", "size=128m")
    made = World()
    async with (
        journalling(folder / "source", told=lambda exchange: made.seen(exchange)) as made.source,
        registries(folder, ("one", "two")) as made.targets,
    ):
        fill(made.source.store, SAMPLE)
        yield made


async def assert_verifies(root: Path) -> None:
    """Every blob of the store is what its name says, and nothing half done is left in it."""
    with contextlib.closing(Store.open(root)) as store:
        assert [held.digest async for held, error in inventory.verify_blobs(store) if error] == []
    assert list((root / "partials").iterdir()) == []


# A full disk


class Point(msgspec.Struct, frozen=True):
    """Where a run finds its disk full: `kind` is what there is too little of, `amount` how much there is.

    opening: bytes of the file system; inodes: of it, too; pages: of the state file; bytes: of the file system
    from when the transfer begins; steps: begun when others take all that is left.
    """

    kind: str
    amount: int

    def __str__(self) -> str:
        return f"{self.amount} {self.kind}"


def points() -> list[Point]:
    """20 of them, the same each time: spread over what a run takes, at random within each part."""
    draw = random.Random(3)
    spread = {
        "opening": (2, 8 * 1024, 120 * 1024),
        "inodes": (3, 2, 15),
        "pages": (3, 14, 44),
        "bytes": (6, 350 * 1024, 2500 * 1024),
        "steps": (6, 2, 24),
    }
    return [
        Point(kind, int(least + (most - least) / count * (part + draw.random())))
        for kind, (count, least, most) in spread.items()
        for part in range(count)
    ]


FULL = ("the disk is full", "check the directory's owner, mode and free space", "would need room for more")


class SmallPages(sqlite3.Connection):
    """A connection whose database may have so many pages, small ones, and then is full."""

    limit = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.execute("PRAGMA page_size=512")
        self.execute(f"PRAGMA max_page_count={self.limit}")


@contextlib.contextmanager
def filling(point: Point, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Event], None]]:
    """The disk fills up at the point; gives the observer that sees to it."""
    begun = 0

    def at(event: Event) -> None:
        nonlocal begun
        begun += isinstance(event, StepStarted)
        if point.kind == "steps" and begun >= point.amount:
            disk.fill()
        if point.kind == "bytes" and begun == 1:
            disk.remount(f"size={point.amount}")

    with monkeypatch.context() as patched:
        if point.kind == "pages":
            patched.setattr(SmallPages, "limit", point.amount)
            patched.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=SmallPages))
        yield at


MODES: dict[str, Sequence[CacheMode]] = {"opening": ["auto"]}  # the mode matters only to an open store


@pytest.mark.parametrize(
    ("point", "mode"),
    [(point, mode) for point in points() for mode in MODES.get(point.kind, ("auto", "all"))],
    ids=str,
)
async def test_a_disk_full_at_any_point_is_one_sentence_and_the_next_run_is_fine(
    point: Point,
    mode: CacheMode,
    world: World,
    mount_tmpfs: MountsTmpfs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = {"opening": f"size={point.amount}", "inodes": f"size=16m,nr_inodes={point.amount}"}
    disk = Disk(mount_tmpfs("disk", small.get(point.kind, ROOMY)))
    with filling(point, disk, monkeypatch) as at:
        full = await world.mirror(disk.store, mode, at=at)
    world.assert_nothing_wrong()
    assert full.sentences, "it was not full"
    assert len(full.warnings) <= 1
    for sentence in full.sentences:
        assert str(disk.store) in sentence
        assert (
            "the disk is full" in sentence or "check the directory's owner, mode and free space" in sentence
        )
    assert full.ok or full.error is not None or mode == "all", "a run that need not keep blobs goes on"

    disk.make_room()
    again = await world.mirror(disk.store, mode)
    assert (again.ok, again.sentences) == (True, [])
    world.assert_complete()
    await assert_verifies(disk.store)


@pytest.mark.parametrize(
    ("mode", "limit", "code", "words"),
    [
        ("auto", 16 * 1024, 8, "state.sqlite: the disk is full"),
        ("auto", 600_000, 0, "the store fails, so that less is kept and remembered: can't "),
        ("all", 600_000, 3, ": can't "),
    ],
)
async def test_a_limit_on_the_size_of_files_is_as_a_full_disk(
    mode: CacheMode, limit: int, code: int, words: str, world: World, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    limited = ["prlimit", f"--fsize={limit}"]
    ended = await world.sync(store, "--cache", mode, home=tmp_path / "home", before=limited)
    assert_told(ended, code, str(store), words)
    world.assert_nothing_wrong()
    assert (await world.mirror(store, mode)).ok
    world.assert_complete()
    await assert_verifies(store)


async def test_gc_and_rm_make_room_on_a_full_disk(world: World, mount_tmpfs: MountsTmpfs) -> None:
    disk = Disk(mount_tmpfs("disk", ROOMY))
    assert (await world.mirror(disk.store, "all")).ok
    with contextlib.closing(Store.open(disk.store)) as store:
        held = inventory.list_blobs(store)
        disk.fill()
        gc.remove_blobs(store, [held[0].digest])
        disk.fill()
        swept = await gc.collect_garbage(store, 0)
        assert (swept.blobs, swept.left_bytes) == (len(held) - 1, 0)


# A full disk at the target


async def test_a_full_target_is_asked_once_a_blob_and_keeps_where_it_lies_to_itself(
    world: World, mount_tmpfs: MountsTmpfs, tmp_path: Path
) -> None:
    folder = tmp_path / "target"
    folder.mkdir()
    mount_tmpfs("target/storage", "size=500k")  # what it says goes to a disk that has room
    with blobflow_serve(folder) as served:
        told = await world.sync(tmp_path / "store", home=tmp_path / "home", to=[served.host])
        failed = [line for line in told.err.splitlines() if line.startswith("failed: ")]
        assert (told.code, len(failed), "Traceback" in told.err) == (3, len(NAMES), False), told.err
        for line in failed:
            assert f"target: {served.host} refused " in line
            assert "its storage is full" in line
            assert "attempts" not in line
        assert str(folder) not in told.out + told.err
        assert list((folder / "storage" / "partials").iterdir()) == []
    [*said, _] = (folder / "errors.log").read_text().splitlines()
    assert said
    for line in said:
        assert (f" {folder}/storage/" in line, "the disk is full" in line) == (True, True), line


# Read-only


async def test_a_store_turned_read_only_is_said_and_can_be_looked_at(
    world: World, mount_tmpfs: MountsTmpfs, tmp_path: Path
) -> None:
    disk = Disk(mount_tmpfs("disk", ROOMY))
    assert (await world.mirror(disk.store, "all", targets=world.targets[:1])).ok
    disk.remount("ro")
    told = await world.sync(disk.store, "--cache", "all", home=tmp_path / "home")
    assert_told(told, 8, f"can't write to the store {disk.store}: it is read-only; put the store elsewhere")
    listed = await in_process("cache", "ls", "--cache-dir", str(disk.store), home=tmp_path / "home")
    assert (listed.code, len(listed.out.splitlines())) == (0, len(SAMPLE.blobs))
    disk.remount("rw")
    assert (await world.mirror(disk.store, "all")).sentences == []
    world.assert_complete()
    assert [world.source.journal.reads(digest) for digest in SAMPLE.blobs] == [1] * len(SAMPLE.blobs)


# A state file that is not what it was


def garbage_at(start: float, length: int = 3000) -> Callable[[Path], None]:
    """Overwrite bytes at a part of the state file, with the same ones each time."""

    def damage(root: Path) -> None:
        content = bytearray((root / "state.sqlite").read_bytes())
        place = int(len(content) * start)
        content[place : place + length] = random.Random(1).randbytes(length)
        (root / "state.sqlite").write_bytes(content)

    return damage


def cut_at(part: float) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        path = root / "state.sqlite"
        os.truncate(path, int(path.stat().st_size * part))

    return damage


def directory_in_place(root: Path) -> None:
    (root / "state.sqlite").unlink()
    (root / "state.sqlite" / "inside").mkdir(parents=True)


def unknown_file_format(root: Path) -> None:
    """The schema format number in the header (sqlite's file format, 1.3.10): 4 is the newest."""
    content = bytearray((root / "state.sqlite").read_bytes())
    content[44:48] = bytes([0, 0, 0, 9])
    (root / "state.sqlite").write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "garbage at the start": garbage_at(0),
    "garbage after the header": garbage_at(0.01),
    "garbage in the middle": garbage_at(0.5, 20_000),
    "cut in a page": cut_at(0.53),
    "cut in the header": cut_at(0.001),
    "cut to nothing": cut_at(0),
    "gone": lambda root: (root / "state.sqlite").unlink(),
    "a directory": directory_in_place,
    "an unknown file format": unknown_file_format,
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_corrupt_state_file_is_said_once_and_no_blob_is_read_again(
    damage: str, world: World, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    one, two = world.targets
    assert (await world.mirror(store, "all", targets=[one])).ok
    DAMAGES[damage](store)
    outcome = await world.mirror(store, "all", targets=[two])
    [sentence] = outcome.sentences
    assert sentence.startswith(f"the store's state file {store}/state.sqlite was ")
    assert "blobs are kept" in sentence
    assert outcome.ok
    world.assert_complete()
    assert [world.source.journal.reads(digest) for digest in SAMPLE.blobs] == [1] * len(SAMPLE.blobs)
    assert (await world.mirror(store, "all")).sentences == []
    await assert_verifies(store)


@pytest.mark.parametrize("name", ["state.sqlite-wal", "state.sqlite-shm"])
async def test_garbage_beside_the_state_file_is_passed_over(name: str, world: World, tmp_path: Path) -> None:
    store = tmp_path / "store"
    one, two = world.targets
    assert (await world.mirror(store, "all", targets=[one])).ok
    (store / name).write_bytes(random.Random(1).randbytes(70_000))
    outcome = await world.mirror(store, "all", targets=[two])
    assert (outcome.ok, outcome.sentences) == (True, [])
    world.assert_complete()
    await assert_verifies(store)


def newer_schema(root: Path) -> None:
    with contextlib.closing(sqlite3.connect(root / "state.sqlite")) as connection:
        connection.execute("PRAGMA user_version=7")


def newer_format(root: Path) -> None:
    (root / "store.json").write_text('{"format": 7}')


def file_in_place(name: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        shutil.rmtree(root / name)
        (root / name).write_text("what is this?")

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (newer_schema, "has schema 7, this blobflow knows schema 2; use a newer blobflow"),
        (newer_format, "has format 7, this blobflow knows format 1; use a newer blobflow"),
        (file_in_place("blobs"), "a part of the path is not a directory; move it away"),
        (file_in_place("partials"), "something else is in its place; move it away"),
    ],
)
async def test_what_may_be_another_s_is_refused_and_left_alone(
    damage: Callable[[Path], None], words: str, world: World, tmp_path: Path
) -> None:
    store, kept = tmp_path / "store", tmp_path / "kept"
    assert (await world.mirror(store, "all", targets=world.targets[:1])).ok
    shutil.copytree(store, kept)
    damage(store)
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    outcome = await world.mirror(store, "auto")
    [sentence] = outcome.sentences
    assert (str(store) in sentence, words in sentence) == (True, True), sentence
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before
    shutil.rmtree(store)
    kept.rename(store)
    assert (await world.mirror(store, "auto")).sentences == []
    world.assert_complete()


# A store that goes while it is used


@pytest.mark.parametrize(("mode", "code"), [("auto", 0), ("all", 3)])
async def test_a_store_removed_in_the_middle_of_a_run_is_said_and_made_anew(
    mode: CacheMode, code: int, world: World, tmp_path: Path
) -> None:
    store = tmp_path / "store"

    def remove(exchange: Exchange) -> None:
        if exchange.method == "GET" and "/blobs/" in exchange.path:
            shutil.rmtree(store, ignore_errors=True)

    world.seen = remove
    told = await world.sync(store, "--cache", mode, "--concurrency", "1", home=tmp_path / "home")
    assert_told(told, code, str(store), "gone")
    world.assert_nothing_wrong()
    world.seen = lambda exchange: None
    assert (await world.mirror(store, mode)).sentences == []
    world.assert_complete()
    await assert_verifies(store)


# A clock that is wrong

YEAR = 365 * 24 * 3600


async def test_what_a_clock_that_was_ahead_left_behind_disturbs_nobody(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uses, leases, upload sessions and partials of a year from now: nothing is lost, nothing stays."""
    store, real = tmp_path / "store", time.time
    leased = digest_of(b"leased elsewhere")
    with monkeypatch.context() as ahead:
        ahead.setattr(time, "time", lambda: real() + YEAR)
        assert (await world.mirror(store, "all", targets=world.targets[:1])).ok
        with contextlib.closing(Store.open(store)) as opened:
            opened.blobs.write_small(b"leased elsewhere", leased)
            far = f"{boot().partition('/')[0]}/pid:[1]"
            row = ("far", leased, 1, far, int(time.time()))
            opened.state.write("INSERT INTO leases VALUES (?, ?, ?, ?, ?)", *row)
            begun = opened.partials.begin(digest_of(b"begun"))
            begun.suspend()
            os.utime(begun.path, (time.time(), time.time()))
    outcome = await world.mirror(store, "all")
    assert (outcome.ok, outcome.sentences) == (True, [])
    world.assert_complete()
    assert [world.source.journal.reads(digest) for digest in SAMPLE.blobs] == [1] * len(SAMPLE.blobs)
    with contextlib.closing(Store.open(store)) as opened:
        assert (await gc.collect_garbage(opened, 0)).left_bytes == len(b"leased elsewhere")
        assert begun.path.exists()
        monkeypatch.setattr(time, "time", lambda: real() + partial_sweep.PARTIAL_SECONDS + 60)
        assert (await gc.collect_garbage(opened, 0)).left_bytes == 0
        assert not begun.path.exists()


@pytest.mark.parametrize("mode", ["auto", "all"])
async def test_a_clock_that_goes_back_all_the_time_changes_nothing(
    mode: CacheMode, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()
    begun = time.time()
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: begun - 3600 * next(ticks))
        outcome = await world.mirror(tmp_path / "store", mode)
    assert (outcome.ok, outcome.sentences, next(ticks) > 20) == (True, [], True)
    world.assert_complete()
    await assert_verifies(tmp_path / "store")
    assert [world.source.journal.reads(digest) for digest in SAMPLE.blobs] == [1] * len(SAMPLE.blobs)

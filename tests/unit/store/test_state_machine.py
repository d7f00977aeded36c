"""Any interleaving of processes on one store: syncs that share blobs, gc, verify, rm, kills and flipped bits.

Each `Process` is a store of its own on the common root, with an event loop of its own that runs only when
the machine lets it, so that every interleaving can be replayed from its seed. A kill is what the kernel does:
the loop never runs again, descriptors and their locks are closed, and nothing is said to anybody.

What has to hold after every step:

- a file under blobs/ has the bytes that its name promises, unless the machine itself has flipped one;
- what is leased by a living process, or under a tag, is there; so is the partial of a living writer;
- nobody ever completes wrong bytes, and no operation ends in an error that nothing caused;

and in the end every process that lives can still fetch every blob, and leaves nothing behind but blobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import tempfile
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from blobflow.content import BlobReader, BlobStream, Chunk
from blobflow.errors import (
    BlobflowError,
    ConnectionLost,
    IntegrityError,
    NotFound,
    StalePartial,
    StorageError,
)
from blobflow.oci import Descriptor, Digest, digest_of
from blobflow.transports.store import Store, StoreCache, Writer, gc, inventory
from blobflow.transports.store.blob_commit import BlobCommit
from tests.fakes.registry import Opened

# Runs of the machine, of 50 steps each.
SHORT = 100
LONG = 1500

CONTENTS = [bytes((n * 7 + i) % 251 for i in range(size)) for n, size in enumerate((700, 5_000, 20_000))]
BLOBS = [Descriptor("application/octet-stream", digest_of(content), len(content)) for content in CONTENTS]
CONTENT_OF = dict(zip([blob.digest for blob in BLOBS], CONTENTS, strict=True))
# The store's sizes, cut down so that small blobs take every road: parked, adopted, visible in parts.
SMALL = {
    "blobflow.transports.store.downloads.KEPT_FROM": 1_000,
    "blobflow.transports.store.partials.KEPT_FROM": 1_000,
    "blobflow.transports.store.downloads.WITHHELD": 512,
    "blobflow.transports.store.writer._GATHER": 900,
    "blobflow.transports.store.gc._BATCH": 1,
    "blobflow.transports.store.gc._TURN_SECONDS": 1e9,
    "blobflow.transports.store.downloads._FLUSH_SECONDS": 1e9,  # nothing may depend on how fast we are
}
SHM = Path("/dev/shm")  # memory, where there is such a place: fsync of thousands of small files costs nothing
A_SETTLED_WHILE = 60  # turns of a loop after which a process waits for something that we have not given it


class Inline(ThreadPoolExecutor):
    """Runs at once, in this thread: so that nothing depends on how threads are scheduled."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  whatever it is belongs to who waits for it
            future.set_exception(error)
        return future


async def _one_turn(_: float) -> None:
    await asyncio.sleep(0)


COMMITS: weakref.WeakSet[BlobCommit] = weakref.WeakSet()


class WatchedCommit(BlobCommit):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        COMMITS.add(self)


class Ill(Exception):
    """A target that failed."""


class Share:
    """One who is inside of a share, or on the way: reads from an offset to the end, and leaves when told."""

    def __init__(self, blob: Descriptor, offset: int, *, keep: bool, ill: bool) -> None:
        self.blob = blob
        self.offset = offset
        self.keep = keep
        self.ill = ill
        self.leave = asyncio.Event()
        self.given = 0
        self.more = asyncio.Event()
        self.broken: Exception | None = None
        self.lying = False
        self.inside = False
        self.over = False
        self.saw_file = False
        self.error: BaseException | None = None

    @contextlib.asynccontextmanager
    async def source(self, offset: int) -> AsyncIterator[BlobStream]:
        yield self._chunks(offset)

    async def _chunks(self, offset: int) -> AsyncGenerator[Chunk, None]:
        content = CONTENT_OF[self.blob.digest]
        while offset < len(content):
            while not self.given and not self.broken:
                self.more.clear()
                await self.more.wait()
            if self.broken:
                error, self.broken = self.broken, None
                raise error
            piece = bytearray(content[offset : offset + self.given])
            self.given = 0
            if self.lying:
                self.lying = False
                piece[0] ^= 1
            offset += len(piece)
            yield bytes(piece)

    async def run(self, cache: StoreCache) -> None:
        try:
            async with cache.share(self.blob, Opened(self.source), keep=self.keep) as body:
                self.inside = True
                await self._read(body)
                await self.leave.wait()
                if self.ill:
                    raise Ill
        except (BlobflowError, Ill) as error:
            self.error = error
        finally:
            self.inside = False
            self.over = True

    async def _read(self, body: BlobReader) -> None:
        content = CONTENT_OF[self.blob.digest]
        at, wrong = self.offset, False
        try:
            async with body.open(self.offset) as chunks:
                async for chunk in chunks:
                    wrong = wrong or bytes(chunk) != content[at : at + len(chunk)]
                    at += len(chunk)
        except (IntegrityError, StalePartial):
            assert at < len(content) or at == self.offset, "the last byte of wrong content got out"
            raise
        assert at == len(content), "a stream ended early"
        assert not wrong, "wrong bytes were completed"


class Process:
    """A process that uses the store: a sync, a registry, or somebody who tidies up."""

    def __init__(self, root: Path, pid: int) -> None:
        self.pid = pid
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(Inline(1))
        self.store = Store.open(root)
        self.store.blobs._executor = Inline(1)
        self.cache = StoreCache(self.store)
        self.shares: list[Share] = []
        self.writers: list[tuple[Writer, int]] = []
        self.tasks: list[asyncio.Task[Any]] = []

    def turn(self, times: int) -> None:
        """Let it run a little: so many turns of its loop."""
        for _ in range(times):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        self._sign_leases()

    def _sign_leases(self) -> None:
        """Rows say which process holds what; ours are all one, so each gets a number of its own."""
        self.store.state.write_many(
            "UPDATE leases SET pid = ? WHERE id = ?",
            [(self.pid, lease) for lease in self.store.leases._held],
        )

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        self.tasks.append(self.loop.create_task(work))

    def finish(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self.loop.run_until_complete(work)
        finally:
            self._sign_leases()

    def living_writers(self) -> list[Writer]:
        return list(self.store.partials.writers)

    def commits(self) -> list[BlobCommit]:
        """Partials that are being committed."""
        return [each for each in COMMITS if each._state is self.store.state and each._fd >= 0]

    def raise_what_failed(self) -> None:
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.remove(task)
            if not task.cancelled():
                task.result()

    def die(self) -> None:
        """As SIGKILL: descriptors and locks go, and no line of ours runs any more."""
        fds = [writer.fd for writer in self.living_writers()] + [commit._fd for commit in self.commits()]
        mine = {os.fstat(fd).st_ino for fd in fds}
        with Path(os.devnull).open("rb") as nowhere:
            for entry in Path("/proc/self/fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.fstat(int(entry.name)).st_ino in mine:
                        os.dup2(nowhere.fileno(), int(entry.name))
        self.store.state.close()

    def bury(self) -> None:
        """Free what Python holds of it. Only after the store has been looked at for the last time."""
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        for task in asyncio.all_tasks(self.loop):
            with contextlib.suppress(BaseException):
                self.loop.run_until_complete(task)
        self.store.close()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


blobs = st.integers(0, len(BLOBS) - 1)
picks = st.integers(0, 5)
turns = st.sampled_from([0, 1, 2, 3, 5, 8, A_SETTLED_WHILE])
amounts = st.sampled_from([300, 1_200, 6_000, 30_000])
AT_ONCE = 3  # processes


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patches = contextlib.ExitStack()
        for name, value in SMALL.items():
            self.patches.enter_context(patch(name, value))
        names = itertools.count()  # tokens and leases in order: chance has no say in what a seed plays
        self.patches.enter_context(patch("secrets.token_hex", lambda size: f"{next(names):0{2 * size}x}"))
        self.pids = {os.getpid()}
        self.patches.enter_context(
            patch("blobflow.transports.store.leases._exists", lambda pid: pid in self.pids)
        )
        self.patches.enter_context(patch("blobflow.transports.store.gc._pause", _one_turn))
        for module in ("blobs", "writer"):
            self.patches.enter_context(patch(f"blobflow.transports.store.{module}.BlobCommit", WatchedCommit))
        self.root = Path(tempfile.mkdtemp(dir=SHM if SHM.is_dir() else None, prefix="blobflow-test-"))
        self.patches.callback(shutil.rmtree, self.root, ignore_errors=True)
        self.processes: list[Process] = []
        self.graves: list[Process] = []
        self.flipped: set[Digest] = set()
        self.tagged: set[Digest] = set()
        self.lost: set[Digest] = set()
        self.damaged_once: set[Digest] = set()
        self.flips = 0
        self.next_pid = 1_000_000_000  # above what any kernel gives out

    # Processes

    @initialize()
    def begin(self) -> None:
        self.open_store()
        self.open_store()

    @precondition(lambda self: len(self.processes) < AT_ONCE)
    @rule()
    def open_store(self) -> None:
        self.next_pid += 1
        self.pids.add(self.next_pid)
        self.processes.append(Process(self.root, self.next_pid))

    @precondition(lambda self: self.processes)
    @rule(one=picks, again=st.booleans())
    def kill(self, one: int, again: bool) -> None:
        process = self._leaves(one)
        process.die()
        self.graves.append(process)
        if again:
            self.open_store()

    @precondition(lambda self: self.processes)
    @rule(one=picks)
    def close_store(self, one: int) -> None:
        self._leaves(one).bury()

    @precondition(lambda self: self.processes)
    @rule(one=picks, turns=turns)
    def run(self, one: int, turns: int) -> None:
        self._one(one).turn(turns)

    def _one(self, pick: int) -> Process:
        return self.processes[pick % len(self.processes)]

    def _leaves(self, pick: int) -> Process:
        process = self._one(pick)
        self.processes.remove(process)
        self.pids.discard(process.pid)
        return process

    # Shares

    @precondition(lambda self: self.processes)
    @rule(
        one=picks,
        blob=blobs,
        part=st.sampled_from([0, 0, 0, 50, 90, 100]),
        keep=st.booleans(),
        ill=st.booleans(),
        size=amounts,
        leave=st.booleans(),
        turns=turns,
    )
    def share(
        self, one: int, blob: int, part: int, keep: bool, ill: bool, size: int, leave: bool, turns: int
    ) -> None:
        """Somebody enters a share, to read from `part` percent on; its source has `size` bytes to give."""
        process = self._one(one)
        share = Share(BLOBS[blob], BLOBS[blob].size * part // 100, keep=keep, ill=ill)
        share.given = size
        if leave:
            share.leave.set()
        process.shares.append(share)
        process.start(share.run(process.cache))
        process.turn(turns)

    @precondition(lambda self: self._shares())
    @rule(pick=picks, size=amounts, turns=turns)
    def give(self, pick: int, size: int, turns: int) -> None:
        process, share = self._share(pick)
        share.given += size
        share.more.set()
        process.turn(turns)

    @precondition(lambda self: self._shares())
    @rule(pick=picks, turns=turns)
    def break_source(self, pick: int, turns: int) -> None:
        process, share = self._share(pick)
        share.broken = ConnectionLost("cut")
        share.more.set()
        process.turn(turns)

    @precondition(lambda self: self._shares())
    @rule(pick=picks)
    def lie(self, pick: int) -> None:
        self._share(pick)[1].lying = True

    @precondition(lambda self: self._shares())
    @rule(pick=picks, turns=turns)
    def leave(self, pick: int, turns: int) -> None:
        process, share = self._share(pick)
        share.leave.set()
        process.turn(turns)

    @precondition(lambda self: any(process.tasks for process in self.processes))
    @rule(pick=picks, turns=turns)
    def cancel(self, pick: int, turns: int) -> None:
        tasks = [(process, task) for process in self.processes for task in process.tasks]
        process, task = tasks[pick % len(tasks)]
        task.cancel()
        process.turn(turns)

    def _shares(self) -> list[tuple[Process, Share]]:
        """The shares under way, the newest first."""
        return [
            (process, share)
            for process in self.processes
            for share in reversed(process.shares)
            if not share.over
        ]

    def _share(self, pick: int) -> tuple[Process, Share]:
        under_way = self._shares()
        return under_way[pick % len(under_way)]

    # Writers, as a registry's uploads use them

    @precondition(lambda self: self.processes)
    @rule(one=picks, blob=blobs, size=amounts)
    def begin_writer(self, one: int, blob: int, size: int) -> None:
        process = self._one(one)
        writer = process.store.partials.begin(BLOBS[blob].digest)
        writer.write(CONTENTS[blob][:size])
        process.writers.append((writer, blob))

    @precondition(lambda self: self.processes)
    @rule(one=picks, blob=blobs)
    def resume_writer(self, one: int, blob: int) -> None:
        process = self._one(one)
        writer = process.finish(process.store.partials.resume(BLOBS[blob].digest))
        if writer is not None:
            process.writers.append((writer, blob))

    @precondition(lambda self: any(process.writers for process in self.processes))
    @rule(pick=picks, size=amounts, end=st.sampled_from(["write", "commit", "abort", "suspend"]), turns=turns)
    def use_writer(self, pick: int, size: int, end: str, turns: int) -> None:
        writers = [(process, *each) for process in self.processes for each in process.writers]
        process, writer, blob = writers[pick % len(writers)]
        if end == "write":
            piece = CONTENTS[blob][writer.offset : writer.offset + size]
            if piece:
                writer.write(piece)
            return
        process.writers.remove((writer, blob))
        if end == "commit":
            process.start(self._commit(writer, blob))
        elif end == "abort":
            writer.abort()
        else:
            writer.suspend()
        process.turn(turns)

    async def _commit(self, writer: Writer, blob: int) -> None:
        whole = writer.offset == BLOBS[blob].size and writer.digest_so_far() == BLOBS[blob].digest
        try:
            await writer.commit(BLOBS[blob].digest, BLOBS[blob].size)
        except IntegrityError:
            assert not whole
        else:
            assert whole

    # Keeping

    @precondition(lambda self: self.processes)
    @rule(one=picks, limit=st.sampled_from([None, 0, 6_000, 22_000]), age=st.sampled_from([0, 24 * 3600]))
    def gc(self, one: int, limit: int | None, age: int) -> None:
        with patch("blobflow.transports.store.partial_sweep.PARTIAL_SECONDS", age):
            self._one(one).finish(gc.collect_garbage(self._one(one).store, limit))

    @precondition(lambda self: self.processes)
    @rule(one=picks, limit=st.sampled_from([0, 6_000]), turns=turns)
    def begin_gc(self, one: int, limit: int, turns: int) -> None:
        self._one(one).start(gc.collect_garbage(self._one(one).store, limit))
        self._one(one).turn(turns)

    @precondition(lambda self: self.processes)
    @rule(one=picks, turns=turns)
    def verify(self, one: int, turns: int) -> None:
        self._one(one).start(self._verify(self._one(one).store))
        self._one(one).turn(turns)

    async def _verify(self, store: Store) -> None:
        async for held, error in inventory.verify_blobs(store):
            assert error is None or held.digest in self.damaged_once

    @precondition(lambda self: self._files())
    @rule(one=picks, pick=picks)
    def rm(self, one: int, pick: int) -> None:
        digest = sorted(self._files())[pick % len(self._files())]
        needed = digest in self.tagged or any(share.blob.digest == digest for share in self._inside())
        try:
            gc.remove_blobs(self._one(one).store, [digest])
        except StorageError:
            assert needed or any(share.blob.digest == digest for _, share in self._shares())
        else:
            assert not needed
            self.flipped.discard(digest)

    @precondition(lambda self: self._files())
    @rule(one=picks, pick=picks)
    def tag(self, one: int, pick: int) -> None:
        digest = sorted(self._files())[pick % len(self._files())]
        self._one(one).store.repositories.set_tag("repository", digest[-8:], digest)
        self.tagged.add(digest)

    @precondition(lambda self: self.processes and self.tagged)
    @rule(one=picks, pick=picks)
    def untag(self, one: int, pick: int) -> None:
        digest = sorted(self.tagged)[pick % len(self.tagged)]
        self._one(one).store.repositories.remove_tag("repository", digest[-8:])
        self.tagged.discard(digest)

    # The disk

    @precondition(lambda self: self._sound())
    @rule(pick=picks, at=st.integers(0, 30_000))
    def flip_bit(self, pick: int, at: int) -> None:
        sound = self._sound()
        digest = sound[pick % len(sound)]
        self._flip(self._files()[digest], at)
        self.flipped.add(digest)
        self.damaged_once.add(digest)

    @precondition(lambda self: self._dead_partials())
    @rule(pick=picks, at=st.integers(0, 30_000))
    def flip_bit_of_a_dead_partial(self, pick: int, at: int) -> None:
        dead = self._dead_partials()
        self._flip(dead[pick % len(dead)], at)

    def _flip(self, path: Path, at: int) -> None:
        self.flips += 1
        with path.open("r+b") as file:
            at %= path.stat().st_size
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 0x10]))

    def _sound(self) -> list[Digest]:
        """Undamaged blobs, but for those that readers still follow behind a writer: these trust memory."""
        in_flight = {digest for process in self.processes for digest in process.cache._in_flight}
        return sorted(set(self._files()) - self.flipped - in_flight)

    def _dead_partials(self) -> list[Path]:
        living = {writer.path for process in self.processes for writer in process.living_writers()}
        living |= {commit._path for process in self.processes for commit in process.commits()}
        here = set((self.root / "partials").glob("*")) - living
        return sorted(path for path in here if path.stat().st_size)

    @precondition(lambda self: not self.processes)
    @rule(torn=st.booleans())
    def lose_state(self, torn: bool) -> None:
        for path in self.root.glob("state.sqlite*"):
            if torn:
                path.write_bytes(b"torn" * 2_000)
            else:
                path.unlink()
        self.tagged.clear()

    # What has to hold

    def _files(self) -> dict[Digest, Path]:
        """What is held; nothing where nobody could look after it."""
        folder = self.root / "blobs" / "sha256"
        return {Digest(f"sha256:{path.name}"): path for path in folder.glob("*")} if self.processes else {}

    def _inside(self) -> Iterator[Share]:
        for process in self.processes:
            yield from (share for share in process.shares if share.inside)

    @invariant()
    def files_are_what_their_names_say(self) -> None:
        if not self.processes:
            return
        files = self._files()
        for digest, path in files.items():
            if path.read_bytes() == CONTENT_OF[digest]:
                self.flipped.discard(digest)
            else:
                assert digest in self.flipped, f"{path} is not what its name says"
        for digest in self.flipped - set(files):  # found out, and dropped
            self.flipped.discard(digest)
            self.lost.add(digest)
            for share in self._inside():
                share.saw_file = share.saw_file and share.blob.digest != digest

    @invariant()
    def what_is_needed_is_there(self) -> None:
        if not self.processes:
            return
        files = self._files()
        self.lost -= set(files)
        assert self.tagged - self.lost <= set(files), "a served blob is gone"
        for share in self._inside():
            assert not share.saw_file or share.blob.digest in files, "a leased blob is gone"
            share.saw_file = share.blob.digest in files
        for process in self.processes:
            for writer in process.living_writers():
                assert writer.path.exists(), "the partial of a living writer is gone"

    @invariant()
    def nothing_fails_without_a_cause(self) -> None:
        for process in self.processes:
            process.raise_what_failed()
            for share in process.shares:
                error = share.error
                if isinstance(error, NotFound):
                    assert share.blob.digest in self.damaged_once
                elif error is not None:
                    assert isinstance(error, ConnectionLost | IntegrityError | StalePartial | Ill), error

    def teardown(self) -> None:
        try:
            for process in self.processes:
                self._still_works(process)
            while self.processes:
                self.close_store(0)
            self._nothing_is_left()
        finally:
            for process in [*self.processes, *self.graves]:
                process.bury()
            self.patches.close()

    def _still_works(self, process: Process) -> None:
        for task in process.tasks:
            task.cancel()
        process.turn(A_SETTLED_WHILE)
        for blob in BLOBS:
            for _ in range(2 + self.flips):  # each damaged file or partial is found out once, and dropped
                share = Share(blob, 0, keep=True, ill=False)
                share.given = 1_000_000
                share.leave.set()
                process.finish(share.run(process.cache))
                if share.error is None:
                    break
                assert isinstance(share.error, IntegrityError | StalePartial), share.error
            assert share.error is None
            assert process.store.blobs.size_of(blob.digest) == blob.size

    def _nothing_is_left(self) -> None:
        self.open_store()
        store, finish = self.processes[0].store, self.processes[0].finish
        assert store.leases.living() == set()
        with patch("blobflow.transports.store.partial_sweep.PARTIAL_SECONDS", 0):
            finish(self._verify(store))
            finish(gc.collect_garbage(store, 0))
        self.files_are_what_their_names_say()
        self.what_is_needed_is_there()
        assert set(self._files()) == self.tagged - self.lost
        assert list((self.root / "partials").iterdir()) == []
        self.close_store(0)


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param(SHORT, id="short"),
        pytest.param(LONG, id="long", marks=[pytest.mark.soak, pytest.mark.timeout(7200)]),
    ],
)
def test_a_store_keeps_its_promises_in_any_interleaving(runs: int) -> None:
    """The short form plays the same runs each time, the long one others."""
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=runs,
            stateful_step_count=50,
            derandomize=runs == SHORT,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )

"""Group commit: many jobs, few syncs, each with its own luck; and the loop waits for none of it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from blobflow.errors import StorageError
from blobflow.oci import Digest, digest_of, media
from blobflow.transports.store import Store, promises, verified_reading
from blobflow.transports.store.state.group_commit import Call, Row
from tests.deadlines import HANGS_AFTER

BLOB = b"some bytes of a blob"
DIGEST = digest_of(BLOB)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path / "store")
    opened.commit_in_threads()
    yield opened
    opened.close()


@pytest.fixture
def elsewhere(tmp_path: Path, store: Store) -> Iterator[sqlite3.Connection]:
    """The state file as another process has it."""
    connection = sqlite3.connect(tmp_path / "store" / "state.sqlite", isolation_level=None, timeout=0)
    yield connection
    connection.close()


class Synced:
    """Counts fsync(2) by what is synced, and lets the first wait until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files = self.folders = 0
        self.go_on = threading.Event()
        self.waits = threading.Event()
        self._real = os.fsync
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _fsync(self, fd: int) -> None:
        if Path(f"/dev/fd/{fd}").is_dir():
            self.folders += 1
        else:
            self.files += 1
        self.waits.set()
        assert self.go_on.wait(HANGS_AFTER)
        self._real(fd)


def _until(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.001)


def contents(count: int) -> list[bytes]:
    return [b"blob %d" % number for number in range(count)]


async def push(store: Store, content: bytes) -> None:
    writer = store.partials.begin_upload()
    writer.write(content)
    await writer.commit(digest_of(content), repository="app")


async def test_those_who_come_while_others_are_written_go_together(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen blobs: a sync for each file, and not one for each folder and row."""
    synced = Synced(monkeypatch)
    first = asyncio.create_task(push(store, BLOB))
    await asyncio.to_thread(synced.waits.wait)
    others = [asyncio.create_task(push(store, each)) for each in contents(15)]
    await asyncio.sleep(0)
    synced.go_on.set()
    await asyncio.gather(first, *others)
    assert synced.files >= 16
    assert synced.folders <= 3
    assert len(store.repositories.contents("app")) == 16


async def test_the_loop_goes_on_while_the_disk_is_slow(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = Synced(monkeypatch)
    pushing = asyncio.create_task(push(store, BLOB))
    await asyncio.to_thread(synced.waits.wait)
    for _ in range(100):
        assert (
            store.repositories.media_type_of("app", DIGEST) is None
        )  # reads wait for nobody, and see nothing too early
        await asyncio.sleep(0)
    assert not pushing.done()
    synced.go_on.set()
    await pushing
    assert store.repositories.media_type_of("app", DIGEST) == ""


async def test_a_lock_of_another_process_keeps_the_thread_waiting_and_not_the_loop(
    store: Store, elsewhere: sqlite3.Connection
) -> None:
    elsewhere.execute("BEGIN IMMEDIATE")
    pushing = asyncio.create_task(push(store, BLOB))
    for _ in range(50):
        assert store.repositories.tags("app") == []
        await asyncio.sleep(0.001)
    assert not pushing.done()
    elsewhere.execute("COMMIT")
    await pushing
    assert store.repositories.media_type_of("app", DIGEST) == ""


async def test_a_job_that_fails_takes_nothing_from_the_others_of_its_batch(
    store: Store, elsewhere: sqlite3.Connection
) -> None:
    def bad() -> None:
        store.repositories.set_tag("app", "bad", DIGEST)
        raise ZeroDivisionError

    elsewhere.execute("BEGIN IMMEDIATE")  # so that all of them come into one batch
    asked = [
        asyncio.ensure_future(store.commit(lambda: store.repositories.set_tag("app", "one", DIGEST))),
        asyncio.ensure_future(store.commit(bad)),
        asyncio.ensure_future(push(store, BLOB)),
        asyncio.ensure_future(store.commit(lambda: store.repositories.set_tag("app", "two", DIGEST))),
    ]
    await asyncio.sleep(0.01)
    elsewhere.execute("COMMIT")
    ends = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(end) for end in ends] == [type(None), ZeroDivisionError, type(None), type(None)]
    assert store.repositories.tags("app") == ["one", "two"]
    assert store.repositories.media_type_of("app", DIGEST) == ""


async def test_a_disk_that_refuses_a_file_fails_that_file_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.writev

    def writev(fd: int, pieces: Sequence[Any]) -> int:
        if b"blob 1" in b"".join(bytes(piece) for piece in pieces):
            raise OSError(28, "No space left on device")
        return real(fd, pieces)

    monkeypatch.setattr(os, "writev", writev)
    ends = await asyncio.gather(*(push(store, each) for each in contents(3)), return_exceptions=True)
    assert [end if end is None else str(end).partition(": ")[2] for end in ends] == [
        None,
        "the disk is full; free some space, or put the store elsewhere",
        None,
    ]
    assert sorted(digest for digest, _ in store.repositories.contents("app")) == sorted(
        digest_of(each) for each in (b"blob 0", b"blob 2")
    )
    assert list(store.paths.partials.iterdir()) == []


async def test_who_is_cancelled_finds_it_done_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = Synced(monkeypatch)
    pushing = asyncio.create_task(push(store, BLOB))
    await asyncio.to_thread(synced.waits.wait)
    pushing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pushing
    synced.go_on.set()
    await push(store, b"another one, which comes behind it")
    assert store.repositories.media_type_of("app", DIGEST) == ""


async def test_closing_writes_what_was_asked_for_until_then(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.commit_in_threads()
    asked = [asyncio.ensure_future(push(store, each)) for each in contents(40)]
    await asyncio.sleep(0)
    store.close()
    await asyncio.gather(*asked)
    again = Store.open(tmp_path)
    assert len(again.repositories.contents("app")) == 40
    again.close()
    with pytest.raises(StorageError):
        await store.commit(lambda: None)


async def test_a_job_sees_what_those_before_it_in_its_batch_have_done(
    store: Store, elsewhere: sqlite3.Connection
) -> None:
    elsewhere.execute("BEGIN IMMEDIATE")
    pushing = asyncio.ensure_future(push(store, BLOB))
    await asyncio.to_thread(_until, lambda: any(store.paths.partials.iterdir()))
    await asyncio.sleep(0.02)  # it waits for the lock now, with whoever comes next behind it
    seen = asyncio.ensure_future(store.commit(lambda: store.repositories.media_type_of("app", DIGEST)))
    await asyncio.sleep(0.01)
    elsewhere.execute("COMMIT")
    assert await seen == ""
    await pushing


async def test_rows_of_many_jobs_are_inserted_by_few_statements(
    store: Store, elsewhere: sqlite3.Connection
) -> None:
    class Rowed(Call):
        plain = True

        def rows(self) -> Sequence[Row]:
            return (Row("INSERT INTO notes(origin, key, value, at)", ("here", self.key, "v", 1)),)

        def __init__(self, key: str) -> None:
            super().__init__(lambda: None, durable=False)
            self.key = key

    elsewhere.execute("BEGIN IMMEDIATE")
    keys = [str(number) for number in range(250)]
    asked = [asyncio.ensure_future(store.state.commit(Rowed(key))) for key in keys]
    await asyncio.sleep(0.01)
    elsewhere.execute("COMMIT")
    await asyncio.gather(*asked)
    found = {key for (key,) in store.state.rows("SELECT key FROM notes WHERE origin = 'here'")}
    assert found == set(keys)


# What is promised


@pytest.mark.parametrize("served", [True, False])
async def test_a_manifest_is_held_with_its_tag_or_not_at_all(tmp_path: Path, served: bool) -> None:
    store = Store.open(tmp_path)
    if served:
        store.commit_in_threads()
    raw = b'{"schemaVersion": 2}'
    manifest = digest_of(raw)
    absent = Digest("sha256:" + "0" * 64)
    kind = media.OCI_MANIFEST
    assert await promises.put_manifest(
        store, "app", raw, manifest, kind, tags=["1"], needed=[DIGEST, absent]
    ) == [
        DIGEST,
        absent,
    ]
    assert (
        store.blobs.size_of(manifest),
        store.repositories.tags("app"),
        store.repositories.contents("app"),
    ) == (None, [], [])
    assert list(store.paths.partials.iterdir()) == []
    await push(store, BLOB)
    assert await promises.put_manifest(store, "app", raw, manifest, kind, tags=["1"], needed=[DIGEST]) == []
    assert (store.repositories.resolve("app", "1"), store.repositories.media_type_of("app", manifest)) == (
        manifest,
        kind,
    )
    store.close()


async def test_a_promise_is_noted_once_in_a_while(store: Store) -> None:
    def promised() -> int:
        [(at,)] = store.state.rows("SELECT added FROM blobs")
        return int(at)

    await push(store, BLOB)
    at = promised()
    store.state.write("UPDATE blobs SET added = ?", at - 100)
    assert await promises.promise_existing(store, DIGEST)
    assert promised() == at - 100
    store.state.write("UPDATE blobs SET added = ?", at - promises.NOTED_SECONDS - 1)
    assert await promises.promise_existing(store, DIGEST)
    assert promised() >= at
    assert not await promises.promise_existing(store, digest_of(b"never here"))


async def test_a_store_that_can_not_be_written_still_tells_what_is_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await push(store, BLOB)
    store.state.write("UPDATE blobs SET added = 1")
    told: list[object] = []
    store.observer = told.append

    def full(job: object) -> object:
        raise StorageError("the disk is full")

    monkeypatch.setattr(type(store.state), "commit", lambda self, job: full(job))
    assert await promises.promise_existing(store, DIGEST)
    assert await promises.promise_existing(store, DIGEST)
    assert not await promises.promise_existing(store, digest_of(b"never here"))
    assert len(told) == 1


async def test_a_blob_is_checked_once_however_many_ask(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await push(store, BLOB)
    checks: list[Path] = []
    gate = threading.Event()
    real = verified_reading.verify_file

    def check(fd: int, path: Path, *arguments: Any) -> tuple[int, bytes]:
        checks.append(path)
        assert gate.wait(HANGS_AFTER)
        return real(fd, path, *arguments)

    monkeypatch.setattr("blobflow.transports.store.blobs.verify_file", check)
    asked = [asyncio.create_task(store.blobs.check(DIGEST)) for _ in range(24)]
    await asyncio.sleep(0.01)
    asked[0].cancel()  # the first, who began it, goes away
    gate.set()
    ends = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(ends[0], asyncio.CancelledError)
    assert ends[1:] == [None] * 23
    await store.blobs.check(DIGEST)
    assert len(checks) == 1

"""The store's directory and state file: made, refused, lost, corrupt, read-only; tags and members."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from blobflow.content import Audited, Site, Upload
from blobflow.errors import IntegrityError, StorageError
from blobflow.events import Event, Warned
from blobflow.oci import digest_of
from blobflow.transports.store import Store, StoreJournal
from blobflow.transports.store.os_errors import storage_error

RAW = b'{"schemaVersion": 2}'
DIGEST = digest_of(RAW)
UPLOAD = Upload(url="https://host/u?x=1", offset=7)
OTHER = digest_of(b"other")


def test_a_new_store_is_made_in_an_absent_or_empty_place(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    Store.open(root).close()
    assert (root / "store.json").read_text() == '{"format": 1}\n'
    assert sorted(path.name for path in (root / "blobs").iterdir()) == ["sha256", "sha512"]
    (tmp_path / "mount" / "lost+found").mkdir(parents=True)
    Store.open(tmp_path / "mount").close()


def test_a_directory_with_other_things_is_not_taken_for_a_store(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StorageError, match=r"not a blobflow store.*thesis\.tex"):
        Store.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    ("text", "words"),
    [('{"format": 2}', "has format 2"), ("", "can't be understood"), ("[]", "can't be understood")],
)
def test_another_format_is_refused(tmp_path: Path, text: str, words: str, read_only: bool) -> None:
    Store.open(tmp_path).close()
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(StorageError, match=words):
        Store.open(tmp_path, read_only=read_only)


def test_an_open_that_was_killed_halfway_is_finished_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".store.json.1234").write_bytes(b"")
    (tmp_path / "blobs").mkdir()
    store = Store.open(tmp_path)
    store.blobs.write_small(RAW, DIGEST)
    assert store.blobs.read_small(DIGEST) == RAW
    store.close()


def test_a_file_in_the_way_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="can't create"):
        Store.open(tmp_path / "file" / "store")


def test_a_read_only_place_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(tmp_path).close()
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(StorageError, match="it is read-only; put the store elsewhere"):
        Store.open(tmp_path)


@pytest.mark.parametrize("damage", ["header", "page", "empty text"])
async def test_a_corrupt_state_file_is_moved_aside_and_blobs_are_found_by_name(
    tmp_path: Path, damage: str
) -> None:
    store = Store.open(tmp_path)
    store.blobs.write_small(RAW, DIGEST)
    for number in range(2000):
        store.repositories.set_tag("repository", f"tag-{number}", DIGEST)
    store.close()
    state = tmp_path / "state.sqlite"
    content = bytearray(state.read_bytes())
    if damage == "header":
        content[:100] = b"\xff" * 100
    elif damage == "page":
        content[4096:] = os.urandom(len(content) - 4096)
    else:
        content[:] = b"not a database at all, and long enough to be read as one" * 20
    state.write_bytes(content)

    told: list[Event] = []
    store = Store.open(tmp_path, observer=told.append)
    assert [type(event) for event in told] == [Warned]
    assert "state.sqlite.corrupt-1" in str(told[0])
    assert (tmp_path / "state.sqlite.corrupt-1").read_bytes() == bytes(content)
    assert store.repositories.tags("repository") == []
    assert store.blobs.size_of(DIGEST) == len(RAW)
    async with store.blobs.open(DIGEST) as chunks:
        assert b"".join([bytes(chunk) async for chunk in chunks]) == RAW
    assert store.state.rows("SELECT digest, size FROM blobs") == [(DIGEST, len(RAW))]
    store.close()

    state.write_bytes(b"again" * 1000)
    Store.open(tmp_path, observer=told.append).close()
    assert (tmp_path / "state.sqlite.corrupt-2").exists()
    assert len(told) == 2


async def test_a_blob_without_a_row_is_adopted_only_if_it_is_what_its_name_says(store: Store) -> None:
    store.blobs.path_of(DIGEST).write_bytes(RAW)
    store.blobs.path_of(OTHER).write_bytes(b"not what it says")
    await store.blobs.check(DIGEST)
    assert store.state.rows("SELECT digest FROM blobs") == [(DIGEST,)]
    with pytest.raises(IntegrityError):
        async with store.blobs.open(OTHER):
            raise AssertionError("it must not open")
    assert store.blobs.size_of(OTHER) is None


async def test_a_store_opened_read_only_reads_and_refuses_to_write(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no store"):
        Store.open(tmp_path, read_only=True)
    writing = Store.open(tmp_path)
    writing.blobs.write_small(RAW, DIGEST)
    writing.repositories.set_tag("a", "latest", DIGEST)
    writing.close()
    store = Store.open(tmp_path, read_only=True)
    assert store.blobs.read_small(DIGEST) == RAW
    assert store.repositories.resolve("a", "latest") == DIGEST
    await store.blobs.check(DIGEST)
    store.leases.release(store.leases.acquire_now(DIGEST))
    for write in (
        lambda: store.partials.begin(),
        lambda: store.blobs.write_small(RAW, DIGEST),
        lambda: store.blobs.drop(DIGEST),
        lambda: store.repositories.set_tag("a", "b", DIGEST),
    ):
        with pytest.raises(StorageError, match="opened read-only"):
            write()
    store.close()


async def test_a_read_only_store_without_its_state_file_still_reads_blobs(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    for name in ("state.sqlite", "state.sqlite-wal", "state.sqlite-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    store = Store.open(tmp_path, read_only=True)
    store.blobs.path_of(DIGEST).write_bytes(RAW)
    async with store.blobs.open(DIGEST) as chunks:
        assert [bytes(chunk) async for chunk in chunks] == [RAW]
    assert not (tmp_path / "state.sqlite").exists()
    store.close()


def test_a_transaction_that_fails_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.state.transaction():
        store.repositories.set_tag("a", "b", DIGEST)
        raise ZeroDivisionError
    assert store.repositories.tags("a") == []
    store.repositories.set_tag("a", "c", DIGEST)
    assert store.repositories.tags("a") == ["c"]


def test_sqlite_errors_become_one_sentence_with_the_path(store: Store) -> None:
    class Full:
        in_transaction = False

        def execute(self, *_: object) -> None:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

        def close(self) -> None:
            return None

    real, store.state._connection = store.state._connection, Full()  # type: ignore[assignment]
    try:
        with pytest.raises(StorageError, match=r"state\.sqlite: the disk is full"):
            store.repositories.set_tag("a", "b", DIGEST)
    finally:
        store.state._connection = real


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EXDEV, "invalid cross-device link"),
    ],
)
def test_an_os_error_is_said_with_its_path_and_what_to_do(number: int, words: str) -> None:
    error = storage_error("write", Path("somewhere"), OSError(number, os.strerror(number)))
    assert str(error).startswith("can't write somewhere: ")
    assert words in str(error)


def test_tags_are_listed_in_lexical_order_by_pages(store: Store) -> None:
    for tag in ("b", "a", "10", "9", "B"):
        store.repositories.set_tag("r", tag, DIGEST)
    assert store.repositories.tags("r") == ["10", "9", "B", "a", "b"]
    assert store.repositories.tags("r", 2) == ["10", "9"]
    assert store.repositories.tags("r", 2, "9") == ["B", "a"]
    assert store.repositories.tags("r", 0) == []
    assert store.repositories.tags("r", None, "zzz") == []
    store.repositories.remove_tag("r", "B")
    store.repositories.set_tag("r", "a", OTHER)
    assert [
        tag for tag in store.repositories.tags("r") if store.repositories.resolve("r", tag) == DIGEST
    ] == [
        "10",
        "9",
        "b",
    ]
    assert store.repositories.resolve("r", "a") == OTHER
    assert store.repositories.resolve("r", "B") is None


def test_a_repository_holds_only_what_was_put_into_it(store: Store) -> None:
    store.repositories.add("one", DIGEST, "application/x")
    store.repositories.add("one", OTHER)
    store.repositories.add("two/three", OTHER)
    assert store.repositories.media_type_of("one", DIGEST) == "application/x"
    assert store.repositories.media_type_of("one", OTHER) == ""
    assert store.repositories.media_type_of("two/three", DIGEST) is None
    assert store.repositories.contents("one", {"application/x"}) == [(DIGEST, "application/x")]
    assert len(store.repositories.contents("one")) == 2
    assert store.repositories.names() == ["one", "two/three"]
    assert store.repositories.names(1, "one") == ["two/three"]
    assert store.repositories.exists("one")
    assert not store.repositories.exists("two")


def test_repositories_are_listed_in_order_with_those_that_have_only_a_tag(store: Store) -> None:
    for name in ("b", "a/b", "a", "c"):
        store.repositories.add(name, DIGEST)
    store.repositories.set_tag("a", "1", DIGEST)
    store.repositories.set_tag("aa", "1", DIGEST)
    store.repositories.set_tag("d", "1", DIGEST)
    assert store.repositories.names() == ["a", "a/b", "aa", "b", "c", "d"]
    assert store.repositories.names(2) == ["a", "a/b"]
    assert store.repositories.names(2, "a/b") == ["aa", "b"]
    assert store.repositories.names(1, "a/c") == ["aa"]
    assert store.repositories.names(9, "c") == ["d"]
    assert store.repositories.names(0) == store.repositories.names(5, "d") == []


def test_listing_repositories_costs_the_same_whatever_they_hold(store: Store) -> None:
    def add(count: int) -> None:
        with store.state.transaction():
            for name in ("a", "b", "c"):
                for number in range(count):
                    store.state.write("INSERT INTO members VALUES ('', ?, ?, '')", name, f"{count}-{number}")

    def steps() -> int:
        counted = 0

        def count() -> int:
            nonlocal counted
            counted += 1
            return 0

        connection = store.state._connection
        assert connection is not None
        connection.set_progress_handler(count, 10)
        assert store.repositories.names(500) == ["a", "b", "c"]
        connection.set_progress_handler(None, 0)
        return counted

    add(3)
    few = steps()
    add(3000)
    assert steps() == few


def test_a_member_that_is_dropped_takes_its_tags_along(store: Store) -> None:
    store.repositories.add("one", DIGEST, "application/x")
    store.repositories.set_tag("one", "latest", DIGEST)
    store.repositories.set_tag("two", "latest", DIGEST)
    store.repositories.remove("one", DIGEST)
    assert store.repositories.resolve("one", "latest") is None
    assert store.repositories.resolve("two", "latest") == DIGEST
    assert not store.repositories.exists("one")


def test_the_journal_outlives_the_process(tmp_path: Path) -> None:
    site, elsewhere = Site("host:5000", "a/b"), Site("host:5000", "c")
    store = Store.open(tmp_path)
    journal = StoreJournal(store)
    journal.record_put(site, DIGEST, "linux/amd64")
    journal.record_note("https://host", "upload", "put")
    journal.record_note("https://host", "upload", "patch")
    journal.record_upload("https://host", "a/b", DIGEST, UPLOAD, held=False)
    store.close()

    store = Store.open(tmp_path)
    journal = StoreJournal(store)
    assert journal.put_recorded(site, DIGEST, "linux/amd64")
    assert not journal.put_recorded(site, DIGEST, "")
    assert not journal.put_recorded(elsewhere, DIGEST, "linux/amd64")
    assert journal.note("https://host", "upload") == "patch"
    assert journal.note("https://host", "sparse") is None
    assert journal.take_upload("https://host", "a/b", DIGEST) == UPLOAD
    journal.forget_upload("https://host", "a/b", DIGEST)
    assert journal.take_upload("https://host", "a/b", DIGEST) is None
    store.close()


def test_audits_have_an_order_and_what_stopped_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100]
    monkeypatch.setattr("blobflow.transports.store.journal.now", lambda: clock[0])
    site = Site("host:5000", "a/b")
    with closing(Store.open(tmp_path)) as store:
        journal = StoreJournal(store)
        assert journal.audited(site, DIGEST, "all") == Audited((0, 0))
        journal.record_put(site, DIGEST, "all")
        journal.record_put(site, OTHER, "all, referrers too")
        never = journal.audited(site, OTHER, "all")
        journal.record_audit(site, DIGEST, "all")
        assert journal.audited(site, DIGEST, "all").order > never.order
        assert journal.audited(site, DIGEST, "linux/amd64").order == never.order
        journal.record_audit(site, OTHER, "all", b"where it stopped")
    with closing(Store.open(tmp_path)) as store:
        journal = StoreJournal(store)
        stopped = journal.audited(site, OTHER, "all")
        assert stopped.stopped == b"where it stopped"
        journal.record_audit(site, OTHER, "all")
        assert journal.audited(site, OTHER, "all").order > journal.audited(site, DIGEST, "all").order
        clock[0] = 50
        assert journal.audited(site, OTHER, "all").order[0] == 50, "a clock that was ahead counts as now"


def test_a_doubt_stays_until_the_root_was_audited_and_leaves_the_put(tmp_path: Path) -> None:
    site = Site("host:5000", "a/b")
    with closing(Store.open(tmp_path)) as store:
        journal = StoreJournal(store)
        journal.record_put(site, DIGEST, "all")
        journal.doubt_put(site, DIGEST, "all")
        journal.doubt_put(site, DIGEST, "linux/amd64")
    with closing(Store.open(tmp_path)) as store:
        journal = StoreJournal(store)
        assert journal.doubted_puts() == {(site, DIGEST, "all"), (site, DIGEST, "linux/amd64")}
        journal.record_put(site, DIGEST, "all")
        journal.record_audit(site, DIGEST, "all")
        assert journal.doubted_puts() == {(site, DIGEST, "linux/amd64")}
        assert journal.put_recorded(site, DIGEST, "all")


def test_of_audits_the_last_recorded_stay_and_every_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobflow.transports.store.journal.MAX_AUDITS", 20)
    site, roots = Site("host:5000", "a/b"), [digest_of(str(number).encode()) for number in range(100)]
    with closing(Store.open(tmp_path)) as store:
        journal = StoreJournal(store)
        journal.doubt_put(site, OTHER, "all")
        for root in roots:
            journal.record_audit(site, root, "all")
        assert store.state.row("SELECT count(*) FROM audits WHERE doubted = 0") == (20,)
        assert journal.doubted_puts() == {(site, OTHER, "all")}
        orders = [journal.audited(site, root, "all").order for root in roots]
        assert orders[:80] == [(0, 0)] * 80, "as one that was never audited, which gets its turn first"
        assert orders[80:] == sorted(orders[80:])
        assert orders[80] > (0, 0)


def test_a_state_file_without_audits_gets_them_while_others_use_it(tmp_path: Path) -> None:
    """Of a schema that says the same number: one that was written before there were any."""
    site = Site("host:5000", "a/b")
    with closing(Store.open(tmp_path)) as store:
        StoreJournal(store).record_put(site, DIGEST, "all")
        version = store.state.row("PRAGMA user_version")
    with closing(sqlite3.connect(tmp_path / "state.sqlite")) as connection:
        connection.execute("DROP TABLE audits")
    with closing(sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)) as before:
        assert before.execute("SELECT count(*) FROM puts").fetchone() == (1,)
        with closing(Store.open(tmp_path)) as store:
            journal = StoreJournal(store)
            journal.doubt_put(site, DIGEST, "all")
            assert journal.audited(site, DIGEST, "all").order[1] == 1
            assert store.state.row("PRAGMA user_version") == version
            before.execute("DELETE FROM notes")
            assert before.execute("SELECT chosen FROM puts").fetchone() == ("all",)


def test_an_upload_session_is_one_process_s_until_that_is_gone_or_leaves_it(tmp_path: Path) -> None:
    where = "host", "a/b", DIGEST
    with closing(Store.open(tmp_path)) as store:
        journal = StoreJournal(store)
        assert journal.record_upload(*where, UPLOAD, held=True)
        assert journal.take_upload(*where) is None, "it is being sent to by this very process"
        assert StoreJournal(store).take_upload(*where) == UPLOAD, "an earlier process had our number"

        store.state.write("UPDATE sessions SET pid = 1")
        assert StoreJournal(store).take_upload(*where) is None, "process 1 lives"
        store.state.write("UPDATE sessions SET pid = ?", 2**22 + 1)
        assert StoreJournal(store).take_upload(*where) == UPLOAD, "there is no such process"

        elsewhere = store.leases.boot.partition("/")[0] + "/pid:[1]"
        store.state.write("UPDATE sessions SET pid = 1, boot = ?", elsewhere)
        assert StoreJournal(store).take_upload(*where) is None, "it got a chunk through just now"
        store.state.write("UPDATE sessions SET updated = updated - 1000")
        assert StoreJournal(store).take_upload(*where) == UPLOAD

        assert StoreJournal(store).record_upload(*where, UPLOAD, held=False)
        assert StoreJournal(store).take_upload(*where) == UPLOAD


def test_abandoned_uploads_are_those_of_killed_processes(tmp_path: Path) -> None:
    where = "host", "a/b", DIGEST
    with closing(Store.open(tmp_path)) as store:
        journal = StoreJournal(store)
        assert journal.record_upload(*where, UPLOAD, held=True)
        store.state.write("UPDATE sessions SET pid = 1")
        assert not StoreJournal(store).abandoned_uploads("host"), "process 1 lives"
        store.state.write("UPDATE sessions SET pid = ?", 2**22 + 1)
        assert not journal.abandoned_uploads("host"), "this process sends to it"
        assert StoreJournal(store).abandoned_uploads("host") == [("a/b", DIGEST)]
        assert not StoreJournal(store).abandoned_uploads("elsewhere")
        assert journal.record_upload(*where, UPLOAD, held=False)
        assert not StoreJournal(store).abandoned_uploads("host"), "left on purpose"


def test_a_journal_that_can_not_write_warns_once_and_fails_nothing(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    told: list[Event] = []
    store = Store.open(tmp_path, read_only=True, observer=told.append)
    journal = StoreJournal(store)
    journal.record_note("https://host", "upload", "put")
    journal.record_put(Site("host", "a"), DIGEST, "")
    assert journal.note("https://host", "upload") is None
    assert len(told) == 1
    assert "less is kept and remembered" in str(told[0])
    store.close()


OLDER_TABLES = """
CREATE TABLE IF NOT EXISTS partials(
    token TEXT PRIMARY KEY, digest TEXT NOT NULL, size INTEGER NOT NULL, pid INTEGER NOT NULL,
    boot TEXT NOT NULL, source TEXT NOT NULL, etag TEXT NOT NULL, updated INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS locations(
    registry TEXT, repository TEXT, digest TEXT, seen INTEGER NOT NULL,
    PRIMARY KEY (registry, repository, digest)) WITHOUT ROWID;
"""


@pytest.mark.parametrize("read_only", [False, True])
def test_a_state_file_with_the_tables_of_earlier_builds_is_used_as_it_is(
    tmp_path: Path, *, read_only: bool
) -> None:
    with closing(Store.open(tmp_path)) as store:
        store.blobs.write_small(RAW, DIGEST)
        store.repositories.set_tag("a", "latest", DIGEST)
    with closing(sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)) as earlier:
        earlier.executescript(OLDER_TABLES)  # as they do when they open a file of ours
        earlier.execute("INSERT INTO locations VALUES ('host', 'a', ?, 1)", (DIGEST,))
    with closing(Store.open(tmp_path, read_only=read_only)) as store:
        assert store.repositories.resolve("a", "latest") == DIGEST
        assert store.blobs.read_small(DIGEST) == RAW
    with closing(sqlite3.connect(tmp_path / "state.sqlite")) as earlier:
        assert earlier.execute("PRAGMA user_version").fetchone() == (2,)
        assert earlier.execute("SELECT registry, seen FROM locations").fetchall() == [("host", 1)]

"""What the journal remembers of where blobs are, and the bounds of that."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from blobflow.oci import Digest, digest_of
from blobflow.transports.store import Store, StoreJournal, mount_origins

HOST = "registry.example:5000"
BLOB, OTHER = digest_of(b"blob"), digest_of(b"other")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    time = [2_000_000_000]
    monkeypatch.setattr("blobflow.transports.store.mount_origins.now", lambda: time[0])
    return time


def rows(store: Store) -> int:
    return int(store.state.rows("SELECT COUNT(*) FROM mount_origins")[0][0])


def test_origins_outlive_the_process_the_last_recorded_first(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        journal = StoreJournal(store)
        journal.record_mount_origins(HOST, "joe", [("one", BLOB), ("one", OTHER)])
        journal.record_mount_origins(HOST, "joe", [("two", BLOB)])
    with closing(Store.open(tmp_path)) as store:
        journal = StoreJournal(store)
        unknown = digest_of(b"unknown")
        found = journal.mount_origins(HOST, "joe", [BLOB, OTHER, unknown])
        assert found == {BLOB: ("two", "one"), OTHER: ("one",)}
        journal.forget_mount_origins(HOST, "joe", [("two", BLOB), ("one", OTHER), ("never", BLOB)])
        assert journal.mount_origins(HOST, "joe", [BLOB, OTHER]) == {BLOB: ("one",)}


def test_neither_another_registry_nor_another_login_is_told(store: Store) -> None:
    journal = StoreJournal(store)
    journal.record_mount_origins(HOST, "joe", [("secret/project", BLOB)])
    assert journal.mount_origins("registry.example", "joe", [BLOB]) == {}
    assert journal.mount_origins(HOST, "ann", [BLOB]) == {}
    assert journal.mount_origins(HOST, "", [BLOB]) == {}
    journal.forget_mount_origins(HOST, "ann", [("secret/project", BLOB)])
    assert journal.mount_origins(HOST, "joe", [BLOB]) == {BLOB: ("secret/project",)}


def test_a_few_repositories_a_blob_are_enough(store: Store, clock: list[int]) -> None:
    for number in range(20):
        mount_origins.record(store.state, HOST, "", [(f"repository-{number}", BLOB)])
    assert rows(store) == mount_origins.PER_BLOB
    clock[0] += mount_origins.FRESH_SECONDS + 1
    mount_origins.record(store.state, HOST, "", [("the-newest", BLOB)])
    [found] = mount_origins.find(store.state, HOST, "", [BLOB]).values()
    assert found[0] == "the-newest", "after a while others get their turn"
    assert len(found) == rows(store) == mount_origins.PER_BLOB


def test_what_was_recorded_lately_is_not_written_again(store: Store, clock: list[int]) -> None:
    mount_origins.record(store.state, HOST, "", [("one", BLOB), ("one", BLOB)])
    revision = store.state.revision()
    clock[0] += mount_origins.FRESH_SECONDS - 1
    mount_origins.record(store.state, HOST, "", [("one", BLOB)])
    assert store.state.revision() == revision
    clock[0] += 2
    mount_origins.record(store.state, HOST, "", [("one", BLOB)])
    assert store.state.revision() != revision
    assert rows(store) == 1


def test_rows_are_bounded_and_the_last_recorded_stay(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount_origins, "MAX_ROWS", 50)
    blobs = [digest_of(str(number).encode()) for number in range(200)]
    for start in range(0, 200, 20):
        mount_origins.record(store.state, HOST, "", [("one", blob) for blob in blobs[start : start + 20]])
    assert rows(store) == 50
    assert set(mount_origins.find(store.state, HOST, "", blobs)) == set(blobs[150:])


def test_what_is_old_is_neither_offered_nor_kept(store: Store, clock: list[int]) -> None:
    mount_origins.record(store.state, HOST, "", [("one", BLOB)])
    clock[0] += mount_origins.MAX_AGE_SECONDS
    assert mount_origins.find(store.state, HOST, "", [BLOB]) == {}
    mount_origins.record(store.state, HOST, "", [("one", OTHER)])
    assert rows(store) == 1


def test_more_digests_than_one_statement_takes_are_found(store: Store) -> None:
    blobs = [digest_of(str(number).encode()) for number in range(1500)]
    mount_origins.record(store.state, HOST, "", [("one", blob) for blob in blobs])
    found = mount_origins.find(store.state, HOST, "", blobs)
    assert found == dict.fromkeys(blobs, ("one",))


def test_a_state_file_from_before_gets_the_table_when_it_is_opened(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path)) as store:
        StoreJournal(store).record_note("https://host", "upload", "put")
        path = store.paths.state
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE mount_origins")
        connection.commit()
    with closing(Store.open(tmp_path)) as store:
        journal = StoreJournal(store)
        assert journal.note("https://host", "upload") == "put"
        journal.record_mount_origins(HOST, "", [("one", BLOB)])
        assert journal.mount_origins(HOST, "", [BLOB]) == {BLOB: ("one",)}


def test_a_store_that_fails_is_as_good_as_one_that_remembers_nothing(tmp_path: Path) -> None:
    told: list[object] = []
    with closing(Store.open(tmp_path, observer=told.append)) as store:
        journal = StoreJournal(store)
        store.state.write("DROP TABLE mount_origins")
        journal.record_mount_origins(HOST, "", [("one", Digest(BLOB))])
        journal.forget_mount_origins(HOST, "", [("one", BLOB)])
        assert journal.mount_origins(HOST, "", [BLOB]) == {}
    assert len(told) == 1, "said once"

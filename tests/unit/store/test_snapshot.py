"""A store that is only read: nothing is written, nothing is passed over, and what comes later is seen."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from blobflow.errors import StorageError
from blobflow.events import Event, Warned
from blobflow.oci import digest_of
from blobflow.transports.store import Store
from blobflow.transports.store.state import snapshot

RAW = b'{"schemaVersion": 2}'
DIGEST = digest_of(RAW)


@pytest.fixture
def writing(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(tmp_path / "store")) as store:
        store.blobs.write_small(RAW, DIGEST)
        store.repositories.set_tag("a", "1", DIGEST)
        yield store


def killed(store: Store, place: Path, *, index: bool = True) -> Path:
    """A copy of the store as a process leaves it that is killed now: nothing of the WAL is merged."""
    shutil.copytree(store.root, place)
    assert (place / "state.sqlite-wal").stat().st_size
    if not index:
        (place / "state.sqlite-shm").unlink()
    return place


def closed(store: Store, place: Path) -> Path:
    killed(store, place)
    Store.open(place).close()
    assert not (place / "state.sqlite-wal").exists()
    return place


MADE: dict[str, Callable[[Store, Path], Path]] = {
    "closed": closed,
    "killed": killed,
    "killed, without the WAL's index": lambda store, place: killed(store, place, index=False),
    "in use": lambda store, place: store.root,
}


def everything(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that is there, with size, time of the last change, and content (but of sqlite's: to close a file
    drops its locks)."""
    return {
        str(path.relative_to(root)): (
            path.stat().st_size,
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() and "sqlite" not in path.name else b"",
        )
        for path in (root, *root.rglob("*"))
    }


@pytest.mark.parametrize("made", MADE)
async def test_reading_finds_all_and_changes_nothing(writing: Store, tmp_path: Path, made: str) -> None:
    root = MADE[made](writing, tmp_path / "copy")
    before = everything(root)
    with closing(Store.open(root, read_only=True)) as store:
        assert store.repositories.tags("a") == ["1"]
        assert store.blobs.read_small(DIGEST) == RAW
        await store.blobs.check(DIGEST)
        store.blobs.mark_used(DIGEST)
        store.blobs.write_uses()
        store.leases.release(store.leases.acquire_now(DIGEST))
        for _ in range(300):
            store.blobs.mark_used(digest_of(str(_).encode()))
        assert everything(root) == before
    assert everything(root) == before


WRITER = """
import pathlib, sys
from contextlib import closing
from blobflow.oci import digest_of
from blobflow.transports.store import Store

for line in sys.stdin:
    with closing(Store.open(pathlib.Path(sys.argv[1]))) as store:
        for tag in line.split():
            store.repositories.set_tag("a", tag, digest_of(b"x"))
            print(tag, flush=True)
            sys.stdin.readline()
    print("closed", flush=True)
"""


@pytest.mark.parametrize("made", MADE)
def test_what_another_process_writes_is_seen_at_once(writing: Store, tmp_path: Path, made: str) -> None:
    root = MADE[made](writing, tmp_path / "copy")
    command = [sys.executable, "-c", WRITER, str(root)]
    with (
        closing(Store.open(root, read_only=True)) as store,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        expected = ["1"]
        assert store.repositories.tags("a") == expected
        for tags in (["2", "3"], ["4"]):
            process.stdin.write(" ".join(tags) + "\n")
            for tag in tags:
                process.stdin.flush()
                assert process.stdout.readline() == f"{tag}\n"
                expected.append(tag)
                assert store.repositories.tags("a") == expected
                process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "closed\n"
            assert store.repositories.tags("a") == expected
        process.stdin.close()
    assert process.returncode == 0


def test_a_state_file_that_comes_later_is_seen_and_one_that_goes_is_an_error(
    writing: Store, tmp_path: Path
) -> None:
    root = closed(writing, tmp_path / "copy")
    aside = tmp_path / "aside"
    (root / "state.sqlite").rename(aside)
    with closing(Store.open(root, read_only=True)) as store:
        assert store.repositories.names() == []
        aside.rename(root / "state.sqlite")
        assert store.repositories.names() == ["a"]
        (root / "state.sqlite").rename(aside)
        with pytest.raises(StorageError, match=r"state\.sqlite: it is gone while it is in use"):
            store.repositories.names()
        aside.rename(root / "state.sqlite")
        assert store.repositories.names() == ["a"]


def test_a_copy_that_has_to_be_read_is_told_once_and_left_nowhere(
    writing: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = killed(writing, tmp_path / "copy", index=False)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    told: list[Event] = []
    with closing(Store.open(root, read_only=True, observer=told.append)) as store:
        assert store.repositories.tags("a") == ["1"]
        (root / "state.sqlite-wal").touch()
        assert store.repositories.tags("a") == ["1"]
    [event] = told
    assert isinstance(event, Warned)
    assert "holds changes that were never merged into it" in event.message
    assert list((tmp_path / "temporary").iterdir()) == []


def test_what_is_too_large_to_copy_is_refused_and_not_passed_over(
    writing: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = killed(writing, tmp_path / "copy", index=False)
    monkeypatch.setattr(snapshot, "COPY_BYTES", 1000)
    with pytest.raises(StorageError, match="open the store once where it can be written"):
        Store.open(root, read_only=True)


def test_a_transaction_that_was_cut_off_halfway_is_undone_in_the_copy_alone(
    writing: Store, tmp_path: Path
) -> None:
    """A hot rollback journal, as one leaves who is killed before the state file has its WAL."""
    root = closed(writing, tmp_path / "copy")
    with closing(sqlite3.connect(root / "state.sqlite", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("PRAGMA cache_size=1")
        connection.execute("PRAGMA cache_spill=1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM roots")
        for number in range(500):
            connection.execute("INSERT INTO notes VALUES ('host', ?, ?, 1)", (str(number), "x" * 500))
        shutil.copytree(root, tmp_path / "hot")
        connection.execute("ROLLBACK")
    before = everything(tmp_path / "hot")
    assert before["state.sqlite-journal"][0]
    with closing(Store.open(tmp_path / "hot", read_only=True)) as store:
        assert store.repositories.tags("a") == ["1"]
        assert store.state.rows("SELECT count(*) FROM notes") == [(0,)]
    assert everything(tmp_path / "hot") == before


def test_a_store_without_a_state_file_or_with_an_empty_one_looks_empty(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    for content in (None, b""):
        (tmp_path / "state.sqlite").unlink(missing_ok=True)
        if content is not None:
            (tmp_path / "state.sqlite").write_bytes(content)
        before = everything(tmp_path)
        with closing(Store.open(tmp_path, read_only=True)) as store:
            assert store.repositories.names() == []
        assert everything(tmp_path) == before


@pytest.mark.parametrize("content", [b"\xff" * 8192, b"SQLite format 3\0" + b"\xff" * 8192])
def test_a_corrupt_state_file_is_one_sentence_and_stays(tmp_path: Path, content: bytes) -> None:
    Store.open(tmp_path).close()
    (tmp_path / "state.sqlite").write_bytes(content)
    with pytest.raises(StorageError, match=r"state\.sqlite: it is corrupt"):
        Store.open(tmp_path, read_only=True)
    assert (tmp_path / "state.sqlite").read_bytes() == content

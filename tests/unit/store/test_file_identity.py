"""A state file that goes while it is in use: nothing is noted that nobody would find again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from blobflow.errors import StorageError
from blobflow.oci import digest_of
from blobflow.transports.store import Store

DIGEST = digest_of(b"x")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(tmp_path / "store")) as opened:
        opened.repositories.set_tag("a", "1", DIGEST)
        yield opened


def replace_by_a_copy(root: Path) -> None:
    shutil.copy(root / "state.sqlite", root / "copy")
    (root / "copy").replace(root / "state.sqlite")


def rename_root(root: Path) -> None:
    root.rename(root.with_name("elsewhere"))


def replace_root(root: Path) -> None:
    rename_root(root)
    shutil.copytree(root.with_name("elsewhere"), root)


def remove_all(root: Path) -> None:
    for path in root.glob("state.sqlite*"):
        path.unlink()


def remove_root(root: Path) -> None:
    shutil.rmtree(root)


GOES: dict[str, Callable[[Path], None]] = {
    "removed": lambda root: (root / "state.sqlite").unlink(),
    "its WAL removed": lambda root: (root / "state.sqlite-wal").unlink(),
    "its WAL's index removed": lambda root: (root / "state.sqlite-shm").unlink(),
    "all of it removed": remove_all,
    "replaced by a copy": replace_by_a_copy,
    "the root renamed": rename_root,
    "the root replaced": replace_root,
    "the root removed": remove_root,
}


@pytest.mark.parametrize("goes", GOES)
def test_nothing_is_written_to_a_state_file_that_is_gone_and_reads_go_on(store: Store, goes: str) -> None:
    GOES[goes](store.root)
    gone = r"state\.sqlite: it is gone, or was replaced, while it was in use"
    with pytest.raises(StorageError, match=gone):
        store.repositories.set_tag("a", "2", DIGEST)
    with pytest.raises(StorageError, match=gone):
        store.repositories.remove("a", DIGEST)
    assert store.repositories.tags("a") == ["1"]


async def test_what_is_committed_while_the_file_goes_is_not_acknowledged(store: Store) -> None:
    def work() -> None:
        store.repositories.set_tag("a", "2", DIGEST)
        (store.root / "state.sqlite").unlink()

    with pytest.raises(StorageError, match="it is gone"):
        await store.commit(work)


def test_a_state_file_that_comes_back_is_written_again(store: Store, tmp_path: Path) -> None:
    rename_root(store.root)
    with pytest.raises(StorageError, match="it is gone"):
        store.repositories.set_tag("a", "2", DIGEST)
    (tmp_path / "elsewhere").rename(store.root)
    store.repositories.set_tag("a", "2", DIGEST)
    assert store.repositories.tags("a") == ["1", "2"]


def test_other_processes_that_come_and_go_are_no_reason_to_stop(store: Store) -> None:
    for number in range(3):
        with closing(Store.open(store.root)) as other:
            other.repositories.set_tag("a", f"other-{number}", DIGEST)
        store.repositories.set_tag("a", f"own-{number}", DIGEST)
    store.state.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    store.repositories.set_tag("a", "last", DIGEST)
    assert len(store.repositories.tags("a")) == 8


def test_the_root_is_missed_when_it_is_moved_or_replaced(store: Store, tmp_path: Path) -> None:
    store.check_there()
    replace_root(store.root)
    with pytest.raises(StorageError, match="is gone, or was replaced, while it was in use"):
        store.check_there()


def test_a_store_that_is_closed_refuses_in_a_sentence(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    store.close()
    with pytest.raises(StorageError, match=r"can't use the store's state file .*state\.sqlite"):
        store.repositories.set_tag("a", "2", DIGEST)

"""Who may get at a store: modes, owners, the option to share it; and its lock, which ends."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from blobflow.errors import StorageError
from blobflow.events import Event, Warned
from blobflow.oci import digest_of
from blobflow.transports.store import Store, lock

RAW = b'{"schemaVersion": 2}'
DIGEST = digest_of(RAW)
NOBODY = 65534


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def use(root: Path) -> None:
    """Leave a blob, a partial and a tag."""
    with closing(Store.open(root)) as store:
        leave(store)


def leave(store: Store) -> None:
    store.blobs.write_small(RAW, DIGEST)
    store.partials.begin().suspend()
    store.repositories.set_tag("a", "1", DIGEST)


def modes(root: Path) -> dict[str, int]:
    """The mode of all that is there, the root's under "."."""
    return {
        str(path.relative_to(root)): stat.S_IMODE(path.stat().st_mode) for path in (root, *root.rglob("*"))
    }


def assert_modes(root: Path, *, folder: int, file: int) -> None:
    found = modes(root)
    assert {f"blobs/{DIGEST.replace(':', '/')}", "state.sqlite", "store.json", ".lock"} < set(found)
    for name, mode in found.items():
        assert mode == (folder if (root / name).is_dir() else file), name


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_all_of_a_store_is_its_owners_alone_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    with umask(mask), closing(Store.open(tmp_path / "store")) as store:
        leave(store)
        assert {"state.sqlite-wal", "state.sqlite-shm"} < set(modes(store.root))
        assert_modes(store.root, folder=0o700, file=0o600)
    assert_modes(tmp_path / "store", folder=0o700, file=0o600)


def test_an_empty_folder_that_becomes_a_store_is_closed_also_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "real" / "lost+found").mkdir(parents=True, mode=0o755)
    (tmp_path / "link").symlink_to("real")
    with umask(0o022):
        use(tmp_path / "link")
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "real" / "lost+found").stat().st_mode) == 0o755
    assert (tmp_path / "link").is_symlink()


def test_a_folder_that_is_no_store_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StorageError, match="not a blobflow store"):
        Store.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_folder_for_everybody_stays_one_and_what_is_in_it_is_closed(tmp_path: Path) -> None:
    root = tmp_path / "everybody's"
    root.mkdir()
    root.chmod(0o1777)
    with umask(0o022):
        use(root)
    found = modes(root)
    assert found.pop(".") == 0o1777
    assert set(found.values()) == {0o700, 0o600}


def widen(root: Path) -> None:
    """As earlier versions made it."""
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_an_earlier_versions_store_is_closed_at_the_next_opening_and_that_is_told_once(
    tmp_path: Path,
) -> None:
    root = tmp_path / "store"
    use(root)
    widen(root)
    told: list[Event] = []
    Store.open(root, read_only=True, observer=told.append).close()
    assert (modes(root)["."], told) == (0o755, [])
    for _ in range(2):
        Store.open(root, observer=told.append).close()
    assert [str(event.message) for event in told if isinstance(event, Warned)] == [
        f"the store {root} could be read by everybody, and is its owner's alone now"
    ]
    found = modes(root)
    assert {found[name] for name in (".", "blobs", "blobs/sha256", "blobs/sha512", "partials")} == {0o700}
    assert {found[name] for name in ("state.sqlite", "store.json", ".lock")} == {0o600}


def test_a_corrupt_state_file_that_moves_aside_is_closed(tmp_path: Path) -> None:
    root = tmp_path / "store"
    use(root)
    (root / "state.sqlite").write_bytes(b"not a database, and long enough to be read as one" * 30)
    widen(root)
    Store.open(root).close()
    found = modes(root)
    assert (found["state.sqlite.corrupt-1"], found["state.sqlite"]) == (0o600, 0o600)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to somebody else")
def test_what_root_makes_in_somebody_elses_store_is_theirs_and_their_folder_stays_as_it_is(
    tmp_path: Path,
) -> None:
    root = tmp_path / "store"
    root.mkdir()
    root.chmod(0o750)
    os.chown(root, NOBODY, NOBODY)
    with closing(Store.open(root)) as store:
        leave(store)
        about = {path.name: path.stat() for path in root.rglob("*")}
        assert {"state.sqlite", "state.sqlite-wal", "state.sqlite-shm", ".lock", "store.json"} < set(about)
        assert {(each.st_uid, each.st_gid) for each in about.values()} == {(NOBODY, NOBODY)}
    found = modes(root)
    assert found.pop(".") == 0o750
    assert set(found.values()) == {0o700, 0o600}


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_shared_store_is_its_groups_also_in_what_comes_later(tmp_path: Path, mask: int) -> None:
    root = tmp_path / "store"
    with umask(mask):
        use(root)
        assert Store.share(root, shared=True) == 0
        assert_modes(root, folder=0o2770, file=0o660)
        with closing(Store.open(root)) as store:
            later = digest_of(b"later")
            store.blobs.write_small(b"later", later)
            store.partials.begin().suspend()
            assert_modes(root, folder=0o2770, file=0o660)
    assert (root / "store.json").read_text() == '{"format": 1, "shared": true}\n'
    for path in root.rglob("*"):
        path.chmod(0o2755 if path.is_dir() else 0o644)
    Store.open(root).close()
    found = modes(root)
    assert (found["blobs"], found["state.sqlite"]) == (0o2770, 0o660)
    assert Store.share(root, shared=False) == 0
    assert_modes(root, folder=0o700, file=0o600)
    use(root)
    assert_modes(root, folder=0o700, file=0o600)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can choose any group")
def test_a_store_that_is_shared_gets_its_group_and_gives_it_to_what_is_made_in_it(tmp_path: Path) -> None:
    root = tmp_path / "store"
    use(root)
    Store.share(root, shared=True, group=NOBODY)
    with closing(Store.open(root)) as store:
        store.blobs.write_small(b"later", digest_of(b"later"))
        assert {path.stat().st_gid for path in (root, *root.rglob("*"))} == {NOBODY}


# The lock


@contextmanager
def lock_held(path: Path, shown: str) -> Iterator[int]:
    """By somebody: flock(2) is of the open file, whichever process has it."""
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.truncate(path, 0)
        os.pwrite(fd, shown.encode(), 0)
        yield fd
    finally:
        os.close(fd)


class Clock:
    """A clock that goes on when somebody sleeps, half a minute each time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept = 0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += lock.LOCK_SECONDS / 2
        self.slept += 1
        self.at_sleep()

    def at_sleep(self) -> None:
        assert self.slept < 100, "it waits for ever"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(lock, "time", made)
    return made


@pytest.mark.parametrize(("shown", "who"), [("4242", "process 4242"), ("", "another process")])
def test_a_lock_that_somebody_keeps_is_waited_for_so_long_and_no_longer(
    tmp_path: Path, clock: Clock, shown: str, who: str
) -> None:
    root = tmp_path / "store"
    use(root)
    with (
        lock_held(root / ".lock", shown),
        pytest.raises(StorageError, match=f"{who} has had the store {root} locked for 15 seconds"),
    ):
        Store.open(root)
    assert clock.slept == 3
    Store.open(root).close()


def test_a_lock_that_goes_from_hand_to_hand_is_waited_for(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store"
    use(root)
    with lock_held(root / ".lock", "1") as fd:

        def next_one() -> None:
            os.pwrite(fd, str(clock.slept + 1).encode(), 0)
            if clock.slept == 9:
                fcntl.flock(fd, fcntl.LOCK_UN)

        monkeypatch.setattr(clock, "at_sleep", next_one)
        Store.open(root).close()
    assert clock.slept == 9
    assert (root / ".lock").read_bytes() == b""


def test_a_lock_on_the_stores_folder_keeps_nobody_out(tmp_path: Path) -> None:
    root = tmp_path / "store"
    use(root)
    fd = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        Store.open(root).close()
    finally:
        os.close(fd)

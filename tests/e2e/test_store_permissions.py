"""A store among others: users who should not get at it, disks that can't be written, files that go.

Whole processes, real mounts and real users, so most of it is for root.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blobflow.cli.commands.demo import fill_registry
from blobflow.oci import digest_of
from blobflow.oci.sample_images import sample_set
from blobflow.transports.store import Store
from tests.e2e.conftest import MountsTmpfs
from tests.scenarios.registries import blobs_of
from tests.scenarios.serve import served, status
from tools.processes import Run, blobflow

SAMPLE = sample_set(5, images=2, architectures=("amd64",), layer_size=100_000)
NAMES = [name.rpartition(":")[::2] for name in SAMPLE.images]
CONFIGS = sorted(SAMPLE.blobs, key=lambda digest: len(SAMPLE.blobs[digest]))
OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def cli(tmp_path: Path) -> Callable[..., Run]:
    home = tmp_path / "home"
    home.mkdir()
    return lambda *arguments: blobflow(*arguments, home=home)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The root of a closed store that holds the sample."""
    root = tmp_path / "store"
    make_store(root)
    return root


def make_store(root: Path) -> None:
    with contextlib.closing(Store.open(root)) as store:
        fill_registry(store, SAMPLE)


def push(url: str, content: bytes) -> int:
    where = f"{url}/v2/pushed/blobs/uploads/?digest={digest_of(content)}"
    return status(where, "POST", OCTETS, content)


def put_tag(url: str, tag: str) -> int:
    """Put an index that names nothing."""
    kind = "application/vnd.oci.image.index.v1+json"
    index = b'{"schemaVersion": 2, "mediaType": "%s", "manifests": []}' % kind.encode()
    return status(f"{url}/v2/pushed/manifests/{tag}", "PUT", {"Content-Type": kind}, index)


def pull_all(url: str) -> set[int]:
    """How all reads of the sample are answered."""
    paths = {"/", "/metrics", "/healthz", "/v2/", "/v2/_catalog"}
    for repository, tag in NAMES:
        digest = SAMPLE.images[f"{repository}:{tag}"].digest
        found = {f"blobs/{blob}" for blob in blobs_of(SAMPLE, f"{repository}:{tag}")}
        found |= {"tags/list", f"manifests/{tag}", f"manifests/{digest}", f"referrers/{digest}"}
        paths |= {f"/v2/{repository}/{path}" for path in found}
    return {status(url + path) for path in paths}


def refused(url: str) -> set[int]:
    """How what would write is answered."""
    repository, tag = NAMES[0]
    return {
        push(url, b"new"),
        put_tag(url, "new"),
        status(f"{url}/v2/{repository}/manifests/{tag}", "DELETE"),
        status(f"{url}/v2/{repository}/blobs/uploads/", "POST"),
    }


def seen(root: Path) -> dict[Path, tuple[int, int, int, int]]:
    """Of all that is there: inode, size, mode and the time of the last change."""
    found = {}
    for path in (root, *root.rglob("*")):
        about = path.stat()
        found[path] = (about.st_ino, about.st_size, about.st_mode, about.st_mtime_ns)
    return found


# Other users of the machine

ATTACK = r"""
import fcntl, os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
got = []
root = sys.argv[1]
for folder, names, files in os.walk(root):
    got += [os.path.join(folder, name) for name in (*names, *files)]
for name in ("", "state.sqlite", "state.sqlite-wal", "state.sqlite-shm", ".lock", "store.json", sys.argv[2]):
    try:
        fd = os.open(os.path.join(root, name), os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        got.append(name)
    except PermissionError:
        pass
print(got)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user, as root may")
@pytest.mark.parametrize("earlier", [False, True])
def test_another_user_can_open_nothing_of_a_store_and_so_lock_nothing(earlier: bool) -> None:
    """`earlier`: it was made by a version that closed nothing."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(folder, "store")
        make_store(root)
        if earlier:
            for path in (root, *root.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
        blob = f"blobs/{CONFIGS[0].replace(':', '/')}"
        with served(root) as url:
            assert push(url, b"one more") == 201
            done = subprocess.run(
                [sys.executable, "-c", ATTACK, str(root), blob], capture_output=True, text=True, check=True
            )
        assert done.stdout == "[]\n"


STRANGER = r"""
import os, sys
from pathlib import Path
from blobflow.errors import StorageError
from blobflow.transports.store import Store, inventory
store = Store.open(Path(sys.argv[1]), read_only=True)  # imports what is imported late
inventory.list_blobs(store)
store.close()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for read_only in (False, True):
    try:
        print(len(inventory.list_blobs(Store.open(Path(sys.argv[1]), read_only=read_only))))
    except StorageError as error:
        print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user, as root may")
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_somebody_elses_store_is_refused_in_a_sentence_and_read_where_that_is_allowed(mode: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(folder, "store")
        make_store(root)
        for path in (root, *root.rglob("*")):
            path.chmod(mode if path.is_dir() else mode & 0o666)
        done = subprocess.run(
            [sys.executable, "-c", STRANGER, str(root)], capture_output=True, text=True, check=True
        )
    writing, reading = done.stdout.splitlines()
    assert writing == (
        f"can't write to the store {root}: it is another user's; its owner can share it (blobflow cache "
        "share on), or put the store elsewhere"
    )
    if mode == 0o755:
        assert int(reading) == len(SAMPLE.blobs) + len(SAMPLE.manifests)
    else:
        assert reading.startswith(f"can't read {root}/store.json: permission denied; ")


# Disks that can't be written


@contextlib.contextmanager
def bound_read_only(folder: Path, place: Path) -> Iterator[Path]:
    """`folder` once more at `place`, where it can't be written."""
    place.mkdir()
    done = subprocess.run(["mount", "--bind", folder, place], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs to mount a folder, as root may: {done.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def killed_writer(root: Path) -> None:
    """Leave a tag in the WAL alone, as a process does that is killed."""
    with contextlib.closing(Store.open(root)) as store:
        store.repositories.set_tag(
            NAMES[0][0], "late", store.repositories.resolve(*NAMES[0]) or digest_of(b"")
        )
        shutil.copytree(root, root.with_name("killed"))
    shutil.rmtree(root)
    root.with_name("killed").rename(root)


def without_index(root: Path) -> None:
    killed_writer(root)
    (root / "state.sqlite-shm").unlink()


@pytest.mark.parametrize(
    ("left", "tags"),
    [(lambda root: None, False), (killed_writer, True), (without_index, True)],
    ids=["closed", "killed", "killed, and copied without the WAL's index"],
)
def test_a_store_on_a_read_only_disk_is_served_whole_and_nothing_of_it_changes(
    left: Callable[[Path], None], tags: bool, mount_tmpfs: MountsTmpfs
) -> None:
    disk = mount_tmpfs("disk", "size=16m")
    root = disk / "store"
    make_store(root)
    left(root)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    before = seen(disk)
    with bound_read_only(root, disk.with_name("mounted")) as mounted, served(mounted, "--read-only") as url:
        assert pull_all(url) == {200}
        assert refused(url) == {405}
        assert status(f"{url}/v2/{NAMES[0][0]}/manifests/late", "HEAD") == (200 if tags else 404)
    assert seen(disk) == before


def test_a_read_only_registry_writes_nothing_where_it_could(store: Path) -> None:
    before = seen(store)
    with served(store, "--read-only") as url:
        for _ in range(8):  # beyond what uses are gathered for
            assert pull_all(url) == {200}
        assert refused(url) == {405}
        assert seen(store) == before
    assert seen(store) == before


def test_a_read_only_registry_shows_what_another_one_takes_in(store: Path, tmp_path: Path) -> None:
    with bound_read_only(store, tmp_path / "mounted") as mounted, served(mounted, "--read-only") as reads:
        assert status(f"{reads}/v2/pushed/manifests/1") == 404
        for tag in ("1", "2"):
            with served(store) as writes:
                assert put_tag(writes, tag) == 201
                assert status(f"{reads}/v2/pushed/manifests/{tag}") == 200
            assert status(f"{reads}/v2/pushed/manifests/{tag}") == 200
        assert pull_all(reads) == {200}


def test_a_read_only_registry_over_no_store_says_so_and_makes_none(
    tmp_path: Path, cli: Callable[..., Run]
) -> None:
    done = cli("serve", "--read-only", "--listen", "127.0.0.1:0", "--root", tmp_path / "none")
    assert (done.code, done.err) == (8, f"blobflow: there is no store at {tmp_path}/none\n")
    assert not (tmp_path / "none").exists()


def test_a_store_on_a_read_only_disk_can_be_looked_at_and_verified_and_not_swept(
    mount_tmpfs: MountsTmpfs, cli: Callable[..., Run]
) -> None:
    disk = mount_tmpfs("disk", "size=16m")
    root = disk / "store"
    make_store(root)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    count = len(SAMPLE.blobs) + len(SAMPLE.manifests)
    place = ("--cache-dir", root)
    assert len(cli("cache", "ls", *place).out.splitlines()) == count
    assert f"{count}, " in cli("cache", "du", *place).out
    verified = cli("cache", "verify", *place)
    assert (verified.code, verified.err) == (0, "")
    assert verified.out.startswith(f"{count} blobs, ")
    served = cli("serve", "--listen", "127.0.0.1:0", "--root", root)
    assert (served.code, served.out) == (8, "")
    assert served.err.endswith(
        "it is read-only; put the store elsewhere, or serve it as it is with --read-only\n"
    )
    swept = cli("cache", "gc", *place)
    assert (swept.code, swept.out) == (8, "")
    assert swept.err == (
        f"blobflow: can't write to the store {root}: it is read-only; put the store elsewhere\n"
    )

    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    damaged = root / "blobs" / CONFIGS[0].replace(":", "/")
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    verified = cli("cache", "verify", *place)
    assert (verified.code, verified.out.count("\n")) == (6, 1)
    assert verified.out.startswith(f"damaged: {CONFIGS[0]}, ")
    assert verified.err == (
        f"blobflow: 1 of {count} blobs were damaged and are left, since {root} can't be written; verify it "
        "where it can\n"
    )
    assert damaged.exists()


# Files that go


@pytest.mark.parametrize("name", ["state.sqlite", "state.sqlite-wal", "."])
def test_a_registry_whose_state_file_goes_says_so_and_acknowledges_nothing(store: Path, name: str) -> None:
    with served(store) as url:
        assert (put_tag(url, "1"), push(url, b"one"), status(f"{url}/healthz")) == (201, 201, 200)
        (store / name).resolve().rename(store.with_name("aside"))
        assert (put_tag(url, "2"), push(url, b"two")) == (500, 500)
        assert [status(f"{url}/healthz") for _ in range(3)] == [503] * 3
        assert status(f"{url}/v2/pushed/tags/list") == 200
        if name != ".":
            assert pull_all(url) == {200, 503}
            assert status(f"{url}/v2/pushed/blobs/{digest_of(b'none')}") == 404
        else:
            gone = SAMPLE.images[":".join(NAMES[0])].digest
            assert status(f"{url}/v2/{NAMES[0][0]}/blobs/{gone}") == 500
        store.with_name("aside").rename(store / name)
        assert (put_tag(url, "2"), push(url, b"two"), status(f"{url}/healthz")) == (201, 201, 200)
    said = store.with_suffix(".log").read_text().splitlines()
    assert len([line for line in said if "the registry is not healthy: " in line]) == 1
    for line in said[:-1]:
        assert f" {store}" in line
        assert "gone" in line or "is not healthy" in line
    with contextlib.closing(Store.open(store)) as opened:
        assert opened.repositories.tags("pushed") == ["1", "2"]

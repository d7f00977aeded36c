"""Where things lie on disk, and what the operating system's answers mean here.

Paths, the format file, fsync and locks; no content and no state. Every OSError of the store leaves through
`translated`, as one sentence that names the path and what to do about it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from blobflow.errors import InvalidDigest, StorageError, StorageFull
from blobflow.oci import Digest
from blobflow.oci.digest import algorithm_of, encoded_of, parse_digest
from blobflow.transports.files import lock_folder, sync_folder

FORMAT = 1
# What partials are called that are not named by the digest that they will have: uploads, and blobs that were
# condemned and wait to be removed.
UPLOAD = "upload"
CONDEMNED = "condemned"
ALGORITHMS = ("sha256", "sha512")
# What a new store's directory may already hold: what an interrupted open leaves, and what mkfs makes.
_TOLERATED = frozenset({"store.json", "blobs", "partials", "lost+found"})

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space, or put the store elsewhere",
    errno.EDQUOT: "the disk quota is used up; free some space, or put the store elsewhere",
    errno.EFBIG: "files may not be that large; raise the limit (ulimit -f), or put the store elsewhere",
    errno.EROFS: "the file system is read-only; put the store elsewhere",
    errno.EACCES: "permission denied; change its owner or mode, or put the store elsewhere",
    errno.EPERM: "the operation is not permitted; change its owner or mode, or put the store elsewhere",
    errno.ENOTDIR: "a part of the path is not a directory; move it away, or put the store elsewhere",
    errno.EEXIST: "something else is in its place; move it away, or put the store elsewhere",
    errno.EISDIR: "a directory is in its place; move it away, or put the store elsewhere",
    errno.ENOENT: "the store's directory is gone, or a part of it; run again, and it is made anew",
    errno.EIO: "the disk has an input/output error; check it",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n), or lower the concurrency",
}
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def storage_error(doing: str, path: Path, error: OSError) -> StorageError:
    """The one sentence for an OSError met while `doing` ("write", "open", …) something to `path`."""
    reason = _REASONS.get(error.errno or 0) or (error.strerror or str(error)).lower()
    kind = StorageFull if error.errno in _FULL else StorageError
    return kind(f"can't {doing} {path}: {reason}")


@contextlib.contextmanager
def translated(doing: str, path: Path) -> Iterator[None]:
    """Turn any OSError inside into a StorageError."""
    try:
        yield
    except OSError as error:
        raise storage_error(doing, path, error) from error


class Layout:
    """The paths of one store."""

    __slots__ = ("blobs", "format_file", "partials", "root", "state")

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs"
        self.partials = root / "partials"
        self.state = root / "state.sqlite"
        self.format_file = root / "store.json"

    def blob(self, digest: Digest) -> Path:
        return self.blobs / algorithm_of(digest) / encoded_of(digest)

    def partial(self, digest: Digest | None, token: str) -> Path:
        return self.partials / f"{encoded_of(digest) if digest else UPLOAD}.{token}"

    def condemned(self, token: str) -> Path:
        return self.partials / f"{CONDEMNED}.{token}"

    def partials_of(self, digest: Digest) -> list[Path]:
        return list(self.partials.glob(f"{encoded_of(digest)}.*"))

    def held(self) -> Iterator[Digest]:
        """The digests of all files under blobs/, in no order; other names are passed over."""
        for algorithm in ALGORITHMS:
            with os.scandir(self.blobs / algorithm) as entries:
                for entry in entries:
                    with contextlib.suppress(InvalidDigest):
                        yield parse_digest(f"{algorithm}:{entry.name}")

    def prepare(self) -> None:
        """Check the format file, or make a new store. Raises StorageError."""
        with translated("read", self.root):
            strangers = [] if self.format_file.exists() else self._strangers()
        if strangers:
            raise StorageError(
                f"{self.root} is not a blobflow store, and not empty (it holds {strangers[0]!r}); "
                "name an empty directory"
            )
        if self.format_file.exists():
            self.check_format()
        else:
            self._write_format()
        for algorithm in ALGORITHMS:
            with translated("create", self.blobs / algorithm):
                (self.blobs / algorithm).mkdir(parents=True, exist_ok=True)
        with translated("create", self.partials):
            self.partials.mkdir(exist_ok=True)

    def check_format(self) -> None:
        """Refuse a store of another format. Raises StorageError."""
        with translated("read", self.format_file):
            text = self.format_file.read_bytes()
        try:
            version = json.loads(text)["format"]
        except (ValueError, KeyError, TypeError):
            raise StorageError(
                f"{self.format_file} can't be understood, so {self.root} is taken for no blobflow store"
            ) from None
        if version != FORMAT:
            raise StorageError(
                f"the store {self.root} has format {version!r}, this blobflow knows format {FORMAT}; "
                "use a newer blobflow, or another directory"
            )

    def _strangers(self) -> list[str]:
        known = _TOLERATED | {self.state.name, f"{self.state.name}-wal", f"{self.state.name}-shm"}
        return sorted(
            path.name for path in self.root.iterdir() if path.name not in known and path.name[:1] != "."
        )

    def _write_format(self) -> None:
        temporary = self.root / f".store.json.{secrets.token_hex(4)}"
        with translated("write", self.format_file):
            try:
                with temporary.open("wb") as file:
                    file.write(json.dumps({"format": FORMAT}).encode() + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(self.format_file)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            sync_folder(self.root)


@contextlib.contextmanager
def locked_directory(path: Path) -> Iterator[None]:
    """Hold the directory's flock(2), waiting for whoever has it; the kernel frees it when we die."""
    with translated("open", path):
        fd = lock_folder(path)
    try:
        yield
    finally:
        os.close(fd)


def supports_locks(fd: int) -> bool:
    """Whether the file system knows flock(2): somebody else's lock says so as well as one of ours."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def try_lock(fd: int) -> bool:
    """Take the file's flock(2) if nobody has it. Where locks are not supported, nobody gets one."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

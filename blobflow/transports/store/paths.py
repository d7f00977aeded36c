"""The paths of a store's files, and the meaning of the operating system's errors there.

Paths, modes, the format file, fsync and locks; no content and no state. Every OSError of the store leaves
through `translate_os_errors`, as one sentence that names the path and what to do about it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from blobflow.errors import InvalidDigest, StorageError
from blobflow.oci import Digest
from blobflow.oci.digest import algorithm_of, encoded_of, parse_digest
from blobflow.transports.files import sync_folder
from blobflow.transports.store.os_errors import translate_os_errors
from blobflow.transports.store.permissions import Permissions, apply_permissions, permissions_of, tighten

FORMAT = 1
# What partials are called that are not named by the digest that they will have: uploads, and blobs that were
# condemned and wait to be removed.
UPLOAD = "upload"
CONDEMNED = "condemned"
ALGORITHMS = ("sha256", "sha512")
# What a new store's directory may already hold: what an interrupted open leaves, and what mkfs makes.
_TOLERATED = frozenset({"store.json", "blobs", "partials", "lost+found"})


class StorePaths:
    """The paths of one store."""

    __slots__ = (
        "_blobs_name",
        "blobs",
        "format_file",
        "lock_file",
        "partials",
        "permissions",
        "root",
        "state",
    )

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs"
        self._blobs_name = str(self.blobs)
        self.partials = root / "partials"
        self.state = root / "state.sqlite"
        self.format_file = root / "store.json"
        # Versions that know no lock file pass over names with a dot.
        self.lock_file = root / ".lock"
        # Of a private store, until `prepare` has looked.
        self.permissions = Permissions()

    def blob(self, digest: Digest) -> Path:
        return self.blobs / algorithm_of(digest) / encoded_of(digest)

    def blob_name(self, digest: Digest) -> str:
        """As `blob`, for where a Path costs more than what is done with it."""
        return f"{self._blobs_name}/{algorithm_of(digest)}/{encoded_of(digest)}"

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

    def make_root(self) -> None:
        """Make the root, which is private until it is known to be shared. Raises StorageError.

        Also where something other than a store is at its place: nothing of that is touched.
        """
        with translate_os_errors("create", self.root):
            self.root.mkdir(0o700, parents=True, exist_ok=True)
        if not os.access(self.root, os.W_OK):  # says no on a read-only file system to root, too
            raise StorageError(f"can't write to the store {self.root}: it is {self._why_not()} elsewhere")
        self._refuse_strangers()
        self._set_access(shared=self._marked_shared())

    def _why_not(self) -> str:
        """Why the root can't be written, and what to do, but for the last word."""
        with translate_os_errors("look at", self.root):
            disk = os.statvfs(self.root).f_flag & os.ST_RDONLY
            if disk or self.root.stat().st_uid == os.geteuid():
                return "read-only; put the store"
        return "another user's; its owner can share it (blobflow cache share on), or put the store"

    def prepare(self) -> bool:
        """Check the format file, or make a new store; narrow the modes of an old one. The lock is held.

        Returns whether everybody could read the store until now. Raises StorageError.
        """
        self._refuse_strangers()
        if not self.is_store():
            self._write_format()
        self._set_access(shared=self._marked_shared())
        for folder in self._folders()[1:]:
            with translate_os_errors("create", folder):
                self.permissions.make_folder(folder)
        with translate_os_errors("list", self.root):
            return tighten(self.root, self._folders(), self._files(), self.permissions)

    def share(self, *, shared: bool, group: int | None = None) -> int:
        """Let a group use the store, or nobody else any more. The lock is held.

        `group` is its number; None: the group that the root has. Processes that have the store open go on to
        make files as before. Returns how many files keep their modes, as they are somebody else's. Raises
        StorageError.
        """
        self._set_access(shared=shared)
        with translate_os_errors("change the mode of", self.root):
            left = apply_permissions(self.root, self.permissions, group)
        self._write_format()
        return left

    def is_store(self) -> bool:
        """Whether there is a store here, of whatever format. Raises StorageError."""
        with translate_os_errors("read", self.format_file):
            return self.format_file.exists()

    def check_format(self) -> None:
        """Refuse a store of another format. Raises StorageError."""
        self._marks()

    def _marks(self) -> dict[str, object]:
        with translate_os_errors("read", self.format_file):
            text = self.format_file.read_bytes()
        try:
            marks = json.loads(text)
            version = marks["format"]
        except (ValueError, KeyError, TypeError):
            raise StorageError(
                f"{self.format_file} can't be understood, so {self.root} is taken for no blobflow store"
            ) from None
        if version != FORMAT:
            raise StorageError(
                f"the store {self.root} has format {version!r}, this blobflow knows format {FORMAT}; "
                "use a newer blobflow, or another directory"
            )
        return dict(marks)

    def _marked_shared(self) -> bool:
        return self.is_store() and self._marks().get("shared") is True

    def _set_access(self, *, shared: bool) -> None:
        with translate_os_errors("look at", self.root):
            self.permissions = permissions_of(self.root, shared=shared)

    def _folders(self) -> list[Path]:
        return [self.blobs, *(self.blobs / algorithm for algorithm in ALGORITHMS), self.partials]

    def _files(self) -> list[Path]:
        """The files beside the folders, also what was moved aside."""
        return [
            path
            for path in self.root.iterdir()
            if (path in (self.format_file, self.lock_file) or path.name.startswith(self.state.name))
            and path.is_file()
            and not path.is_symlink()
        ]

    def _refuse_strangers(self) -> None:
        with translate_os_errors("read", self.root):
            strangers = [] if self.is_store() else self._strangers()
        if strangers:
            raise StorageError(
                f"{self.root} is not a blobflow store, and not empty (it holds {strangers[0]!r}); "
                "name an empty directory"
            )

    def _strangers(self) -> list[str]:
        known = _TOLERATED | {self.state.name, f"{self.state.name}-wal", f"{self.state.name}-shm"}
        return sorted(
            path.name for path in self.root.iterdir() if path.name not in known and path.name[:1] != "."
        )

    def _write_format(self) -> None:
        temporary = self.root / f".store.json.{secrets.token_hex(4)}"
        marks = {"format": FORMAT, **({"shared": True} if self.permissions.shared else {})}
        with translate_os_errors("write", self.format_file):
            try:
                self.permissions.create(temporary)
                with temporary.open("wb") as file:
                    file.write(json.dumps(marks).encode() + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(self.format_file)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            sync_folder(self.root)

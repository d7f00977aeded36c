"""Index drafts as files, until they are put; the counterpart of `docker manifest`'s folder.

A file is written whole beside its place and renamed, and changed under a lock, so that two commands at once
lose nothing. Folder and files are the user's alone: what is staged tells where images are.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import msgspec

from blobflow.cli.runtime.files import write_atomic
from blobflow.errors import StorageError, UsageError
from blobflow.oci import Reference
from blobflow.oci.index_draft import IndexDraft
from blobflow.printable import printable
from blobflow.variables import xdg_folder

VERSION = 1
_FOLDER_MODE, _FILE_MODE = 0o700, 0o600
_SHOWN = 8


class _Staged(msgspec.Struct, frozen=True):
    version: int
    draft: IndexDraft


class IndexDrafts:
    """The staged indexes of a user, by their targets."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, target: Reference) -> IndexDraft | None:
        """What is staged under a target; None if nothing is. Raises StorageError."""
        path = self._path(target)
        try:
            staged = msgspec.json.decode(path.read_bytes(), type=_Staged)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"can't read {path}: {error.strerror or error}") from None
        except msgspec.DecodeError as error:
            raise StorageError(f"{path} is damaged ({error}); remove it and create the index again") from None
        if staged.version != VERSION:
            raise StorageError(
                f"{path} is of version {staged.version}, this blobflow reads version {VERSION}; remove it "
                "and create the index again"
            )
        return staged.draft

    def get(self, target: Reference) -> IndexDraft:
        """As `find`; raises UsageError where nothing is staged, with what is."""
        draft = self.find(target)
        if draft is None:
            staged = ", ".join(map(str, self.targets()[:_SHOWN])) or "nothing"
            raise UsageError(f"{target} is not staged ({staged} is); make it with `blobflow index create`")
        return draft

    def targets(self) -> list[Reference]:
        """What is staged, sorted; files that can't be read are passed over."""
        found = []
        for path in self._folder.glob("*.json") if self._folder.is_dir() else ():
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=_Staged).draft.target)
            except (OSError, msgspec.DecodeError):
                continue
        return sorted(found)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """While inside, nobody else changes what is staged: for as long as reading and writing takes."""
        path = self._folder / "lock"
        try:
            for folder in (self._folder.parent, self._folder):
                folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, _FILE_MODE)
        except OSError as error:
            raise StorageError(f"can't write {path}: {error.strerror or error}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def keep(self, draft: IndexDraft) -> None:
        """Stage a draft in place of what was staged under its target. Inside `changing`.

        Raises UsageError for one with a name that can't be kept; StorageError.
        """
        try:
            content = msgspec.json.encode(_Staged(VERSION, draft))
        except UnicodeEncodeError as error:
            raise UsageError(
                f"what is staged can't keep the name {printable(error.object)}, which is not UTF-8;"
                " rename that, or --push at once"
            ) from None
        write_atomic(self._path(draft.target), content, mode=_FILE_MODE)

    def drop(self, target: Reference) -> bool:
        """Forget what is staged under a target; whether there was anything. Raises StorageError."""
        path = self._path(target)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StorageError(f"can't remove {path}: {error.strerror or error}") from None
        return True

    def _path(self, target: Reference) -> Path:
        """Names may have any characters and length (paths of layouts); a hash has none of that."""
        name = str(target).encode(errors="surrogateescape")
        return self._folder / f"{sha256(name).hexdigest()}.json"


def open_index_drafts() -> IndexDrafts:
    """The staged indexes of whoever runs this. Raises UsageError where there is no home."""
    state = xdg_folder(os.environ, "XDG_STATE_HOME", ".local/state")
    if state is None:
        raise UsageError("there is no HOME to stage indexes in; set XDG_STATE_HOME to a folder")
    return IndexDrafts(state / "blobflow" / "indexes")

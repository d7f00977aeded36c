"""The file permissions of a store: for the user it belongs to, or for a group if the store is shared.

A private store has folders of mode 0700 and files of mode 0600, whatever the umask: it holds private images
and signed addresses, and whoever can open its state file can hold a lock on it. A shared store has folders of
mode 2770 (setgid, so that what is made in them gets the folder's group) and files of mode 0660.

The store's root decides whose the files are: what root (uid 0) makes in another user's store, it gives to
that user, who could not read it otherwise.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

_OTHERS = 0o007
_GROUP_AND_OTHERS = 0o077


class Permissions(msgspec.Struct, frozen=True):
    """How a store's files and folders are made. `owner`: the user and group they are given; None: as they
    come."""

    shared: bool = False
    owner: tuple[int, int] | None = None

    @property
    def file_mode(self) -> int:
        return 0o660 if self.shared else 0o600

    @property
    def folder_mode(self) -> int:
        return 0o2770 if self.shared else 0o700

    def apply(self, fd: int) -> None:
        """Finish a file that was just created with `file_mode`: the umask may have taken the group's bits.

        Costs nothing in a private store of one's own. Raises OSError.
        """
        if self.owner is not None:
            with contextlib.suppress(OSError):  # in some containers root may not; then the file is root's
                os.fchown(fd, *self.owner)
        if self.shared:
            os.fchmod(fd, self.file_mode)

    def create(self, path: Path) -> None:
        """Make an empty file, unless there is one. Raises OSError."""
        with contextlib.suppress(FileExistsError):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self.file_mode)
            try:
                self.apply(fd)
            finally:
                os.close(fd)

    def make_folder(self, path: Path) -> None:
        """Make a folder, and the one that it is to be in, unless they are there. Raises OSError."""
        try:
            path.mkdir(0o700)
        except FileNotFoundError:
            self.make_folder(path.parent)
            self.make_folder(path)
            return
        except FileExistsError:
            if not path.is_dir():
                raise
            return
        if self.owner is not None:
            with contextlib.suppress(OSError):  # as above
                os.chown(path, *self.owner)
        path.chmod(self.folder_mode)


PRIVATE = Permissions()


def permissions_of(root: Path, *, shared: bool) -> Permissions:
    """How files are made in the store at `root`. Raises OSError."""
    about = root.stat()
    foreign = os.geteuid() == 0 and about.st_uid != 0
    return Permissions(shared=shared, owner=(about.st_uid, about.st_gid) if foreign else None)


def tighten(root: Path, folders: Iterable[Path], files: Iterable[Path], permissions: Permissions) -> bool:
    """Give `root`, folders and files in it the modes of `permissions` if they are ours.

    Returns whether everybody could read one of the files, and can't now. What belongs to somebody else, and a
    folder that is everybody's (sticky, as /tmp), stays as it is, and so does what a file system without modes
    can't change. Stores that earlier versions made are tightened so; their blobs are behind the folders.
    """
    opened = _narrow(root, permissions.folder_mode)
    for folder in folders:
        _narrow(folder, permissions.folder_mode)
    exposed = [file for file in files if _narrow(file, permissions.file_mode)]
    return opened and bool(exposed)


def _narrow(path: Path, mode: int) -> bool:
    """Returns whether everybody could get at `path`, and can't now."""
    with contextlib.suppress(OSError):
        about = path.stat()
        now = stat.S_IMODE(about.st_mode)
        if about.st_uid != os.geteuid() or now & stat.S_ISVTX:
            return False
        shared = bool(mode & _GROUP_AND_OTHERS)
        wanted = (now | mode) & ~_OTHERS if shared else now & ~_GROUP_AND_OTHERS
        if wanted != now:
            path.chmod(wanted)
            return bool(now & _OTHERS) and not path.stat().st_mode & _OTHERS
    return False


def apply_permissions(root: Path, permissions: Permissions, group: int | None) -> int:
    """Give the whole store the modes of `permissions`, and the group if one is named.

    Returns how many files and folders stay as they were because they belong to somebody else.

    A store that is to be shared gets its root's mode last, one that is to be private first, so that nobody
    gets in halfway. Raises OSError if the root itself can't be changed.
    """
    paths = list(_below(root))
    if permissions.shared:
        left = sum(not _given(path, permissions, group) for path in paths)
        _give(root, permissions, group)
        return left
    _give(root, permissions, group)
    return sum(not _given(path, permissions, group) for path in paths)


def _below(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(folder, name)
            if name != "lost+found" and not path.is_symlink():
                yield path
        if "lost+found" in names:
            names.remove("lost+found")


def _given(path: Path, permissions: Permissions, group: int | None) -> bool:
    try:
        _give(path, permissions, group)
    except FileNotFoundError:  # a partial that has just been committed or removed
        return True
    except PermissionError:
        return False
    return True


def _give(path: Path, permissions: Permissions, group: int | None) -> None:
    if group is not None:
        os.chown(path, -1, group)
    path.chmod(permissions.folder_mode if path.is_dir() else permissions.file_mode)

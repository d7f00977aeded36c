"""Unpacks a tree into a folder. Runs in a thread.

What was not there before is made under a name that means nothing, and renamed when it is whole. Folders come
first and symbolic links last, files are only ever created: nothing is written through a link.

As root owners are kept, as others everything is ours. Devices are made only by root, and when asked to.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from blobflow.errors import UsageError
from blobflow.transports.files import translate_os_errors
from blobflow.transports.rootfs.layer_reader import Layer, each_content
from blobflow.transports.rootfs.tree import Entry, FileTree, Item

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEVICES = {"char": stat.S_IFCHR, "block": stat.S_IFBLK}
_IMPLIED_MODE = 0o755  # of folders that no layer has an entry for


class Unpacked(msgspec.Struct, frozen=True):
    """What could not be made: `devices` that were left out, and files whose `xattrs` could not all be set."""

    devices: int = 0
    xattrs: int = 0


def check_empty(path: Path) -> None:
    """Raise UsageError unless the folder is empty, or not there in a folder that is."""
    with translate_os_errors("look at", path):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise UsageError(f"{path} is no folder; name one that is new or empty")
        if path.exists() and any(path.iterdir()):
            raise UsageError(f"{path} is not empty; name a folder that is new or empty")
        if not path.absolute().parent.is_dir():
            raise UsageError(f"there is no folder {path.absolute().parent} to make {path.name} in")


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, which takes its place at the end; if that does not come, it is removed."""
    check_empty(path)
    path = path.absolute()
    made = path.parent / f".blobflow-{secrets.token_hex(8)}"
    with translate_os_errors("create", made):
        made.mkdir(0o755)
    try:
        yield made
        with translate_os_errors("write", path):
            made.replace(path)
    except BaseException:
        _remove(made)
        raise


def _remove(folder: Path) -> None:
    """Remove what was made, also from folders that others than root may not write in; what can't be removed
    stays."""
    with contextlib.suppress(OSError):
        for above, names, _ in os.walk(folder):
            for name in names:
                if not os.path.islink(path := os.path.join(above, name)):  # noqa: PTH114, PTH118
                    os.chmod(path, 0o700)  # noqa: PTH101
    shutil.rmtree(folder, ignore_errors=True)


def unpack(tree: FileTree, layers: Sequence[Layer], root: Path, *, devices: bool = False) -> Unpacked:
    """Make the tree in the folder `root`, which is empty; the layers are those that it was read from.

    Raises StorageError, UnsupportedContent.
    """
    return _Unpacking(tree, root, devices=devices and os.geteuid() == 0).unpack(layers)


class _Unpacking:
    def __init__(self, tree: FileTree, root: Path, *, devices: bool) -> None:
        self._tree = tree
        self._root = root
        self._devices = devices
        self._owned = os.geteuid() == 0
        self._skipped = 0
        self._bare = 0

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"  # a hundred thousand Paths take a second

    def unpack(self, layers: Sequence[Layer]) -> Unpacked:
        with translate_os_errors("write", self._root):
            for folder in self._tree.folders:
                if path := folder.path:
                    os.mkdir(self._at(path), 0o700)  # noqa: PTH102
            each_content(layers, self._tree.items, self._write)
            for item in self._tree.items:
                if item.entry is not None:
                    self._make(item, item.entry)
            for folder in reversed(self._tree.folders):
                self._dress(self._at(folder.path), folder.entry or Entry("", "folder", _IMPLIED_MODE))
        return Unpacked(self._skipped, self._bare)

    def _write(self, item: Item, entry: Entry, blocks: Iterator[bytes]) -> None:
        name, *others = map(self._at, item.paths)
        fd = os.open(name, _CREATE, 0o600)
        try:
            for block in blocks:
                view = memoryview(block)
                while view:
                    view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        self._finish(name, others, entry)

    def _make(self, item: Item, entry: Entry) -> None:
        name, *others = map(self._at, item.paths)
        if entry.kind == "symlink":
            os.symlink(entry.target, name)  # noqa: PTH211
        elif entry.kind == "fifo":
            os.mkfifo(name, 0o600)
        elif self._devices:
            os.mknod(name, _DEVICES[entry.kind] | 0o600, os.makedev(*entry.device))
        else:
            self._skipped += 1
            return
        self._finish(name, others, entry)

    def _finish(self, name: str, others: Sequence[str], entry: Entry) -> None:
        self._dress(name, entry)
        for other in others:
            os.link(name, other, follow_symlinks=False)

    def _dress(self, name: str, entry: Entry) -> None:
        """Give owner, then mode (which a new owner takes away), then attributes, then time."""
        if self._owned:
            os.chown(name, entry.uid, entry.gid, follow_symlinks=False)
        if entry.kind != "symlink":
            os.chmod(name, entry.mode)  # noqa: PTH101
        try:
            for key, value in entry.xattrs:
                os.setxattr(name, key, value, follow_symlinks=False)
        except (
            OSError,
            ValueError,
            AttributeError,
        ):  # not here, no such name, or no such thing on this system
            self._bare += 1
        os.utime(name, ns=(entry.mtime, entry.mtime), follow_symlinks=False)

"""Folders out of an artifact: a tar+gzip, as oras and `files` pack it, unpacked below one folder.

Nothing gets out of that: names and links that lead elsewhere are refused, and there is no link in the way of
what is written, since it is unpacked into a new folder in which each name is taken once.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import zlib
from pathlib import Path
from typing import IO, cast

from blobflow.errors import BlobflowError, DigestMismatch, UnsupportedContent
from blobflow.oci.artifact import NamedFile
from blobflow.operations.artifacts.files import stays_inside
from blobflow.printable import printable
from blobflow.transports.files import BLOCK, translate_os_errors

# Entries of a folder. That many files are a source tree of the largest kind.
_MAX_ENTRIES = 1_000_000
# How many times its size a folder may unpack to, and what every one may; text of logs packs to a fiftieth.
_MAX_RATIO, _ALWAYS = 200, 64 * 1024 * 1024


def unpack_folder(file: NamedFile, packed: Path, folder: Path) -> None:
    """Unpack into `folder`, which is new; in a thread. The entries have the title of the layer before them.

    Raises UnsupportedContent for what is no such tar, leads out of the folder or is too much; DigestMismatch
    where the tar is not the one that the layer tells; StorageError.
    """
    most = _ALWAYS + _MAX_RATIO * file.blob.size
    with translate_os_errors("unpack", packed), packed.open("rb") as raw, gzip.GzipFile(fileobj=raw) as plain:
        stream = _Measured(plain, most, file)
        try:
            with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as tar:
                for number, entry in enumerate(tar):
                    if number >= _MAX_ENTRIES:
                        raise _refused(file, f"has more than {_MAX_ENTRIES} entries")
                    _write(tar, entry, file, folder)
            while stream.read(BLOCK):
                pass
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise _refused(file, f"is no tar+gzip: {error}") from None
    stream.check(file.unpacked)


class _Measured:
    """A stream that is hashed as it is read, and has an end."""

    def __init__(self, plain: gzip.GzipFile, most: int, file: NamedFile) -> None:
        self._plain = plain
        self._left = most
        self._file = file
        self._hasher = hashlib.sha256()

    def read(self, size: int) -> bytes:
        block = self._plain.read(size)
        self._left -= len(block)
        if self._left < 0:
            raise _refused(self._file, f"unpacks to more than {_MAX_RATIO} times its size")
        self._hasher.update(block)
        return block

    def check(self, digest: str) -> None:
        actual = f"sha256:{self._hasher.hexdigest()}"
        if digest.startswith("sha256:") and digest != actual:
            raise DigestMismatch(f"the folder {self._file.title}, unpacked,", expected=digest, actual=actual)


def _refused(file: NamedFile, why: str) -> BlobflowError:
    return UnsupportedContent(f"the folder {printable(file.title)!r} {why}")


def _write(tar: tarfile.TarFile, entry: tarfile.TarInfo, file: NamedFile, folder: Path) -> None:
    name = os.path.normpath(entry.name)
    if not _is_below(file.title, name):
        raise _refused(file, f"has {printable(entry.name)!r} in it, which leads out of it")
    target = folder / os.path.relpath(name, file.title)
    _check_way(target, folder, file)
    if entry.isdir():
        target.mkdir(mode=0o755, exist_ok=True)
        return
    if os.path.lexists(target):
        raise _refused(file, f"has {printable(entry.name)!r} in it twice")
    if entry.issym():
        if not stays_inside(file.title, name, entry.linkname):
            raise _refused(file, f"has the link {printable(entry.name)!r} in it, which leads out of it")
        target.symlink_to(entry.linkname)
    elif entry.isfile():
        content = tar.extractfile(entry)
        assert content is not None, "it is a file"
        with target.open("xb") as made:
            while block := content.read(BLOCK):
                made.write(block)
            os.fchmod(made.fileno(), 0o755 if entry.mode & 0o100 else 0o644)
    else:
        raise _refused(file, f"has {printable(entry.name)!r} in it, which is neither file, folder nor link")


def _is_below(title: str, name: str) -> bool:
    """Whether a name, normalized, is that of the folder or of something in it."""
    if title == ".":
        return not name.startswith("/") and name.partition("/")[0] != ".."
    return name == title or name.startswith(f"{title}/")


def _check_way(target: Path, folder: Path, file: NamedFile) -> None:
    """Make the folders above, and refuse links among them."""
    for above in reversed(target.relative_to(folder).parents[:-1]):
        way = folder / above
        if way.is_symlink():
            raise _refused(file, f"has something below the link {printable(str(above))!r}")
        way.mkdir(exist_ok=True)

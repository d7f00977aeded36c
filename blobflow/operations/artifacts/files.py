"""Files and folders of this machine as the layers of an artifact.

A file is hashed, and read again when it is pushed. A folder is packed into a tar+gzip first: its entries in
the order of their names, without times and owners, so that the same files make the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, cast

import msgspec

from blobflow.errors import IntegrityError, NoSuchFile, UsageError
from blobflow.oci import Descriptor, Digest
from blobflow.oci.artifact import FILE_TYPE, FOLDER_TYPE, TITLE, UNPACK, UNPACKED_DIGEST, check_media_type
from blobflow.printable import printable
from blobflow.transports.files import BLOCK, translate_os_errors


class FileArgument(msgspec.Struct, frozen=True):
    """A file or folder as it was asked for; `media_type` and `title`: "" for what is usual."""

    path: Path
    media_type: str = ""
    title: str = ""


class FileLayer(msgspec.Struct, frozen=True):
    """A layer, and the file that has its bytes; `written`: when somebody last wrote it, in nanoseconds, as it
    was hashed. `executable`: whether its owner may run it; of a folder its tar says that."""

    descriptor: Descriptor
    path: Path
    written: int
    executable: bool = False


def parse_file(text: str) -> FileArgument:
    """FILE or FILE:TYPE, cut at the last colon, as oras has it: `a:b:` is the file `a:b`.

    Raises UsageError.
    """
    name, colon, media_type = text.rpartition(":")
    name = name if colon else text
    if not name:
        raise UsageError(f"{printable(text)!r} names no file; write FILE or FILE:TYPE")
    if colon and media_type:
        check_media_type(media_type, f"{name} (a file with a colon in its name is written {text}:)")
    return FileArgument(Path(name), media_type if colon else "")


def title_of(path: Path) -> str:
    """What a file is called in an artifact: its path, or its name alone where that leads out of the folder
    that we are in, into which nothing may be pulled."""
    normal = Path(os.path.normpath(path))
    if normal.is_absolute() or normal.parts[:1] in ((), ("..",)):
        return (Path.cwd() / normal).resolve().name or "root"
    return normal.as_posix()


def make_layers(files: Sequence[FileArgument], scratch: Path) -> list[FileLayer]:
    """The layers of an artifact, in the order of the files; in a thread. Folders are packed into `scratch`.

    Raises NoSuchFile, UsageError for what is neither file nor folder or has the same name as another, and
    StorageError.
    """
    layers: list[FileLayer] = []
    titles: set[str] = set()
    for number, each in enumerate(files):
        title = each.title or title_of(each.path)
        if title in titles:
            raise UsageError(f"two files would be called {printable(title)!r}; give each once")
        titles.add(title)
        try:
            title.encode()
        except UnicodeEncodeError:
            raise UsageError(f"the name of {printable(title)} is not UTF-8, and JSON can't hold it") from None
        layers.append(_layer(each, title, scratch / f"folder-{number}"))
    return layers


def _layer(file: FileArgument, title: str, packed: Path) -> FileLayer:
    path = file.path
    with translate_os_errors("look at", path):
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            hint = "; write what a pipe gives into a file first" if str(path) == "-" else ""
            error = NoSuchFile(f"there is no file {path}{hint}")
            error.about_file = True
            raise error from None
    if stat.S_ISDIR(mode):
        unpacked = _pack(path, title, packed)
        size, digest, written = _hash(packed)
        said = {TITLE: title, UNPACK: "true", UNPACKED_DIGEST: unpacked}
        return FileLayer(
            Descriptor(file.media_type or FOLDER_TYPE, digest, size, annotations=said), packed, written
        )
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path} is neither a file nor a folder")
    size, digest, written = _hash(path)
    said = {TITLE: title}
    descriptor = Descriptor(file.media_type or FILE_TYPE, digest, size, annotations=said)
    return FileLayer(descriptor, path.absolute(), written, executable=bool(mode & stat.S_IXUSR))


def check_unchanged(layers: Sequence[FileLayer]) -> None:
    """Raise IntegrityError if somebody wrote one of the files, or took it away, since it was hashed; in a
    thread."""
    for each in layers:
        try:
            about = each.path.stat()
        except OSError:
            about = None
        if about is None or (about.st_size, about.st_mtime_ns) != (each.descriptor.size, each.written):
            raise IntegrityError(f"{each.path} changed while it was read; try again once it is whole")


def _hash(path: Path) -> tuple[int, Digest, int]:
    hasher, size = hashlib.sha256(), 0
    with translate_os_errors("read", path), path.open("rb") as file:
        written = os.fstat(file.fileno()).st_mtime_ns
        while block := file.read(BLOCK):
            hasher.update(block)
            size += len(block)
    return size, Digest(f"sha256:{hasher.hexdigest()}"), written


def _pack(folder: Path, title: str, target: Path) -> str:
    """Write a folder as tar+gzip. Returns the digest of the tar."""
    hasher = hashlib.sha256()
    with (
        translate_os_errors("pack", f"{folder} into {target.parent.parent} (TMPDIR)"),
        target.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as compressed,
        tarfile.open(
            fileobj=cast("IO[bytes]", _Hashed(compressed.write, hasher.update)),
            mode="w|",
            format=tarfile.PAX_FORMAT,
        ) as tar,
    ):
        for path, name in _walk(folder, title):
            _add(tar, path, name, title)
    return f"sha256:{hasher.hexdigest()}"


class _Hashed:
    """A file to write to, whose bytes go to `update` too."""

    def __init__(self, write: Callable[[bytes], int], update: Callable[[bytes], None]) -> None:
        self._write = write
        self._update = update

    def write(self, block: bytes) -> int:
        self._update(block)
        return self._write(block)


def _walk(folder: Path, name: str) -> Iterator[tuple[Path, str]]:
    """The folder and all below it, with the names that they get, each folder before what is in it."""
    yield folder, name
    with translate_os_errors("read", folder), os.scandir(folder) as found:
        entries = sorted(found, key=lambda each: each.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{name}/{entry.name}")
        else:
            yield Path(entry.path), f"{name}/{entry.name}"


def _add(tar: tarfile.TarFile, path: Path, name: str, top: str) -> None:
    about = path.stat() if name == top else path.lstat()
    entry = tarfile.TarInfo(name)
    entry.mode = stat.S_IMODE(about.st_mode) & 0o777
    if stat.S_ISDIR(about.st_mode):
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)
    elif stat.S_ISLNK(about.st_mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
        if not stays_inside(top, name, entry.linkname):
            raise UsageError(f"the link {path} leads out of its folder, and could not be pulled")
        tar.addfile(entry)
    elif stat.S_ISREG(about.st_mode):
        entry.size = about.st_size
        with translate_os_errors("read", path):
            content = path.open("rb")
        with content:
            tar.addfile(entry, content)
    else:
        raise UsageError(f"{path} is neither file, folder nor link")


def stays_inside(top: str, name: str, link: str) -> bool:
    """Whether a link at `name`, in the folder `top`, leads to something in that folder, whatever other links
    in there it leads over: it may go up only at first, where the folders above it are no links."""
    if link.startswith("/"):
        return False
    parts = [part for part in link.split("/") if part not in ("", ".")]
    down = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    depth = 0 if top == "." else len(top.split("/"))
    return ".." not in parts[down:] and down < len(name.split("/")) - depth

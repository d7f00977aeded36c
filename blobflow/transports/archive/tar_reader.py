"""Reads tar headers, without unpacking anything: POSIX.1-2017 pax, ustar, and GNU's long names.

The standard library's reader stops in silence at a header that it can't read, and an archive that was cut off
or spoilt would look like a smaller one. So only its parsing of one header is used; what follows from it is
decided here. Nothing in an archive can name a path outside of it.

An archive of images has to have its end, since one that was cut behind an entry looks whole but for that. All
who write them put it there: GNU tar and Python, as POSIX has it, two blocks of zeros and more; Go, and so
docker, podman and skopeo, exactly two. One is taken as well, as by GNU tar and Go: all entries are before it.
A layer may lack it, as umoci's do: what reads Go's way unpacks them, and their digest tells whether they are
whole.

What a header can cost is bounded, and all work is linear in the bytes of headers. Since those compress well,
past some MiB of them they are measured by the file that they came out of.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from typing import Literal, Protocol

import msgspec

from blobflow.errors import StorageError, UnsupportedContent
from blobflow.transports.files import BLOCK as CHUNK

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
# A path, or what a link points to, in bytes: Linux's PATH_MAX.
MAX_PATH = 4096
# Folders in the path of what is found in an archive of images; those of docker and OCI are 3 deep.
MAX_DEPTH = 32
# The headers that say more of one entry: bytes of them all, as Go's archive/tar allows each (attributes of
# 64 KiB, Linux's most, fit in); records of one pax header; headers before one entry, of which writers need 4.
_MAX_EXTRA = 1024 * 1024
_MAX_RECORDS = 4096
_MAX_BEFORE = 16
# Headers that are read whatever comes out of how little: 65,536 plain ones. Beyond that no more than so many
# times the bytes of the file: half a million empty files whose names count up come to 82 under gzip -9 and
# to 347 under zstd -19, with pax headers of three times to 132 and 733.
HEADERS_FROM = 32 * 1024 * 1024
HEADERS_RATIO = 1000
# Zeros that are looked at behind the end of an archive: many times what tar pads a record to. A device of
# zeros has no end.
MAX_ZEROS = 64 * 1024**2
_MAX_SIZE = 2**53
_MAX_DIGITS = 16  # of a number in a pax record, and so of _MAX_SIZE
FILES = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
_HEADER_ONLY = frozenset(
    {tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE}
)
_GNU_LONG = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_PAX = frozenset({tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE})
_BEFORE_ENTRY = frozenset({*_GNU_LONG, *_PAX, tarfile.XGLTYPE})
_SPARSE = "GNU.sparse."

Kind = Literal["file", "symlink", "hardlink", "other"]


class Member(msgspec.Struct, frozen=True, gc=False):
    """One entry. `path` and, of a link, `target` are relative to the archive's root; `size` in bytes."""

    path: str
    kind: Kind
    size: int = 0
    target: str = ""


class TarInput(Protocol):
    """Bytes in order. `position` counts those gone by; `name` is for messages."""

    name: str
    position: int

    @property
    def taken(self) -> int:
        """Bytes of the file or pipe that have been used for that."""
        ...

    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer only at the end."""
        ...

    def skip(self, size: int) -> None:
        """Pass over bytes. Raises StorageError where they end before."""
        ...


def members(tar: TarInput) -> Iterator[Member]:
    """The entries of an archive of images, with paths inside of it, and then its end; while it stands at one,
    its reader may read its content from the tape.

    Raises UnsupportedContent for what is no tar, for sparse files and for paths outside; StorageError where
    the archive is cut off or spoilt.
    """
    empty = True
    for header, long in entries(tar, whole=True):
        empty = False
        if member := _member(header, long, tar.name):
            yield member
    if empty:
        raise UnsupportedContent(f"{tar.name} is empty: it holds no image")


def entries(tar: TarInput, *, whole: bool = False) -> Iterator[tuple[tarfile.TarInfo, dict[str, str]]]:
    """As `members`, raw: headers with the true size of what follows them, and what other headers said of
    them before. An empty tar has none. `whole`: a tar without its end, or with more behind it, is an error.
    """
    extras = _Extras(tar)
    while header := _header(tar, whole):
        if not 0 <= header.size <= _MAX_SIZE:
            raise UnsupportedContent(f"{tar.name} has an entry of {header.size} bytes: that can't be")
        if header.type in _BEFORE_ENTRY:
            extras.read(header)
            continue
        said = extras.take()
        if header.type == tarfile.GNUTYPE_SPARSE or any(key.startswith(_SPARSE) for key in said):
            raise UnsupportedContent(f"{tar.name} has sparse files; make it without --sparse")
        header.size = _size(header, said, tar.name)
        end = tar.position + header.size
        yield header, said
        tar.skip(end - tar.position)
        if whole:
            tar.skip(-header.size % BLOCK)
        else:
            tar.read(-header.size % BLOCK)  # which umoci leaves out behind the last file
    if extras.begun:
        raise cut_off(tar)


class _Extras:
    """The headers before the entry that they are about."""

    def __init__(self, tar: TarInput) -> None:
        self._tape = tar
        self._spent = 0
        self._size = 0
        self._count = 0
        self._said: dict[str, str] = {}

    @property
    def begun(self) -> bool:
        """Whether an entry has to come."""
        return self._count > 0

    def read(self, header: tarfile.TarInfo) -> None:
        """Take a header's content from the tape. What is said of all entries (pax's "g") is passed over."""
        name, size = self._tape.name, header.size
        self._count += 1
        if self._count > _MAX_BEFORE:
            raise UnsupportedContent(f"{name} has more than {_MAX_BEFORE} headers before one entry")
        self._spend(BLOCK + size)
        if header.type == tarfile.XGLTYPE:
            self._tape.skip(size + -size % BLOCK)
            return
        self._size += size
        if self._size > _MAX_EXTRA:
            raise UnsupportedContent(
                f"{name} has headers of {self._size} bytes before one entry, more than {_MAX_EXTRA}"
            )
        content = self._tape.read(size)
        if len(content) < size:
            raise cut_off(self._tape)
        self._tape.skip(-size % BLOCK)
        if key := _GNU_LONG.get(header.type):
            self._said[key] = _text(content.partition(b"\0")[0])
        else:
            self._said.update(_pax(content, name))
        for key in ("path", "linkpath"):
            if (size := len(_raw(self._said.get(key, "")))) > MAX_PATH:
                raise UnsupportedContent(
                    f"{name} has a {key} of {size} bytes; Linux takes no more than {MAX_PATH}"
                )

    def take(self) -> dict[str, str]:
        """What was said of the entry that has come."""
        self._spend(BLOCK)
        said, self._said, self._count, self._size = self._said, {}, 0, 0
        return said

    def _spend(self, size: int) -> None:
        self._spent += size
        if self._spent > max(HEADERS_FROM, HEADERS_RATIO * self._tape.taken):
            raise UnsupportedContent(
                f"{self._tape.name} has headers of more than {HEADERS_RATIO} times its size, which no image "
                "has; it is not read any further"
            )


def _header(tar: TarInput, whole: bool) -> tarfile.TarInfo | None:
    """The next header; None at the end of the tar."""
    start = tar.position
    block = tar.read(BLOCK)
    if not block and start and whole:
        raise StorageError(
            f"{tar.name} is cut off: it ends at byte {start}, without the zeros that end an archive"
        )
    if not block:
        return None
    if len(block) == BLOCK and not block.strip(b"\0"):
        _check_end(tar, whole)
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        if not start:
            raise UnsupportedContent(f"{tar.name} is not a tar archive") from None
        if len(block) < BLOCK:
            raise cut_off(tar) from None
        raise StorageError(f"{tar.name} is damaged: at byte {start} it has no tar header ({error})") from None


def _check_end(tar: TarInput, whole: bool) -> None:
    """Behind a block of zeros: another or nothing, and of a whole archive nothing but zeros behind that.

    What lies there would be lost without a word, be it that a page of a disk was lost, or that archives were
    put one behind the other.
    """
    start = tar.position
    if tar.read(BLOCK).strip(b"\0"):
        raise StorageError(f"{tar.name} is damaged: at byte {start - BLOCK} it has zeros, and more behind")
    while whole and (rest := tar.read(CHUNK)):
        if rest.strip(b"\0"):
            raise StorageError(
                f"{tar.name} has something behind its end at byte {start}; a file has to be one archive"
            )
        if tar.position - start > MAX_ZEROS:
            raise UnsupportedContent(
                f"{tar.name} has more than {MAX_ZEROS // 1024**2} MiB of zeros from byte {start} on; is it "
                "the right file?"
            )


def cut_off(tar: TarInput) -> StorageError:
    return StorageError(f"{tar.name} is cut off: it ends at byte {tar.position}, inside an entry")


def _pax(content: bytes, name: str) -> dict[str, str]:
    """The records of a pax header: `length key=value newline`."""
    found: dict[str, str] = {}
    at, count, end = 0, 0, len(content.rstrip(b"\0"))
    while at < end:
        space = content.find(b" ", at, at + _MAX_DIGITS)
        length = content[at:space] if space > at else b""
        stop = at + int(length) if length.isdigit() else 0
        equals = content.find(b"=", space, stop)
        if equals < 0 or content[stop - 1 : stop] != b"\n":
            raise StorageError(f"{name} is damaged: it has a pax header that can't be read")
        found[_text(content[space + 1 : equals])] = _text(content[equals + 1 : stop - 1])
        at, count = stop, count + 1
        if count > _MAX_RECORDS:
            raise UnsupportedContent(f"{name} has a pax header of more than {_MAX_RECORDS} records")
    return found


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _size(header: tarfile.TarInfo, long: dict[str, str], name: str) -> int:
    """Bytes of content: of folders, links and devices there is none, whatever their header says."""
    if header.type in _HEADER_ONLY:
        return 0
    said = long.get("size", str(header.size))
    if not (said.isascii() and said.isdecimal() and len(said) <= _MAX_DIGITS and int(said) <= _MAX_SIZE):
        raise StorageError(f"{name} is damaged: it has an entry of {said[:40]!r} bytes")
    return int(said)


def _member(header: tarfile.TarInfo, long: dict[str, str], name: str) -> Member | None:
    """The entry of a header and what came before it; None for the archive's root folder."""
    path = long.get("path", header.name)
    if header.isdir() and posixpath.normpath(path) == ".":
        return None
    path = inside(path, name)
    linked = long.get("linkpath", header.linkname)
    if header.issym():
        return Member(path, "symlink", target=inside(linked, name, folder=posixpath.dirname(path)))
    if header.islnk():
        return Member(path, "hardlink", target=inside(linked, name))
    if header.type in FILES:
        return Member(path, "file", header.size)
    return Member(path, "other", header.size)


def inside(path: str, name: str, *, folder: str = "") -> str:
    """A path of the archive `name` from its root, `folder` being where a relative link stands.

    Raises UnsupportedContent for one that leads outside, or that no file system takes.
    """
    if len(path) > MAX_PATH:
        raise UnsupportedContent(f"{name} names a path of {len(path)} characters; Linux takes {MAX_PATH}")
    whole = posixpath.normpath(posixpath.join(folder, path))
    if not path or whole in (".", "..") or whole.startswith(("/", "../")) or "\0" in whole:
        raise UnsupportedContent(f"{name} names {path[:200]!r}, which is outside of it; it is not read")
    return whole


def header_of(path: str, size: int) -> bytes:
    """The header of a file, the same on every machine and at any time."""
    entry = tarfile.TarInfo(path)
    entry.size = size
    return entry.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    """What fills the last block of content of `size` bytes."""
    return bytes(-size % BLOCK)

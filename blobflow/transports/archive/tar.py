"""Tar headers: what is in an archive, and nothing unpacked. POSIX.1-2017 pax, ustar, and GNU's long names.

The standard library's reader stops in silence at a header that it can't read, and an archive that was cut off
or spoilt would look like a smaller one. So only its parsing of one header is used; what follows from it is
decided here. Nothing in an archive can name a path outside of it.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from typing import Literal, Protocol

import msgspec

from blobflow.errors import StorageError, UnsupportedContent

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
# Headers that carry a long name, and pax headers: what may have to be held in memory.
_MAX_EXTRA = 1024 * 1024
_MAX_SIZE = 2**53
FILES = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
_HEADER_ONLY = frozenset(
    {tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE}
)
_SPARSE = "GNU.sparse."

Kind = Literal["file", "symlink", "hardlink", "other"]


class Member(msgspec.Struct, frozen=True):
    """One entry. `path` and, of a link, `target` are relative to the archive's root; `size` in bytes."""

    path: str
    kind: Kind
    size: int = 0
    target: str = ""


class Tape(Protocol):
    """Bytes in order. `position` counts those gone by; `name` is for messages."""

    name: str
    position: int

    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer only at the end."""
        ...

    def skip(self, size: int) -> None:
        """Pass over bytes. Raises StorageError where they end before."""
        ...


def members(tape: Tape) -> Iterator[Member]:
    """The entries of an archive, with paths inside of it; while it stands at one, its reader may read its
    content from the tape.

    Raises UnsupportedContent for what is no tar, for sparse files and for paths outside; StorageError where
    the archive is cut off or spoilt.
    """
    for header, long in entries(tape):
        if member := _member(header, long, tape.name):
            yield member
    if tape.position <= BLOCK:
        raise UnsupportedContent(f"{tape.name} is empty: it holds no image")


def entries(tape: Tape) -> Iterator[tuple[tarfile.TarInfo, dict[str, str]]]:
    """As `members`, raw: headers with the true size of what follows them, and what other headers said of
    them before. An empty tar has none."""
    long: dict[str, str] = {}
    while header := _header(tape):
        if not 0 <= header.size <= _MAX_SIZE:
            raise UnsupportedContent(f"{tape.name} has an entry of {header.size} bytes: that can't be")
        end = tape.position + -(-header.size // BLOCK) * BLOCK
        if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            key = "path" if header.type == tarfile.GNUTYPE_LONGNAME else "linkpath"
            long[key] = _text(_extra(tape, header.size).partition(b"\0")[0])
        elif header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            long.update(_pax(_extra(tape, header.size), tape.name))
        elif header.type != tarfile.XGLTYPE:
            if header.type == tarfile.GNUTYPE_SPARSE or any(key.startswith(_SPARSE) for key in long):
                raise UnsupportedContent(f"{tape.name} has sparse files; make it without --sparse")
            header.size = _size(header, long)
            end = tape.position + -(-header.size // BLOCK) * BLOCK
            yield header, long
            long = {}
        tape.skip(end - tape.position)


def _header(tape: Tape) -> tarfile.TarInfo | None:
    """The next header; None at the end of the archive."""
    start = tape.position
    block = tape.read(BLOCK)
    if not block.strip(b"\0"):
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        if not start:
            raise UnsupportedContent(f"{tape.name} is not a tar archive") from None
        if len(block) < BLOCK:
            raise cut_off(tape) from None
        raise StorageError(
            f"{tape.name} is damaged: at byte {start} it has no tar header ({error})"
        ) from None


def cut_off(tape: Tape) -> StorageError:
    return StorageError(f"{tape.name} is cut off: it ends at byte {tape.position}, inside an entry")


def _extra(tape: Tape, size: int) -> bytes:
    if size > _MAX_EXTRA:
        raise UnsupportedContent(f"{tape.name} has a header of {size} bytes, more than {_MAX_EXTRA}")
    extra = tape.read(size)
    if len(extra) < size:
        raise cut_off(tape)
    return extra


def _pax(content: bytes, name: str) -> dict[str, str]:
    """The records of a pax header: `length key=value newline`."""
    found: dict[str, str] = {}
    while content.strip(b"\0"):
        length = content.partition(b" ")[0]
        size = int(length) if length.isdigit() and len(length) < 8 else 0
        key, equals, value = content[len(length) + 1 : size - 1].partition(b"=")
        if not equals or not len(length) < size <= len(content):
            raise StorageError(f"{name} is damaged: it has a pax header that can't be read")
        found[_text(key)] = _text(value)
        content = content[size:]
    return found


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _size(header: tarfile.TarInfo, long: dict[str, str]) -> int:
    """Bytes of content: of folders, links and devices there is none, whatever their header says."""
    if header.type in _HEADER_ONLY:
        return 0
    said = long.get("size", "")
    return int(said) if said.isdecimal() and int(said) <= _MAX_SIZE else header.size


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

    Raises UnsupportedContent for one that leads outside.
    """
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

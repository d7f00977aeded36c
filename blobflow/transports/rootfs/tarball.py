"""Writes a tree as one tar (POSIX.1-2017 pax): the same tree gives the same bytes. Runs in a thread.

Folders come first, then files in the order of the layers, each followed by its other names, then the rest.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal

from blobflow.transports.archive.tar_reader import END, padding
from blobflow.transports.rootfs.layer_reader import Layer, each_content
from blobflow.transports.rootfs.tree import Entry, FileTree, Item, Kind

_TYPES: dict[Kind, bytes] = {
    "folder": tarfile.DIRTYPE,
    "file": tarfile.REGTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
}
_IMPLIED = Entry("", "folder")
# What a ustar header holds; beyond that a pax record says it.
_MAX_NAME = 100
_MAX_SIZE = 8**11 - 1
_MAX_ID = 8**7 - 1
_NANO = 1_000_000_000

Write = Callable[[bytes], None]


def write_tar(trees: Sequence[tuple[str, FileTree, Sequence[Layer]]], write: Write) -> None:
    """Write trees, each with its layers and below a folder of its own ("": none), as one tar."""
    for prefix, tree, layers in trees:
        _Tarring(f"{prefix}/" if prefix else "", tree, write).write(layers)
    write(END)


class _Tarring:
    def __init__(self, prefix: str, tree: FileTree, write: Write) -> None:
        self._prefix = prefix
        self._tree = tree
        self._out = write

    def write(self, layers: Sequence[Layer]) -> None:
        for folder in self._tree.folders:
            if name := f"{self._prefix}{folder.path}".rstrip("/"):
                self._out(header_of(f"{name}/", folder.entry or _IMPLIED))
        each_content(layers, self._tree.items, self._file)
        for item in self._tree.items:
            if item.entry is not None:
                name, *others = self._names(item)
                self._out(header_of(name, item.entry))
                self._other_names(name, others, item.entry)

    def _file(self, item: Item, entry: Entry, blocks: Iterator[bytes]) -> None:
        name, *others = self._names(item)
        self._out(header_of(name, entry))
        for block in blocks:
            self._out(block)
        self._out(padding(entry.size))
        self._other_names(name, others, entry)

    def _other_names(self, name: str, others: Sequence[str], entry: Entry) -> None:
        for other in others:
            self._out(header_of(other, entry, linked=name))

    def _names(self, item: Item) -> list[str]:
        return [f"{self._prefix}{path}" for path in item.paths]


def header_of(name: str, entry: Entry, linked: str | None = None) -> bytes:
    """The header of an entry, behind a pax header where it needs one; `linked`: of a hard link to that."""
    kind: Kind = entry.kind if linked is None else "hardlink"
    target = entry.target if linked is None else linked
    size = entry.size if kind == "file" else 0
    seconds, rest = divmod(entry.mtime, _NANO)
    records = _too_long({"path": name, "linkpath": target})
    for key, number, most in (
        ("size", size, _MAX_SIZE),
        ("uid", entry.uid, _MAX_ID),
        ("gid", entry.gid, _MAX_ID),
    ):
        if number > most:
            records[key] = str(number).encode()
    if rest or not 0 <= seconds <= _MAX_SIZE:
        records["mtime"] = str(Decimal(entry.mtime).scaleb(-9).normalize()).encode()
    if linked is None:
        records |= {f"SCHILY.xattr.{key}": value for key, value in entry.xattrs}
    info = tarfile.TarInfo(_short(name))
    info.type, info.linkname, info.mode = _TYPES[kind], _short(target), entry.mode
    info.size, info.mtime = min(size, _MAX_SIZE), min(max(seconds, 0), _MAX_SIZE)
    info.uid, info.gid = min(entry.uid, _MAX_ID), min(entry.gid, _MAX_ID)
    info.devmajor, info.devminor = entry.device
    return _pax(records) + info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")


def _too_long(texts: dict[str, str]) -> dict[str, bytes]:
    """Those that a ustar header does not hold."""
    raw = {key: text.encode(errors="surrogateescape") for key, text in texts.items()}
    return {key: text for key, text in raw.items() if len(text) > _MAX_NAME or not text.isascii()}


def _short(text: str) -> str:
    return text.encode(errors="replace").decode("ascii", "replace").replace("\ufffd", "?")[:_MAX_NAME]


def _pax(records: dict[str, bytes]) -> bytes:
    """A pax header with these records, nothing for none."""
    if not records:
        return b""
    content = b"".join(_record(key, value) for key, value in sorted(records.items()))
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + padding(len(content))


def _record(key: str, value: bytes) -> bytes:
    """`length key=value newline`, the length counting its own digits."""
    rest = b" " + key.encode() + b"=" + value + b"\n"
    size = len(rest) + 1
    while len(str(size)) + len(rest) != size:
        size = len(str(size)) + len(rest)
    return str(size).encode() + rest

"""Reading layers: headers as entries of the tree, and content for who is standing at one. For a thread."""

from __future__ import annotations

import base64
import binascii
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

from blobflow.errors import StorageError, UnsupportedContent
from blobflow.transports.archive.streams import RunningTape, running_tape
from blobflow.transports.archive.tar import FILES, cut_off
from blobflow.transports.archive.tar import entries as headers
from blobflow.transports.files import BLOCK, open_to_read
from blobflow.transports.rootfs.tree import Entry, Flat, Item, Kind, flat

# Extended attributes in pax headers: as star, GNU tar and Go write them, and as libarchive does (in base64).
_XATTR = "SCHILY.xattr."
_LIBARCHIVE = "LIBARCHIVE.xattr."
_NANO = 1_000_000_000
_SECONDS = re.compile(r"-?\d{1,12}(\.\d{0,20})?", re.ASCII)
_MAX_TIME = 2**33  # seconds; what ext4 keeps ends in 2446
_MAX_ID = 2**32 - 2
_MAX_DEVICE = 2**20 - 1
_KINDS: dict[bytes, Kind] = {
    tarfile.DIRTYPE: "folder",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.FIFOTYPE: "fifo",
}


def read_tree(layers: Sequence[tuple[str, Path]]) -> Flat:
    """The tree of layers, the lowest first: what each is called in messages, and its file.

    Raises UnsupportedContent, naming the layer, and StorageError.
    """
    return flat(_entries(name, path) for name, path in layers)


def _entries(name: str, path: Path) -> Iterator[Entry]:
    with _tape(name, path) as tape:
        for header, said in headers(tape):
            yield _entry(header, said)


def each_content(
    layers: Sequence[tuple[str, Path]], items: Sequence[Item], take: Callable[[Item, Iterator[bytes]], None]
) -> None:
    """Give `take` every file among the items with its content, in the order of the layers.

    Layers that nothing is left of are not read. Raises StorageError, and what `take` raises.
    """
    wanted: dict[int, dict[int, Item]] = {}
    for item in items:
        if item.entry.kind == "file":
            wanted.setdefault(item.layer, {})[item.number] = item
    for layer, left in sorted(wanted.items()):
        name, path = layers[layer]
        with _tape(name, path) as tape:
            for number, (header, _) in enumerate(headers(tape)):
                if number in left:
                    take(left.pop(number), _blocks(tape, header.size))
                if not left:
                    break


def _blocks(tape: RunningTape, size: int) -> Iterator[bytes]:
    while size:
        block = tape.read(min(BLOCK, size))
        if not block:
            raise cut_off(tape)
        size -= len(block)
        yield block


@contextmanager
def _tape(name: str, path: Path) -> Iterator[RunningTape]:
    try:
        fd = open_to_read(path)
    except FileNotFoundError:
        raise StorageError(f"{name} has gone from the store; run it again") from None
    try:
        yield running_tape(fd, name)
    finally:
        os.close(fd)


def _entry(header: tarfile.TarInfo, said: dict[str, str]) -> Entry:
    kind = "file" if header.type in FILES else _KINDS.get(header.type)
    path = said.get("path", header.name)
    if kind is None:
        raise UnsupportedContent(f"the image has {path[:200]!r}, of a kind that tar does not define")
    return Entry(
        path=path,
        kind=kind,
        mode=header.mode & 0o7777,
        uid=_number(said, "uid", header.uid),
        gid=_number(said, "gid", header.gid),
        mtime=_time(said.get("mtime", ""), header.mtime),
        size=header.size,
        target=said.get("linkpath", header.linkname),
        device=(_within(header.devmajor, _MAX_DEVICE), _within(header.devminor, _MAX_DEVICE)),
        xattrs=tuple(sorted(_xattrs(said))),
    )


def _number(said: dict[str, str], key: str, otherwise: int) -> int:
    text = said.get(key, "")
    return _within(int(text) if text.isdecimal() and len(text) < 12 else otherwise, _MAX_ID)


def _time(said: str, otherwise: float) -> int:
    seconds = Decimal(said if _SECONDS.fullmatch(said) else int(otherwise))
    return int(seconds * _NANO) if abs(seconds) < _MAX_TIME else 0


def _within(number: int, most: int) -> int:
    """A number that the system takes; 0 instead of one that it does not."""
    return number if 0 <= number <= most else 0


def _xattrs(said: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    for key, value in said.items():
        raw = value.encode(errors="surrogateescape")
        if key.startswith(_XATTR):
            yield key.removeprefix(_XATTR), raw
        elif key.startswith(_LIBARCHIVE) and f"{_XATTR}{key.removeprefix(_LIBARCHIVE)}" not in said:
            try:
                yield key.removeprefix(_LIBARCHIVE), base64.b64decode(raw + b"=" * (-len(raw) % 4))
            except binascii.Error:
                continue

"""Reads layers: headers as entries of the tree, and the content of the current one. Runs in a thread."""

from __future__ import annotations

import base64
import binascii
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from itertools import groupby
from pathlib import Path

import msgspec

from blobflow.errors import StorageError, UnsupportedContent
from blobflow.oci import Digest
from blobflow.transports.archive.tar_input import LayerInput, layer_input
from blobflow.transports.archive.tar_reader import FILES, cut_off
from blobflow.transports.archive.tar_reader import entries as headers
from blobflow.transports.files import BLOCK, open_to_read
from blobflow.transports.rootfs.tree import Entry, FileTree, Item, Kind, apply_layers

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


class Layer(msgspec.Struct, frozen=True):
    """One layer: what it is called in messages, its file, and what it has to be without its compression."""

    name: str
    path: Path
    diff_id: Digest


def read_tree(layers: Sequence[Layer]) -> FileTree:
    """The tree of layers, the lowest first, once all of them have been read to their end and are right.

    Raises UnsupportedContent and StorageError, naming the layer; DigestMismatch for one that is not what its
    diff_id says.
    """
    return apply_layers(_entries(layer) for layer in layers)


def _entries(layer: Layer) -> Iterator[Entry]:
    with _tape(layer) as tar:
        for header, said in headers(tar):
            yield _entry(header, said)
        tar.verify()


def each_content(
    layers: Sequence[Layer], items: Sequence[Item], take: Callable[[Item, Entry, Iterator[bytes]], None]
) -> None:
    """Give `take` every file among the items of a tree, what its layer says of it and its content, in the
    order of the layers, which `read_tree` has read before.

    Layers that nothing is left of are not read. Raises StorageError, and what `take` raises.
    """
    files = (item for item in items if item.entry is None)
    for layer, group in groupby(files, key=lambda item: item.layer):
        with _tape(layers[layer]) as tar:
            left = iter(list(group))
            following = next(left, None)
            for number, (header, said) in enumerate(headers(tar)):
                if following is None:
                    break
                if number == following.number:
                    take(following, _entry(header, said), _blocks(tar, header.size))
                    following = next(left, None)


def _blocks(tar: LayerInput, size: int) -> Iterator[bytes]:
    while size:
        block = tar.read(min(BLOCK, size))
        if not block:
            raise cut_off(tar)
        size -= len(block)
        yield block


@contextmanager
def _tape(layer: Layer) -> Iterator[LayerInput]:
    try:
        fd = open_to_read(layer.path)
    except FileNotFoundError:
        raise StorageError(f"{layer.name} has gone from the store; run it again") from None
    try:
        yield layer_input(fd, layer.name, layer.diff_id)
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

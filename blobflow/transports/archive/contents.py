"""The contents of an archive, file by file, and where each file's bytes can be read.

An uncompressed archive in a file is looked through once, headers alone, and its files stay where they are. A
compressed one, or a pipe, is read once from start to end: what may be wanted comes into the store on the way.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec

from blobflow.errors import UnsupportedContent
from blobflow.oci.digest import Digest
from blobflow.transports.archive.tar_reader import MAX_DEPTH, Member, TarInput, cut_off, members
from blobflow.transports.files import BLOCK, in_thread

# Entries of one archive. A thousand images of twenty layers, each a folder with three files, have 80,000.
MAX_MEMBERS = 500_000
# Bytes of their names, and of what links point to; those of the thousand images come to 9 MB.
MAX_NAMES = 32 * 1024 * 1024
_MAX_LINKS = 40  # followed for one file, as in Linux; docker and podman make one
_T = TypeVar("_T")


class StoredFile(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Where a file of the archive is: in it at `offset`, in the store as the blob `digest`, or here as `raw`;
    nowhere, if it is nothing that is read.

    `size` in bytes, of what is there. `diff_id`: the digest of the bare layer that is compressed in it.
    """

    size: int
    offset: int | None = None
    digest: Digest | None = None
    raw: bytes | None = None
    media_type: str = ""
    diff_id: Digest | None = None


class Contents(msgspec.Struct, frozen=True):
    """The files by path, and links by path with what they point to."""

    files: dict[str, StoredFile]
    links: dict[str, str]

    def find(self, path: str, name: str) -> StoredFile | None:
        """The file at `path`, through links; None if there is none.

        Raises UnsupportedContent where links of the archive `name` lead on and on.
        """
        for _ in range(_MAX_LINKS):
            if path in self.files:
                return self.files[path]
            linked = self._through(path) if path.count("/") <= MAX_DEPTH else None
            if linked is None:
                return None
            path = linked
        raise UnsupportedContent(f"{name} has links that lead in a circle, at {path[:200]!r}")

    def _through(self, path: str) -> str | None:
        """`path` with the first link in it followed: itself, or a folder above."""
        head, tail = path, ""
        while head:
            if head in self.links:
                return posixpath.join(self.links[head], tail) if tail else self.links[head]
            head, _, last = head.rpartition("/")
            tail = posixpath.join(last, tail) if tail else last
        return None


class ContentsBuilder:
    """Takes entries down as they come, by tar's rule: of several with one name the last one counts.

    Entries are numbered from 0. A hard link is another name for what had that name when it came, a symbolic
    one for what has it at the end.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._seen = 0
        self._held = 0
        self._named: dict[str, int | str] = {}

    def enter(self, member: Member) -> int:
        """Note an entry; returns its number. Raises UnsupportedContent where they are too many."""
        number = self._seen
        self._seen += 1
        if self._seen > MAX_MEMBERS:
            raise UnsupportedContent(f"{self._name} has more than {MAX_MEMBERS} entries; no image set does")
        path = member.path
        if member.kind == "other":
            self._named.pop(path, None)
            return number
        if path.count("/") > MAX_DEPTH:  # nothing of an image lies there
            return number
        self._held += len(path) + len(member.target)
        if self._held > MAX_NAMES:
            raise UnsupportedContent(f"{self._name} has more than {MAX_NAMES} bytes of names")
        if member.kind == "file":
            self._named[path] = number
        elif member.kind == "symlink":
            self._named[path] = member.target
        else:
            self._named[path] = self._named.get(member.target, member.target)
        return number

    def files(self) -> dict[str, int]:
        """The files by name, each with the number of the entry that has its content."""
        return {path: is_at for path, is_at in self._named.items() if isinstance(is_at, int)}

    def contents(self, stored: Mapping[int, StoredFile]) -> Contents:
        """All files whose content is `stored`, by the number of their entry, and all links."""
        files = {path: stored[number] for path, number in self.files().items() if number in stored}
        return Contents(
            files, {path: target for path, target in self._named.items() if isinstance(target, str)}
        )


def scan(tar: TarInput) -> Contents:
    """Look through an archive that can be read anywhere; in a thread."""
    register = ContentsBuilder(tar.name)
    stored: dict[int, StoredFile] = {}
    for member in members(tar):
        number = register.enter(member)
        if member.kind == "file":
            stored[number] = StoredFile(member.size, offset=tar.position)
    return register.contents(stored)


class Piece(msgspec.Struct, frozen=True):
    """A block of a member's content, 1 MiB but for the last. A file has at least one piece."""

    number: int
    member: Member
    block: bytes
    first: bool
    last: bool


def pieces(tar: TarInput, register: ContentsBuilder) -> Iterator[Piece]:
    """The content of all files, in the order of the archive."""
    for member in members(tar):
        number = register.enter(member)
        if member.kind != "file":
            continue
        left = member.size
        first = True
        while first or left:
            block = tar.read(min(BLOCK, left))
            if len(block) < min(BLOCK, left):
                raise cut_off(tar)
            left -= len(block)
            yield Piece(number, member, block, first, not left)
            first = False


async def one_ahead(items: Iterable[_T]) -> AsyncGenerator[_T, None]:
    """The items, each made in a thread while the one before is being used."""
    iterator = iter(items)
    pending = asyncio.ensure_future(in_thread(next, iterator, None))
    try:
        while (item := await pending) is not None:
            pending = asyncio.ensure_future(in_thread(next, iterator, None))
            yield item
    finally:
        if not pending.done():
            await asyncio.wait([pending])  # the iterator is the thread's until then
        if not pending.cancelled():
            pending.exception()

"""What an archive holds, file by file, and where each is to be had from now on.

An uncompressed archive in a file is looked through once, headers alone, and its files stay where they are. A
compressed one, or a pipe, is read once from start to end: what may be wanted comes into the store on the way.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

from blobflow.errors import UnsupportedContent
from blobflow.oci.digest import Digest
from blobflow.transports.archive.tar import Member, Tape, cut_off, members
from blobflow.transports.files import BLOCK, in_thread

# Entries of one archive. A thousand images of twenty layers, each a folder with three files, have 80,000.
MAX_MEMBERS = 500_000
_MAX_LINKS = 16
_T = TypeVar("_T")


class Stored(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a file of the archive is: in it at `offset`, in the store as the blob `digest`, or here as `raw`.

    `size` in bytes, of what is there. `diff_id`: the digest of the bare layer that was compressed into it.
    """

    size: int
    offset: int | None = None
    digest: Digest | None = None
    raw: bytes | None = None
    media_type: str = ""
    diff_id: Digest | None = None


class Contents(msgspec.Struct, frozen=True):
    """The files by path, and links by path with what they point to."""

    files: dict[str, Stored]
    links: dict[str, str]

    def find(self, path: str, name: str) -> Stored | None:
        """The file at `path`, through links; None if there is none.

        Raises UnsupportedContent where links of the archive `name` lead in a circle.
        """
        for _ in range(_MAX_LINKS):
            if path in self.files:
                return self.files[path]
            linked = self._through(path)
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


class Register:
    """Takes entries down as they come."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seen = 0
        self._entries: set[str] = set()
        self.contents = Contents({}, {})

    def enter(self, member: Member) -> None:
        """Note an entry, and a link for good. Raises UnsupportedContent for a path that is there already."""
        self._seen += 1
        if self._seen > MAX_MEMBERS:
            raise UnsupportedContent(f"{self._name} has more than {MAX_MEMBERS} entries; no image set does")
        if member.kind == "other":
            return
        if member.path in self._entries:
            raise UnsupportedContent(
                f"{self._name} has two entries named {member.path[:200]!r}; which one is meant can't be told"
            )
        self._entries.add(member.path)
        if member.kind != "file":
            self.contents.links[member.path] = member.target


def scan(tape: Tape) -> Contents:
    """Look through an archive that can be read anywhere; in a thread."""
    register = Register(tape.name)
    for member in members(tape):
        register.enter(member)
        if member.kind == "file":
            register.contents.files[member.path] = Stored(member.size, offset=tape.position)
    return register.contents


class Piece(msgspec.Struct, frozen=True):
    """A block of a member's content, 1 MiB but for the last. A file has at least one piece."""

    member: Member
    block: bytes
    first: bool
    last: bool


def pieces(tape: Tape, register: Register, wanted: Callable[[Member], bool]) -> Iterator[Piece]:
    """The content of the wanted files, in the order of the archive."""
    for member in members(tape):
        register.enter(member)
        if member.kind != "file" or not wanted(member):
            continue
        left = member.size
        first = True
        while first or left:
            block = tape.read(min(BLOCK, left))
            if len(block) < min(BLOCK, left):
                raise cut_off(tape)
            left -= len(block)
            yield Piece(member, block, first, not left)
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

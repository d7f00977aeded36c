"""Imports an archive's content into the store: compresses layers on the way, each once on this machine.

A block passes three stages, each at work on another block: one thread reads, inflates and cuts, another
hashes and compresses, and what came of that is hashed and written on the loop's. All give the interpreter
free while they do. What is whole is synced while what follows it comes in.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

import msgspec

from blobflow.errors import BlobflowError, DigestMismatch, IntegrityError, UnsupportedContent
from blobflow.oci import MAX_MANIFEST_BYTES, Digest
from blobflow.transports.archive.contents import (
    Contents,
    ContentsBuilder,
    Piece,
    StoredFile,
    one_ahead,
    pieces,
)
from blobflow.transports.archive.tar_input import StreamInput
from blobflow.transports.archive.tar_reader import Member
from blobflow.transports.compression.compressors import GZIP_LAYER, ZSTD_LAYER, Codec
from blobflow.transports.compression.decompressor import DamagedStream, Decompressor
from blobflow.transports.compression.detection import UncompressedDigest, decompressor_for
from blobflow.transports.compression.formats import Kind, compression_of
from blobflow.transports.files import BLOCK, in_thread
from blobflow.transports.layout.index_json import digest_in_path
from blobflow.transports.store import ImportCache, Store, Writer

# What of an archive is held in memory: its configs and lists. A thousand images have 10 MB of them.
_MAX_HELD = 64 * 1024 * 1024
# Files being synced while the next ones come in. Small ones are synced several at once.
_COMMITS = 8
_OCTAL = re.compile(rb" *([0-7]+)[ \0]")
_LISTS = frozenset({"index.json", "oci-layout", "manifest.json"})
_LAYER_TYPES: dict[Kind | None, str] = {"gzip": GZIP_LAYER, "zstd": ZSTD_LAYER}


class Importer:
    """Brings content into a store, and leases it there until `close`."""

    def __init__(self, store: Store, codec: Codec) -> None:
        self._store = store
        self._imports = ImportCache(store)
        self._leases: dict[Digest, str] = {}
        self.codec = codec
        self.begun = 0  # files that were begun to be taken in

    def close(self) -> None:
        for lease in self._leases.values():
            self._store.leases.release(lease)
        self._leases.clear()

    def lease(self, digest: Digest) -> None:
        """Keep the blob in the store until `close`."""
        if digest not in self._leases:
            self._leases[digest] = self._store.leases.acquire_now(digest)

    async def take(self, tar: StreamInput, *, oci: bool) -> Contents:
        """Read the archive to its end. `oci`: its files as they are, wherever they lie, since links may make
        blobs of them; else whatever may be config or layer."""
        register = ContentsBuilder(tar.name)
        receiver = _Receiver(self, tar.name, oci=oci)
        async with aclosing(one_ahead(pieces(tar, register))) as coming:
            try:
                async for piece in coming:
                    await receiver.receive(piece)
                await receiver.committed()
            except BaseException:
                await receiver.abort()
                raise
        for number in register.files().values():
            if number in receiver.damaged:
                raise receiver.damaged[number]
        return register.contents(receiver.stored)

    async def compress(self, blocks: AsyncIterator[bytes], diff_id: Digest, what: str) -> StoredFile:
        """The blob that a bare layer becomes, made anew unless it is held from before."""
        if found := self.remembered(diff_id):
            return found
        layer = _Layer(self)
        try:
            async for block in blocks:
                await layer.write(block)
            received = await layer.finish(diff_id, what)
            await received.commit()
            return received.stored
        except BaseException:
            await layer.abort()
            raise

    def remembered(self, diff_id: Digest) -> StoredFile | None:
        """The blob that a bare layer became before, now leased."""
        for version in self.versions:
            if found := self._imports.layer(diff_id, version):
                digest, size = found
                self.lease(digest)
                return StoredFile(size, digest=digest, media_type=self.codec.media_type, diff_id=diff_id)
        return None

    @property
    def versions(self) -> tuple[str, ...]:
        """The codec's version and those whose layers keep their digests, in the order in which they count."""
        return (*self.codec.earlier, self.codec.version)

    def holds(self, contents: Contents) -> bool:
        """Whether all that came into the store is still there; then it is leased."""
        held = [stored for stored in contents.files.values() if stored.digest]
        if any(self._store.blobs.size_of(stored.digest) != stored.size for stored in held if stored.digest):
            return False
        for stored in held:
            if stored.digest:
                self.lease(stored.digest)
        return True

    def begin(self, digest: Digest | None = None) -> Writer:
        self.begun += 1
        return self._store.partials.begin(digest)

    def size_of(self, digest: Digest) -> int | None:
        return self._store.blobs.size_of(digest)

    def record(self, diff_id: Digest, digest: Digest, size: int) -> None:
        self._imports.record_layer(diff_id, self.codec.version, digest, size)


async def _nothing() -> None:
    """The commit of what is in no need of one."""


class Received(msgspec.Struct, frozen=True):
    """A file that has come whole: where it will be, and what makes it be there. That is to be called once."""

    stored: StoredFile
    commit: Callable[[], Coroutine[Any, Any, None]] = _nothing


class _Layer:
    """A bare layer on its way into the store."""

    def __init__(self, importer: Importer) -> None:
        self._importer = importer
        self._diff = hashlib.sha256(usedforsecurity=False)
        self._compressor = importer.codec.begin()
        self._writer = importer.begin()
        self._compressing: asyncio.Task[bytes] | None = None

    async def write(self, block: bytes) -> None:
        """Take a block, and write what the one before became while this one is compressed."""
        made = await self._compressed()
        self._compressing = asyncio.create_task(in_thread(self._step, block))
        self._writer.write(made)

    def _step(self, block: bytes) -> bytes:
        self._diff.update(block)
        return self._compressor.compress(block)

    async def _compressed(self) -> bytes:
        """What the last block became, b"" before there was one."""
        compressing, self._compressing = self._compressing, None
        return await compressing if compressing is not None else b""

    async def finish(self, expected: Digest | None, what: str) -> Received:
        """It is a blob, but for its commit. Raises DigestMismatch unless the bare layer is `expected` (None:
        whatever)."""
        self._writer.write(await self._compressed())
        diff_id = Digest(f"sha256:{self._diff.hexdigest()}")
        if expected is not None and diff_id != expected:
            raise DigestMismatch(what, expected=expected, actual=diff_id)
        if found := self._importer.remembered(diff_id):
            self._writer.abort()
            return Received(found)
        self._writer.write(await in_thread(self._compressor.flush))
        digest, size = self._writer.digest_so_far(), self._writer.offset
        self._importer.lease(digest)
        media_type = self._importer.codec.media_type
        stored = StoredFile(size, digest=digest, media_type=media_type, diff_id=diff_id)

        async def commit() -> None:
            await self._writer.commit(digest, size)
            self._importer.record(diff_id, digest, size)

        return Received(stored, commit)

    async def abort(self) -> None:
        compressing, self._compressing = self._compressing, None
        try:
            if compressing is not None:
                await asyncio.wait([compressing])  # the compressor is the thread's until then
                _ = compressing.cancelled() or compressing.exception()
        finally:
            self._writer.abort()


class _Repacked:
    """A layer compressed in a way that OCI has no media type for, on its way to be compressed in ours."""

    def __init__(self, importer: Importer, inflater: Decompressor) -> None:
        self._bare = _Layer(importer)
        self._inflater = inflater
        self._gathered = bytearray()

    async def write(self, block: bytes) -> None:
        """Raises DamagedStream, UnsupportedContent."""
        pieces = self._inflater.decompress(block)
        while (piece := await in_thread(next, pieces, None)) is not None:
            self._gathered += piece
            if len(self._gathered) >= BLOCK:
                await self._bare.write(bytes(self._gathered[:BLOCK]))
                del self._gathered[:BLOCK]

    async def finish(self, expected: Digest | None, what: str) -> Received:
        self._inflater.finish()
        if self._gathered:
            await self._bare.write(bytes(self._gathered))
        return await self._bare.finish(expected, what)

    async def abort(self) -> None:
        await self._bare.abort()


class _AsItIs:
    """Content that goes into the store unchanged: `digest` if its name says it, `bare` if it is a layer."""

    def __init__(
        self,
        importer: Importer,
        member: Member,
        digest: Digest | None,
        media_type: str = "",
        bare: UncompressedDigest | None = None,
    ) -> None:
        self._importer = importer
        self._member = member
        self._digest = digest
        self._media_type = media_type
        self._bare = bare
        held = digest is not None and importer.size_of(digest) == member.size
        self._writer = None if held else importer.begin(digest)

    async def write(self, block: bytes) -> None:
        """Raises StorageError, UnsupportedContent for a layer that can't be inflated."""
        inflating = None
        if self._bare is not None:
            inflating = asyncio.create_task(in_thread(self._bare.update, block))
        try:
            if self._writer is not None:
                self._writer.write(block)
        finally:
            if inflating is not None:
                await inflating

    async def finish(self, expected: Digest | None, what: str) -> Received:
        diff_id = self._bare.finish() if self._bare is not None else None
        digest = self._digest or (self._writer.digest_so_far() if self._writer else None)
        assert digest is not None, "content without a writer has a name"
        self._importer.lease(digest)
        size, writer = self._member.size, self._writer
        stored = StoredFile(size, digest=digest, media_type=self._media_type, diff_id=diff_id)
        if writer is None:
            return Received(stored)
        return Received(stored, lambda: writer.commit(digest, size))

    async def abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()


class _Held:
    """A small file, kept in memory."""

    def __init__(self) -> None:
        self._raw = b""

    async def write(self, block: bytes) -> None:
        self._raw += block

    async def finish(self, expected: Digest | None, what: str) -> Received:
        return Received(StoredFile(len(self._raw), raw=self._raw))

    async def abort(self) -> None:
        pass


class _Receiver:
    """Gives each file that comes to what shall become of it, told by its first block.

    `stored`: the files by the numbers of their entries; `damaged`: those of which only an error is left,
    which does no harm if another entry of that name comes later.
    """

    def __init__(self, importer: Importer, name: str, *, oci: bool) -> None:
        self._importer = importer
        self._name = name
        self._oci = oci
        self._held = 0
        self._current: _Layer | _Repacked | _AsItIs | _Held | None = None
        self._commits: set[asyncio.Task[None]] = set()
        self.stored: dict[int, StoredFile] = {}
        self.damaged: dict[int, BlobflowError] = {}

    async def receive(self, piece: Piece) -> None:
        if piece.first:
            self.stored[piece.number] = StoredFile(piece.member.size)
            self._current = self._begin(piece)
        if self._current is None:
            return
        try:
            await self._current.write(piece.block)
            if piece.last:
                received = await self._current.finish(None, f"{piece.member.path} of {self._name}")
                self._current = None
                self.stored[piece.number] = received.stored
                self._commits.add(asyncio.create_task(self._commit(piece.number, received)))
        except (IntegrityError, DamagedStream) as error:
            self.damaged[piece.number] = error
            await self._drop_current()
        if len(self._commits) > _COMMITS:
            await self._some_committed()

    async def _commit(self, number: int, received: Received) -> None:
        try:
            await received.commit()
        except IntegrityError as error:
            self.damaged[number] = error

    async def committed(self) -> None:
        """Wait until all that has come is in the store. Raises StorageError."""
        while self._commits:
            await self._some_committed()

    async def _some_committed(self) -> None:
        done, self._commits = await asyncio.wait(self._commits, return_when=asyncio.FIRST_COMPLETED)
        for commit in done:
            commit.result()

    async def abort(self) -> None:
        """Leave nothing half done behind: what was being committed is in the store or not at all."""
        try:
            await self._drop_current()
        finally:
            for commit in (await asyncio.wait(self._commits))[0] if self._commits else ():
                _ = commit.cancelled() or commit.exception()  # one reason to stop is told

    async def _drop_current(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            await current.abort()

    def _begin(self, piece: Piece) -> _Layer | _Repacked | _AsItIs | _Held | None:
        member = piece.member
        if self._oci and member.path in _LISTS:
            return self._hold(member)
        if self._oci:
            return _AsItIs(self._importer, member, digest_in_path(member.path))
        if is_tar(piece.block) or not piece.block:
            return _Layer(self._importer)
        if media_type := layer_type(piece.block):
            bare = UncompressedDigest(piece.block, f"layer {member.path} of {self._name}")
            return _AsItIs(self._importer, member, None, media_type, bare)
        if inflater := decompressor_for(piece.block, f"layer {member.path} of {self._name}"):
            return _Repacked(self._importer, inflater)
        return self._hold(member) if piece.block[:64].lstrip()[:1] in (b"{", b"[") else None

    def _hold(self, member: Member) -> _Held | None:
        if member.size > MAX_MANIFEST_BYTES:
            return None
        self._held += member.size
        if self._held > _MAX_HELD:
            raise UnsupportedContent(f"{self._name} has more than {_MAX_HELD} bytes of configs and lists")
        return _Held()


def layer_type(head: bytes) -> str:
    """The media type of a layer that is compressed as OCI has it, "" for any other."""
    return _LAYER_TYPES.get(compression_of(head), "")


def is_tar(head: bytes) -> bool:
    """Whether content begins as a tar does: with a header, or as an empty one with zeros."""
    block = head[:512]
    if len(block) < 512:
        return False
    if not block.strip(b"\0"):
        return True
    said = _OCTAL.match(block[148:156])
    return said is not None and int(said[1], 8) == sum(block) - sum(block[148:156]) + 8 * ord(" ")

"""Contract checks for Sources and Sinks: for the tests of those who write one.

    await check_source(MySource(site), "1.0")       # reads only
    await check_sink(MySink, Site("here", "tests")) # pushes a little, under tags that begin with `contract-`

Each returns if every promise held that it can see from outside, and else raises ContractBroken: one sentence,
which promise and what happened instead. `blobflow.content` has the promises in prose.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import NoReturn, Protocol

from blobflow.content import BlobStream, Sink, Site, Source, Verifier
from blobflow.errors import BlobflowError, ConnectionLost, NotFound
from blobflow.oci import UNKNOWN_SIZE, Descriptor, Manifest, digest_of, media, parse_manifest
from blobflow.oci.digest import algorithm_of

_ABSENT_TAG = "contract-absent"
_CHUNK = 64 * 1024
# Blobs that are pushed, in bytes: several chunks for most, and one that goes the way of large blobs.
_SIZE, _LARGE = 300_000, 5 * 1024 * 1024
# Shares of a blob after which a reading is taken up, or a push breaks.
_SHARES = (0.0, 0.1, 0.5, 0.9, 1.0)
# Streams that are left early in each way, and seconds in which their connections or files have to be given
# back. One more connection than before may be idle, with both its ends in this process.
_LEFT_EARLY = 6
_GIVEN_BACK = 5.0
_OPEN_FILES = Path("/dev/fd")  # where there is one, it lists what this process has open


class ContractBroken(AssertionError):
    """A promise that was not kept."""


class _Both(Source, Sink, Protocol):
    """A repository that can be read and written."""


async def check_source(source: Source, name: str) -> None:
    """Try a Source that holds an image, or an index, under `name`, and all that it names: best with one blob
    of some MiB, which may go another way than small ones. Raises ContractBroken."""
    root = await _resolved(source, name)
    for absent in (_ABSENT_TAG, digest_of(os.urandom(16))):
        await _not_found(f"resolve({absent!r})", source.resolve(absent))
    manifest = await _read(source, root)
    missing = Descriptor(root.media_type, digest_of(os.urandom(16)), 16)
    await _not_found("read() of a manifest that is not there", source.read(missing))
    while manifest.is_index:
        if not manifest.manifests:
            return
        manifest = await _read(source, manifest.manifests[0])
    for blob in dict.fromkeys(manifest.blobs):
        await _check_blob(source, blob)
    await _not_found("open() of a blob that is not there, on entry", _enter(source, missing))


async def check_sink(make: Callable[[Site], _Both], site: Site) -> None:
    """Try a Sink that is a Source too, so that what was put can be seen. Raises ContractBroken.

    `make` as in `blobflow.CustomTransports`; `site`: a repository in which content may be left that nobody
    misses.
    """
    sink = make(site)
    layers = []
    for size in (_SIZE, _LARGE):
        content = os.urandom(size)
        layers.append(_blob(content))
        await _check_push(sink, layers[-1], content)
    for share in _SHARES:
        await _check_resume(sink, os.urandom(_SIZE), share)
    await _check_resume(sink, os.urandom(_LARGE), 0.5)
    config = b"{}"
    named = Descriptor(media.OCI_CONFIG, digest_of(config), len(config))
    await sink.push(named, _Steps(config))
    raw = _image(named, *layers)
    image = Descriptor(media.OCI_MANIFEST, digest_of(raw), len(raw))
    tags = ("contract-a", "contract-b")
    await sink.put(image, raw)
    if not await sink.has(image):
        _broken("has() is true for a manifest that was put", "it was false")
    await sink.put(image, raw, tags)
    for tag in tags:
        try:
            found: Descriptor | str = await sink.resolve(tag)
        except NotFound:
            found = "nothing"
        if found != image:
            _broken("resolve() names what was put under a tag", f"it gave {found} for {tag}, and not {image}")
    if await sink.is_empty():
        _broken("is_empty() is true only where nothing is", "it was true after a push")
    if await sink.mount(
        Descriptor(media.OCI_LAYER_GZIP, digest_of(os.urandom(9)), 9), Site(site.registry, "none")
    ):
        _broken("mount() is true only if the blob is here then", "it was for one that is nowhere")
    await check_source(make(site), tags[0])


async def _check_push(sink: _Both, blob: Descriptor, content: bytes) -> None:
    if await sink.has(blob):
        _broken("has() is false for a blob that was never pushed", "it was true for random bytes")
    failed = ConnectionLost("the body broke")
    for what, reader, wanted in (
        ("a body that fails", _Steps(content[:_CHUNK], failed), ConnectionLost),
        ("a body of other bytes", _Steps(content[:-1] + bytes([content[-1] ^ 1])), BlobflowError),
        ("a body of too few bytes", _Steps(content[:-1]), BlobflowError),
        ("a body of too many bytes", _Steps(content + b"!"), BlobflowError),
    ):
        try:
            await sink.push(blob, reader)
        except wanted:
            pass
        else:
            _broken(f"push() raises for {what}", "it returned")
        if what != "a body of too many bytes" and await sink.has(blob):
            _broken(f"push() of {what} leaves nothing", "has() is true after it")
    hanging = asyncio.create_task(sink.push(blob, _Steps(content[:_CHUNK], asyncio.Event())))
    await asyncio.sleep(0.05)
    hanging.cancel()
    await asyncio.wait((hanging,))
    if not hanging.cancelled():
        _broken("push() can be cancelled", "it ended otherwise")
    if await sink.has(blob):
        _broken("a cancelled push() leaves nothing", "has() is true after it")
    await asyncio.gather(*(sink.push(blob, _Steps(content)) for _ in range(2)))
    await sink.push(blob, _Steps(content))
    if not await sink.has(blob):
        _broken("has() is true for a blob that was pushed", "it was false")


async def _check_resume(sink: _Both, content: bytes, share: float) -> None:
    """A push breaks after a share of the bytes, and another one follows it."""
    blob, sent = _blob(content), int(len(content) * share)
    failed = ConnectionLost("the body broke")
    try:
        await sink.push(blob, _Steps(content[:sent], failed))
    except ConnectionLost:
        pass
    if sent < blob.size and await sink.has(blob):
        _broken("push() that breaks leaves nothing", f"has() is true after {sent} of {blob.size} bytes")
    reader = _Steps(content)
    await sink.push(blob, reader)
    if any(offset > sent for offset in reader.opened):
        _broken("push() goes on from what was sent", f"from {max(reader.opened)} where {sent} bytes were")
    if await _bytes_of(sink, blob) != content:
        _broken("push() after one that broke puts the blob", "other bytes are there")


async def _resolved(source: Source, name: str) -> Descriptor:
    root = await source.resolve(name)
    if root.media_type not in media.MANIFESTS:
        _broken("resolve() gives a manifest's media type", f"it gave {root.media_type!r}")
    again = await source.resolve(root.digest)
    if again != root:
        _broken("resolve() gives the same for a tag and its digest", f"it gave {again}, and not {root}")
    return root


async def _read(source: Source, named: Descriptor) -> Manifest:
    for size in (named.size, UNKNOWN_SIZE):
        raw = await source.read(Descriptor(named.media_type, named.digest, size))
        actual = digest_of(raw, algorithm_of(named.digest))
        if actual != named.digest:
            _broken("read() gives the bytes that the digest names", f"they have {actual}, not {named.digest}")
        if named.sized and len(raw) != named.size:
            _broken(
                "resolve() gives a manifest's size in bytes", f"it gave {named.size}, they are {len(raw)}"
            )
    return parse_manifest(raw, named.media_type, digest=named.digest)


async def _check_blob(source: Source, blob: Descriptor) -> None:
    content = await _bytes_of(source, blob)
    verifier = Verifier(blob)
    try:
        verifier.feed(content)
        verifier.finish()
    except BlobflowError as error:
        _broken("open() gives the blob's bytes", str(error))
    middle = blob.size // 2
    parts: list[tuple[int, int | None]] = [(int(blob.size * share), None) for share in _SHARES]
    for offset, end in (*parts, (0, middle), (min(1, middle), middle)):
        if await _bytes_of(source, blob, offset, end) != content[offset:end]:
            _broken("open() gives the bytes from `offset` to `end`", f"it did not for {offset} to {end}")
    if blob.size:
        await _check_leaving(source, blob)
    at_once = await asyncio.gather(*(_bytes_of(source, blob) for _ in range(3)))
    if at_once != [content] * 3:
        _broken("a blob can be read by several at once", "they got different bytes")


async def _check_leaving(source: Source, blob: Descriptor) -> None:
    """A stream that is left early is over, and so is its connection or file, whoever holds the stream."""
    before = _open_files()
    for leave in (_by_the_context, _by_closing, _by_cancelling):
        left = [await leave(source, blob) for _ in range(_LEFT_EARLY)]
        for stream in left:
            try:
                chunk = await anext(stream)
            except (BlobflowError, StopAsyncIteration):
                continue
            _broken("a stream that was left gives nothing more", f"it gave {len(chunk)} bytes")
        waited = 0.0
        while (still := _open_files() - before) >= _LEFT_EARLY and waited < _GIVEN_BACK:
            await asyncio.sleep(0.02)
            waited += 0.02
        if still >= _LEFT_EARLY:
            _broken(
                "a stream that was left gives its connection or file back",
                f"{still} were still open after {_GIVEN_BACK:.0f} s",
            )


async def _by_the_context(source: Source, blob: Descriptor) -> BlobStream:
    async with source.open(blob) as stream:
        await anext(stream)
        return stream


async def _by_closing(source: Source, blob: Descriptor) -> BlobStream:
    async with source.open(blob) as stream:
        await anext(stream)
        await stream.aclose()
        await stream.aclose()
        return stream


async def _by_cancelling(source: Source, blob: Descriptor) -> BlobStream:
    held: list[BlobStream] = []
    begun = asyncio.Event()

    async def read() -> None:
        async with source.open(blob) as stream:
            held.append(stream)
            await anext(stream)
            begun.set()
            await asyncio.Event().wait()

    reading = asyncio.create_task(read())
    waiting = asyncio.create_task(begun.wait())
    await asyncio.wait((reading, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    reading.cancel()
    await asyncio.wait((reading,))
    if not reading.cancelled():
        await reading  # raises what it ended by
    return held[0]


def _open_files() -> int:
    return len(list(_OPEN_FILES.iterdir())) if _OPEN_FILES.is_dir() else 0


async def _bytes_of(source: Source, blob: Descriptor, offset: int = 0, end: int | None = None) -> bytes:
    found = bytearray()
    async with source.open(blob, offset, end) as chunks:
        async for chunk in chunks:
            if not len(chunk):
                _broken("a chunk has at least one byte", f"one of {blob.digest} had none")
            found += chunk
    return bytes(found)


async def _enter(source: Source, blob: Descriptor) -> None:
    async with source.open(blob):
        pass


async def _not_found(what: str, asked: object) -> None:
    try:
        found = await asked  # type: ignore[misc]
    except NotFound:
        return
    except Exception as error:  # noqa: BLE001  whatever it is, it was to be NotFound
        _broken(f"{what} raises NotFound", f"it raised {type(error).__name__}: {error}")
    _broken(f"{what} raises NotFound", f"it returned {found!r}")


class _Steps:
    """A `BlobReader` of bytes in chunks of a reused buffer, of errors that are raised, and of events that are
    waited for. `opened`: the offsets."""

    def __init__(self, *steps: bytes | BaseException | asyncio.Event) -> None:
        self.opened: list[int] = []
        self._steps = steps

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        self.opened.append(offset)
        async with aclosing(self._chunks(offset)) as stream:
            yield stream

    async def _chunks(self, offset: int) -> AsyncGenerator[memoryview, None]:
        buffer = bytearray(_CHUNK)
        for step in self._steps:
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, asyncio.Event):
                await step.wait()
                continue
            for at in range(offset, len(step), _CHUNK):
                part = step[at : at + _CHUNK]
                buffer[: len(part)] = part
                yield memoryview(buffer)[: len(part)]


def _blob(content: bytes) -> Descriptor:
    return Descriptor(media.OCI_LAYER_GZIP, digest_of(content), len(content))


def _image(config: Descriptor, *layers: Descriptor) -> bytes:
    def named(blob: Descriptor) -> str:
        return f'{{"mediaType":"{blob.media_type}","digest":"{blob.digest}","size":{blob.size}}}'

    return (
        f'{{"schemaVersion":2,"mediaType":"{media.OCI_MANIFEST}",'
        f'"config":{named(config)},"layers":[{",".join(map(named, layers))}]}}'
    ).encode()


def _broken(promise: str, instead: str) -> NoReturn:
    raise ContractBroken(f"promised: {promise}; but {instead}")

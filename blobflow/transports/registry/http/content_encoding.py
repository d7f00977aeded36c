"""Content-Encoding (RFC 9110, 8.4) of responses: decodes it, or raises an error that names it.

We ask for none (`Accept-Encoding: identity`). Caches answer all the same with what another client asked for,
where their key lacks Accept-Encoding (nginx), and some proxies compress whatever passes. Digests and sizes
are those of the content, never of what it came as.

The label is not always true. Object stores keep it with a blob that *is* gzip and was uploaded under it, or
have words there that are no compression. What begins otherwise than it is labelled, has the content's own
length, or has none told and would no longer be the gzip or zstd that its media type promises, is taken as it
is; the digest is the judge. What comes out is bounded by who asks: pieces are at most 1 MiB, and nobody reads
past a size.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Protocol

import aiohttp
from multidict import CIMultiDictProxy

from blobflow.errors import ProtocolViolation, StorageError, UnsupportedContent
from blobflow.oci import Descriptor
from blobflow.printable import one_line
from blobflow.transports.registry.http.headers import parse_content_range, parse_length

if TYPE_CHECKING:
    from blobflow.transports.compression.decompressor import Decompressor

_NO_COMPRESSION = frozenset({"", "identity", "none", "binary", "8bit", "utf-8", "utf8", "aws-chunked"})
_ALIASES = {"x-gzip": "gzip"}
_DECODABLE = frozenset({"gzip", "deflate", "zstd"})
# Codings on top of each other that are undone: a cache's and a proxy's.
_MOST = 2
# Bytes that tell what content is, and those of it that are tried before the rest has come.
_HEAD = 512
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_MAGIC = {
    "gzip": (_GZIP,),
    "zstd": (_ZSTD, *(bytes((first, 0x2A, 0x4D, 0x18)) for first in range(0x50, 0x60))),
}
_TELLS = {"gzip": 2, "deflate": 2, "zstd": 4}  # bytes
_PIECE = 1024 * 1024
# The largest window of zstd as a coding (RFC 9659, 3): what every sender has to keep to, in bytes.
ZSTD_WINDOW = 8 * 1024 * 1024
# What a coding adds at most to a small answer that it can't make smaller, in bytes.
CODING_BYTES = 4096

Headers = CIMultiDictProxy[str]


def codings_of(headers: Headers) -> tuple[str, ...]:
    """The compressions that were applied, in their order; most often none."""
    if "Content-Encoding" not in headers:
        return ()
    words = ",".join(headers.getall("Content-Encoding"))[:1000].lower().split(",")
    names = (_ALIASES.get(word.strip(), word.strip()) for word in words)
    return tuple(name for name in names if name not in _NO_COMPRESSION)


def length_of(headers: Headers) -> int | None:
    """The content's size in bytes, as far as Content-Length tells it: that of compressed bytes is another."""
    return None if codings_of(headers) else parse_length(headers.get("Content-Length"))


def codings_over(
    response: aiohttp.ClientResponse, blob: Descriptor, host: str, description: str
) -> tuple[str, ...]:
    """What is to be undone to get at a blob; none where the answer has its size without that.

    Raises ProtocolViolation as `check_codings` does.
    """
    codings = codings_of(response.headers)
    if codings:
        told = parse_content_range(response.headers.get("Content-Range"))
        if blob.size in (response.content_length, told.total if told is not None else None):
            return ()
        check_codings(codings, host, description)
    return codings


def check_codings(codings: tuple[str, ...], host: str, description: str) -> None:
    """Raises ProtocolViolation where codings can't be undone."""
    if len(codings) > _MOST or not _DECODABLE.issuperset(codings):
        raise ProtocolViolation(
            f"{host} answered {description} with Content-Encoding {one_line(', '.join(codings), 60)},"
            " which was not"
            " asked for and is not read here; have the proxy or cache before it leave /v2/ uncompressed"
        )


def decode_body(body: bytes, codings: tuple[str, ...], what: str, limit: int) -> bytes:
    """A whole small body without its codings, or the first `limit` + 1 bytes of that.

    Raises ProtocolViolation where it is damaged; `what` names it.
    """
    content = bytearray()
    undoing = _decoder_for(body, codings, what, b"")
    for piece in undoing.feed(body):
        content += piece
        if len(content) > limit:
            return bytes(content[: limit + 1])
    undoing.finish()
    return bytes(content)


def decode_error_body(body: bytes, headers: Headers) -> bytes:
    """The words of a refusal without their codings, as much as there is; nothing where they can't be read."""
    codings = codings_of(headers)
    if not codings:
        return body
    content = bytearray()
    try:
        check_codings(codings, "", "")
        for piece in _decoder_for(body, codings, "", b"").feed(body):
            content += piece
            if len(content) > CODING_BYTES * 16:
                break
    except ProtocolViolation:
        pass
    return bytes(content)


async def decode_stream(
    pieces: AsyncIterator[bytes | memoryview], codings: tuple[str, ...], what: str, begins: bytes
) -> AsyncIterator[bytes]:
    """A blob's bytes, as its codings come off, in pieces of at most 1 MiB. `begins`: its first ones, where
    the label may be untrue.

    That they are all there is for who knows the size. Raises ProtocolViolation where they are damaged, and
    what `pieces` raises.
    """
    head, undoing = b"", None
    async for piece in pieces:
        if undoing is None:
            head += piece
            if len(head) < _HEAD:
                continue
            undoing, piece = _decoder_for(head, codings, what, begins), head
        for part in undoing.feed(bytes(piece)):
            yield part
    if undoing is None:
        for part in _decoder_for(head, codings, what, begins).feed(head):
            yield part


def magic_of(blob: Descriptor) -> bytes:
    """The first bytes that a blob has by its media type; none where that does not say."""
    kind = blob.media_type.lower()
    return _GZIP if kind.endswith(("+gzip", ".gzip")) else _ZSTD if kind.endswith("+zstd") else b""


class _Decoder(Protocol):
    """One coding that is being undone."""

    def feed(self, block: bytes) -> Iterator[bytes]: ...

    def finish(self) -> None: ...


def _decoder_for(head: bytes, codings: tuple[str, ...], what: str, begins: bytes) -> _Decoder:
    """What undoes the codings of a body that begins with `head`, and whose content has to with `begins`."""
    undoing: _Decoder = _Identity()
    for coding in codings:  # the last one comes off first
        undoing = _Chain(_LabelledDecoder(coding, what), undoing)
    if begins and head.startswith(begins):
        trial: _Decoder = _Identity()
        for coding in codings:
            trial = _Chain(_LabelledDecoder(coding, what), trial)
        try:
            first = next(trial.feed(head[:_HEAD]), begins)
        except ProtocolViolation:
            return _Identity()
        if not first.startswith(begins[: len(first)]):
            return _Identity()
    return undoing


class _Identity:
    def feed(self, block: bytes) -> Iterator[bytes]:
        if block:
            yield block

    def finish(self) -> None:
        return None


class _Chain:
    def __init__(self, first: _Decoder, then: _Decoder) -> None:
        self._first = first
        self._then = then

    def feed(self, block: bytes) -> Iterator[bytes]:
        for piece in self._first.feed(block):
            yield from self._then.feed(piece)

    def finish(self) -> None:
        self._first.finish()
        self._then.finish()


class _LabelledDecoder:
    """A coding by its label, which the first bytes may contradict: then there is nothing to undo."""

    def __init__(self, coding: str, what: str) -> None:
        self._coding = coding
        self._what = what
        self._head = b""
        self._layer: _Decoder | None = None

    def feed(self, block: bytes) -> Iterator[bytes]:
        if self._layer is None:
            self._head += block
            if len(self._head) < _TELLS[self._coding]:
                return
            block = self._decide()
        assert self._layer is not None
        yield from self._layer.feed(block)

    def finish(self) -> None:
        if self._layer is None and self._head:
            raise ProtocolViolation(f"{self._what} came as {self._coding}, and is cut off")
        if self._layer is not None:
            self._layer.finish()

    def _decide(self) -> bytes:
        head, self._head = self._head, b""
        if self._coding == "deflate":
            self._layer = _DeflateDecoder(head, self._what)
        elif head.startswith(_MAGIC[self._coding]):
            self._layer = _InflatingDecoder(head, self._coding, self._what)
        else:
            self._layer = _Identity()
        return head


class _InflatingDecoder:
    """gzip and zstd, by what reads them in archives."""

    def __init__(self, head: bytes, coding: str, what: str) -> None:
        # Seldom needed, and it takes the libraries along.
        from blobflow.transports.compression.detection import decompressor_for

        self._what = what
        magic = _GZIP if coding == "gzip" else _ZSTD
        name = f"{what}, which came as {coding},"
        inflater = decompressor_for(magic, name, padded=True, zstd_window=ZSTD_WINDOW)
        assert inflater is not None
        self._inflater: Decompressor = inflater

    def feed(self, block: bytes) -> Iterator[bytes]:
        from blobflow.transports.compression.decompressor import WindowTooLarge

        try:
            yield from self._inflater.decompress(block)
        except WindowTooLarge as error:
            raise ProtocolViolation(
                f"{self._what} came as zstd {error.window}; a coding may have one of"
                f" {ZSTD_WINDOW // 2**20} MiB at most (RFC 9659)"
            ) from None
        except (StorageError, UnsupportedContent) as error:
            raise ProtocolViolation(error.message) from None

    def finish(self) -> None:
        try:
            self._inflater.finish()
        except StorageError as error:
            raise ProtocolViolation(error.message) from None


class _DeflateDecoder:
    """zlib's format, as the RFC has it, or bare deflate, as many send it."""

    def __init__(self, head: bytes, what: str) -> None:
        is_zlib = head[0] & 0x0F == 8 and (head[0] << 8 | head[1]) % 31 == 0
        self._state = zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)
        self._what = what

    def feed(self, block: bytes) -> Iterator[bytes]:
        piece = b""
        while not self._state.eof and (block or len(piece) == _PIECE):  # a full one may not have been all
            try:
                piece = self._state.decompress(block, _PIECE)
            except zlib.error:
                raise ProtocolViolation(f"{self._what} came as deflate, and is damaged") from None
            block = self._state.unconsumed_tail
            if piece:
                yield piece

    def finish(self) -> None:
        if not self._state.eof:
            raise ProtocolViolation(f"{self._what} came as deflate, and is cut off")

"""Compressors for bare layers: gzip by ISA-L or by zlib-ng, zstd, or none.

A layer becomes the same blob wherever its codec has the same `version`. What goes in is always cut into
blocks of 1 MiB, because ISA-L's output depends on how its input was cut (and zlib-ng's at levels 1, 5 and 6).

ISA-L's output depends on the processor as well: at level 2 it is one thing on x86-64 with SSE4.2, another
without, and a third on aarch64. A list of processors would be wrong one day, so a version does not name the
processor, but what it makes of a fixed sample: machines with one version compress alike. zlib-ng 2.2.5 and
2.3.3, zlib 1.2.13 and zstd 1.5.7 compress alike everywhere: tried at several levels on x86-64 with SSE3,
SSSE3, SSE4.2 and AVX2, and on aarch64. (zlib-ng 2.1.5 does not: it hashes with SSE4.2 where there is one.)

So `gzip-portable` is zlib-ng, and can be had only where it makes of the sample what it makes everywhere. It
is not Python's own zlib: that is what the system has, which may be zlib-ng under another name, or Apple's.

zstd works in threads. What it makes depends on whether it does, and on how long the jobs are that it deals
out (`ZSTD_c_jobSize`, `ZSTD_c_overlapLog`), but on nothing that differs between machines: not on the number
of threads, and not on how the input was cut. So there is always one at least, and the jobs are fixed here.

On one core of the development machine, 64 MiB of Debian's files: isal level 2 340 MB/s to 0.379 of the size;
zlib-ng level 2 89 MB/s to 0.371 (level 1 176 MB/s to 0.443, level 4 63 MB/s to 0.350; zlib level 1 69 MB/s to
0.379); zstd level 3 140 MB/s to 0.319.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable
from functools import cache
from typing import Protocol

import msgspec

from blobflow.errors import UsageError
from blobflow.oci.media import CompressMode

LAYER = "application/vnd.oci.image.layer.v1.tar"
GZIP_LAYER = f"{LAYER}+gzip"
ZSTD_LAYER = f"{LAYER}+zstd"
_GZIP_LEVEL = 2
_PORTABLE_LEVEL = 2
_ZSTD_LEVEL = 3
# Bytes of input that one thread compresses at a time, and how much of what is before them it looks back on: 6
# is an eighth of the window of 2 MiB. Part of the promise: other numbers make other digests.
_ZSTD_JOB = 4 * 1024 * 1024
_ZSTD_OVERLAP = 6
# Each takes some 8 MiB, and two layers are compressed at once. More than these wait for what they are fed.
_MOST_THREADS = 4
_GZIP_WINDOW = 31  # zlib's word for a 32 KiB window and a gzip header, which has no name and no time
# What zlib-ng at that level makes of the sample. It is a promise to users: digests signed and written down.
PORTABLE_SAMPLE = "00a0e5470999f8dcfab5032e7ed3ef52caacf7e8f238687b9e7dda72c92358d1"


class Compressor(Protocol):
    def compress(self, block: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


Begin = Callable[[], Compressor]


class _Through:
    def compress(self, block: bytes, /) -> bytes:
        return block

    def flush(self) -> bytes:
        return b""


class Codec(msgspec.Struct, frozen=True):
    """One way to store a layer. `version` says all that its output depends on, this machine included.

    `earlier`: versions by which an earlier blobflow compressed in this mode. What it made is not made any
    more, but a store that remembers it goes on with it, so that there no layer's digest changes.
    """

    mode: CompressMode
    version: str
    media_type: str
    begin: Begin
    earlier: tuple[str, ...] = ()


@cache
def codec(mode: CompressMode) -> Codec:
    """The codec of a mode, on this machine.

    Raises UsageError for a word that is no mode, and for `gzip-portable` where its digests would not be those
    of other machines.
    """
    match mode:
        case "gzip":
            import isal

            # Which of its loops ISA-L takes is decided by the processor when it is called first.
            library = f"isal {isal.__version__} (ISA-L {isal.ISAL_VERSION}) on {platform.machine()}"
            return made_of(mode, f"{library} level {_GZIP_LEVEL}", GZIP_LAYER, _isal)
        case "gzip-portable":
            from zlib_ng import zlib_ng

            library = f"zlib-ng {zlib_ng.ZLIBNG_RUNTIME_VERSION}"
            return made_of(mode, f"{library} level {_PORTABLE_LEVEL}", GZIP_LAYER, _zlib_ng)
        case "zstd":
            import zstandard

            library = f"zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))} level {_ZSTD_LEVEL}"
            before = made_of(mode, library, ZSTD_LAYER, _zstd_without_threads)
            jobs = f"{library} in jobs of {_ZSTD_JOB // 2**20} MiB"
            made = made_of(mode, jobs, ZSTD_LAYER, zstd_in(usable_cpus()))
            return msgspec.structs.replace(made, earlier=(before.version,))
        case "none":
            return Codec(mode, "", LAYER, _Through)
    raise UsageError(f"{str(mode)[:60]!r} is no way to compress; it is gzip, gzip-portable, zstd or none")


def made_of(mode: CompressMode, library: str, media_type: str, begin: Begin) -> Codec:
    """The codec of a compressor; its version is the library's, and what it makes of the sample.

    Raises UsageError for `gzip-portable` if that is not what it makes of it elsewhere.
    """
    becomes = sample_becomes(begin)
    if mode == "gzip-portable" and becomes != PORTABLE_SAMPLE:
        raise UsageError(
            f"gzip-portable can't be had here: {library} compresses otherwise than on other machines; "
            "install the zlib-ng that blobflow asks for, or take --compress gzip"
        )
    return Codec(mode, f"{library} {becomes[:16]}", media_type, begin)


def sample_becomes(begin: Begin) -> str:
    """The SHA-256, in hexadecimal, of what a compressor makes of the sample. Takes milliseconds."""
    compressor = begin()
    made = compressor.compress(sample()) + compressor.flush()
    return hashlib.sha256(made, usedforsecurity=False).hexdigest()


def sample() -> bytes:
    """Half a megabyte that is the same everywhere, and as layers are: text, noise, zeros, text seen before.

    It is larger than a window, and told apart all compressors, levels and processors that were tried.
    """
    noise = hashlib.shake_128(b"blobflow", usedforsecurity=False).digest(64 * 1024)
    words = [noise[at : at + 2 + at % 9].hex().encode() for at in range(256)]
    text = b" ".join(words[byte] for byte in noise[: 24 * 1024])
    return b"".join((text, noise, bytes(64 * 1024), text[:48_000], noise[:300], text[1000:20_000]))


def _isal() -> Compressor:
    from isal import isal_zlib

    return isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)


def _zlib_ng() -> Compressor:
    from zlib_ng import zlib_ng

    return zlib_ng.compressobj(_PORTABLE_LEVEL, zlib_ng.DEFLATED, _GZIP_WINDOW)


def zstd_in(cpus: int) -> Begin:
    """zstd in as many threads as that many processors are worth. Its output is the same in any number."""
    threads = min(max(cpus, 1), _MOST_THREADS)

    def begin() -> Compressor:
        import zstandard

        jobs = zstandard.ZstdCompressionParameters.from_level(
            _ZSTD_LEVEL, threads=threads, job_size=_ZSTD_JOB, overlap_log=_ZSTD_OVERLAP
        )
        return zstandard.ZstdCompressor(compression_params=jobs).compressobj()

    return begin


def usable_cpus() -> int:
    """Processors that this process may use, which may be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _zstd_without_threads() -> Compressor:
    """As blobflow compressed before it did so in threads."""
    import zstandard

    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()

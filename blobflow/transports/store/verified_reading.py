"""Verified reads of a blob's file: every block is compared with its checksum before its last byte is passed
on.

The whole was verified when it came in; xxh3 (about thirty times as fast as sha256) only guards against what
happened to the disk since. Generators here are synchronous: one read of 1 MiB out of the page cache is
cheaper than a thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import xxhash

from blobflow.errors import DigestMismatch, IntegrityError, SizeMismatch, StorageError
from blobflow.oci import Digest, hasher_for
from blobflow.oci.digest import algorithm_of
from blobflow.transports.store.block_checksums import BLOCK, READ, BlockChecksums
from blobflow.transports.store.os_errors import storage_error, translate_os_errors


def read_verified(fd: int, path: Path, blocks: bytes, offset: int, end: int | None) -> Iterator[bytes]:
    """The bytes `offset` ≤ i < `end` (None: all), at most 1 MiB a chunk, each block checked.

    Raises IntegrityError at the first block that is not what it was, StorageError on a failing disk.
    """
    with translate_os_errors("read", path):
        size = os.fstat(fd).st_size
    if len(blocks) != _blocks_in(size) * 8:
        raise SizeMismatch(f"{path} in the store", expected=len(blocks) // 8 * BLOCK, actual=size)
    stop = size if end is None else min(end, size)
    for index in range(offset // BLOCK, _blocks_in(stop)):
        first, past = index * BLOCK, min((index + 1) * BLOCK, size)
        low, high = max(first, offset), min(past, stop)
        expected = blocks[index * 8 : index * 8 + 8]
        if (low, high) == (first, past):
            yield from _whole_block(fd, path, index, past, expected)
        elif low < high:
            for _ in _whole_block(fd, path, index, past, expected):
                pass
            yield from _pieces(fd, path, low, high)


def _whole_block(fd: int, path: Path, index: int, past: int, expected: bytes) -> Iterator[bytes]:
    """One block's bytes; the last piece only after the checksum of the whole has matched."""
    hasher = xxhash.xxh3_64()
    at = index * BLOCK
    for piece in _pieces(fd, path, at, past):
        hasher.update(piece)
        at += len(piece)
        if at == past and hasher.intdigest().to_bytes(8, "little") != expected:
            raise IntegrityError(
                f"{path} in the store is damaged: its block {index} is not what was written; it is dropped, "
                "so that it is fetched again"
            )
        yield piece


def _pieces(fd: int, path: Path, low: int, high: int) -> Iterator[bytes]:
    while low < high:
        with translate_os_errors("read", path):
            piece = os.pread(fd, min(READ, high - low), low)
        if not piece:
            raise SizeMismatch(f"{path} in the store", expected=high, actual=low)
        low += len(piece)
        yield piece


def _blocks_in(size: int) -> int:
    return -(-size // BLOCK)


def open_for_reading(path: Path) -> int:
    """A descriptor of the file. Raises FileNotFoundError, for the caller to put into words; StorageError."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise storage_error("read", path, error) from error


def verify_file(
    fd: int, path: Path, digest: Digest, blocks: bytes | None, stop: Callable[[], bool]
) -> tuple[int, bytes]:
    """Read the whole file; in a thread. Return its size and its checksums.

    Against `blocks` if they are known, else against the digest itself. `stop` is asked at every piece, and
    ends it with StorageError. Raises IntegrityError, StorageError.
    """
    if blocks is None:
        return _hash_file(fd, path, digest, stop)
    size = 0
    for piece in read_verified(fd, path, blocks, 0, None):
        _go_on(path, stop)
        size += len(piece)
    return size, blocks


def _hash_file(fd: int, path: Path, digest: Digest, stop: Callable[[], bool]) -> tuple[int, bytes]:
    hasher, sums = hasher_for(digest), BlockChecksums()
    with translate_os_errors("read", path):
        size = os.fstat(fd).st_size
    for piece in _pieces(fd, path, 0, size):
        _go_on(path, stop)
        hasher.update(piece)
        sums.feed(piece)
    actual = f"{algorithm_of(digest)}:{hasher.hexdigest()}"
    if actual != digest:
        raise DigestMismatch(f"{path} in the store", expected=digest, actual=actual)
    return size, sums.result()


def _go_on(path: Path, stop: Callable[[], bool]) -> None:
    if stop():
        raise StorageError(f"{path} was not read to its end: the store is being closed")

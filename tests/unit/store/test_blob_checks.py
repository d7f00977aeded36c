"""Whole files that are read again in threads: what is given up leaves nothing behind, and holds nobody up."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from blobflow.errors import StorageError
from blobflow.oci import Digest, digest_of
from blobflow.transports.store import Store
from blobflow.transports.store.block_checksums import READ
from blobflow.transports.store.verified_reading import verify_file
from tests.deadlines import HANGS_AFTER

BIG = bytes(8 * READ)


class Gate:
    """Lets nothing be read before it is open. `waiting`: somebody stands before it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.waiting = threading.Event()
        self.reads = 0
        self._pread = os.pread
        monkeypatch.setattr(os, "pread", self._read)

    def _read(self, fd: int, size: int, offset: int) -> bytes:
        self.waiting.set()
        self.open.wait(HANGS_AFTER)
        self.reads += 1
        return self._pread(fd, size, offset)


def put(store: Store, content: bytes) -> Digest:
    store.blobs.write_small(content, digest_of(content))
    return digest_of(content)


def open_blobs(store: Store) -> list[str]:
    found = []
    for path in Path("/dev/fd").iterdir():
        try:
            if os.path.samestat(os.fstat(int(path.name)), store.blobs.path_of(digest_of(BIG)).stat()):
                found.append(path.name)
        except OSError:
            continue
    return found


async def test_checks_that_wait_for_their_turn_hold_no_descriptor(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = put(store, BIG)
    gate = Gate(monkeypatch)
    checks = [asyncio.ensure_future(store.blobs.rehash(digest)) for _ in range(20)]
    await asyncio.to_thread(gate.waiting.wait, 60)
    await asyncio.sleep(0)
    assert 1 <= len(open_blobs(store)) <= 2  # as many as there are threads
    for check in checks:
        check.cancel()
    await asyncio.gather(*checks, return_exceptions=True)
    gate.open.set()
    monkeypatch.undo()
    await store.blobs.rehash(digest)
    store.close()
    assert open_blobs(store) == []


async def test_who_closes_the_store_does_not_wait_until_files_are_read_to_their_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = put(store, BIG)
    gate = Gate(monkeypatch)
    check = asyncio.ensure_future(store.blobs.check(digest))
    await asyncio.to_thread(gate.waiting.wait, 60)
    shutdown = ThreadPoolExecutor.shutdown

    def opened(self: ThreadPoolExecutor, *arguments: Any, **options: Any) -> None:
        gate.open.set()  # the reading goes on only while the store is being closed
        shutdown(self, *arguments, **options)

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", opened)
    store.close()
    with pytest.raises(StorageError, match="being closed"):
        await check
    assert gate.reads < len(BIG) // READ


@pytest.mark.parametrize("known", [True, False])
def test_a_check_that_is_stopped_is_an_error_and_reads_no_further(
    store: Store, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    digest = put(store, BIG)
    gate = Gate(monkeypatch)
    gate.open.set()
    row = store.state.row("SELECT blocks FROM blobs WHERE digest = ?", digest)
    assert row is not None
    path = store.blobs.path_of(digest)
    with path.open("rb") as file, pytest.raises(StorageError, match="not read to its end"):
        verify_file(file.fileno(), path, digest, row[0] if known else None, lambda: gate.reads >= 2)
    assert gate.reads <= 3

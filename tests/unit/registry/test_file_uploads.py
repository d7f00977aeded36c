"""Uploads of blobs that lie in the store: by sendfile over plain connections, by chunks over TLS."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import uvloop

from blobflow.content import BlobReader, Site
from blobflow.errors import BlobflowError, StorageError
from blobflow.transports.registry import HostAccess, Profile, Registries
from blobflow.transports.store import Store, StoreCache
from tests.fakes.registry import Bytes, blob_of
from tools.certificates import self_signed
from tools.registry.faulty import Fault, Reset, Status, journalling
from tools.registry.zeros import zero_registry_process

MIB = 1024 * 1024
CONTENT = os.urandom(9 * MIB + 3)
BLOB = blob_of(CONTENT)
METHODS = {
    "single": Profile("test", ("single",), single_bytes=2**62),
    "stream": Profile("test", ("stream",)),
    "chunked": Profile("test", ("chunked",), chunk_bytes=2 * MIB + 5),
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(tmp_path / "held")) as opened:
        opened.blobs.write_small(CONTENT, BLOB.digest)
        yield opened


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What each sendfile(2) sent."""
    sizes: list[int] = []
    really = os.sendfile

    def counting(to: int, file: int, offset: int, size: int) -> int:
        sizes.append(really(to, file, offset, size))
        return sizes[-1]

    monkeypatch.setattr(os, "sendfile", counting)
    return sizes


async def push(host: str, reader: BlobReader, profile: Profile, tls: ssl.SSLContext | None = None) -> None:
    access = HostAccess(scheme="https" if tls else "http", tls=tls or True, profile=profile)
    registries = Registries(lambda host: access)
    try:
        await registries.sink(Site(host, "app")).push(BLOB, reader)
    finally:
        await registries.close()


@pytest.mark.parametrize("method", METHODS)
async def test_a_held_blob_arrives_by_sendfile_after_its_first_chunk(
    method: str, store: Store, sent: list[int], tmp_path: Path
) -> None:
    await store.blobs.check(BLOB.digest)
    async with journalling(tmp_path / "t") as target:
        await push(target.host, StoreCache(store).reader(BLOB), METHODS[method])
        assert target.store.blobs.read_small(BLOB.digest) == CONTENT
        requests = target.journal.count("PATCH" if method == "chunked" else "", "/uploads/")
    firsts = requests if method == "chunked" else 1
    assert len(CONTENT) - firsts * MIB <= sum(sent) < len(CONTENT)


async def test_what_was_not_checked_yet_is_checked_on_its_way(
    store: Store, sent: list[int], tmp_path: Path
) -> None:
    async with journalling(tmp_path / "t") as target:
        await push(target.host, StoreCache(store).reader(BLOB), METHODS["single"])
        assert not sent
        assert target.store.blobs.read_small(BLOB.digest) == CONTENT


@pytest.mark.parametrize("method", METHODS)
async def test_a_staged_blob_arrives_by_sendfile_behind_its_writer(
    method: str, sent: list[int], tmp_path: Path
) -> None:
    with closing(Store.open(tmp_path / "empty")) as empty:
        async with journalling(tmp_path / "t") as target:
            async with StoreCache(empty).share(BLOB, Bytes(CONTENT)) as reader:
                await push(target.host, reader, METHODS[method])
            assert target.store.blobs.read_small(BLOB.digest) == CONTENT
    assert sum(sent) > len(CONTENT) // 4


def test_it_does_on_uvloop_too(store: Store, sent: list[int], tmp_path: Path) -> None:
    async def go() -> None:
        await store.blobs.check(BLOB.digest)
        async with journalling(tmp_path / "t") as target:
            await push(target.host, StoreCache(store).reader(BLOB), METHODS["single"])
            assert target.store.blobs.read_small(BLOB.digest) == CONTENT

    uvloop.run(go())
    assert sum(sent) >= len(CONTENT) - MIB


async def test_over_tls_it_goes_by_chunks(store: Store, sent: list[int], tmp_path: Path) -> None:
    await store.blobs.check(BLOB.digest)
    pair = self_signed(tmp_path / "tls")
    trust = ssl.create_default_context(cafile=str(pair[0]))
    with zero_registry_process(tls=(pair.cert, pair.key)) as target:
        await push(target, StoreCache(store).reader(BLOB), METHODS["single"], trust)
    assert not sent


@pytest.mark.parametrize("fault", [Reset(after=5 * MIB), Status(503)], ids=["reset", "early answer"])
async def test_a_peer_that_ends_early_ends_it(
    fault: Reset | Status, store: Store, sent: list[int], tmp_path: Path
) -> None:
    await store.blobs.check(BLOB.digest)
    before = set(Path("/proc/self/fd").iterdir())
    async with journalling(tmp_path / "t", [Fault("PUT", "digest=", times=0, act=fault)]) as target:
        with pytest.raises(BlobflowError) as raised:
            await push(target.host, StoreCache(store).reader(BLOB), METHODS["single"])
        assert raised.value.retryable
    assert len(set(Path("/proc/self/fd").iterdir()) - before) <= 1, "a descriptor is left open"


async def test_a_file_that_is_cut_short_while_it_is_sent_is_the_store_s_fault(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.blobs.check(BLOB.digest)
    really = os.sendfile

    def cut(to: int, file: int, offset: int, size: int) -> int:
        os.truncate(store.blobs.path_of(BLOB.digest), 3 * MIB)
        return really(to, file, offset, size)

    monkeypatch.setattr(os, "sendfile", cut)
    async with journalling(tmp_path / "t") as target:
        with pytest.raises(StorageError, match="shorter"):
            await push(target.host, StoreCache(store).reader(BLOB), METHODS["single"])
        assert target.store.blobs.size_of(BLOB.digest) is None


async def test_a_disk_that_fails_is_not_the_connection_s_fault(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.blobs.check(BLOB.digest)

    def fails(to: int, file: int, offset: int, size: int) -> int:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(os, "sendfile", fails)
    async with journalling(tmp_path / "t") as target:
        with pytest.raises(StorageError, match="can't be read"):
            await push(target.host, StoreCache(store).reader(BLOB), METHODS["single"])

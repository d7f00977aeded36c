"""A running embedded registry, each test its own; the fixtures give a raw client that talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession

from blobflow.server import Server, make_app
from blobflow.transports.store import Store
from tools.certificates import self_signed


@pytest.fixture
async def registry_store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store.open(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
async def registry(registry_store: Store) -> AsyncIterator[ClientSession]:
    async with Server(make_app(registry_store), grace=0.5) as server, ClientSession(server.url) as client:
        yield client


@pytest.fixture
async def refusing_registry(registry_store: Store) -> AsyncIterator[ClientSession]:
    """A registry that takes no sparse index, over the same store."""
    async with (
        Server(make_app(registry_store, sparse="refuse")) as server,
        ClientSession(server.url) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One PEM file with a self-signed certificate for 127.0.0.1 and its key; beside it, as `.crt`, the
    certificate alone."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    pair = self_signed(path.parent)
    path.write_bytes(pair.key.read_bytes() + pair.cert.read_bytes())
    path.with_suffix(".crt").write_bytes(pair.cert.read_bytes())
    return path

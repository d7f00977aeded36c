"""Keeping a store tidy while it serves: it ends with the registry, and takes nothing by mistake."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest

from blobflow.events import Event
from blobflow.oci import digest_of
from blobflow.server import Upstreams
from blobflow.server.pullthrough.eviction import evict_periodically
from blobflow.transports.store import Store


async def test_who_stops_serving_does_not_wait_until_all_is_tidy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def goes_on(store: Store, upstreams: Upstreams, max_bytes: int) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.set()
            raise

    monkeypatch.setattr("blobflow.server.pullthrough.eviction.evict", goes_on)
    with contextlib.closing(Store.open(tmp_path / "store")) as store:
        keeping = asyncio.create_task(evict_periodically(store, Upstreams([]), 1))
        assert await asyncio.to_thread(begun.wait, 30)
        keeping.cancel()
        await asyncio.wait((keeping,))
        assert await asyncio.to_thread(ended.wait, 30)


async def test_nothing_goes_because_of_a_state_file_that_was_only_just_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is removed between the first look and the opening, as by hand or by who unmounts a disk."""
    told: list[Event] = []
    failed = asyncio.Event()

    def tell(event: Event) -> None:
        told.append(event)
        if "replaced" in str(event):
            failed.set()

    with contextlib.closing(Store.open(tmp_path / "store", observer=tell)) as store:
        store.blobs.write_small(b"blob", digest_of(b"blob"))
        store.repositories.add("r", digest_of(b"blob"))
        opens = Store.open

        def opened(root: Path, **options: Any) -> Store:
            for path in root.glob("state.sqlite*"):
                path.unlink()
            return opens(root, **options)

        monkeypatch.setattr(Store, "open", opened)
        keeping = asyncio.create_task(evict_periodically(store, Upstreams([]), 0))
        await failed.wait()
        keeping.cancel()
        await asyncio.wait((keeping,))
        assert store.blobs.path_of(digest_of(b"blob")).exists()

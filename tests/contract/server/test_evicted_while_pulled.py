"""A client that was given a manifest gets its blobs, though eviction takes the manifest in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from blobflow.oci import digest_of
from blobflow.server.pullthrough import referenced_blobs
from blobflow.server.pullthrough.eviction import evict
from tests.contract.server.client import SMALL
from tests.contract.server.pull_through import REPO, Edge, edge_of, give, settled

LAYER = b"a layer " * 1000


async def all_is_evicted(edge: Edge) -> None:
    """As after some hours in which other content came."""
    with edge.store.state.transaction():
        edge.store.state.write("UPDATE blobs SET added = 0, used = 0")
        edge.store.state.write("DELETE FROM holds")
    await evict(edge.store, edge.pullthrough.upstreams, 0)
    assert not edge.store.repositories.contents(REPO)


@pytest.mark.parametrize("how", ["whole", "not modified"])
async def test_blobs_of_a_manifest_that_goes_right_after_it_was_served_are_served(
    tmp_path: Path, how: str
) -> None:
    async with edge_of(tmp_path) as edge:
        raw = await give(edge.upstream, LAYER)
        path = f"/v2/{REPO}/manifests/{digest_of(raw)}"
        assert (await edge.get(path))[0] == 200
    async with edge_of(tmp_path) as edge:  # another process, which knows of no blob yet
        headers = {} if how == "whole" else {"If-None-Match": f'"{digest_of(raw)}"'}
        assert (await edge.get(path, **headers))[0] == (200 if how == "whole" else 304)
        await all_is_evicted(edge)
        for content in (SMALL, LAYER):
            assert await edge.get(f"/v2/{REPO}/blobs/{digest_of(content)}") == (200, content)
        await settled()


async def test_blobs_of_a_manifest_that_was_not_served_are_not(tmp_path: Path) -> None:
    async with edge_of(tmp_path) as edge:
        raw = await give(edge.upstream, LAYER)
        assert (await edge.get(f"/v2/{REPO}/manifests/{digest_of(raw)}"))[0] == 200
    async with edge_of(tmp_path) as edge:
        await all_is_evicted(edge)
        assert (await edge.get(f"/v2/{REPO}/blobs/{digest_of(LAYER)}"))[0] == 404


async def test_a_manifest_that_is_served_again_and_again_is_read_for_its_blobs_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    sizes = referenced_blobs._blobs_in

    def counting(raw: bytes, kind: str, digest: str) -> referenced_blobs.Sizes:
        parsed.append(digest)
        return sizes(raw, kind, digest)  # type: ignore[arg-type]

    monkeypatch.setattr(referenced_blobs, "_blobs_in", counting)
    async with edge_of(tmp_path) as edge:
        raw = await give(edge.upstream, LAYER)
        for _ in range(5):
            assert (await edge.get(f"/v2/{REPO}/manifests/{digest_of(raw)}"))[0] == 200
        assert parsed == [digest_of(raw)]

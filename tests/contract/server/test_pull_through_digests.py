"""Pulling through: an upstream whose headers name another digest than its bytes have is not believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from blobflow.oci import digest_of
from tests.contract.server.pull_through import REPO, edge_of, give
from tools.registry.faulty import Fault, SetHeader, Status

LIE = SetHeader("Docker-Content-Digest", digest_of(b"other"))


@pytest.mark.parametrize(
    "faults",
    [
        (
            Fault("HEAD", "/manifests/", times=0, act=Status(405)),
            Fault("GET", "/manifests/", times=0, act=LIE),
        ),
        (Fault("HEAD", "/manifests/", times=0, act=LIE),),
        (Fault("GET", "/manifests/", times=0, act=LIE),),
    ],
    ids=["of a tag that is read", "of a tag that is looked at", "of a digest that is read"],
)
async def test_a_manifest_that_is_told_to_be_another_is_not_passed_on(
    tmp_path: Path, faults: tuple[Fault, ...]
) -> None:
    async with edge_of(tmp_path, *faults) as edge:
        raw = await give(edge.upstream)
        status, body = await edge.get(f"/v2/{REPO}/manifests/1.0")
        assert status >= 400
        assert raw not in body
        assert edge.store.blobs.size_of(digest_of(raw)) is None

"""Layers with `urls`: never fetched from there; left where they are, or carried if the source holds them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner

from blobflow.cli import cli
from blobflow.engine.pairs import Pair
from blobflow.engine.policy import Policy
from blobflow.engine.results.report import Report
from blobflow.oci import Digest, Reference, digest_of, media, parse_manifest
from blobflow.settings import Settings
from tests.fakes.registry import ScriptedServer, scripted_server
from tests.library import mirror
from tools.registry.faulty import Fault, JournallingRegistry, SetHeader, Status, journalling

CONFIG, OWN, HELD, ELSEWHERE = b"{}", b"a layer" * 100, b"held here too" * 100, b"only elsewhere" * 100
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
WITH = Policy(foreign_layers=True)


def described(content: bytes, kind: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest_of(content), "size": len(content), **more}


class Bench:
    """A source with an image of which it holds one foreign layer and one not; a target; the world outside."""

    def __init__(
        self, source: JournallingRegistry, target: JournallingRegistry, outside: ScriptedServer, root: Path
    ) -> None:
        self.source, self.target, self.outside = source, target, outside
        self.settings = Settings(cache_dir=root / "cache")
        for content in (CONFIG, OWN, HELD):
            source.store.blobs.write_small(content, digest_of(content))
            source.store.repositories.add("win", digest_of(content))
        self.raw = self.put_image()
        self.pair = Pair(Reference(source.host, "win", "1"), Reference(target.host, "win", "1"))

    def put_image(self, **told: Any) -> bytes:
        """Tag the image at the source; `told`: what else its manifest tells of the layer that is held."""
        held = described(HELD, DOCKER_FOREIGN, urls=[f"{self.outside.url}/held"]) | told
        raw = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": media.DOCKER_MANIFEST,
                "config": described(CONFIG, media.DOCKER_CONFIG),
                "layers": [
                    held,
                    described(ELSEWHERE, DOCKER_FOREIGN, urls=[f"{self.outside.url}/elsewhere"]),
                    described(OWN, media.OCI_LAYER_GZIP),
                ],
            }
        ).encode()
        store = self.source.store
        store.blobs.write_small(raw, digest_of(raw))
        store.repositories.add("win", digest_of(raw), media.DOCKER_MANIFEST)
        store.repositories.set_tag("win", "1", digest_of(raw))
        return raw

    async def mirror(self, policy: Policy) -> Report:
        return await mirror([self.pair], self.settings, policy)

    def has(self, content: bytes, repository: str = "win") -> bool:
        return self.target.store.repositories.media_type_of(repository, digest_of(content)) is not None


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async def content(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=HELD if request.path == "/held" else ELSEWHERE)

    async with AsyncExitStack() as stack:
        source, target = [
            await stack.enter_async_context(journalling(tmp_path / name)) for name in ("source", "target")
        ]
        yield Bench(source, target, await stack.enter_async_context(scripted_server(content)), tmp_path)


async def test_foreign_layers_stay_where_they_are(bench: Bench) -> None:
    report = await bench.mirror(Policy())
    assert [image.status for image in report.images] == ["done"]
    assert (bench.has(OWN), bench.has(HELD), bench.has(ELSEWHERE)) == (True, False, False)
    assert bench.source.journal.count("", digest_of(HELD)) == 0
    assert bench.outside.seen == []


async def test_those_that_the_source_holds_are_carried_and_urls_never_asked(bench: Bench) -> None:
    report = await bench.mirror(WITH)
    assert [image.status for image in report.images] == ["done"]
    assert (bench.has(OWN), bench.has(HELD), bench.has(ELSEWHERE)) == (True, True, False)
    assert bench.target.store.blobs.read_small(digest_of(bench.raw)) == bench.raw, (
        "byte for byte, urls and all"
    )
    assert bench.target.journal.uploads("win", digest_of(HELD)) == 1
    assert bench.outside.seen == []


async def test_a_layer_is_asked_for_by_one_byte_and_read_once(bench: Bench) -> None:
    await bench.mirror(WITH)
    assert bench.source.journal.bytes_out(digest_of(HELD)) == len(HELD) + 1
    assert bench.source.journal.count("GET", digest_of(ELSEWHERE)) == 1


async def test_a_run_that_carries_them_completes_one_that_did_not(bench: Bench) -> None:
    await bench.mirror(Policy())
    report = await bench.mirror(WITH)
    assert [image.status for image in report.images] == ["done"]
    assert bench.has(HELD)
    assert bench.target.journal.uploads("win", digest_of(OWN)) == 1


async def test_a_run_after_one_that_carried_them_asks_nothing_more(bench: Bench) -> None:
    await bench.mirror(WITH)
    for policy in (WITH, Policy()):
        bench.source.journal.clear()
        bench.target.journal.clear()
        report = await bench.mirror(policy)
        assert [image.status for image in report.images] == ["present"]
        assert [each.method for each in (*bench.source.journal, *bench.target.journal)] == ["HEAD", "HEAD"]


async def test_a_registry_that_wants_them_is_told_with_the_option(bench: Bench) -> None:
    detail = {"code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown", "detail": digest_of(HELD)}
    refusal = Status(404, body=json.dumps({"errors": [detail]}), headers={"Content-Type": "application/json"})
    bench.target.faults.add(Fault("PUT", "/manifests/", times=0, act=refusal))
    (image,) = (await bench.mirror(Policy())).images
    assert digest_of(HELD) in image.error
    assert image.error.endswith(
        "foreign layers are left out; --foreign-layers brings those that the source has"
    )
    assert not bench.has(HELD)
    (image,) = (await bench.mirror(WITH)).images
    assert "--foreign-layers" not in image.error


async def test_a_source_that_denies_a_foreign_layer_does_not_hold_it(bench: Bench) -> None:
    bench.source.faults.add(Fault("GET", digest_of(HELD), times=0, act=Status(403)))
    report = await bench.mirror(WITH)
    assert [image.status for image in report.images] == ["done"]
    assert not bench.has(HELD)


async def test_a_layer_of_another_size_than_the_manifest_says_fails_its_image(bench: Bench) -> None:
    bench.put_image(size=99999)
    report = await bench.mirror(WITH)
    assert [image.status for image in report.images] == ["failed"]
    assert report.images[0].error.startswith("source: blob sha256:")
    assert f"has {len(HELD)} bytes" in report.images[0].error
    assert bench.target.store.repositories.resolve("win", "1") is None


async def test_a_range_that_tells_another_size_is_asked_for_as_a_whole(bench: Bench) -> None:
    lie = SetHeader("Content-Range", "bytes 0-0/99999")
    bench.source.faults.add(Fault("GET", digest_of(HELD), act=lie))
    report = await bench.mirror(WITH)
    assert [image.status for image in report.images] == ["done"]
    assert bench.has(HELD)


def test_the_option_reaches_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Policy] = []

    class Stop(Exception):
        pass

    async def planned(client: Any, pairs: Any, policy: Policy) -> None:
        seen.append(policy)
        raise Stop

    monkeypatch.setattr("blobflow.client.Client.plan", planned)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for option in ([], ["--foreign-layers"]):
        CliRunner().invoke(cli, ["copy", "--dry-run", *option, "127.0.0.1:1/a:1", "127.0.0.1:2/a:1"])
    assert [policy.foreign_layers for policy in seen] == [False, True]


def test_only_layers_of_the_kind_are_foreign() -> None:
    urls = {"urls": ["http://example.com/"]}
    layers = [
        described(b"1", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        described(b"2", media.OCI_LAYER_GZIP, **urls),
        described(b"3", media.OCI_LAYER_GZIP, urls=[]),
    ]
    document = {"config": described(CONFIG, media.OCI_CONFIG), "layers": layers}
    manifest = parse_manifest(json.dumps(document).encode(), media.OCI_MANIFEST)
    assert [layer.digest for layer in manifest.foreign] == [digest_of(b"1"), digest_of(b"2")]
    assert [blob.digest for blob in manifest.blobs] == [digest_of(CONFIG), digest_of(b"3")]
    carrying = manifest.carrying([Digest(digest_of(b"2"))])
    assert [blob.digest for blob in carrying.blobs] == [digest_of(CONFIG), digest_of(b"2"), digest_of(b"3")]

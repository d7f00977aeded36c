"""Pulling through with access rules: an upstream's manifest, which anybody may have written, gives a client
no blob that neither the client could have elsewhere nor that repository of the upstream has."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from aiohttp import ClientSession

from blobflow.content import Site
from blobflow.oci import Descriptor, digest_of, media
from blobflow.server import AccessRules, parse_access
from blobflow.server.errors import ApiError
from tests.contract.server.client import descriptor, image
from tests.contract.server.pull_through import Edge, edge_of, give, settled
from tools.registry.faulty import Fault, JournallingRegistry, Stall

SECRET = random.Random(7).randbytes(3_000_000)
DIGEST = digest_of(SECRET)
RULES = """
[[allow]]
who = "anonymous"
repositories = ["up/public/**", "shared/*"]
do = "pull"
"""
EVERYWHERE = """
[[allow]]
who = "anonymous"
repositories = "**"
do = "pull"
"""
EVIL = f"/v2/up/public/evil/blobs/{DIGEST}"


def rules(text: str = RULES) -> AccessRules:
    return AccessRules(parse_access(text, "F"))


async def mention(upstream: JournallingRegistry, repo: str) -> None:
    """An image at the upstream that names the secret, which the repository there does not have."""
    await give(upstream, repo=repo)
    raw = image(descriptor(SECRET))
    upstream.store.blobs.write_small(raw, digest_of(raw))
    upstream.store.repositories.add(repo, digest_of(raw), media.OCI_MANIFEST)
    upstream.store.repositories.set_tag(repo, "1.0", digest_of(raw))


def hold(edge: Edge, *repositories: str) -> None:
    """Let the edge hold the secret in repositories of its own."""
    edge.store.blobs.write_small(SECRET, DIGEST)
    for name in repositories:
        edge.store.repositories.add(name, DIGEST)


def leave(edge: Edge, content: bytes) -> None:
    """Let the edge have a part of the secret on its disk, from whoever read it before."""
    writer = edge.store.partials.begin(DIGEST)
    writer.write(content)
    writer.suspend()


async def pull_manifest(client: ClientSession, repo: str) -> None:
    async with client.get(f"/v2/{repo}/manifests/1.0") as answer:
        assert answer.status == 200


async def test_naming_a_blob_of_a_closed_repository_does_not_open_it(tmp_path: Path) -> None:
    async with edge_of(tmp_path, prefix="up", access=rules()) as edge:
        hold(edge, "private/app")
        await mention(edge.upstream, "public/evil")
        await pull_manifest(edge.client, "up/public/evil")
        for _ in range(2):
            assert (await edge.get(EVIL))[0] == 404
            async with edge.client.head(EVIL) as answer:
                assert answer.status == 404
        assert edge.store.repositories.media_type_of("up/public/evil", DIGEST) is None
        assert edge.store.repositories.media_type_of("private/app", DIGEST) == ""


async def test_what_the_upstream_has_too_is_not_read_there_again(tmp_path: Path) -> None:
    async with edge_of(tmp_path, prefix="up", access=rules()) as edge:
        hold(edge, "private/app")
        await give(edge.upstream, SECRET, repo="public/app")
        await pull_manifest(edge.client, "up/public/app")
        for _ in range(2):
            assert await edge.get(f"/v2/up/public/app/blobs/{DIGEST}") == (200, SECRET)
        asked = [exchange.method for exchange in edge.upstream.journal.select(pattern=DIGEST)]
        assert asked == ["HEAD"]


@pytest.mark.parametrize(
    ("text", "holder"), [(RULES, "shared/app"), (EVERYWHERE, "private/app")], ids=["there", "everywhere"]
)
async def test_what_the_client_may_have_elsewhere_needs_no_question(
    tmp_path: Path, text: str, holder: str
) -> None:
    async with edge_of(tmp_path, prefix="up", access=rules(text)) as edge:
        hold(edge, "private/app", holder)
        await mention(edge.upstream, "public/app")
        await pull_manifest(edge.client, "up/public/app")
        for _ in range(2):
            assert await edge.get(f"/v2/up/public/app/blobs/{DIGEST}") == (200, SECRET)
        assert not edge.upstream.journal.select(pattern=DIGEST)
        assert edge.store.repositories.media_type_of("up/public/app", DIGEST) is None, "open to others, too"


async def test_what_comes_in_for_a_closed_repository_is_not_followed_from_another(tmp_path: Path) -> None:
    reached, until = asyncio.Event(), asyncio.Event()
    stall = Fault("GET", DIGEST, act=Stall(after=2_500_000, reached=reached, until=until))
    async with edge_of(tmp_path, stall, prefix="up", access=rules()) as edge:
        await give(edge.upstream, SECRET, repo="private/app")
        await mention(edge.upstream, "public/evil")
        await pull_manifest(edge.client, "up/public/evil")
        site = Site(edge.upstream.host, "private/app")
        blob = Descriptor("application/octet-stream", DIGEST, len(SECRET))
        async with edge.pullthrough.follow(site, blob) as reader, reader.open() as stream:
            await anext(stream)
            await reached.wait()
            assert (await edge.get(EVIL))[0] == 404
            until.set()
            assert sum([len(chunk) async for chunk in stream])
        await settled()
        assert edge.store.blobs.size_of(DIGEST) == len(SECRET)
        assert (await edge.get(EVIL))[0] == 404


@pytest.mark.parametrize("all_came", [False, True])
async def test_what_is_left_of_a_blob_of_a_closed_repository_is_not_given_out(
    tmp_path: Path, all_came: bool
) -> None:
    """As of a read that broke off, or of a process that ended before the commit."""
    async with edge_of(tmp_path, prefix="up", access=rules()) as edge:
        await mention(edge.upstream, "public/evil")
        await give(edge.upstream, SECRET, repo="public/app")
        leave(edge, SECRET if all_came else SECRET[:2_500_000])
        await pull_manifest(edge.client, "up/public/evil")
        for _ in range(2):
            assert (await edge.get(EVIL))[0] == 404
        await pull_manifest(edge.client, "up/public/app")
        assert await edge.get(f"/v2/up/public/app/blobs/{DIGEST}") == (200, SECRET)
        asked = [each.method for each in edge.upstream.journal.select(pattern=f"public/app/blobs/{DIGEST}")]
        assert asked == (["HEAD"] if all_came else ["HEAD", "GET"])
        ranges = [each.sent for each in edge.upstream.journal.select("GET", f"public/app/blobs/{DIGEST}")]
        assert ranges == ([] if all_came else [500_000]), "only what is missing"
        await settled()
        assert not list(edge.store.paths.partials.iterdir())


async def test_what_comes_to_be_held_while_it_is_asked_for_is_not_given_out(tmp_path: Path) -> None:
    async with edge_of(tmp_path, prefix="up", access=rules()) as edge:
        await give(edge.upstream, SECRET, repo="public/app")
        hold(edge, "private/app")
        blob = Descriptor("application/octet-stream", DIGEST, len(SECRET))
        for repository, has_it in (("public/evil", False), ("public/app", True)):
            follow = edge.pullthrough.follow(Site(edge.upstream.host, repository), blob, anywhere=False)
            try:
                async with follow as reader, reader.open() as stream:
                    assert b"".join([bytes(chunk) async for chunk in stream]) == SECRET
                    assert has_it
            except ApiError as error:
                assert (error.status, has_it) == (404, False)
        assert edge.store.blobs.size_of(DIGEST) == len(SECRET)


async def test_who_may_pull_everything_goes_on_without_a_question_and_nobody_else_with_it(
    tmp_path: Path,
) -> None:
    reached, until = asyncio.Event(), asyncio.Event()
    stall = Fault("GET", "public/evil/blobs", act=Stall(after=0, reached=reached, until=until))
    async with edge_of(tmp_path, stall, prefix="up", access=rules()) as edge:
        await mention(edge.upstream, "public/evil")
        leave(edge, SECRET[:2_500_000])
        await pull_manifest(edge.client, "up/public/evil")
        site = Site(edge.upstream.host, "public/evil")
        blob = Descriptor("application/octet-stream", DIGEST, len(SECRET))
        async with edge.pullthrough.follow(site, blob) as reader, reader.open() as stream:
            await anext(stream)
            assert not edge.upstream.journal.select("HEAD", pattern=DIGEST)
            assert (await edge.get(EVIL))[0] == 404
            until.set()

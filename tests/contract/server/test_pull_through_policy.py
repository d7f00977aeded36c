"""The embedded registry, pulling through under a signature policy: it gives out what that accepts."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from aiohttp import ClientSession

from blobflow.content import Site, Source
from blobflow.oci import Digest, digest_of, media
from blobflow.oci.referrers import cosign_tags
from blobflow.server.pullthrough.admission import is_text
from blobflow.server.pullthrough.eviction import evict
from blobflow.signatures.finding import SIMPLE_SIGNING
from tests.contract.server.client import SMALL, descriptor, image, index, push, put
from tests.contract.server.pull_through import REPO, Edge, edge_of, give
from tests.fakes.signature_judge import TrustingJudge, cosign_manifest, payload
from tools.registry.faulty import Fault, JournallingRegistry, Status, journalling

COSIGN_ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
LAYER = b"what an image has in it" * 100
CONFIG = b"{}"
MANIFESTS = f"/v2/{REPO}/manifests"
AS_INDEX = {"Accept": f"{media.OCI_INDEX}, {media.OCI_MANIFEST}"}


async def sign(upstream: JournallingRegistry, raw: bytes, tag: str = "1.0", repo: str = REPO) -> bytes:
    """Sign a manifest as cosign does, for the name with the tag; the signature's manifest."""
    signed = payload(digest_of(raw), f"{upstream.host}/{repo}:{tag}")
    signature = cosign_manifest(signed, CONFIG)
    async with ClientSession(upstream.url) as client:
        for content in (signed, CONFIG):
            await push(client, content, f"/v2/{repo}")
        name = cosign_tags(digest_of(raw))[0]
        assert (await put(client, signature, name, repo=f"/v2/{repo}")).status == 201
    upstream.journal.clear()
    return signature


async def attach(upstream: JournallingRegistry, raw: bytes) -> Digest:
    """Put a manifest at the upstream under its digest."""
    kind = json.loads(raw)["mediaType"]
    async with ClientSession(upstream.url) as client:
        assert (await put(client, raw, digest_of(raw), kind, repo=f"/v2/{REPO}")).status == 201
    upstream.journal.clear()
    return digest_of(raw)


async def refused(edge: Edge, path: str) -> str:
    """The one sentence of a refusal, which GET and HEAD have the status of."""
    async with edge.client.head(path) as answer:
        assert answer.status == 403
    status, body = await edge.get(path)
    assert status == 403
    [error] = json.loads(body)["errors"]
    assert error["code"] == "DENIED"
    return str(error["message"])


async def test_what_is_not_signed_is_refused_with_a_sentence_and_nothing_of_it_is_kept(
    tmp_path: Path,
) -> None:
    async with edge_of(tmp_path, judge=TrustingJudge()) as edge:
        raw = await give(edge.upstream, LAYER)
        said = await refused(edge, f"{MANIFESTS}/1.0")
        assert said == f"{edge.upstream.host}/{REPO}:1.0 has no signature that counts, of 0"
        assert "no signature" in await refused(edge, f"{MANIFESTS}/{digest_of(raw)}")
        for content in (raw, LAYER, SMALL):
            assert (await edge.get(f"/v2/{REPO}/blobs/{digest_of(content)}"))[0] == 404
            assert edge.store.blobs.size_of(digest_of(content)) is None
        assert edge.outcomes()["manifest", "refused"] == 4
        assert [each for each in edge.told if "has no signature that counts" in each] == edge.told
        assert len(edge.told) == 2  # of four requests


async def test_what_is_refused_costs_the_upstream_no_manifest_until_its_time_is_over(tmp_path: Path) -> None:
    async with edge_of(tmp_path, judge=TrustingJudge()) as edge:
        raw = await give(edge.upstream, LAYER)
        await refused(edge, f"{MANIFESTS}/1.0")
        edge.upstream.journal.clear()
        await sign(edge.upstream, raw)
        await refused(edge, f"{MANIFESTS}/1.0")
        assert edge.upstream_asked("GET") == 0
        edge.now += 61
        assert await edge.get(f"{MANIFESTS}/1.0") == (200, raw)


async def test_what_is_signed_is_served_by_tag_and_digest_and_judged_once(tmp_path: Path) -> None:
    judge = TrustingJudge()
    async with edge_of(tmp_path, judge=judge) as edge:
        raw = await give(edge.upstream, LAYER)
        await sign(edge.upstream, raw)
        for _ in range(2):
            assert await edge.get(f"{MANIFESTS}/1.0") == (200, raw)
            assert await edge.get(f"{MANIFESTS}/{digest_of(raw)}") == (200, raw)
            assert await edge.get(f"/v2/{REPO}/blobs/{digest_of(LAYER)}") == (200, LAYER)
            edge.now += 61
        assert [str(each.reference) for each in judge.asked] == [f"{edge.upstream.host}/{REPO}:1.0"]
        assert {each.transport for each in judge.asked} == {"docker"}
        async with edge.client.get(
            f"{MANIFESTS}/1.0", headers={"If-None-Match": f'"{digest_of(raw)}"'}
        ) as _304:
            assert _304.status == 304


async def test_a_conditional_request_for_what_is_not_accepted_is_refused(tmp_path: Path) -> None:
    async with edge_of(tmp_path, judge=TrustingJudge()) as edge:
        raw = await give(edge.upstream, LAYER)
        status, _ = await edge.get(f"{MANIFESTS}/1.0", **{"If-None-Match": f'"{digest_of(raw)}"'})
        assert status == 403


async def test_a_signature_for_one_tag_does_not_let_another_name_the_image(tmp_path: Path) -> None:
    async with edge_of(tmp_path, judge=TrustingJudge()) as edge:
        raw = await give(edge.upstream, LAYER)
        await give(edge.upstream, LAYER, tag="latest")
        await sign(edge.upstream, raw, "1.0")
        assert await edge.get(f"{MANIFESTS}/1.0") == (200, raw)
        await refused(edge, f"{MANIFESTS}/latest")
        assert await edge.get(f"{MANIFESTS}/{digest_of(raw)}") == (200, raw)


async def test_a_tag_that_moved_to_what_is_not_signed_is_not_what_it_was(tmp_path: Path) -> None:
    down = False
    async with edge_of(tmp_path, judge=TrustingJudge(), broken=lambda: down) as edge:
        signed = await give(edge.upstream, LAYER)
        await sign(edge.upstream, signed)
        assert await edge.get(f"{MANIFESTS}/1.0") == (200, signed)
        await give(edge.upstream, LAYER, b"something else")
        assert (await edge.get(f"{MANIFESTS}/1.0"))[0] == 200  # within the time to live
        edge.now += 61
        await refused(edge, f"{MANIFESTS}/1.0")
        down = True
        edge.now += 61
        assert (await edge.get(f"{MANIFESTS}/1.0"))[0] in (502, 503)
        assert await edge.get(f"{MANIFESTS}/{digest_of(signed)}") == (200, signed)


async def test_signatures_that_cannot_be_read_refuse_nothing_for_good(tmp_path: Path) -> None:
    broken = Fault("GET", f"/v2/{REPO}/referrers/", times=0, act=Status(500))
    async with edge_of(tmp_path, broken, judge=TrustingJudge()) as edge:
        raw = await give(edge.upstream, LAYER)
        await sign(edge.upstream, raw)
        assert (await edge.get(f"{MANIFESTS}/1.0"))[0] in (502, 503)
        assert not edge.store.repositories.names()


async def test_an_accepted_index_lets_in_what_it_lists_and_nothing_else(tmp_path: Path) -> None:
    async with edge_of(tmp_path, judge=TrustingJudge()) as edge:
        raw, child = await give_index(edge.upstream)
        stranger = await give(edge.upstream, LAYER, b"a stranger", tag="stranger")
        await sign(edge.upstream, raw)
        await refused(edge, f"{MANIFESTS}/{digest_of(child)}")  # nobody knows yet what lists it
        assert await edge.get(f"{MANIFESTS}/1.0", **AS_INDEX) == (200, raw)
        assert await edge.get(f"{MANIFESTS}/{digest_of(child)}") == (200, child)
        assert await edge.get(f"/v2/{REPO}/blobs/{digest_of(LAYER)}") == (200, LAYER)
        await refused(edge, f"{MANIFESTS}/child")  # by a name of its own
        await refused(edge, f"{MANIFESTS}/{digest_of(stranger)}")


async def give_index(upstream: JournallingRegistry) -> tuple[bytes, bytes]:
    """An index at the upstream, and the image that it lists."""
    child = await give(upstream, LAYER, tag="child")
    raw = index(child)
    async with ClientSession(upstream.url) as client:
        await put(client, raw, "1.0", media.OCI_INDEX, repo=f"/v2/{REPO}")
    return raw, child


async def test_what_came_in_without_a_policy_or_under_another_one_is_judged_anew(tmp_path: Path) -> None:
    async with journalling(tmp_path / "upstream") as upstream:
        raw, child = await give_index(upstream)
        paths = [f"{MANIFESTS}/1.0", f"{MANIFESTS}/{digest_of(child)}"]
        layer = f"/v2/{REPO}/blobs/{digest_of(LAYER)}"
        async with edge_of(tmp_path, upstream=upstream) as edge:  # no policy
            for path in (*paths, layer):
                assert (await edge.get(path, **AS_INDEX))[0] == 200
        async with edge_of(tmp_path, upstream=upstream, judge=TrustingJudge()) as edge:
            for path in paths:
                await refused(edge, path)
            assert (await edge.get(layer))[0] == 404
            await sign(upstream, raw)
            edge.now += 61
            for path in (*paths, layer):
                assert (await edge.get(path, **AS_INDEX))[0] == 200
            assert upstream.journal.count("GET", digest_of(LAYER)) == 0  # it was here
        judge = TrustingJudge("another policy", everything=True)
        async with edge_of(tmp_path, upstream=upstream, judge=judge, broken=lambda: True) as edge:
            assert (await edge.get(paths[0], **AS_INDEX))[0] in (502, 503)
            assert (await edge.get(layer))[0] == 404


async def test_a_restart_keeps_what_was_accepted(tmp_path: Path) -> None:
    async with journalling(tmp_path / "upstream") as upstream:
        raw, child = await give_index(upstream)
        await sign(upstream, raw)
        async with edge_of(tmp_path, upstream=upstream, judge=TrustingJudge()) as edge:
            assert await edge.get(f"{MANIFESTS}/1.0", **AS_INDEX) == (200, raw)
        judge, down = TrustingJudge(), False
        async with edge_of(tmp_path, upstream=upstream, judge=judge, broken=lambda: down) as edge:
            assert await edge.get(f"{MANIFESTS}/{digest_of(child)}") == (200, child)
            down = True
            assert await edge.get(f"{MANIFESTS}/1.0", **AS_INDEX) == (200, raw)
            assert not judge.asked


async def test_lists_have_the_names_that_clients_know(tmp_path: Path) -> None:
    async with journalling(tmp_path / "upstream") as upstream:
        raw = await give(upstream, LAYER)
        await give(upstream, LAYER, repo="unsigned")
        await sign(upstream, raw)
        async with edge_of(tmp_path, upstream=upstream) as edge:  # no policy
            assert (await edge.get("/v2/unsigned/manifests/1.0"))[0] == 200
        down = False
        async with edge_of(tmp_path, upstream=upstream, judge=TrustingJudge(), broken=lambda: down) as edge:
            assert (await edge.get(f"{MANIFESTS}/1.0"))[0] == 200
            down = True
            for path, wanted in (
                ("/v2/_catalog", {"repositories": [REPO]}),
                (f"/v2/_catalog?last={REPO}", {"repositories": []}),
                (f"/v2/{REPO}/tags/list", {"name": REPO, "tags": ["1.0"]}),
            ):
                status, body = await edge.get(path)
                assert (status, json.loads(body)) == (200, wanted)
            page = (await edge.get("/"))[1].decode()
            assert REPO in page
            assert f"{REPO}#" not in page
            assert "unsigned" not in page
        async with edge_of(tmp_path, upstream=upstream) as edge:  # no policy again
            assert json.loads((await edge.get("/v2/_catalog"))[1]) == {"repositories": ["unsigned"]}


async def test_an_upstream_that_will_not_say_whether_there_is_a_tag_has_none(tmp_path: Path) -> None:
    """Artifactory answers so; and cosign can keep signatures with a subject alone."""
    denied = Fault("HEAD", ".sig", times=0, act=Status(403))
    async with edge_of(tmp_path, denied, judge=TrustingJudge()) as edge:
        raw = await give(edge.upstream, LAYER)
        signed = payload(digest_of(raw), f"{edge.upstream.host}/{REPO}:1.0")
        async with ClientSession(edge.upstream.url) as client:
            await push(client, signed, f"/v2/{REPO}")
        subject = descriptor(raw, media.OCI_MANIFEST)
        layer = descriptor(signed, SIMPLE_SIGNING)
        await attach(edge.upstream, image(layer, subject=subject, artifactType=COSIGN_ARTIFACT))
        assert await edge.get(f"{MANIFESTS}/1.0") == (200, raw)


@pytest.mark.parametrize("tag", [f"sha512-{'0' * 64}.sig", "sha256-12.sig", f"sha256-{'0' * 64}", "v1.sig"])
async def test_a_tag_that_is_like_those_of_signatures_is_a_tag(tmp_path: Path, tag: str) -> None:
    async with edge_of(tmp_path, judge=TrustingJudge()) as edge:
        raw = await give(edge.upstream, tag=tag)
        await refused(edge, f"{MANIFESTS}/{tag}")
        await sign(edge.upstream, raw, tag)
        edge.now += 61
        assert await edge.get(f"{MANIFESTS}/{tag}") == (200, raw)


async def test_clients_get_the_signatures_too(tmp_path: Path) -> None:
    """By cosign's tag, and what has a subject by digest and in lists, in whatever order they ask."""
    async with edge_of(tmp_path, judge=TrustingJudge()) as edge:
        raw = await give(edge.upstream, LAYER)
        signature = await sign(edge.upstream, raw)
        sbom = image(
            descriptor(b"{}", "application/spdx+json"),
            subject=descriptor(raw, media.OCI_MANIFEST),
            artifactType="application/spdx+json",
        )
        signed_sbom = image(
            descriptor(b"{}", "application/vnd.dev.sigstore.bundle.v0.3+json"),
            subject=descriptor(sbom, media.OCI_MANIFEST),
            artifactType="application/vnd.dev.sigstore.bundle.v0.3+json",
        )
        for each in (sbom, signed_sbom):
            await attach(edge.upstream, each)
        tag = cosign_tags(digest_of(raw))[0]
        assert await edge.get(f"{MANIFESTS}/{tag}") == (200, signature)
        assert await edge.get(f"{MANIFESTS}/{digest_of(signature)}") == (200, signature)
        assert await edge.get(f"{MANIFESTS}/{digest_of(signed_sbom)}") == (200, signed_sbom)
        status, listed = await edge.get(f"/v2/{REPO}/referrers/{digest_of(raw)}")
        assert status == 200
        assert [each["digest"] for each in json.loads(listed)["manifests"]] == [digest_of(sbom)]
        payload_digest = json.loads(signature)["layers"][0]["digest"]
        assert (await edge.get(f"/v2/{REPO}/blobs/{payload_digest}"))[0] == 200


async def test_what_hangs_on_something_refused_is_refused(tmp_path: Path) -> None:
    async with edge_of(tmp_path, judge=TrustingJudge()) as edge:
        raw = await give(edge.upstream, LAYER)
        sbom = image(descriptor(b"{}", "application/spdx+json"), subject=descriptor(raw, media.OCI_MANIFEST))
        async with ClientSession(edge.upstream.url) as client:
            await push(client, b"{}", f"/v2/{REPO}")
        await attach(edge.upstream, sbom)
        await refused(edge, f"{MANIFESTS}/{digest_of(sbom)}")
        status, listed = await edge.get(f"/v2/{REPO}/referrers/{digest_of(raw)}")
        assert (status, json.loads(listed)["manifests"]) == (200, [])


@pytest.mark.parametrize("as_index", [False, True])
async def test_an_image_that_hangs_on_an_accepted_one_is_judged_by_itself(
    tmp_path: Path, as_index: bool
) -> None:
    async with edge_of(tmp_path, judge=TrustingJudge()) as edge:
        raw = await give(edge.upstream, LAYER)
        await sign(edge.upstream, raw)
        inner = await give(edge.upstream, b"inner", tag="inner")
        subject = descriptor(raw, media.OCI_MANIFEST)
        hung = (
            index(inner).replace(b'"manifests"', b'"subject":%b,"manifests"' % json.dumps(subject).encode())
            if as_index
            else image(descriptor(LAYER, media.OCI_LAYER_GZIP), subject=subject)
        )
        await attach(edge.upstream, hung)
        assert (await edge.get(f"{MANIFESTS}/1.0"))[0] == 200
        await refused(edge, f"{MANIFESTS}/{digest_of(hung)}")
        await refused(edge, f"{MANIFESTS}/{digest_of(inner)}")
        listed = (await edge.get(f"/v2/{REPO}/referrers/{digest_of(raw)}"))[1]
        assert json.loads(listed)["manifests"] == []


@pytest.mark.parametrize("by_tag", [False, True])
@pytest.mark.parametrize(
    "kind", [SIMPLE_SIGNING, "text/plain", "application/vnd.oci.image.layer.v1.tar+json"]
)
async def test_a_layer_that_is_only_called_text_is_judged_as_an_image(
    tmp_path: Path, kind: str, by_tag: bool
) -> None:
    """Clients take what has an image's config for an image, whatever its layers are called."""
    async with edge_of(tmp_path, judge=TrustingJudge()) as edge:
        raw = await give(edge.upstream, LAYER)
        await sign(edge.upstream, raw)
        layer = gzip.compress(b"no text")
        hung = image(descriptor(layer, kind), subject=descriptor(raw, media.OCI_MANIFEST))
        name = cosign_tags(digest_of(raw))[1] if by_tag else digest_of(hung)
        async with ClientSession(edge.upstream.url) as client:
            await push(client, layer, f"/v2/{REPO}")
            assert (await put(client, hung, name, repo=f"/v2/{REPO}")).status == 201
        assert await edge.get(f"{MANIFESTS}/1.0") == (200, raw)
        await refused(edge, f"{MANIFESTS}/{name}")
        listed = (await edge.get(f"/v2/{REPO}/referrers/{digest_of(raw)}"))[1]
        assert json.loads(listed)["manifests"] == []
        assert (await edge.get(f"/v2/{REPO}/blobs/{digest_of(layer)}"))[0] == 404


def test_text_is_told_from_archives_by_its_bytes() -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as file:
        file.addfile(tarfile.TarInfo("a"))
    for archive in (tar.getvalue(), gzip.compress(b"a"), bz2.compress(b"a"), b"\x28\xb5\x2f\xfd", b"a\0"):
        assert not is_text(archive[:512])
    for text in (b"", b"{}", '{"é": 1}\r\n\t'.encode(), b"SPDXVersion: SPDX-2.3\n" * 40, "é".encode()[:1]):
        assert is_text(text[:512])


async def test_an_image_under_a_signatures_tag_is_refused(tmp_path: Path) -> None:
    async with edge_of(tmp_path, judge=TrustingJudge()) as edge:
        raw = await give(edge.upstream, LAYER)
        await sign(edge.upstream, raw)
        bad = image(descriptor(LAYER, media.OCI_LAYER_GZIP))
        tag = cosign_tags(digest_of(raw))[1]
        async with ClientSession(edge.upstream.url) as client:
            await put(client, bad, tag, repo=f"/v2/{REPO}")
        assert (await edge.get(f"{MANIFESTS}/1.0"))[0] == 200
        await refused(edge, f"{MANIFESTS}/{tag}")


async def test_a_policy_that_accepts_everything_asks_for_no_signature(tmp_path: Path) -> None:
    async with edge_of(tmp_path, judge=TrustingJudge(everything=True)) as edge:
        raw = await give(edge.upstream, LAYER)
        assert await edge.get(f"{MANIFESTS}/1.0") == (200, raw)
        assert edge.upstream.journal.count("GET") == 1


async def test_what_is_evicted_is_fetched_and_judged_again(tmp_path: Path) -> None:
    judge = TrustingJudge()
    async with edge_of(tmp_path, judge=judge) as edge:
        raw = await give(edge.upstream, LAYER)
        await sign(edge.upstream, raw)
        assert (await edge.get(f"{MANIFESTS}/1.0"))[0] == 200
        for repository in edge.store.repositories.names():
            edge.store.repositories.remove(repository, digest_of(raw))
        assert await edge.get(f"{MANIFESTS}/1.0") == (200, raw)
        assert len(judge.asked) == 2
        await evict(edge.store, edge.pullthrough.upstreams, 0)
        assert [edge.store.repositories.tags(name) for name in edge.store.repositories.names()] == [[]]


async def test_what_is_pushed_here_is_not_judged(tmp_path: Path) -> None:
    judge = TrustingJudge()
    async with edge_of(tmp_path, prefix="far", judge=judge) as edge:
        await push(edge.client, SMALL)
        raw = image()
        assert (await put(edge.client, raw, "1.0")).status == 201
        assert await edge.get(f"{MANIFESTS}/1.0") == (200, raw)
        assert not judge.asked


# Another policy while it serves


async def test_another_policy_judges_anew_what_is_here_and_what_was_refused(tmp_path: Path) -> None:
    async with edge_of(tmp_path, judge=TrustingJudge()) as edge:
        signed = await give(edge.upstream, LAYER)
        await sign(edge.upstream, signed)
        other = await give(edge.upstream, b"other", tag="unsigned")
        assert await edge.get(f"{MANIFESTS}/1.0") == (200, signed)
        await refused(edge, f"{MANIFESTS}/unsigned")

        edge.pullthrough.replace_judge(TrustingJudge("all", everything=True))
        assert await edge.get(f"{MANIFESTS}/unsigned") == (200, other)
        edge.pullthrough.replace_judge(TrustingJudge("strict"))
        await refused(edge, f"{MANIFESTS}/unsigned")
        await refused(edge, f"{MANIFESTS}/{digest_of(other)}")
        assert (await edge.get(f"/v2/{REPO}/blobs/{digest_of(b'other')}"))[0] == 404
        assert json.loads((await edge.get("/v2/_catalog"))[1]) == {"repositories": []}
        assert await edge.get(f"{MANIFESTS}/1.0") == (200, signed)
        assert json.loads((await edge.get("/v2/_catalog"))[1]) == {"repositories": [REPO]}


async def test_lists_of_referrers_are_made_anew_under_another_policy(tmp_path: Path) -> None:
    async with edge_of(tmp_path, judge=TrustingJudge()) as edge:
        raw = await give(edge.upstream, LAYER)
        await sign(edge.upstream, raw)
        sbom = image(descriptor(b"{}", "application/spdx+json"), subject=descriptor(raw, media.OCI_MANIFEST))
        async with ClientSession(edge.upstream.url) as client:
            await push(client, b"{}", f"/v2/{REPO}")
        await attach(edge.upstream, sbom)
        for judge in (None, TrustingJudge("another")):
            if judge is not None:
                edge.pullthrough.replace_judge(judge)
            assert (await edge.get(f"{MANIFESTS}/1.0"))[0] == 200
            listed = json.loads((await edge.get(f"/v2/{REPO}/referrers/{digest_of(raw)}"))[1])
            assert [each["digest"] for each in listed["manifests"]] == [digest_of(sbom)]


async def test_what_one_policy_accepts_does_not_come_in_as_anothers(tmp_path: Path) -> None:
    """A request that began under the one, and is judged under the other."""
    strict, open_to_all = TrustingJudge("strict"), TrustingJudge("all", everything=True)
    async with edge_of(tmp_path, judge=strict) as edge:
        await give(edge.upstream, LAYER)
        source_at = edge.pullthrough._source_at

        def replaced_meanwhile(site: Site) -> Source:
            edge.pullthrough._source_at = source_at
            edge.pullthrough.replace_judge(open_to_all)
            return source_at(site)

        edge.pullthrough._source_at = replaced_meanwhile
        async with edge.client.get(f"{MANIFESTS}/1.0") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert (await edge.get(f"{MANIFESTS}/1.0"))[0] == 200
        edge.pullthrough.replace_judge(strict)
        await refused(edge, f"{MANIFESTS}/1.0")

"""What the official conformance suite asks of a registry, asked by us: each kind of content is pushed,
listed, looked for, pulled, found by its subject, and deleted, with every header that the spec wants.

The suite itself is run by `tests/e2e/test_conformance.py`, where it was built. Nothing of it is copied: the
kinds of content are its, and so is the order in which it asks.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import random
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from aiohttp import ClientResponse, ClientSession
from yarl import URL

from blobflow.oci import digest_of, media
from blobflow.server import Server, make_app
from blobflow.transports.store import Store
from tests.contract.registry_server.asking import REPO, push, refusal, status_of

TYPE = "application/vnd.example.type.v1"
ACCEPT = {"Accept": f"{media.OCI_INDEX}, {media.OCI_MANIFEST}"}
EMPTY = "application/vnd.oci.empty.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
Descriptor = dict[str, Any]


class Content:
    """One kind of content: what is pushed, in this order, and what is to be found afterwards."""

    def __init__(self, algorithm: str = "sha256", *, tags_with_digest: bool = False) -> None:
        self.algorithm = algorithm
        self.tags_with_digest = tags_with_digest
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[bytes, str]] = {}
        self.tags: dict[str, str] = {}
        self.referrers: dict[str, list[Descriptor]] = {}
        self._random = random.Random(7)

    def blob(
        self, raw: bytes, kind: str = "application/octet-stream", *, absent: bool = False, data: bool = False
    ) -> Descriptor:
        digest = digest_of(raw, self.algorithm)
        if not absent:
            self.blobs[digest] = raw
        inline = {"data": msgspec.to_builtins(raw)} if data else {}
        return {"mediaType": kind, "digest": digest, "size": len(raw), **inline}

    def layer(self, *, packed: bool = True, **more: bool) -> Descriptor:
        file, text = io.BytesIO(), self._random.randbytes(40)
        with tarfile.open(fileobj=file, mode="w") as tar:
            entry = tarfile.TarInfo("./a-file")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
        raw = gzip.compress(file.getvalue(), mtime=0) if packed else file.getvalue()
        return self.blob(raw, f"{LAYER}+gzip" if packed else LAYER, **more)

    def image(
        self, layers: Sequence[Descriptor] | None = None, tag: str = "", data: bool = False, **more: Any
    ) -> Descriptor:
        """An image of two layers unless they are given."""
        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
        described = self.blob(
            json.dumps({**config, "author": str(self._random.random())}).encode(), media.OCI_CONFIG, data=data
        )
        chosen = [self.layer(data=data), self.layer(data=data)] if layers is None else list(layers)
        return self.manifest(media.OCI_MANIFEST, tag, **{"config": described, "layers": chosen, **more})

    def artifact(
        self, layer: bytes | None = None, kind: str = TYPE, tag: str = "", **more: Any
    ) -> Descriptor:
        content = self.blob(self._random.randbytes(2048) if layer is None else layer, kind)
        config = self.blob(b"{}", EMPTY)
        document = {"artifactType": TYPE, "config": config, "layers": [content], **more}
        return self.manifest(media.OCI_MANIFEST, tag, **document)

    def index(self, *children: Descriptor, tag: str = "", **more: Any) -> Descriptor:
        platforms = itertools.cycle(("amd64", "arm64"))
        listed = [
            {**child, "platform": {"os": "linux", "architecture": next(platforms)}}
            if child["mediaType"] == media.OCI_MANIFEST
            else child
            for child in children
        ]
        return self.manifest(media.OCI_INDEX, tag, manifests=listed, **more)

    def manifest(self, kind: str, tag: str, **document: Any) -> Descriptor:
        raw = json.dumps({"schemaVersion": 2, "mediaType": kind, **document}).encode()
        digest = digest_of(raw, self.algorithm)
        self.manifests[digest] = raw, kind
        described = {"mediaType": kind, "digest": digest, "size": len(raw)}
        if tag:
            self.tags[tag] = digest
        if subject := document.get("subject"):
            of = document.get("artifactType") or document.get("config", {}).get("mediaType")
            mention = {**described, "annotations": document.get("annotations", {})}
            if of:
                mention["artifactType"] = of
            self.referrers.setdefault(subject["digest"], []).append(mention)
        return described


# The kinds


def two_images(content: Content) -> list[Descriptor]:
    return [content.image(), content.image()]


def an_index(content: Content) -> None:
    content.index(*two_images(content), tag="index")


def indexes_in_an_index(content: Content) -> None:
    content.index(*[content.index(*two_images(content)) for _ in range(2)], tag="nested")


def a_large_manifest(content: Content) -> None:
    content.image(tag="large", annotations={f"a-{number}": "A" * 10_000 for number in range(390)})


def referrers(content: Content) -> None:
    subject, noted = content.image(tag="subject"), {"org.example": "a note"}
    content.image(subject=subject)
    content.artifact(subject=subject, annotations=noted, tag="first")
    content.artifact(subject=subject, annotations=noted, artifactType=f"{TYPE}+json", tag="second")


def an_indexs_referrers(content: Content) -> None:
    subject, noted = content.index(*two_images(content), tag="subject"), {"org.example": "a note"}
    content.index(content.artifact(), subject=subject, artifactType=TYPE, annotations=noted, tag="artifact")
    content.index(subject=subject)


def without_its_subject(content: Content) -> None:
    nowhere = {"mediaType": media.OCI_MANIFEST, "digest": digest_of(b"nowhere"), "size": 123}
    content.artifact(subject=nowhere, annotations={"org.example": "a note"}, tag="artifact")


def not_distributable(content: Content) -> None:
    away = [
        {**content.blob(name.encode(), kind, absent=True), "urls": [f"https://store.example.com/{name}"]}
        for name, kind in (("packed", f"{FOREIGN}+gzip"), ("plain", FOREIGN))
    ]
    content.image([*away, content.layer()], tag="foreign")


def with_fields_of_their_own(content: Content) -> None:
    own: dict[str, Any] = {"org.example.own": {"anything": [1, None]}}
    content.index(*[content.image(**own) for _ in range(2)], tag="own", **own)


def sparse(content: Content) -> None:
    content.image([content.layer(absent=True), content.layer()], tag="image")
    absent = {"mediaType": media.OCI_MANIFEST, "digest": digest_of(b"absent"), "size": 1024}
    content.index(content.image(), absent, tag="index")


def with_many_tags(content: Content) -> None:
    an_index(content)
    for number, digest in enumerate(list(content.manifests)):
        content.tags[f"tag-{number}"] = digest


KINDS: dict[str, Callable[[Content], object]] = {
    "image": lambda content: content.image(tag="image"),
    "not packed": lambda content: content.image([content.layer(packed=False)], tag="image"),
    "no layers": lambda content: content.image([], tag="image"),
    "data": lambda content: content.image(tag="image", data=True),
    "large manifest": a_large_manifest,
    "index": an_index,
    "empty index": lambda content: content.index(tag="index"),
    "nested index": indexes_in_an_index,
    "artifact": lambda content: content.artifact(tag="artifact"),
    "artifact of nothing": lambda content: content.artifact(b"{}", EMPTY, tag="artifact"),
    "index of artifacts": lambda content: content.index(content.artifact(), artifactType=TYPE, tag="index"),
    "referrers": referrers,
    "referrers of an index": an_indexs_referrers,
    "no subject": without_its_subject,
    "not distributable": not_distributable,
    "fields of their own": with_fields_of_their_own,
    "sparse": sparse,
}
CASES: dict[str, tuple[Callable[[Content], object], Callable[[], Content]]] = {
    **{name: (make, Content) for name, make in KINDS.items()},
    "sha512": (lambda content: content.index(*two_images(content)), lambda: Content("sha512")),
    "tags with sha256": (with_many_tags, lambda: Content(tags_with_digest=True)),
    "tags with sha512": (with_many_tags, lambda: Content("sha512", tags_with_digest=True)),
}


# The steps


@pytest.fixture
async def open_registry(registry_store: Store) -> AsyncIterator[ClientSession]:
    """One that takes what is not all there."""
    app = make_app(registry_store, sparse="accept")
    async with Server(app) as server, ClientSession(server.url) as client:
        yield client


async def upload(client: ClientSession, form: str, digest: str, raw: bytes) -> ClientResponse:
    """Push a blob in one of the four forms, without a word on its algorithm; the last answer."""
    if form == "post":
        return await client.post(f"{REPO}/blobs/uploads/", params={"digest": digest}, data=io.BytesIO(raw))
    async with client.post(f"{REPO}/blobs/uploads/") as answer:
        assert answer.status == 202
        location = answer.headers["Location"]
    cuts: dict[str, list[tuple[int, int]]] = {"put": [], "stream": [(0, len(raw))]}
    step = max(len(raw) // 3 + 1, 1)
    chunks = [(at, min(at + step, len(raw))) for at in range(0, len(raw), step)]
    for start, end in cuts.get(form, chunks):
        headers = {"Content-Type": "application/octet-stream"}
        if form == "chunks":
            headers["Content-Range"] = f"{start}-{end - 1}"
        async with client.patch(location, data=io.BytesIO(raw[start:end]), headers=headers) as answer:
            assert answer.status == 202
            location = answer.headers["Location"]
    url = client._build_url("/").join(URL(location, encoded=True)).update_query(digest=digest)
    return await client.put(url, data=io.BytesIO(raw if form == "put" else b""))


def forms() -> Iterator[str]:
    return itertools.cycle(("post", "put", "stream", "chunks"))


async def push_all(client: ClientSession, content: Content) -> None:
    form = forms()
    for digest, raw in content.blobs.items():
        async with await upload(client, next(form), digest, raw) as answer:
            assert (answer.status, answer.headers["Docker-Content-Digest"]) == (201, digest)
            location = answer.headers["Location"]
        async with client.get(location) as answer:
            assert (answer.status, await answer.read()) == (200, raw)
    waiting = dict(content.tags)
    for digest, (raw, kind) in content.manifests.items():
        tags = [tag for tag, named in content.tags.items() if named == digest]
        query = [("tag", tag) for tag in tags] if content.tags_with_digest else []
        answer = await put_one(client, digest, raw, kind, query)
        if query:
            confirmed = {tag.strip() for tag in ",".join(answer.headers.getall("OCI-Tag")).split(",")}
            assert confirmed == set(tags)
            for tag in tags:
                del waiting[tag]
        assert answer.headers["Docker-Content-Digest"] == digest
        if subject := json.loads(raw).get("subject"):
            assert answer.headers["OCI-Subject"] == subject["digest"]
    for tag, digest in waiting.items():
        answer = await put_one(client, tag, *content.manifests[digest], [])
        assert answer.headers["Docker-Content-Digest"] == digest


async def put_one(
    client: ClientSession, reference: str, raw: bytes, kind: str, query: list[tuple[str, str]]
) -> ClientResponse:
    async with client.put(
        f"{REPO}/manifests/{reference}", params=query, data=io.BytesIO(raw), headers={"Content-Type": kind}
    ) as answer:
        assert answer.status == 201, await answer.text()
    async with client.get(answer.headers["Location"], headers=ACCEPT) as got:
        assert (got.status, got.headers["Content-Type"], await got.read()) == (200, kind, raw)
    return answer


async def list_all(client: ClientSession, content: Content) -> None:
    async with client.get(f"{REPO}/tags/list") as answer:
        listed = (await answer.json())["tags"]
    assert listed == sorted(content.tags)
    for at, last in enumerate(listed):
        async with client.get(f"{REPO}/tags/list", params={"last": last}) as answer:
            assert (await answer.json())["tags"] == listed[at + 1 :]


async def pull_all(client: ClientSession, content: Content) -> None:
    named = {**{digest: digest for digest in content.manifests}, **content.tags}
    for name, digest in named.items():
        raw, kind = content.manifests[digest]
        await pull_one(client, f"{REPO}/manifests/{name}", digest, raw, kind)
    for digest, raw in content.blobs.items():
        await pull_one(client, f"{REPO}/blobs/{digest}", digest, raw, "")


async def pull_one(client: ClientSession, path: str, digest: str, raw: bytes, kind: str) -> None:
    for method in ("HEAD", "GET"):
        async with client.request(method, path, headers=ACCEPT) as answer:
            assert answer.status == 200
            assert answer.headers["Docker-Content-Digest"] == digest
            assert answer.headers["Content-Length"] == str(len(raw))
            assert await answer.read() == (raw if method == "GET" else b"")
            if kind:
                assert answer.headers["Content-Type"] == kind


async def find_referrers(client: ClientSession, content: Content) -> None:
    for subject, mentions in content.referrers.items():
        found = await referrers_of(client, subject)
        assert sorted(found, key=str) == sorted(map(without_empty, mentions), key=str)
        for kind in {mention["artifactType"] for mention in mentions if "artifactType" in mention}:
            found = await referrers_of(client, subject, kind)
            wanted = [without_empty(each) for each in mentions if each.get("artifactType") == kind]
            assert sorted(found, key=str) == sorted(wanted, key=str)


def without_empty(mention: Descriptor) -> Descriptor:
    return {key: value for key, value in mention.items() if value != {}}


async def referrers_of(client: ClientSession, subject: str, kind: str = "") -> list[Descriptor]:
    params = {"artifactType": kind} if kind else {}
    async with client.get(f"{REPO}/referrers/{subject}", params=params) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, media.OCI_INDEX)
        assert answer.headers.get("OCI-Filters-Applied") == ("artifactType" if kind else None)
        document = await answer.json()
        assert (document["schemaVersion"], document["mediaType"]) == (2, media.OCI_INDEX)
        return [without_empty(each) for each in document["manifests"]]


async def delete_all(client: ClientSession, content: Content) -> None:
    """Tags, then manifests from the top down, then blobs; each is gone at once."""
    places = [
        *(f"manifests/{tag}" for tag in content.tags),
        *(f"manifests/{digest}" for digest in reversed(content.manifests)),
        *(f"blobs/{digest}" for digest in content.blobs),
    ]
    for place in places:
        assert await status_of(client, f"{REPO}/{place}", "DELETE") == 202
        assert await status_of(client, f"{REPO}/{place}") == 404


@pytest.mark.parametrize("name", CASES)
async def test_every_kind_of_content_makes_the_whole_round(open_registry: ClientSession, name: str) -> None:
    make, empty = CASES[name]
    content = empty()
    make(content)
    for step in (push_all, list_all, pull_all, find_referrers, delete_all):
        await step(open_registry, content)
    for subject in content.referrers:
        assert await referrers_of(open_registry, subject) == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("form", ["post", "put", "stream", "chunks"])
@pytest.mark.parametrize("raw", [b"", b"{}", bytes(range(200)) * 11], ids=["none", "json", "bytes"])
async def test_every_form_of_upload_takes_every_size_and_nothing_that_is_another(
    open_registry: ClientSession, form: str, algorithm: str, raw: bytes
) -> None:
    digest = digest_of(raw, algorithm)
    assert await status_of(open_registry, f"{REPO}/blobs/{digest}", "GET") == 404
    async with await upload(open_registry, form, digest, raw + b"oh no") as answer:
        assert await refusal(answer) == (400, "DIGEST_INVALID")
    async with await upload(open_registry, form, digest, raw) as answer:
        assert answer.status == 201
    await pull_one(open_registry, f"{REPO}/blobs/{digest}", digest, raw, "")


@pytest.mark.parametrize("closing", [False, True], ids=["then PUT", "last chunk by PUT"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_chunks_out_of_order_are_refused_and_the_upload_goes_on(
    open_registry: ClientSession, algorithm: str, closing: bool
) -> None:
    """[end-5], [end-6], [end-13]: 416 at each step, from the first on; the status then tells where it is."""
    client, raw, size = open_registry, bytes(range(250)) * 12, 1001
    digest, root = digest_of(raw, algorithm), open_registry._build_url("/")
    async with client.post(f"{REPO}/blobs/uploads/") as answer:
        location = answer.headers["Location"]
    for start in range(0, len(raw), size):
        end, wrong = min(start + size, len(raw)), start + size if start + size < len(raw) else 0
        for at, status in ((wrong, 416), (start, 202)):
            piece = raw[at : at + size] if status == 416 else raw[start:end]
            last = closing and at + len(piece) == len(raw)
            url = root.join(URL(location, encoded=True))
            headers = {"Content-Range": f"{at}-{at + len(piece) - 1}"}
            async with client.request(
                "PUT" if last else "PATCH",
                url.update_query(digest=digest) if last else url,
                data=io.BytesIO(piece),
                headers=headers,
            ) as answer:
                assert answer.status == (201 if last and status == 202 else status)
                location = answer.headers["Location"]
            if status == 416:
                async with client.get(url) as answer:
                    assert (answer.status, answer.headers["Range"]) == (204, f"0-{max(start - 1, 0)}")
                    location = answer.headers["Location"]
    if not closing:
        url = root.join(URL(location, encoded=True)).update_query(digest=digest)
        async with client.put(url) as answer:
            assert answer.status == 201
    await pull_one(client, f"{REPO}/blobs/{digest}", digest, raw, "")


async def test_a_manifest_that_is_not_its_digest_is_refused_and_so_is_what_is_no_digest(
    open_registry: ClientSession,
) -> None:
    content = Content()
    content.image()
    for digest, raw in content.blobs.items():
        assert await push(open_registry, raw) == digest
    ((digest, (raw, kind)),) = content.manifests.items()
    for reference, body in ((digest, raw + b"  "), ("sha256:baddigeststring", raw)):
        async with open_registry.put(
            f"{REPO}/manifests/{reference}", data=body, headers={"Content-Type": kind}
        ) as answer:
            assert (await refusal(answer))[0] == 400
        assert await status_of(open_registry, f"{REPO}/manifests/{reference}", "GET") in (400, 404)


async def test_a_repository_that_nobody_has_pushed_to_has_no_tags_and_no_referrers(
    open_registry: ClientSession,
) -> None:
    assert await status_of(open_registry, f"{REPO}/tags/list", "GET") == 404
    assert await referrers_of(open_registry, digest_of(b"nothing")) == []

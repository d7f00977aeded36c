"""What doesn't exist, what makes no sense, and connections that break."""

from __future__ import annotations

import json

from tools.loads.mix.client import Doing, MixedClient, Repository
from tools.loads.requests import MANIFEST, completing, path_of, request

_CONFIG = "application/vnd.oci.image.config.v1+json"


def misses(client: MixedClient, repository: Repository) -> Doing:
    """What a client asks first to know what it has to push, and what was deleted."""
    yield from client.ask("HEAD of no blob", 404, "HEAD", repository.path("blobs", client.digest()))
    yield from client.ask("GET of no blob", 404, "GET", repository.path("blobs", client.digest()))
    yield from client.ask("GET of no tag", 404, "GET", repository.path("manifests", "nobody-has-this"))
    yield from client.ask("HEAD of no manifest", 404, "HEAD", repository.path("manifests", client.digest()))
    yield from client.ask("delete nothing", 404, "DELETE", repository.path("manifests", client.digest()))


def nowhere(client: MixedClient, repository: Repository) -> Doing:
    """Names that nobody has, a new one each time: none of them may be remembered."""
    name = f"nobody/{client.random.getrandbits(64):x}"
    yield from client.ask("tag list of no repository", 404, "GET", f"/v2/{name}/tags/list")
    yield from client.ask("GET of no tag", 404, "GET", f"/v2/{name}/manifests/latest")
    path = f"/v2/{name}/blobs/uploads/{client.random.getrandbits(64):x}"
    yield from client.ask("upload: GET of none", 404, "GET", path)


def paths(client: MixedClient, repository: Repository) -> Doing:
    for path in (f"/v1/{client.random.getrandbits(64):x}", "/favicon.ico", "/v2/%2e%2e/", f"/{'x' * 2000}"):
        yield from client.ask("wrong path", 404, "GET", path)


def names(client: MixedClient, repository: Repository) -> Doing:
    yield from client.ask("wrong name", 400, "GET", f"/v2/UPPER-{client.random.random()}/tags/list")
    yield from client.ask("wrong digest", 400, "GET", repository.path("blobs", "sha256:nothing-of-the-kind"))
    yield from client.ask("wrong digest", 400, "GET", repository.path("referrers", "md5:00"))
    yield from client.ask("wrong page", 400, "GET", f"{repository.path('tags', 'list')}?n=many")


def methods(client: MixedClient, repository: Repository) -> Doing:
    yield from client.ask("wrong method", 405, "PUT", "/v2/_catalog", b"")
    yield from client.ask("wrong method", 405, "POST", repository.path("tags", "list"))
    word = "".join(client.random.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=8))
    yield from client.ask("no method", (400, 405, 501), word, "/v2/")


def no_request(client: MixedClient, repository: Repository) -> Doing:
    """What speaks another protocol, or none."""
    yield from client.cut("no request", client.random.randbytes(100) + b"\r\n\r\n", reading=True)


def mismatch(client: MixedClient, repository: Repository) -> Doing:
    """Bytes that are not those of the digest."""
    _, content = client.blob()
    path = f"/v2/{repository.name}/blobs/uploads/"
    answer = yield from client.ask("upload: POST", 202, "POST", path)
    put = completing(answer.location, client.digest())
    yield from client.ask("upload: PUT of a wrong digest", 400, "PUT", put, content.body)
    yield from client.ask(
        "upload: one POST of a wrong digest", 400, "POST", f"{path}?digest={client.digest()}", content.body
    )


def gap(client: MixedClient, repository: Repository) -> Doing:
    """A chunk that doesn't begin where the one before it ended; the client cancels."""
    path = f"/v2/{repository.name}/blobs/uploads/"
    answer = yield from client.ask("upload: POST", 202, "POST", path)
    path = path_of(answer.location)
    far = "Content-Range: 1000-1999\r\n"
    yield from client.ask("upload: PATCH after a gap", 416, "PATCH", path, bytes(1000), headers=far)
    yield from client.ask("upload: DELETE", 204, "DELETE", path)


def manifests(client: MixedClient, repository: Repository) -> Doing:
    """No JSON; a wrong digest; and an image whose blobs nobody has pushed."""
    tag = repository.path("manifests", "wrong")
    yield from client.ask("put no manifest", 400, "PUT", tag, b'{"schemaVersion": 2', media=MANIFEST)
    missing = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": client.digest(), "size": 100},
        "layers": [],
    }
    raw = json.dumps(missing).encode()
    yield from client.ask("put a manifest without blobs", (400, 404), "PUT", tag, raw, media=MANIFEST)
    named = repository.path("manifests", client.digest())
    yield from client.ask("put a manifest of a wrong digest", 400, "PUT", named, raw, media=MANIFEST)


def too_large(client: MixedClient, repository: Repository) -> Doing:
    """A manifest of a GB is announced; nobody waits for more than the beginning of the answer."""
    head = request(client.host, "PUT", repository.path("manifests", "wrong"), b"", kind=MANIFEST)
    announced = head.replace(b"Content-Length: 0", b"Content-Length: 1000000000")
    yield from client.cut("put a manifest of a GB", announced, reading=True)


def cut_request(client: MixedClient, repository: Repository) -> Doing:
    """A connection that breaks within the headers."""
    whole = request(client.host, "GET", repository.path("tags", "list"))
    yield from client.cut("cut within the headers", whole[: len(whole) // 2])


def cut_answer(client: MixedClient, repository: Repository) -> Doing:
    """A connection that breaks within the answer."""
    if repository.loose:
        largest = max(repository.loose, key=lambda blob: blob.size)
        whole = request(client.host, "GET", repository.path("blobs", largest.digest))
        yield from client.cut("cut within the answer", whole, reading=True)

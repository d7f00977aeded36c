"""What docker, containerd, crawlers, monitors and people read."""

from __future__ import annotations

from tools.loads.mix.client import Blob, Doing, Image, MixedClient, Repository
from tools.loads.requests import INDEX, MANIFEST

_ACCEPT = f"Accept: {MANIFEST}, {INDEX}\r\n"


def pull(client: MixedClient, repository: Repository) -> Doing:
    """An image as docker pulls it: HEAD of the tag, GET of the manifest by digest, GET of each blob."""
    if not repository.tags:
        return
    tag, image = client.random.choice(list(repository.tags.items()))
    path = repository.path("manifests", tag)
    yield from client.ask("HEAD of a tag", 200, "HEAD", path, headers=_ACCEPT)
    path = repository.path("manifests", image.digest)
    yield from client.ask("GET of a manifest", 200, "GET", path, headers=_ACCEPT)
    for blob in image.blobs:
        yield from client.ask("GET of a blob", 200, "GET", repository.path("blobs", blob.digest))


def get_tag(client: MixedClient, repository: Repository) -> Doing:
    if repository.tags:
        path = repository.path("manifests", client.random.choice(list(repository.tags)))
        yield from client.ask("GET of a tag", 200, "GET", path, headers=_ACCEPT)


def head_manifest(client: MixedClient, repository: Repository) -> Doing:
    image = _some(client, repository)
    if image is not None:
        path = repository.path("manifests", image.digest)
        yield from client.ask("HEAD of a manifest", 200, "HEAD", path, headers=_ACCEPT)


def unchanged(client: MixedClient, repository: Repository) -> Doing:
    """A client that has it, and asks whether it is still so."""
    image = _some(client, repository)
    if image is not None:
        headers = f'{_ACCEPT}If-None-Match: "{image.digest}"\r\n'
        path = repository.path("manifests", image.digest)
        yield from client.ask("GET of what is known", 304, "GET", path, headers=headers)


def _some(client: MixedClient, repository: Repository) -> Image | None:
    held = repository.manifests
    return client.random.choice(held) if held else None


def head_blob(client: MixedClient, repository: Repository) -> Doing:
    if repository.loose:
        path = repository.path("blobs", client.random.choice(repository.loose).digest)
        yield from client.ask("HEAD of a blob", 200, "HEAD", path)


def get_blob(client: MixedClient, repository: Repository) -> Doing:
    if repository.loose:
        path = repository.path("blobs", client.random.choice(repository.loose).digest)
        yield from client.ask("GET of a blob", 200, "GET", path)


def ranges(client: MixedClient, repository: Repository) -> Doing:
    """The end of a blob, as one who goes on after a break, and a range that it doesn't have."""
    if repository.loose:
        blob: Blob = client.random.choice(repository.loose)
        path = repository.path("blobs", blob.digest)
        rest = f"Range: bytes={blob.size // 2}-\r\n"
        yield from client.ask("GET of a range", 206, "GET", path, headers=rest)
        beyond = f"Range: bytes={blob.size}-\r\n"
        yield from client.ask("GET of a range beyond", 416, "GET", path, headers=beyond)


def referrers(client: MixedClient, repository: Repository) -> Doing:
    digest = client.random.choice(repository.images).digest if repository.images else client.digest()
    path = repository.path("referrers", digest)
    yield from client.ask("referrers", 200, "GET", path)
    yield from client.ask("referrers", 200, "GET", f"{path}?artifactType=application/vnd.example.other")


def tags(client: MixedClient, repository: Repository) -> Doing:
    yield from client.ask("tag list", 200, "GET", repository.path("tags", "list"))
    path = f"{repository.path('tags', 'list')}?n={client.random.randint(1, 5)}&last=1.1"
    yield from client.ask("tag list", 200, "GET", path)


def catalog(client: MixedClient, repository: Repository) -> Doing:
    yield from client.ask("catalog", 200, "GET", f"/v2/_catalog?n=50&last={repository.name}")


def page(client: MixedClient, repository: Repository) -> Doing:
    yield from client.ask("page", 200, "GET", "/")
    yield from client.ask("page", 200, "GET", f"/?last={repository.name}")


def metrics(client: MixedClient, repository: Repository) -> Doing:
    yield from client.ask("metrics", 200, "GET", "/metrics")


def ping(client: MixedClient, repository: Repository) -> Doing:
    yield from client.ask("ping", 200, "GET", "/v2/")
    yield from client.ask("health", 200, "GET", "/healthz")
